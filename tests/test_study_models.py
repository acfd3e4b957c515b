import functools
from collections import Counter
from collections import namedtuple

import keras
import numpy as np
import pytest
from keras import ops

from keras_logitclip.study import models
from tests.conftest import BACKEND
from tests.conftest import DTYPES
from tests.running import double_precision
from tests.running import to_numpy
from tests.running import to_tensor

# Studies train their models.
pytestmark = pytest.mark.gradients


def images(*shape):
    return np.random.default_rng(0).uniform(size=shape).astype("float32")


@functools.cache
def shared_model(name, input_shape=(8, 8, 1), num_classes=3, **arguments):
    """A model that tests only read: to build the large ones takes seconds."""
    return models.build(name, input_shape, num_classes, **arguments)


def once(*values):
    """Cases in which one backend does what the others do."""
    return [pytest.param(value, marks=pytest.mark.once) for value in values]


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
    # The numbers of the PyTorch models with which the papers' results are made.
    "wrn-40-2": Built("wrn-40-2", (32, 32, 3), 10, {}, 2_243_546),
    "resnet-34": Built("resnet-34", (32, 32, 3), 10, {}, 21_282_122),
}


@pytest.mark.once
@pytest.mark.parametrize("case", BUILT.values(), ids=BUILT)
def test_parameters(case):
    model = shared_model(
        case.name, case.input_shape, case.num_classes, **case.arguments
    )
    trainable = sum(np.prod(weight.shape) for weight in model.trainable_weights)
    assert trainable == case.parameters
    assert model.input_shape == (None, *case.input_shape)
    assert model.output_shape == (None, case.num_classes)
    assert not model.compiled


@pytest.mark.once
def test_shapes_from_files_are_lists():
    assert models.build("mlp", [8, 8], 10).input_shape == (None, 8, 8)


Architecture = namedtuple("Architecture", "convolutions norms features")
ARCHITECTURES = {
    # 1 + 3 * 6 * 2 convolutions of 3x3, and a shortcut of 1x1 for each group.
    "wrn-40-2": Architecture({3: 37, 1: 3}, 37, (8, 8, 128)),
    # 1 + (3 + 4 + 6 + 3) * 2, and a shortcut for each stage but the first.
    "resnet-34": Architecture({3: 33, 1: 3}, 36, (4, 4, 512)),
}


@pytest.mark.once
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_architecture(name):
    model = shared_model(name, (32, 32, 3), 10)
    convolutions = layers_of(model, keras.layers.Conv2D)
    norms = layers_of(model, keras.layers.BatchNormalization)
    (pooling,) = layers_of(model, keras.layers.GlobalAveragePooling2D)
    sizes = Counter(layer.kernel_size[0] for layer in convolutions)
    found = Architecture(sizes, len(norms), pooling.input.shape[1:])
    assert found == ARCHITECTURES[name]
    assert not any(layer.use_bias for layer in convolutions)
    assert {(layer.momentum, layer.epsilon) for layer in norms} == {(0.9, 1e-5)}
    assert len(layers_of(model, models.RandomFlipAndCrop)) == 1


def layers_of(model, kind):
    return [layer for layer in model.layers if isinstance(layer, kind)]


# The large ones are made of layers of Keras and of `RandomFlipAndCrop`, which is
# tested on each backend below.
every_model = pytest.mark.parametrize(
    "name", ["mlp", "small_cnn", *once("wrn-40-2", "resnet-34")]
)


def logits_of(model, x):
    # Compiled, where that costs less than to run one operation after the other.
    return model.predict_on_batch(x)


def test_every_model_is_tested():
    assert list(models.MODELS) == ["mlp", "small_cnn", "wrn-40-2", "resnet-34"]


@every_model
def test_logits(name):
    model, x = shared_model(name), images(5, 8, 8, 1)
    assert model.layers[-1].activation is keras.activations.linear
    logits = logits_of(model, x)
    assert logits.shape == (5, 3)
    assert np.isfinite(logits).all()
    assert logits.std(0).max() > 1e-3
    np.testing.assert_array_equal(logits_of(model, x), logits)


@every_model
def test_saved_models(name, tmp_path):
    model, x = shared_model(name), images(5, 8, 8, 1)
    model.save(tmp_path / "model.keras")
    reloaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(logits_of(reloaded, x), logits_of(model, x), atol=1e-6)


@pytest.mark.once
def test_weights_do_not_depend_on_augmentation(tmp_path):
    plain = models.build("wrn-40-2", (8, 8, 1), 3, augment=False)
    assert not layers_of(plain, models.RandomFlipAndCrop)
    plain.save_weights(tmp_path / "model.weights.h5")
    augmented, x = models.build("wrn-40-2", (8, 8, 1), 3), images(5, 8, 8, 1)
    augmented.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_allclose(logits_of(augmented, x), logits_of(plain, x), atol=1e-6)


@every_model
def test_channels_come_last_whatever_the_default_of_keras_is(name):
    model, x = shared_model(name), images(5, 8, 8, 1)
    before = keras.config.image_data_format()
    keras.config.set_image_data_format("channels_first")
    try:
        other = models.build(name, (8, 8, 1), 3)
    finally:
        keras.config.set_image_data_format(before)
    other.set_weights(model.get_weights())
    np.testing.assert_allclose(logits_of(other, x), logits_of(model, x), atol=1e-6)


# Random flips and crops.


NUMBERED = np.arange(1.0, 65).reshape(8, 8, 1).astype("float32")


def numbered_images(count):
    """Images whose pixels are all different, and none of them is zero."""
    return np.stack([NUMBERED] * count)


def flips_and_crops(image, padding):
    """All images that this one can become."""
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


def augment(layer, x, dtype="float32"):
    with double_precision(dtype):
        return to_numpy(layer(to_tensor(x, dtype), training=True))


def which(outputs, candidates):
    """The position of each output among the candidates; it has to be there."""
    found = (outputs[:, None] == candidates).all((2, 3, 4))
    assert found.any(1).all()
    return found.argmax(1)


@pytest.mark.parametrize("padding", [4, *once(0, 1)])
def test_every_flip_and_crop_is_as_likely(padding):
    candidates = flips_and_crops(NUMBERED, padding)
    batch = numbered_images(20 * len(candidates))
    outputs = augment(models.RandomFlipAndCrop(padding, seed=0), batch)
    counts = np.bincount(which(outputs, candidates), minlength=len(candidates))
    # Six standard deviations of a Poisson distribution with that mean.
    assert np.abs(counts - 20).max() < 6 * np.sqrt(20)
    assert counts.min() > 0


@pytest.mark.parametrize("shape", [(9, 6, 3), *once((5, 12, 1))], ids=str)
def test_images_of_any_shape(shape):
    x = 1 + images(30, *shape)
    outputs = augment(models.RandomFlipAndCrop(2), x)
    for image, output in zip(x, outputs, strict=True):
        which(output[None], flips_and_crops(image, 2))


@pytest.mark.parametrize("dtype", DTYPES)
def test_other_dtypes(dtype):
    with double_precision(dtype):
        layer = models.RandomFlipAndCrop(dtype=dtype)
        outputs = layer(to_tensor(numbered_images(30), dtype), training=True)
    assert keras.backend.standardize_dtype(outputs.dtype) == dtype
    which(to_numpy(outputs), flips_and_crops(NUMBERED, 4))


def test_mixed_precision():
    layer = models.RandomFlipAndCrop(dtype="mixed_float16")
    outputs = augment(layer, numbered_images(30))
    assert outputs.dtype == "float16"
    which(outputs, flips_and_crops(NUMBERED, 4))


@pytest.mark.parametrize("training", [False, None])
def test_only_while_training(training):
    x = images(5, 8, 8, 1)
    outputs = models.RandomFlipAndCrop()(to_tensor(x), training=training)
    np.testing.assert_array_equal(to_numpy(outputs), x)


def test_seeds():
    x = numbered_images(30)
    first, second, other = (models.RandomFlipAndCrop(seed=seed) for seed in (1, 1, 2))
    once, again = augment(first, x), augment(first, x)
    np.testing.assert_array_equal(augment(second, x), once)
    assert (again != once).any()
    assert (augment(other, x) != once).any()


@pytest.mark.parametrize("whole", [True, False], ids=("model", "weights"))
def test_random_state_is_saved(whole, tmp_path):
    x = numbered_images(30)
    model = keras.Sequential([keras.Input((8, 8, 1)), models.RandomFlipAndCrop()])
    augment(model, x)
    if whole:
        model.save(tmp_path / "model.keras")
        reloaded = keras.models.load_model(tmp_path / "model.keras")
    else:
        model.save_weights(tmp_path / "model.weights.h5")
        reloaded = keras.models.clone_model(model)
        reloaded.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(augment(reloaded, x), augment(model, x))


# The battery trains a model of this layer alone, with batches of its own.
@pytest.mark.filterwarnings("ignore:`shuffle=True` was passed:UserWarning")
@pytest.mark.filterwarnings("ignore:The model does not have any trainable:UserWarning")
def test_keras_layer_battery():
    # Keras's own checks of a layer: private, but the contract we want to keep.
    from keras.src.testing import TestCase

    TestCase().run_layer_test(
        models.RandomFlipAndCrop,
        init_kwargs={"padding": 2, "seed": 1},
        input_shape=(4, 8, 8, 3),
        expected_output_shape=(4, 8, 8, 3),
        expected_num_trainable_weights=0,
        expected_num_non_trainable_weights=0,
        expected_num_non_trainable_variables=1,
        expected_num_seed_generators=1,
        expected_num_losses=0,
        supports_masking=False,
    )


# Training.

# What Keras chooses, and what compiles; PyTorch's compiler takes a minute for it.
JIT_COMPILE = ["auto"] if BACKEND == "torch" else ["auto", True]


@pytest.mark.parametrize("jit_compile", JIT_COMPILE, ids=str)
def test_what_a_training_step_sees(jit_compile):
    """The outputs are the images, and the losses how far they are from allowed ones."""
    candidates = flips_and_crops(NUMBERED, 4).reshape(-1, 64)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            models.RandomFlipAndCrop(),
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


@every_model
def test_training(name):
    """Under autocast, and with all that Keras does around it."""
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = models.build(name, (8, 8, 1), num_classes=3)
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
    "unknown-model": Refused(
        "wrn_40_2",
        {},
        "expected one of 'mlp', 'small_cnn', 'wrn-40-2', 'resnet-34'. "
        "Received: name='wrn_40_2'",
    ),
    "unknown-argument": Refused(
        "mlp",
        {"layers": 3, "width": 5},
        "that the model 'mlp' has: width, depth. Received: {'layers': 3, 'width': 5}$",
    ),
    "width": Refused("mlp", {"width": 0}, "`width`: expected an integer of at least 1"),
    "depth": Refused("mlp", {"depth": 1.5}, "`depth`: .* Received: depth=1.5"),
    "filters": Refused("small_cnn", {"filters": None}, "`filters`: expected an int"),
    "augment": Refused("wrn-40-2", {"augment": 1}, "`augment`: .* augment=1"),
    "one-class": Refused("mlp", {"num_classes": 1}, "`num_classes`: .* at least 2"),
    "no-shape": Refused("mlp", {"input_shape": ()}, "of at least 1, the shape of one"),
    "integer-shape": Refused("mlp", {"input_shape": 64}, "Received: input_shape=64"),
    "unknown-size": Refused("mlp", {"input_shape": (None, 8)}, r"\(None, 8\)"),
    "empty-images": Refused("mlp", {"input_shape": (0, 8)}, r"\(0, 8\)"),
    "vectors": Refused("small_cnn", {"input_shape": (64,)}, r"channels\).*\(64,\)"),
    "no-channels": Refused(
        "resnet-34", {"input_shape": (28, 28)}, r"grey images have one: `images\[..."
    ),
    "channels-first": Refused(
        "wrn-40-2", {"input_shape": (3, 32, 32)}, "at least 8x8 pixels. The channels"
    ),
    "too-small": Refused("small_cnn", {"input_shape": (8, 7, 3)}, r"\(8, 7, 3\)"),
}


@pytest.mark.once
@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_errors(case):
    arguments = {"input_shape": (8, 8, 1), "num_classes": 10, **case.arguments}
    with pytest.raises(ValueError, match=case.message):
        models.build(case.name, **arguments)


@pytest.mark.once
def test_errors_of_the_layer():
    with pytest.raises(ValueError, match="`padding`: .* Received: padding=-1"):
        models.RandomFlipAndCrop(padding=-1)
    with pytest.raises(ValueError, match="expected ndim=4, found ndim=3"):
        models.RandomFlipAndCrop()(images(8, 8, 1), training=True)
