from collections import namedtuple
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_logitclip.study._functions import import_function
from keras_logitclip.study.models import MODELS
from tests.running import to_numpy
from tests.study_files import load
from tests.study_files import own_directory  # noqa: F401

# Studies train their models.
pytestmark = pytest.mark.gradients


def images(*shape):
    return np.random.default_rng(0).uniform(size=shape).astype("float32")


Built = namedtuple("Built", "name input_shape num_classes arguments parameters")
BUILT = {
    "mlp": Built("mlp", (28, 28, 1), 10, {}, 669_706),
    "vectors": Built("mlp", (64,), 10, {"width": 32}, 3_466),
    "grey-images": Built("mlp", (8, 8), 10, {"width": 32, "depth": 1}, 2_410),
    "linear": Built("mlp", (64,), 10, {"depth": 0}, 650),
    "small-cnn-8": Built("small_cnn", (8, 8, 1), 3, {}, 27_651),
    "small-cnn-28": Built("small_cnn", (28, 28, 1), 10, {}, 89_546),
    "small-cnn-32": Built("small_cnn", (32, 32, 3), 10, {}, 89_834),
    "small-cnn-odd": Built("small_cnn", (9, 13, 1), 2, {"filters": 2}, 674),
}


@pytest.mark.once
@pytest.mark.parametrize("case", BUILT.values(), ids=BUILT)
def test_parameters(case):
    build = MODELS[case.name]
    model = build(case.input_shape, case.num_classes, **case.arguments)
    trainable = sum(np.prod(weight.shape) for weight in model.trainable_weights)
    assert trainable == case.parameters
    assert model.input_shape == (None, *case.input_shape)
    assert model.output_shape == (None, case.num_classes)
    assert not model.compiled


every_model = pytest.mark.parametrize("name", MODELS)


@every_model
def test_logits(name, tmp_path):
    model, x = MODELS[name]((8, 8, 1), 3), images(5, 8, 8, 1)
    assert model.layers[-1].activation is keras.activations.linear
    # Compiled on backends where that is faster than eager mode.
    logits = model.predict_on_batch(x)
    assert logits.shape == (5, 3)
    assert np.isfinite(logits).all()
    assert logits.std(0).max() > 1e-3
    model.save(tmp_path / "model.keras")
    reloaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(reloaded.predict_on_batch(x), logits, atol=1e-6)


@every_model
def test_training(name):
    """Calls the model under autocast, as Keras does."""
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = MODELS[name]((8, 8, 1), num_classes=3)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss)
    before = [to_numpy(weight) for weight in model.trainable_weights]
    history = model.fit(images(4, 8, 8, 1), np.array([0, 1, 2, 0]), verbose=0)
    assert np.isfinite(history.history["loss"][0])
    changed = [
        (to_numpy(weight) != old).any()
        for weight, old in zip(model.trainable_weights, before, strict=True)
    ]
    assert all(changed)


# What is refused.

Refused = namedtuple("Refused", "name arguments message")
REFUSED = {
    "unknown-argument": Refused("mlp", {"layers": 3}, "'mlp'.*argument 'layers'"),
    "width": Refused("mlp", {"width": 0}, "`width`: expected an integer of at least 1"),
    "depth": Refused("mlp", {"depth": 1.5}, "`depth`: .* Received: depth=1.5"),
    "filters": Refused("small_cnn", {"filters": None}, "`filters`: expected an int"),
    "one-class": Refused("mlp", {"num_classes": 1}, "`num_classes`: .* at least 2"),
    "vectors": Refused("small_cnn", {"input_shape": (64,)}, r"channels\).*\(64,\)"),
    "too-small": Refused("small_cnn", {"input_shape": (8, 7, 3)}, r"\(8, 7, 3\)"),
    "channels-first": Refused(
        "small_cnn", {"input_shape": (3, 32, 32)}, "at least 8x8"
    ),
}


@pytest.mark.once
@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_errors(case):
    arguments = {"input_shape": (8, 8, 1), "num_classes": 10, **case.arguments}
    with pytest.raises(ValueError, match=case.message):
        import_function(load(Path(".")), case.name)(**arguments)
