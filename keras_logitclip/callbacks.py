"""A callback that measures how a model treats wrong labels."""

import keras
import numpy as np

from keras_logitclip._arguments import check_count
from keras_logitclip._check.compiling import compiled_loss
from keras_logitclip._check.compiling import is_binary
from keras_logitclip._check.outputs import entry_of
from keras_logitclip._check.outputs import predict_batch
from keras_logitclip._check.outputs import probabilities
from keras_logitclip._check.outputs import wrong_shape
from keras_logitclip._check.report import raise_first
from keras_logitclip._jobs.arrays import check_inputs
from keras_logitclip._jobs.arrays import split_evenly
from keras_logitclip._jobs.arrays import take
from keras_logitclip.losses import LogitsLoss
from keras_logitclip.losses._inner import takes_probabilities
from keras_logitclip.noise import NoisyLabels

__all__ = ["MemorizationMonitor"]


def __dir__():
    return __all__


class MemorizationMonitor(keras.callbacks.Callback):
    """Reports after each epoch how much of the label noise the model memorized.

    It needs to know which labels are wrong. So it is for experiments with generated
    noise, or with data whose clean labels exist. It adds to the logs:

    - `memorized`: the share of the wrong labels that the model predicts;
    - `recovered`: the share of the samples with a wrong label for which the model
      predicts the true class;
    - `clean_accuracy`: the accuracy on training samples whose label is correct.

    The first two are NaN if no label is wrong, and the last is NaN if all labels are
    wrong.

    Keras runs callbacks in order. List this one first, so that later ones such as
    `TensorBoard`, `CSVLogger` or `EarlyStopping` see its values. The history and the
    progress bar always see them.

    All epochs are measured on the same random sample of the training data. Up to half
    of it has wrong labels. The measurement does not affect the training: weights,
    metrics and random numbers are the same without the callback.

    Args:
        x: The training inputs: an array, or a list, tuple or dictionary of arrays for a
            model with several inputs. Only a copy of the sample is kept.
        noisy: The labels that the model is trained on, as `NoisyLabels`, in the order
            of `x`.
        sample_size: Number of samples to measure on. Defaults to `None`, which means a
            tenth of all samples, but not more than 5,000. That costs about a thirtieth
            of an epoch.
        batch_size: Largest number of samples to predict at a time. Defaults to `256`.
        seed: Seed of the sample. Defaults to `0`.
        prefix: Text before the names in the logs. Defaults to `""`.
        output: Key or position of the output to measure, for a model with several
            outputs. Each output can have its own monitor with its own `prefix`.
            Defaults to `None`.
        label: Position of the label to measure, for an output with several labels per
            sample. `noisy` has that label, 0 or 1. Defaults to `None`.

    Raises:
        ValueError: If an argument is out of range, or if `noisy` is not `NoisyLabels`
            or does not have one label for each input. After the first epoch, if the
            model does not return one value for each class. With two classes, one logit
            or probability is enough if the model is compiled with a cross-entropy.

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
        output: str | int | None = None,
        label: int | None = None,
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
        self.output = output
        self.label = None if label is None else check_count("label", label, minimum=0)
        self.num_classes = noisy.num_classes
        self.labels = noisy.labels[sample]
        self.clean = noisy.clean[sample]
        self.batches = [take(inputs, rows) for rows in split_evenly(sample, batch_size)]

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        if logs is not None:
            shares = self.measure(self.model)
            logs.update({self.prefix + name: share for name, share in shares.items()})

    def measure(self, model: keras.Model) -> dict[str, float]:
        """Measures a model, also outside of `fit`.

        Args:
            model: A model that returns a value for each class.

        Returns:
            The shares `memorized`, `recovered` and `clean_accuracy`, without prefix.
        """
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
        outputs = entry_of(predict_batch(model, batch), self.output)
        if not isinstance(outputs, np.ndarray):
            raise _several_outputs(outputs)
        loss = compiled_loss(model, self.output)
        outputs = self._of_label(loss, outputs)
        if self.num_classes == 2 and outputs.shape[1:] == (1,):
            outputs = _with_first_class(loss, outputs)
        raise_first(wrong_shape(outputs, self.num_classes))
        # On JAX, the loss itself does not detect probabilities.
        if isinstance(loss, LogitsLoss) and loss.from_logits:
            # The last layer is known only for the first output of a model.
            known_model = model if self.output is None else None
            raise_first(probabilities(known_model, outputs))
        return _classes(outputs)

    def _of_label(self, loss, outputs):
        """Returns the outputs, or the column of the label that is measured."""
        columns = outputs.shape[-1] if outputs.ndim == 2 else 1
        if self.label is None:
            # The largest logit of several labels would be taken for a class.
            more = columns > self.num_classes
            is_wrong = more and loss is not None and is_binary(loss)
        else:
            is_wrong = self.label >= columns
        if is_wrong:
            raise ValueError(
                "Expected the position of a label as `label`, to measure one of "
                f"several labels. Received: label={self.label}, outputs of shape "
                f"{outputs.shape}"
            )
        return outputs if self.label is None else outputs[:, [self.label]]


def _check_noisy(noisy):
    if not isinstance(noisy, NoisyLabels):
        raise ValueError(
            "Invalid value for argument `noisy`: expected `NoisyLabels`, as the "
            "generators of `keras_logitclip.noise` return them. Convert other labels "
            "with `noise.NoisyLabels(labels, clean, num_classes)`. Received: an object "
            f"of type {type(noisy).__name__}"
        )


def _draw_sample(flipped, size, rng):
    """Draws positions, half of them with a wrong label as far as there are enough."""
    wrong = rng.permutation(np.flatnonzero(flipped))
    right = rng.permutation(np.flatnonzero(~flipped))
    num_wrong = min(max(size // 2, size - len(right)), len(wrong))
    return np.sort(np.concatenate([wrong[:num_wrong], right[: size - num_wrong]]))


def _with_first_class(loss, outputs):
    """Returns two outputs for one that is known to be a logit or a probability."""
    of_probabilities = None if loss is None else takes_probabilities(loss)
    if of_probabilities is None:
        return outputs
    first = np.full_like(outputs, 0.5 if of_probabilities else 0.0)
    return np.concatenate([first, outputs], axis=-1)


def _several_outputs(outputs):
    shapes = keras.tree.map_structure(np.shape, outputs)
    return ValueError(
        "Expected a model with one output, or the key or position of one output as "
        f"`output`. Received: outputs of shape {shapes}"
    )


def _classes(outputs):
    """Returns the predicted classes, with -1 where the model returns NaN."""
    return np.where(np.isnan(outputs).any(-1), -1, np.argmax(outputs, -1))


def _share(matches):
    return float(np.mean(matches)) if matches.size else float("nan")
