"""The built-in models of studies, from images or vectors to logits.

Each is a function of `input_shape`, the shape of one input, and `num_classes`, at least
2. It returns an uncompiled model, whose logits have the shape `(batch, num_classes)`,
and raises a `ValueError` if an argument is out of range.
"""

from collections.abc import Callable

import keras
from keras import layers

from keras_logitclip._arguments import check_count
from keras_logitclip._arguments import check_num_classes

Shape = tuple[int, ...]


def mlp(
    input_shape: Shape, num_classes: int, width: int = 512, depth: int = 2
) -> keras.Model:
    """Builds a multilayer perceptron: hidden layers with ReLU, then the logits.

    Inputs of any shape are flattened. `width` is the number of units of each hidden
    layer, and `depth` the number of hidden layers, 0 for a linear model.
    """
    width, depth = check_count("width", width), check_count("depth", depth, minimum=0)
    inputs = keras.Input(input_shape)
    x = layers.Flatten()(inputs)
    for _ in range(depth):
        x = _dense_relu(x, width)
    return _to_logits(inputs, x, num_classes, "mlp")


def small_cnn(input_shape: Shape, num_classes: int, filters: int = 16) -> keras.Model:
    """Builds a small convolutional network, for studies on a CPU.

    It has three 3x3 convolutions with a stride of 2 and `filters`, `2 * filters` and
    `4 * filters` filters, then a hidden layer with `4 * filters` units, each with ReLU.
    """
    filters = check_count("filters", filters)
    if len(input_shape) != 3 or min(input_shape[:2]) < 8:
        raise ValueError(
            "Expected images of shape `(height, width, channels)` for the model "
            f"'small_cnn', of at least 8x8 pixels. Received: {tuple(input_shape)}"
        )
    x = inputs = keras.Input(input_shape)
    for factor in (1, 2, 4):
        x = layers.Conv2D(
            factor * filters,
            3,
            strides=2,
            padding="same",
            activation="relu",
            kernel_initializer="he_normal",
        )(x)
    x = _dense_relu(layers.Flatten()(x), 4 * filters)
    return _to_logits(inputs, x, num_classes, "small_cnn")


MODELS: dict[str, Callable[..., keras.Model]] = {"mlp": mlp, "small_cnn": small_cnn}


def _to_logits(inputs, features, num_classes, name):
    num_classes = check_num_classes(num_classes)
    logits = layers.Dense(num_classes, name="logits")(features)
    return keras.Model(inputs, logits, name=name)


def _dense_relu(x, units):
    return layers.Dense(units, activation="relu", kernel_initializer="he_normal")(x)
