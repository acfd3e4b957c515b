"""Handwritten digits with wrong labels, a module that the examples share."""

from typing import NamedTuple

import keras
import numpy as np

try:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split
except ModuleNotFoundError as error:
    raise ImportError(
        f"The examples need {error.name}, which is not installed. "
        'Install it with: pip install "keras-logitclip[demo]"'
    ) from error

NUM_CLASSES = 10


class Digits(NamedTuple):
    """Holds images of 8x8 pixels as rows of 64 numbers in [0, 1], with clean labels."""

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray


def load() -> Digits:
    """Loads the digits of scikit-learn, 1,437 for training and 360 for testing."""
    x, y = load_digits(return_X_y=True)
    x = (x / 16).astype("float32")
    # The split is fixed, so that seeds change only noise and training.
    x_train, x_test, y_train, y_test = train_test_split(
        x, y, test_size=0.2, stratify=y, random_state=0
    )
    return Digits(x_train, y_train, x_test, y_test)


def flip_symmetric(labels, rate, rng, num_classes=NUM_CLASSES):
    """Flips each label with probability `rate` to a random other class."""
    flipped = rng.random(len(labels)) < rate
    # A shift of 1 to num_classes - 1 never gives the true class.
    shift = rng.integers(1, num_classes, size=len(labels))
    return np.where(flipped, (labels + shift) % num_classes, labels)


def build_model(*output_layers, width=512):
    """Builds an MLP that returns logits and is large enough to memorize."""
    return keras.Sequential(
        [
            keras.Input((64,)),
            keras.layers.Dense(width, activation="relu"),
            keras.layers.Dense(width, activation="relu"),
            keras.layers.Dense(NUM_CLASSES),
            *output_layers,
        ]
    )


class Batches(keras.utils.PyDataset):
    """Yields batches in a new random order at each epoch, the same on every backend.

    `fit` cannot do this: under TensorFlow with a random seed, Keras 3.15 repeats the
    same order at all epochs.
    """

    def __init__(self, x, y, seed, batch_size=64):
        super().__init__()
        self.x = x
        self.y = y
        self.batch_size = batch_size
        # Not only `seed`, which is the seed of the noise.
        self.rng = np.random.default_rng((seed, 1))
        self.on_epoch_end()

    def __len__(self):
        return -(-len(self.x) // self.batch_size)

    def __getitem__(self, index):
        rows = self.order[index * self.batch_size : (index + 1) * self.batch_size]
        return self.x[rows], self.y[rows]

    def on_epoch_end(self):
        self.order = self.rng.permutation(len(self.x))


class Memorization(keras.callbacks.Callback):
    """Records test accuracy and memorized wrong labels after each epoch.

    `memorized` is the share of the wrong training labels that the model predicts, NaN
    if all labels are correct.
    """

    def __init__(self, digits: Digits, noisy_labels):
        super().__init__()
        wrong = noisy_labels != digits.y_train
        self.y_test = digits.y_test
        self.wrong_labels = noisy_labels[wrong]
        self.inputs = np.concatenate([digits.x_test, digits.x_train[wrong]])
        self.test_accuracy = []
        self.memorized = []

    def on_epoch_end(self, epoch, logs=None):
        # In one batch, because `predict` would take longer than the epoch.
        predicted = np.argmax(self.model.predict_on_batch(self.inputs), axis=-1)
        on_test, on_wrong = np.split(predicted, [len(self.y_test)])
        self.test_accuracy.append(np.mean(on_test == self.y_test))
        memorized = np.mean(on_wrong == self.wrong_labels) if len(on_wrong) else np.nan
        self.memorized.append(memorized)
