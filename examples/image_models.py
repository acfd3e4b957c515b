"""Models and augmentation of the papers on CIFAR, for a study.

A study file in the same folder names a model with `name = "image_models:wrn_40_2"`, as
`cifar10.toml` does. Images have the shape `(height, width, channels)`.
"""

import keras
from keras import layers
from keras import ops


def wrn_40_2(input_shape, num_classes, augment=True):
    """Builds the Wide ResNet of depth 40 and width 2 for small images.

    With `augment`, it begins with `RandomFlipAndCrop`.

    References:
        - [Zagoruyko and Komodakis, 2016](https://arxiv.org/abs/1605.07146)
    """
    inputs, x = _images(input_shape, augment)
    x = _conv(x, 16)
    for filters, strides in ((32, 1), (64, 2), (128, 2)):
        for block in range(6):
            x = _preactivation_block(x, filters, strides if block == 0 else 1)
    x = layers.GlobalAveragePooling2D()(_norm_relu(x))
    return keras.Model(inputs, layers.Dense(num_classes)(x))


def resnet_34(input_shape, num_classes, augment=True):
    """Builds the ResNet of 34 layers for small images.

    It begins with a 3x3 convolution instead of the layers that reduce the size of
    ImageNet's images to a quarter. With `augment`, it begins with `RandomFlipAndCrop`.

    References:
        - [He et al., 2015](https://arxiv.org/abs/1512.03385)
    """
    inputs, x = _images(input_shape, augment)
    x = _norm_relu(_conv(x, 64))
    for filters, strides, blocks in ((64, 1, 3), (128, 2, 4), (256, 2, 6), (512, 2, 3)):
        for block in range(blocks):
            x = _residual_block(x, filters, strides if block == 0 else 1)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(num_classes)(x))


@keras.saving.register_keras_serializable(package="image_models")
class RandomFlipAndCrop(layers.Layer):
    """Flips images left to right and shifts them by a few pixels during training.

    As in the papers on CIFAR, each image is flipped with probability 1/2, padded with
    zeros on each side, and cropped to its old size at a random place.
    `keras.layers.RandomCrop` would crop all images of a batch at the same place. Zero
    is black for pixels in [0, 1] and the mean for standardized pixels.

    Args:
        padding: Number of pixels on each side, which is the largest shift.
        seed: Integer, or `None` for a random seed.
        **kwargs: Keyword arguments of `keras.layers.Layer`.
    """

    def __init__(self, padding=4, seed=None, **kwargs):
        super().__init__(**kwargs)
        self.padding = padding
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

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

    def get_config(self):
        return {**super().get_config(), "padding": self.padding, "seed": self.seed}

    def _draw(self, inputs, count):
        """Returns an integer below `count` for each image, of shape `(batch, 1)`."""
        return keras.random.randint(
            (ops.shape(inputs)[0], 1), 0, count, seed=self.seed_generator
        )


def _images(input_shape, augment):
    """Returns the inputs of a model, and the tensor for its first layer."""
    inputs = keras.Input(input_shape)
    return inputs, (RandomFlipAndCrop()(inputs) if augment else inputs)


def _preactivation_block(x, filters, strides):
    """Adds a block of a Wide ResNet, with activations before its convolutions."""
    activated = _norm_relu(x)
    if strides != 1 or x.shape[-1] != filters:
        x = _conv(activated, filters, size=1, strides=strides)
    added = _norm_relu(_conv(activated, filters, strides=strides))
    return layers.Add()([_conv(added, filters), x])


def _residual_block(x, filters, strides):
    """Adds a block of a ResNet, with activations after its convolutions."""
    added = _norm_relu(_conv(x, filters, strides=strides))
    if strides != 1 or x.shape[-1] != filters:
        x = _norm(_conv(x, filters, size=1, strides=strides))
    return layers.ReLU()(layers.Add()([_norm(_conv(added, filters)), x]))


def _conv(x, filters, size=3, strides=1):
    padding = "same"
    if size != 1 and strides != 1:
        # With "same", zeros would be added only after the image, and the block and its
        # shortcut would be shifted by one pixel.
        x = layers.ZeroPadding2D(size // 2)(x)
        padding = "valid"
    return layers.Conv2D(
        filters,
        size,
        strides,
        padding,
        use_bias=False,
        kernel_initializer=keras.initializers.VarianceScaling(
            2.0, "fan_out", "untruncated_normal"
        ),
    )(x)


def _norm_relu(x):
    return layers.ReLU()(_norm(x))


def _norm(x):
    # The values of the papers. PyTorch's momentum of 0.1 is 0.9 in Keras.
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)
