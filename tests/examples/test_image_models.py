"""The models of the papers on CIFAR that a study of the examples names."""

import importlib.util
from collections import Counter
from collections import namedtuple

import keras
import numpy as np
import pytest
from keras import ops

from keras_logitclip import study
from keras_logitclip.study._functions import import_function
from keras_logitclip.study._plan import count
from tests.conftest import BACKEND
from tests.running import to_numpy
from tests.running import to_tensor
from tests.subprocesses import ROOT

pytestmark = pytest.mark.gradients

_SPEC = importlib.util.spec_from_file_location(
    "image_models", ROOT / "examples" / "image_models.py"
)
image_models = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(image_models)


Architecture = namedtuple("Architecture", "parameters convolutions norms features")
ARCHITECTURES = {
    # The numbers of the PyTorch models with which the papers' results are made. There
    # are 1 + 3 * 6 * 2 convolutions of 3x3, and a shortcut of 1x1 for each group.
    "wrn_40_2": Architecture(2_243_546, {3: 37, 1: 3}, 37, (8, 8, 128)),
    # 1 + (3 + 4 + 6 + 3) * 2, and a shortcut for each stage but the first.
    "resnet_34": Architecture(21_282_122, {3: 33, 1: 3}, 36, (4, 4, 512)),
}


def layers_of(model, kind):
    return [layer for layer in model.layers if isinstance(layer, kind)]


@pytest.mark.once
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_architecture(name):
    loaded = study.load(ROOT / "examples" / "cifar10.toml")
    assert count(loaded) == 2 * (4 * 4 + 2 * 2)
    model = import_function(loaded, f"image_models:{name}")((32, 32, 3), 10)
    trainable = sum(np.prod(weight.shape) for weight in model.trainable_weights)
    convolutions = layers_of(model, keras.layers.Conv2D)
    norms = layers_of(model, keras.layers.BatchNormalization)
    (pooling,) = layers_of(model, keras.layers.GlobalAveragePooling2D)
    sizes = Counter(layer.kernel_size[0] for layer in convolutions)
    found = Architecture(trainable, sizes, len(norms), pooling.input.shape[1:])
    assert found == ARCHITECTURES[name]
    assert not any(layer.use_bias for layer in convolutions)
    assert {(layer.momentum, layer.epsilon) for layer in norms} == {(0.9, 1e-5)}
    logits = model.predict_on_batch(images(2, 32, 32, 3))
    assert logits.shape == (2, 10)
    assert np.isfinite(logits).all()


def images(*shape):
    return np.random.default_rng(0).uniform(size=shape).astype("float32")


NUMBERED = np.arange(1.0, 65).reshape(8, 8, 1).astype("float32")


def numbered_images(count):
    """Images whose pixels are all different, and none of them is zero."""
    return np.stack([NUMBERED] * count)


def flips_and_crops(image, padding):
    """Returns all images that the augmentation can make of one."""
    height, width, _ = image.shape
    sides = (padding, padding)
    return np.stack(
        [
            np.pad(flipped, (sides, sides, (0, 0)))[i : i + height, j : j + width]
            for flipped in (image, image[:, ::-1])
            for i in range(2 * padding + 1)
            for j in range(2 * padding + 1)
        ]
    )


def augment(layer, x):
    return to_numpy(layer(to_tensor(x), training=True))


def which(outputs, candidates):
    """Returns the position of each output among the candidates."""
    found = (outputs[:, None] == candidates).all((2, 3, 4))
    assert found.any(1).all()
    return found.argmax(1)


@pytest.mark.parametrize("padding", [4, 0])
def test_every_flip_and_crop_is_as_likely(padding):
    candidates = flips_and_crops(NUMBERED, padding)
    batch = numbered_images(20 * len(candidates))
    outputs = augment(image_models.RandomFlipAndCrop(padding, seed=0), batch)
    counts = np.bincount(which(outputs, candidates), minlength=len(candidates))
    # Six standard deviations of a Poisson distribution with that mean.
    assert np.abs(counts - 20).max() < 6 * np.sqrt(20)
    assert counts.min() > 0


@pytest.mark.parametrize("shape", [(9, 6, 3)], ids=str)
def test_images_of_any_shape(shape):
    x = 1 + images(30, *shape)
    outputs = augment(image_models.RandomFlipAndCrop(2), x)
    for image, output in zip(x, outputs, strict=True):
        which(output[None], flips_and_crops(image, 2))


def test_mixed_precision():
    layer = image_models.RandomFlipAndCrop(dtype="mixed_float16")
    outputs = augment(layer, numbered_images(30))
    assert outputs.dtype == "float16"
    which(outputs, flips_and_crops(NUMBERED, 4))


@pytest.mark.parametrize("training", [False, None])
def test_only_while_training(training):
    x = images(5, 8, 8, 1)
    outputs = image_models.RandomFlipAndCrop()(to_tensor(x), training=training)
    np.testing.assert_array_equal(to_numpy(outputs), x)


def test_seeds():
    x = numbered_images(30)
    first, second, other = (
        image_models.RandomFlipAndCrop(seed=seed) for seed in (1, 1, 2)
    )
    once, again = augment(first, x), augment(first, x)
    np.testing.assert_array_equal(augment(second, x), once)
    assert (again != once).any()
    assert (augment(other, x) != once).any()


# What Keras chooses, and what compiles; PyTorch's compiler takes a minute for it.
JIT_COMPILE = ["auto"] if BACKEND == "torch" else ["auto", True]


@pytest.mark.parametrize("jit_compile", JIT_COMPILE, ids=str)
def test_what_a_training_step_sees(jit_compile):
    """The outputs are the images, and the losses how far they are from allowed ones."""
    candidates = flips_and_crops(NUMBERED, 4).reshape(-1, 64)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            image_models.RandomFlipAndCrop(),
            keras.layers.Conv2D(1, 1, kernel_initializer="ones", use_bias=False),
            keras.layers.Flatten(),
        ]
    )

    def distance(allowed, outputs):
        return ops.min(ops.max(ops.abs(allowed - outputs[:, None]), -1), -1)

    def variety(allowed, outputs):
        return ops.ones_like(outputs) * ops.std(outputs[:, 36])

    model.compile(
        keras.optimizers.SGD(0.0),
        distance,
        metrics=[variety],
        jit_compile=jit_compile,
    )
    x = numbered_images(16)
    allowed = np.stack([candidates] * 16)
    seen = [result_of(model.train_on_batch, model, x, allowed) for _ in range(3)]
    assert [step["loss"] for step in seen] == [0, 0, 0]
    varieties = {step["variety"] for step in seen}
    assert len(varieties) == 3
    assert min(varieties) > 1
    same = x.reshape(16, 1, 64)
    unchanged = result_of(model.test_on_batch, model, x, same)
    assert unchanged == {"loss": 0, "variety": 0}


def result_of(step, model, x, y):
    """The metrics of this step alone, which not every version of Keras returns."""
    model.reset_metrics()
    return {key: float(value) for key, value in step(x, y, return_dict=True).items()}
