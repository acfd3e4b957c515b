"""Callbacks that show what a model makes of wrong labels."""

import keras
import numpy as np

from keras_logitclip._arguments import check_count
from keras_logitclip._jobs.arrays import check_inputs
from keras_logitclip._jobs.arrays import take
from keras_logitclip._labels import look_like_probabilities
from keras_logitclip.losses import LogitsLoss
from keras_logitclip.noise import NoisyLabels

__all__ = ["MemorizationMonitor"]


def __dir__():
    return __all__


class MemorizationMonitor(keras.callbacks.Callback):
    """Reports after each epoch how much of the label noise the model memorized.

    It needs to know which labels are wrong, so it is for experiments with noise of
    one's own making, or with data whose clean labels exist. It adds to the logs:

    - `memorized`: the share of the wrong labels that the model predicts;
    - `recovered`: the share of the samples with a wrong label for which it predicts
      the true class;
    - `clean_accuracy`: the accuracy on training samples whose label is right.

    They are NaN where there is no such sample: the first two if no label is wrong,
    the last if all are.

    Keras runs the callbacks in their order. Give this one first, and those that
    follow it, such as `TensorBoard`, `CSVLogger` or `EarlyStopping`, see what it adds.
    The history and the progress bar always do.

    All epochs are measured on one random sample of the training data: up to half of
    it samples with a wrong label. What is measured does not disturb the training:
    weights, metrics and random numbers are the same without the callback.

    Args:
        x: The training inputs: an array, or a list, tuple or dictionary of arrays
            for a model of several inputs. A copy of the sample is kept, no more.
        noisy: The labels that the model is trained on, as `NoisyLabels`, in the order
            of `x`.
        sample_size: How many samples to measure on. Defaults to `None`, which means
            a tenth of all, but not more than 5,000: about a thirtieth of an epoch's
            computations.
        batch_size: How many of them to predict at a time, at most. Defaults to `256`.
        seed: Seed of the sample. Defaults to `0`.
        prefix: What the names in the logs begin with. Defaults to `""`.

    Raises:
        ValueError: If an argument is out of range, if `noisy` are no `NoisyLabels` or
            more or fewer than the inputs; and, after the first epoch, if the model
            does not return one value for each class.

    Example:

    >>> import keras
    >>> import numpy as np
    >>> from keras_logitclip import callbacks
    >>> from keras_logitclip import noise
    >>> x, y = np.random.normal(size=(200, 8)), np.arange(200) % 4
    >>> noisy = noise.symmetric(y, 0.4, num_classes=4, seed=0)
    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    >>> loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    >>> model.compile("sgd", loss)
    >>> monitor = callbacks.MemorizationMonitor(x, noisy)
    >>> fitted = model.fit(x, noisy.labels, epochs=2, callbacks=[monitor], verbose=0)
    >>> list(fitted.history)
    ['loss', 'memorized', 'recovered', 'clean_accuracy']
    """

    def __init__(
        self,
        x,
        noisy: NoisyLabels,
        sample_size: int | None = None,
        batch_size: int = 256,
        seed: int = 0,
        prefix: str = "",
    ):
        super().__init__()
        _check_noisy(noisy)
        inputs = check_inputs(x, len(noisy.labels))
        if sample_size is None:
            sample_size = min(max(len(noisy.labels) // 10, 1), 5000)
        sample_size = check_count("sample_size", sample_size)
        batch_size = check_count("batch_size", batch_size)
        rng = np.random.default_rng(check_count("seed", seed, minimum=0))
        sample = _draw_sample(noisy.flipped, sample_size, rng)
        self.prefix = prefix
        self.num_classes = noisy.num_classes
        self.labels = noisy.labels[sample]
        self.clean = noisy.clean[sample]
        self.batches = [
            take(inputs, rows) for rows in _split_evenly(sample, batch_size)
        ]

    def on_epoch_end(self, epoch, logs=None):
        if logs is not None:
            shares = self.measure(self.model)
            logs.update({self.prefix + name: share for name, share in shares.items()})

    def measure(self, model: keras.Model) -> dict[str, float]:
        """Returns what the callback reports, without a prefix, also outside of `fit`.

        Args:
            model: A model that returns a value for each class.

        Returns:
            The shares `memorized`, `recovered` and `clean_accuracy`.
        """
        # Not `predict`, which takes more time than an epoch of a small model, prints
        # a progress bar of its own and calls callbacks.
        predicted = np.concatenate(
            [self._predict_batch(model, batch) for batch in self.batches]
        )[: len(self.labels)]
        wrong = self.labels != self.clean
        return {
            "memorized": _share(predicted[wrong] == self.labels[wrong]),
            "recovered": _share(predicted[wrong] == self.clean[wrong]),
            "clean_accuracy": _share(predicted[~wrong] == self.clean[~wrong]),
        }

    def _predict_batch(self, model, batch):
        outputs = model.predict_on_batch(batch)
        # Under a strategy of TensorFlow each replica predicts the whole batch, and
        # Keras joins what they return.
        num_rows = len(keras.tree.flatten(batch)[0])
        classes = _classes(outputs, self.num_classes)[:num_rows]
        # Values show it on every backend; the loss sees no mark of it on JAX.
        loss = getattr(model, "loss", None)
        takes_logits = isinstance(loss, LogitsLoss) and loss.from_logits
        if takes_logits and look_like_probabilities(outputs):
            raise ValueError(
                f"Expected a model that returns logits, because its loss, a "
                f"{type(loss).__name__}, takes them. Received: one that returns "
                "probabilities. Remove the softmax from its last layer"
            )
        return classes


def _check_noisy(noisy):
    if not isinstance(noisy, NoisyLabels):
        raise ValueError(
            "Invalid value for argument `noisy`: expected `NoisyLabels`, as the "
            "generators of `keras_logitclip.noise` return them; labels from elsewhere "
            "become such with `noise.NoisyLabels(labels, clean, num_classes)`. "
            f"Received: an object of type {type(noisy).__name__}"
        )


def _draw_sample(flipped, size, rng):
    """Draws positions, of both kinds alike as far as there are enough of each."""
    wrong = rng.permutation(np.flatnonzero(flipped))
    right = rng.permutation(np.flatnonzero(~flipped))
    num_wrong = min(max(size // 2, size - len(right)), len(wrong))
    return np.sort(np.concatenate([wrong[:num_wrong], right[: size - num_wrong]]))


def _split_evenly(positions, batch_size):
    """Splits into batches of one size, which are compiled once.

    The last one is filled up with positions from the beginning.
    """
    num_batches = -(-len(positions) // batch_size)
    even_size = -(-len(positions) // num_batches)
    return np.resize(positions, (num_batches, even_size))


def _classes(outputs, num_classes):
    """Returns the predicted classes, and -1 where the model returns NaN."""
    shapes = keras.tree.map_structure(np.shape, outputs)
    fits = isinstance(outputs, np.ndarray) and outputs.ndim == 2
    if not fits or outputs.shape[1] < num_classes:
        raise ValueError(
            "Expected a model with one output of shape `(batch, classes)`, at least "
            f"{num_classes} classes as in `noisy`. Received: outputs of shape {shapes}"
        )
    return np.where(np.isnan(outputs).any(-1), -1, np.argmax(outputs, -1))


def _share(matches):
    return float(np.mean(matches)) if matches.size else float("nan")
