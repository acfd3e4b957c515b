"""`check_model`, which checks whether a model, its loss and its data fit each other."""

import math

import keras
import numpy as np

from keras_logitclip._arguments import check_count
from keras_logitclip._check import compiling
from keras_logitclip._check import data
from keras_logitclip._check.data import wrong_inputs
from keras_logitclip._check.labels import kind_of
from keras_logitclip._check.labels import no_numbers
from keras_logitclip._check.labels import without_signs
from keras_logitclip._check.labels import wrong_labels
from keras_logitclip._check.outputs import call
from keras_logitclip._check.outputs import finite_rows
from keras_logitclip._check.outputs import log_probabilities
from keras_logitclip._check.outputs import never_negative
from keras_logitclip._check.outputs import predict_batch
from keras_logitclip._check.outputs import probabilities
from keras_logitclip._check.outputs import wrong_values
from keras_logitclip._check.report import ModelReport
from keras_logitclip._jobs import arrays
from keras_logitclip._remedies import describe_labels
from keras_logitclip._remedies import remedy_for_labels
from keras_logitclip.losses import LogitClipLoss

_QUANTILES = (0.05, 0.5, 0.95)
# The largest number of output values, 64 MB in float32, because dense outputs of 512
# images could fill the memory.
_MOST_VALUES = 2**24


def check_model(
    model: keras.Model,
    x,
    y=None,
    sample_weight=None,
    *,
    samples: int = 512,
    batch_size: int = 32,
) -> ModelReport:
    """Checks whether a model, its loss and its data fit each other.

    It predicts some samples, and reports each problem with its remedy:

    - outputs that are probabilities (with a forgotten softmax, a model trains badly),
      that are not finite, or too few for the labels;
    - labels that are not numbers, not whole numbers, out of range, or of a kind that
      the loss does not take;
    - inputs that are not finite, unless the outputs are;
    - a loss that takes probabilities, or one that clips log-probabilities.

    Hints are about what works and could be better: a loss that does not clip, or a
    small learning rate, both of which are known of compiled models only; outputs that
    are never negative; inputs that are not finite, where the model replaces them.

    A sigmoid is detected from the last layer of a functional or sequential model. For
    other models it is detected from the values of at least ten outputs. Otherwise there
    is only a hint.

    Args:
        model: A model with one output, which is not changed.
        x: Inputs: an array, or a list, tuple or dictionary of arrays. Or a dataset that
            yields batches of inputs, labels and optional sample weights, of which the
            first are used.
        y: Their labels; `None` for a dataset. Defaults to `None`.
        sample_weight: Weights of the samples or labels, as in `fit`. A label with a
            weight of 0, or one that a mask of the model hides, can be anything.
            Defaults to `None`.
        samples: Largest number of samples to predict, spread over the data. It is
            smaller if a sample has many outputs. All labels of an array are checked,
            but only the labels of these samples if some are hidden. Defaults to `512`.
        batch_size: Largest number of samples to predict at a time. Defaults to `32`.

    Returns:
        A report with `ok`, `problems`, `hints` and measurements. It prints as a text.
        `raise_if_wrong()` raises an error for the first problem.

    Raises:
        ValueError: If an argument cannot be checked, such as a model with several
            outputs.

    Example:

    >>> import keras
    >>> import numpy as np
    >>> from keras_logitclip import LogitClipLoss
    >>> from keras_logitclip import check_model
    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    >>> model.compile("sgd", LogitClipLoss("sparse_categorical_crossentropy", tau=1.5))
    >>> x, y = np.random.normal(size=(200, 8)), 1 + np.arange(200) % 4
    >>> report = check_model(model, x, y)
    >>> report.ok
    False
    >>> print(report.problems[0].received, "-", report.problems[0].remedy)
    ids from 1 to 4 - Class ids begin at 0: `y - 1`
    """
    if not isinstance(model, keras.Model):
        raise ValueError(
            "Invalid value for argument `model`: expected a Keras model. "
            f"Received: an object of type {type(model).__name__}"
        )
    samples = check_count("samples", samples)
    batch_size = check_count("batch_size", batch_size)
    inputs, labels, weights = _arrays(x, y, sample_weight, samples)
    first, mask = call(model, arrays.take(inputs, slice(1)))
    rows = data.spread(len(labels), min(samples, max(1, _MOST_VALUES // first.size)))
    inputs = arrays.take(inputs, rows)
    outputs = _in_batches(predict_batch, model, inputs, batch_size)
    if mask is not None:
        mask = _in_batches(lambda *given: call(*given)[1], model, inputs, batch_size)
    if weights is not None:
        weights = weights[rows]
    subject = _Subject(model, inputs, outputs, labels, rows, mask, weights)
    norms, clipped = _norms(subject)
    return ModelReport(
        problems=list(filter(None, _problems(subject))),
        hints=list(filter(None, _hints(subject))),
        samples=len(rows),
        kind=subject.kind,
        label_range=subject.label_range,
        output_shape=outputs.shape,
        logit_norms=norms,
        tau=getattr(subject.clipping, "tau", None),
        clipped_fraction=clipped,
        compiled=model.compiled,
    )


class _Subject:
    """Holds a model, all labels, and everything else for some rows of them."""

    def __init__(self, model, inputs, outputs, labels, rows, mask, weights):
        if labels.dtype == bool:
            labels = labels.astype("int32")
        self.model = model
        self.inputs = inputs
        self.loss = compiling.compiled_loss(model)
        self.clipping = compiling.clipping_of(model, self.loss)
        axis = _class_axis(self.clipping or self.loss, outputs.ndim)
        self.outputs = np.moveaxis(outputs, axis, -1)
        has_class_axis = labels.ndim == outputs.ndim
        self.labels = np.moveaxis(labels, axis, -1) if has_class_axis else labels
        counted = data.counted(self.outputs.shape[:-1], mask, weights)
        if counted is not None:
            self.labels = data.with_harmless(self.labels[rows], counted)
            rows = slice(None)
        # In the form for the loss, with the class axis in its place.
        given = self.labels[rows]
        self.given = np.moveaxis(given, -1, axis) if has_class_axis else given, outputs
        self.no_numbers = no_numbers(labels)
        fits = self.no_numbers is None
        self.label_range = None
        if fits:
            self.label_range = float(self.labels.min()), float(self.labels.max())
            if compiling.takes_signs(self.loss):
                self.labels = without_signs(self.labels)
        self.kind = kind_of(self.labels, self.outputs.shape) if fits else None
        self.probabilities = probabilities(model, self.outputs)
        self.log_probabilities = log_probabilities(model, self.outputs)

    @property
    def clips_outputs(self):
        """Whether the loss clips the outputs. A layer may clip other logits."""
        is_loss = isinstance(self.clipping, LogitClipLoss)
        return is_loss and self.clipping.tau < math.inf


def _class_axis(owner, rank):
    """Returns the class axis of a loss or layer, if it has one that outputs have."""
    axis = getattr(owner, "axis", -1)
    return axis if isinstance(axis, int) and -rank <= axis < rank else -1


def _arrays(x, y, sample_weight, samples):
    """Returns inputs, labels and weights (or `None`) as arrays."""
    if arrays.yields_batches(x):
        for name, given in (("y", y), ("sample_weight", sample_weight)):
            if given is not None:
                raise ValueError(
                    f"Invalid value for argument `{name}`: expected `None`, because "
                    "`x` is a dataset, which yields labels and weights. Received: an "
                    f"object of type {type(given).__name__}"
                )
        return data.first_batches(x, samples)
    if y is None:
        raise ValueError(
            "Invalid value for argument `y`: expected a label for each sample. "
            "Received: y=None"
        )
    labels = arrays.as_array(y)
    if not labels.shape or not labels.size:
        raise ValueError(
            "Invalid value for argument `y`: expected a label for each sample, and at "
            f"least one.{remedy_for_labels(y, 'y')} Received: {describe_labels(y, 'y')}"
        )
    inputs = arrays.check_inputs(x, len(labels))
    if sample_weight is None:
        return inputs, labels, None
    return (
        inputs,
        labels,
        arrays.check_inputs(sample_weight, len(labels), "sample_weight"),
    )


def _in_batches(function, model, inputs, batch_size):
    """Returns the result of a function of a model and inputs, computed in batches."""
    count = len(keras.tree.flatten(inputs)[0])
    batches = arrays.split_evenly(np.arange(count), batch_size)
    parts = [function(model, arrays.take(inputs, batch)) for batch in batches]
    return np.concatenate(parts)[:count]


def _problems(subject):
    """Returns the problems, without those that follow from others."""
    loss = subject.loss
    bad_values = wrong_values(subject.outputs)
    found = [bad_values and (wrong_inputs(subject.inputs) or bad_values)]
    found.append(subject.probabilities)
    if subject.clips_outputs:
        found.append(subject.log_probabilities)
    if subject.no_numbers is not None:
        found.append(subject.no_numbers)
    else:
        ignored = getattr(loss, "ignore_class", None)
        binary = None if loss is None else compiling.is_binary(loss)
        shape = subject.outputs.shape
        found += wrong_labels(subject.labels, shape, ignored, binary)
    if loss is not None:
        found.append(compiling.wrong_kind(loss, subject.kind))
        if subject.probabilities is None:
            found.append(compiling.wrong_loss(loss))
        if not any(found):
            found.append(compiling.failing_loss(loss, *subject.given))
    return found


def _hints(subject):
    """Returns the hints."""
    clipping, classes = subject.clipping, subject.outputs.shape[-1]
    found = []
    if wrong_values(subject.outputs) is None:
        found.append(wrong_inputs(subject.inputs))
    if not subject.clips_outputs:
        found.append(subject.log_probabilities)
    if subject.probabilities is None:
        found.append(never_negative(subject.model, subject.outputs))
    if clipping is None:
        return [*found, compiling.unclipped(subject.loss)]
    found.append(compiling.small_learning_rate(subject.model, clipping, classes))
    return found


def _norms(subject):
    """Returns quantiles of the norms of logits, and the share that is clipped."""
    logits = finite_rows(subject.outputs)
    if subject.probabilities is not None or not len(logits):
        return None, None
    clipping = subject.clipping
    norms = np.linalg.norm(logits, getattr(clipping, "p", 2), axis=-1)
    quantiles = tuple(map(float, np.quantile(norms, _QUANTILES)))
    # The clipping of a layer cannot be measured behind it.
    is_hidden = clipping is None or not getattr(clipping, "training_only", True)
    return quantiles, None if is_hidden else float((norms > clipping.tau).mean())
