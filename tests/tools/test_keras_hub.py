"""KerasHub's classifiers, with random weights: nothing is downloaded."""

import keras
import numpy as np
import pytest

from keras_logitclip import LogitClipLoss
from tests import oracle
from tests.running import BACKEND

keras_hub = pytest.importorskip("keras_hub")

TAU = 0.5
rng = np.random.default_rng(0)
LABELS = rng.integers(0, 3, 12)
IMAGES = rng.normal(size=(12, 8, 8, 3)).astype("float32")
TEXTS = {
    "token_ids": rng.integers(0, 20, (12, 6)),
    "segment_ids": np.zeros((12, 6), "int32"),
    "padding_mask": np.arange(6) < rng.integers(2, 7, (12, 1)),
}


def text_classifier(**arguments):
    backbone = keras_hub.models.BertBackbone(
        vocabulary_size=20,
        num_layers=1,
        num_heads=2,
        hidden_dim=8,
        intermediate_dim=16,
        max_sequence_length=6,
    )
    return keras_hub.models.BertTextClassifier(backbone, num_classes=3, **arguments)


def image_classifier(**arguments):
    backbone = keras_hub.models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[3],
        stackwise_num_filters=[64],
        stackwise_num_blocks=[1],
        stackwise_num_strides=[1],
        block_type="basic_block",
        image_shape=(8, 8, 3),
    )
    return keras_hub.models.ResNetImageClassifier(backbone, num_classes=3, **arguments)


CLASSIFIERS = {"text": (text_classifier, TEXTS), "image": (image_classifier, IMAGES)}
every_classifier = pytest.mark.parametrize(
    ("build", "inputs"), CLASSIFIERS.values(), ids=CLASSIFIERS
)


def compile_with_loss(model):
    """Keeps the optimizer and the metric that the classifier has by default."""
    model.compile(loss=LogitClipLoss("sparse_categorical_crossentropy", TAU))


def build_compiled(build, **arguments):
    model = build(preprocessor=None, **arguments)
    # As they are initialized, BERT's logits are too small to be clipped.
    kernel = model.output_dense.kernel
    kernel.assign(5 * np.random.default_rng(0).normal(size=kernel.shape))
    compile_with_loss(model)
    return model


def clipped_loss(model, inputs):
    logits = model.predict(inputs, verbose=0)
    assert (oracle.norm(logits, 2) > TAU).any()
    return oracle.cross_entropy(LABELS, oracle.clip(logits, TAU, 2)).mean()


@pytest.mark.gradients
# KerasHub makes a data set of the arrays, which Keras does not shuffle.
@pytest.mark.filterwarnings("ignore:`shuffle=True` was passed:UserWarning")
# The optimizer of the loaded model is new, and the saved one has been trained.
@pytest.mark.filterwarnings("ignore:Skipping variable loading for optimizer")
@every_classifier
def test_classifier_is_evaluated_trained_and_saved(build, inputs, tmp_path):
    model = build_compiled(build)
    loss, accuracy = model.evaluate(inputs, LABELS, verbose=0)
    assert loss == pytest.approx(clipped_loss(model, inputs), rel=1e-4)
    assert 0 <= accuracy <= 1

    before = model.backbone.get_weights()
    history = model.fit(inputs, LABELS, epochs=2, verbose=0).history["loss"]
    assert np.isfinite(history).all()
    after = model.backbone.get_weights()
    assert any((a != b).any() for a, b in zip(before, after, strict=True))

    model.save(tmp_path / "model.keras")
    # As of KerasHub 0.32, whose `compile` Keras does not call as it loads: the
    # classifier comes back with its default loss.
    with pytest.warns(UserWarning, match="`compile.*` was not called"):
        reloaded = keras.models.load_model(tmp_path / "model.keras")
    assert not isinstance(reloaded.loss, LogitClipLoss)
    compile_with_loss(reloaded)
    loss, _ = reloaded.evaluate(inputs, LABELS, verbose=0)
    assert loss == pytest.approx(clipped_loss(model, inputs), rel=1e-4)


@every_classifier
def test_classifier_with_a_softmax_is_refused_where_keras_marks_it(build, inputs):
    model = build_compiled(build, activation="softmax")
    if BACKEND not in ("tensorflow", "torch"):  # No mark outlives the compiled model.
        assert np.isfinite(model.evaluate(inputs, LABELS, verbose=0)).all()
        return
    with pytest.raises(ValueError, match="Expected logits. Received: probabilities"):
        model.evaluate(inputs, LABELS, verbose=0)
