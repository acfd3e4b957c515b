"""The built-in models of studies: from images or vectors to logits.

Each is a function of `input_shape`, the shape of one input without the batch, and of
`num_classes`, which is at least 2. It returns a model that is not compiled and returns
logits of shape `(batch, num_classes)`, and raises a `ValueError` if an argument is out
of range. Images have the shape `(height, width, channels)` and at least 8x8 pixels.
"""

import inspect
import operator
from collections.abc import Callable

import keras
from keras import layers
from keras import ops

from keras_logitclip._arguments import check_count
from keras_logitclip._arguments import check_flag

# The axes of an image here, whatever `keras.config.image_data_format()` says.
_DATA_FORMAT = "channels_last"

Shape = tuple[int, ...]


def build(name: str, input_shape: Shape, num_classes: int, **arguments) -> keras.Model:
    """Builds one of the models in `MODELS`.

    Args:
        name: `"mlp"`, `"small_cnn"`, `"wrn-40-2"` or `"resnet-34"`.
        input_shape: As for all of them, see above.
        num_classes: Likewise.
        **arguments: Further arguments of the function.

    Example:

    >>> from keras_logitclip.study import models
    >>> models.build("mlp", (8, 8), num_classes=10, width=32).output_shape
    (None, 10)
    """
    if name not in MODELS:
        raise ValueError(
            "Invalid value for argument `name`: expected one of "
            f"{', '.join(map(repr, MODELS))}. Received: name={name!r}"
        )
    known = list(inspect.signature(MODELS[name]).parameters)[2:]
    if not set(arguments) <= set(known):
        raise ValueError(
            f"Expected arguments that the model {name!r} has: {', '.join(known)}. "
            f"Received: {arguments}"
        )
    return MODELS[name](input_shape, num_classes, **arguments)


def mlp(
    input_shape: Shape, num_classes: int, width: int = 512, depth: int = 2
) -> keras.Model:
    """Builds a multilayer perceptron: hidden layers with ReLU, then the logits.

    Inputs of any shape are flattened. `width` is the number of units of each hidden
    layer, and `depth` the number of these: 0 makes a linear model.
    """
    width, depth = check_count("width", width), check_count("depth", depth, minimum=0)
    inputs = keras.Input(_check_shape(input_shape))
    x = layers.Flatten(_DATA_FORMAT)(inputs)
    for _ in range(depth):
        x = _dense_relu(x, width)
    return _to_logits(inputs, x, num_classes, "mlp")


def small_cnn(input_shape: Shape, num_classes: int, filters: int = 16) -> keras.Model:
    """Builds a small convolutional network, for studies on a CPU.

    Three 3x3 convolutions with strides of 2 and with `filters`, twice and four times
    as many filters, then a hidden layer of four times as many units, each with ReLU.
    """
    filters = check_count("filters", filters)
    inputs = keras.Input(_check_image_shape(input_shape))
    x = inputs
    for factor in (1, 2, 4):
        x = layers.Conv2D(
            factor * filters,
            3,
            strides=2,
            padding="same",
            data_format=_DATA_FORMAT,
            activation="relu",
            kernel_initializer="he_normal",
        )(x)
    x = _dense_relu(layers.Flatten(_DATA_FORMAT)(x), 4 * filters)
    return _to_logits(inputs, x, num_classes, "small_cnn")


def wrn_40_2(input_shape: Shape, num_classes: int, augment: bool = True) -> keras.Model:
    """Builds the Wide ResNet of depth 40 and width 2, for images like CIFAR's.

    With `augment`, it flips and crops images as `RandomFlipAndCrop` does.

    References:
        - [Zagoruyko and Komodakis, 2016](https://arxiv.org/abs/1605.07146)
    """
    inputs, x = _images(input_shape, augment)
    x = _conv(x, 16)
    for filters, strides in ((32, 1), (64, 2), (128, 2)):
        for block in range(6):
            x = _preactivation_block(x, filters, strides if block == 0 else 1)
    x = layers.GlobalAveragePooling2D(_DATA_FORMAT)(_norm_relu(x))
    return _to_logits(inputs, x, num_classes, "wrn_40_2")


def resnet_34(
    input_shape: Shape, num_classes: int, augment: bool = True
) -> keras.Model:
    """Builds the ResNet of 34 layers, in its form for images like CIFAR's.

    It starts with one 3x3 convolution, where the form for ImageNet shrinks the images
    to a quarter. With `augment`, it flips and crops as `RandomFlipAndCrop` does.

    References:
        - [He et al., 2015](https://arxiv.org/abs/1512.03385)
    """
    inputs, x = _images(input_shape, augment)
    x = _norm_relu(_conv(x, 64))
    for filters, strides, blocks in ((64, 1, 3), (128, 2, 4), (256, 2, 6), (512, 2, 3)):
        for block in range(blocks):
            x = _residual_block(x, filters, strides if block == 0 else 1)
    x = layers.GlobalAveragePooling2D(_DATA_FORMAT)(x)
    return _to_logits(inputs, x, num_classes, "resnet_34")


MODELS: dict[str, Callable[..., keras.Model]] = {
    "mlp": mlp,
    "small_cnn": small_cnn,
    "wrn-40-2": wrn_40_2,
    "resnet-34": resnet_34,
}


@keras.saving.register_keras_serializable(package="keras_logitclip")
class RandomFlipAndCrop(layers.Layer):
    """Flips images left to right and moves them by a few pixels, while training.

    Each image is on its own flipped or not, then padded with zeros on each side and
    cropped to its old size at a random place, as in the papers on CIFAR;
    `keras.layers.RandomCrop` crops all images of a batch at one place. Zero is black
    for pixels in [0, 1] and the mean for standardized ones. The state of the random
    numbers is saved and loaded with the weights of a model.

    Args:
        padding: Pixels added on each side, the most by which an image is moved.
            Defaults to `4`.
        seed: Integer. Defaults to `None`, which means a random seed, one that
            `keras.utils.set_random_seed` determines.
        **kwargs: Keyword arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: Images of shape `(batch, height, width, channels)`.
        training: Whether to flip and move them. Otherwise they are returned.

    Example:

    >>> import keras
    >>> from keras_logitclip.study import models
    >>> layer = models.RandomFlipAndCrop(padding=4)
    >>> tuple(layer(keras.ops.ones((2, 32, 32, 3)), training=True).shape)
    (2, 32, 32, 3)
    """

    def __init__(self, padding: int = 4, seed: int | None = None, **kwargs):
        super().__init__(**kwargs)
        self.padding = check_count("padding", padding, minimum=0)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.input_spec = keras.InputSpec(ndim=4)

    def call(self, inputs, training=None):
        if not training:
            return inputs
        _, height, width, _ = ops.shape(inputs)
        rows, columns = ops.arange(height), ops.arange(width)
        columns = ops.where(self._draw(inputs, 2) == 0, columns, width - 1 - columns)
        rows = rows + self._draw(inputs, 2 * self.padding + 1)
        columns = columns + self._draw(inputs, 2 * self.padding + 1)
        sides = (self.padding, self.padding)
        images = ops.pad(inputs, ((0, 0), sides, sides, (0, 0)))
        images = ops.take_along_axis(images, rows[:, :, None, None], axis=1)
        return ops.take_along_axis(images, columns[:, None, :, None], axis=2)

    def compute_output_shape(self, input_shape):
        return input_shape

    def save_own_variables(self, store):
        # Keras saves weights, and this is none.
        store["seed_state"] = self.seed_generator.state

    def load_own_variables(self, store):
        # It is missing from the weights of a model without augmentation.
        if "seed_state" in store:
            self.seed_generator.state.assign(store["seed_state"])

    def get_config(self):
        return {**super().get_config(), "padding": self.padding, "seed": self.seed}

    def _draw(self, inputs, count):
        """Returns an integer below `count` for each image, of shape `(batch, 1)`."""
        return keras.random.randint(
            (ops.shape(inputs)[0], 1), 0, count, seed=self.seed_generator
        )


def _images(input_shape, augment):
    """Returns the inputs of a model, and what its first layer takes."""
    augment = check_flag("augment", augment)
    inputs = keras.Input(_check_image_shape(input_shape))
    return inputs, (RandomFlipAndCrop()(inputs) if augment else inputs)


def _to_logits(inputs, features, num_classes, name):
    num_classes = check_count("num_classes", num_classes, minimum=2)
    logits = layers.Dense(num_classes, name="logits")(features)
    return keras.Model(inputs, logits, name=name)


def _dense_relu(x, units):
    return layers.Dense(units, activation="relu", kernel_initializer="he_normal")(x)


def _preactivation_block(x, filters, strides):
    """Adds a block of a Wide ResNet: its activations come before its convolutions."""
    activated = _norm_relu(x)
    if strides != 1 or x.shape[-1] != filters:
        x = _conv(activated, filters, size=1, strides=strides)
    added = _norm_relu(_conv(activated, filters, strides=strides))
    return layers.Add()([_conv(added, filters), x])


def _residual_block(x, filters, strides):
    """Adds a block of a ResNet: its activations come after its convolutions."""
    added = _norm_relu(_conv(x, filters, strides=strides))
    if strides != 1 or x.shape[-1] != filters:
        x = _norm(_conv(x, filters, size=1, strides=strides))
    return layers.ReLU()(layers.Add()([_norm(_conv(added, filters)), x]))


def _conv(x, filters, size=3, strides=1):
    padding = "same"
    if size != 1 and strides != 1:
        # With "same", zeros would come after the image only, and what a block adds to
        # its shortcut would lie one pixel beside it.
        x = layers.ZeroPadding2D(size // 2, data_format=_DATA_FORMAT)(x)
        padding = "valid"
    return layers.Conv2D(
        filters,
        size,
        strides,
        padding,
        _DATA_FORMAT,
        use_bias=False,
        kernel_initializer=keras.initializers.VarianceScaling(
            2.0, "fan_out", "untruncated_normal"
        ),
    )(x)


def _norm_relu(x):
    return layers.ReLU()(_norm(x))


def _norm(x):
    # The values of the papers, which are PyTorch's: its momentum of 0.1 is this one.
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)


def _check_image_shape(input_shape):
    shape = _check_shape(input_shape)
    if len(shape) != 3 or min(shape[:2]) < 8:
        raise ValueError(
            "Invalid value for argument `input_shape`: expected the shape of images, "
            "(height, width, channels), of at least 8x8 pixels. The channels come "
            "last, and grey images have one: `images[..., None]`. "
            f"Received: input_shape={input_shape!r}"
        )
    return shape


def _check_shape(input_shape):
    try:
        shape = tuple(map(operator.index, input_shape))
    except TypeError:
        shape = ()
    if not shape or min(shape) < 1:
        raise ValueError(
            "Invalid value for argument `input_shape`: expected a tuple of integers "
            "of at least 1, the shape of one input without the batch. "
            f"Received: input_shape={input_shape!r}"
        )
    return shape
