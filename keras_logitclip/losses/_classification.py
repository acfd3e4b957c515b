"""What the losses of this package share: labels, probabilities and a base class."""

from collections.abc import Callable

import keras
import numpy as np
from keras import ops

from keras_logitclip._arguments import check_axis
from keras_logitclip._arguments import check_flag
from keras_logitclip._arguments import resolve_class_axis
from keras_logitclip._labels import are_class_ids
from keras_logitclip._labels import from_rows
from keras_logitclip._labels import nan_without_class
from keras_logitclip._labels import refuse_probabilities
from keras_logitclip._labels import to_rows
from keras_logitclip._numerics import compute_dtype_of
from keras_logitclip._numerics import constant


class LogitsLoss(keras.losses.Loss):
    """Base of the losses that take logits along one axis, and nothing else."""

    # Read by the losses that wrap another one, like that of Keras's losses.
    from_logits = True

    def __init__(self, axis, reduction, name, dtype):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.axis = check_axis(axis)

    def get_config(self):
        return {**super().get_config(), "axis": self.axis, "dtype": self.dtype}


class ClassificationLoss(LogitsLoss):
    """Base of the losses that take logits, or probabilities if told so."""

    def __init__(self, from_logits, axis, reduction, name, dtype):
        super().__init__(axis, reduction, name, dtype)
        self.from_logits = check_flag(
            "from_logits", from_logits, "`True` for logits or `False` for probabilities"
        )

    def get_config(self):
        return {**super().get_config(), "from_logits": self.from_logits}


def loss_of_rows(function: Callable, y_true, y_pred, from_logits: bool, axis: int):
    """Computes `function(labels, log_probabilities)`, one value per sample.

    Args:
        function: Takes class ids of shape `(N,)`, -1 for what is no class, or
            weights of the classes of shape `(N, K)`, and log-probabilities of
            shape `(N, K)`; returns values of shape `(N,)`.
        y_true: Labels of any accepted shape.
        y_pred: Logits or probabilities.
        from_logits: Whether `y_pred` are logits.
        axis: The class axis.
    """
    if from_logits:
        refuse_probabilities(
            y_pred, remedy="or else give the loss `from_logits=False`."
        )

    def loss(labels, rows):
        return function(labels, _log_probabilities(rows, from_logits))

    return _apply_to_rows(loss, y_true, y_pred, axis)


def loss_of_logits(function: Callable, y_true, y_pred, axis: int):
    """Computes `function(labels, logits)`, one value per sample.

    Like `loss_of_rows`, for losses that are defined on the logits themselves. The
    logits come in the dtype to compute in.
    """
    refuse_probabilities(
        y_pred, remedy="this loss is a function of the logits themselves."
    )
    return _apply_to_rows(function, y_true, y_pred, axis)


def expected_loss(labels, log_probabilities, function: Callable):
    """Returns the loss of each row's label, `function(log p_label)`.

    For soft labels it is the mean over the labels: sum_k y_k function(log p_k).
    `function` has to be finite for every finite log-probability.
    """
    if are_class_ids(labels):
        return nan_without_class(labels, function(pick(log_probabilities, labels)))
    return mean_over_labels(labels, function(log_probabilities))


def mean_over_labels(labels, losses):
    """Returns the entry of each row at its label, or their mean over soft labels."""
    if are_class_ids(labels):
        return nan_without_class(labels, pick(losses, labels))
    return ops.sum(labels * losses, -1)


def pick(values, ids):
    """Returns the entry of each row at the class id (at 0 for what is no class)."""
    ids = ops.maximum(ids, 0)[:, None]
    return ops.squeeze(ops.take_along_axis(values, ids, -1), -1)


def finite_log(x):
    """Returns the logarithm of `x`, or of the smallest normal number above it."""
    dtype = keras.backend.standardize_dtype(x.dtype)
    return ops.log(at_least(x, float(np.finfo(dtype).tiny)))


def at_least(x, minimum: float):
    """Like `ops.maximum`, which makes float32 of float64 on torch."""
    minimum = constant(minimum, x)
    return ops.where(x < minimum, minimum, x)


def one_minus_exp(log_probability):
    """Returns 1 - p, which does not cancel where p is close to 1.

    Its gradient does not vanish where p is close to 0. That of `ops.expm1` would: JAX
    and torch compute it as `expm1(x) + 1`, which rounds to zero below 6e-8.
    """
    probability = ops.exp(log_probability)
    if keras.config.backend() == "openvino":
        # Its `expm1` is the difference that cancels. Elsewhere, `tanh` is less exact.
        near = ops.tanh(log_probability / 2) * (probability + 1)
    else:
        near = ops.expm1(log_probability)
    return -ops.where(log_probability > -1, near, probability - 1)


def _apply_to_rows(function, y_true, y_pred, axis):
    y_true, y_pred = ops.convert_to_tensor(y_true), ops.convert_to_tensor(y_pred)
    axis = resolve_class_axis(axis, y_pred.shape)
    if y_pred.shape[axis] == 1:
        raise ValueError(
            "Expected logits of at least two classes, of shape "
            "`(batch, ..., classes)`. For one logit, take a binary loss of Keras. "
            f"Received: y_pred.shape={tuple(y_pred.shape)}, axis={axis}"
        )
    labels, rows = to_rows(y_true, y_pred, axis)
    values = function(labels, ops.cast(rows, compute_dtype_of(rows)))
    return from_rows(values, y_pred, axis)


def _log_probabilities(rows, from_logits):
    if from_logits:
        return ops.log_softmax(rows, -1)
    log_probabilities = finite_log(rows)
    # A softmax can return a little more than 1, and 1 - p must not be negative.
    return log_probabilities - ops.stop_gradient(at_least(log_probabilities, 0.0))
