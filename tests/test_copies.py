"""Copies by Python and Keras equal their originals."""

import copy
import pickle

import keras
import numpy as np
import pytest

from keras_logitclip import LogitClip
from keras_logitclip import LogitClipLoss
from keras_logitclip import losses
from keras_logitclip import metrics
from keras_logitclip import noise
from tests.running import to_numpy
from tests.samples import logits
from tests.samples import some_labels

LOGITS, LABELS = logits(), some_labels("sparse").given
ONE_HOT = some_labels("one-hot").given


def pickled(x):
    return pickle.loads(pickle.dumps(x))


COPIES = {
    "pickle": pickled,
    "deepcopy": copy.deepcopy,
    "config": lambda x: type(x).from_config(x.get_config()),
}

LAYERS = {
    "layer": LogitClip(1.5, name="clip"),
    "training-only": LogitClip(0.5, p=1, training_only=True),
}
LOSSES = {
    "cross-entropy": LogitClipLoss("sparse_categorical_crossentropy", 1.5),
    "order-3": LogitClipLoss("sparse_categorical_crossentropy", 1.5, p=3),
    "nested": LogitClipLoss(
        losses.LogitValueClip("sparse_categorical_crossentropy", 1.0), 2.0
    ),
    "smoothed": LogitClipLoss(
        keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1),
        1.5,
    ),
    **{
        name: LogitClipLoss(losses.preset(name, num_classes=10), 1.5)
        for name in ("GCE", "NCE+AGCE", "CORES", "LogitNorm")
    },
    "transition-matrix": losses.ForwardCorrection(
        noise.symmetric(LABELS, 0.0, 10, seed=0).transition
    ),
}
METRICS = {
    "norm": metrics.MeanLogitNorm(p=1),
    "fraction": metrics.ClippedFraction(1.5),
}


@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
def test_layers(layer, copied):
    again = copied(layer)
    assert again is not layer
    assert again.get_config() == layer.get_config()
    for training in (False, True):
        np.testing.assert_array_equal(
            to_numpy(again(LOGITS, training=training)),
            to_numpy(layer(LOGITS, training=training)),
        )


@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_losses(loss, copied):
    again = copied(loss)
    assert again is not loss
    labels = ONE_HOT if loss is LOSSES["smoothed"] else LABELS
    value = to_numpy(loss(labels, LOGITS))
    assert np.isfinite(value)
    assert to_numpy(again(labels, LOGITS)) == value


@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_metrics(metric, copied):
    again = copied(metric)
    assert again is not metric
    for one in (metric, again):
        one.reset_state()
        one.update_state(LABELS, LOGITS)
    assert to_numpy(again.result()) == to_numpy(metric.result()) != 0


def compiled_model():
    layers = [keras.Input((10,)), keras.layers.Dense(10), LogitClip(1.5)]
    model = keras.Sequential(layers)
    model.compile("sgd", LOSSES["nested"], metrics=[metrics.MeanLogitNorm()])
    return model


@pytest.mark.gradients
@pytest.mark.parametrize("copied", [pickled, copy.deepcopy], ids=("pickle", "deepcopy"))
def test_compiled_models(copied):
    model = compiled_model()
    model.train_on_batch(LOGITS, LABELS)
    again = copied(model)
    for one in (model, again):
        one.train_on_batch(LOGITS, LABELS)
    for weight, of_copy in zip(model.weights, again.weights, strict=True):
        assert weight is not of_copy
        np.testing.assert_allclose(to_numpy(of_copy), to_numpy(weight), rtol=1e-6)
    assert isinstance(again.loss, LogitClipLoss)
    assert again.loss.tau == model.loss.tau


def test_cloned_models():
    """Keras clones models without weights and uncompiled."""
    model = compiled_model()
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    assert clone.layers[-1] is not model.layers[-1]
    np.testing.assert_array_equal(
        clone.predict(LOGITS, verbose=0), model.predict(LOGITS, verbose=0)
    )


@pytest.mark.parametrize("copied", [pickled, copy.deepcopy], ids=("pickle", "deepcopy"))
def test_noisy_labels(copied):
    noisy = noise.symmetric(np.arange(100) % 10, 0.3, 10, seed=0)
    again = copied(noisy)
    assert repr(again) == repr(noisy)
    for name in ("labels", "clean", "flipped", "transition"):
        np.testing.assert_array_equal(getattr(again, name), getattr(noisy, name))
