"""What the study files beside this one name: data, models and a loss."""

import keras
from keras import layers
from sklearn.datasets import load_digits


def odd_digits():
    """The digits of scikit-learn as two classes, even and odd."""
    images, digits = load_digits(return_X_y=True)
    return images.astype("uint8"), digits % 2


def demo_network(shape, num_classes):
    """Builds the network of examples/quickstart.py."""
    parts = [keras.Input(shape), layers.Flatten()]
    parts += [layers.Dense(512, "relu"), layers.Dense(512, "relu")]
    return keras.Sequential([*parts, layers.Dense(num_classes)])


def batch_norm_cnn(shape, num_classes):
    """Builds three convolutions with batch normalization."""
    parts = [keras.Input(shape)]
    for filters, strides in ((32, 1), (32, 2), (64, 2)):
        convolution = layers.Conv2D(
            filters,
            3,
            strides,
            padding="same",
            data_format="channels_last",
            use_bias=False,
        )
        parts += [convolution, layers.BatchNormalization(), layers.ReLU()]
    pooling = layers.GlobalAveragePooling2D("channels_last")
    return keras.Sequential([*parts, pooling, layers.Dense(num_classes)])


class WithZero(layers.Layer):
    """Puts a zero behind one logit, so that a softmax of both is its sigmoid."""

    def call(self, inputs):
        return keras.ops.concatenate([inputs, keras.ops.zeros_like(inputs)], axis=-1)


def one_logit(shape, num_classes):
    """Builds a perceptron with one logit for two classes."""
    hidden = layers.Dense(256, "relu")
    return keras.Sequential([keras.Input(shape), hidden, layers.Dense(1), WithZero()])


class LabelSmoothing(keras.losses.Loss):
    """Computes the cross-entropy with a tenth of each label spread over all classes."""

    def __init__(self, num_classes):
        super().__init__(name="label_smoothing")
        self.num_classes = num_classes

    def call(self, y_true, y_pred):
        ids = keras.ops.cast(y_true, "int32")  # Keras has made floats of them.
        labels = 0.9 * keras.ops.one_hot(ids, self.num_classes) + 0.1 / self.num_classes
        return keras.losses.categorical_crossentropy(labels, y_pred, from_logits=True)


def label_smoothing(num_classes):
    return LabelSmoothing(num_classes)
