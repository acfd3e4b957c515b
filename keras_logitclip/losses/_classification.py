"""What the losses of this package share: labels, probabilities and a base class."""

from collections.abc import Callable

import keras
import numpy as np
from keras import ops

from keras_logitclip._kernels.cross_entropy import are_class_ids
from keras_logitclip._kernels.cross_entropy import weight_of_ids
from keras_logitclip._kernels.numerics import compute_dtype_of
from keras_logitclip._kernels.numerics import constant
from keras_logitclip._rows import from_rows
from keras_logitclip._rows import to_rows
from keras_logitclip._validation import check_axis
from keras_logitclip._validation import check_from_logits
from keras_logitclip._validation import refuse_probabilities
from keras_logitclip._validation import resolve_class_axis


class ClassificationLoss(keras.losses.Loss):
    """Base of the losses that compare labels with logits along one axis."""

    def __init__(self, from_logits, axis, reduction, name, dtype):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.from_logits = check_from_logits(from_logits)
        self.axis = check_axis(axis)

    def get_config(self):
        config = super().get_config()
        config.update(
            {"from_logits": self.from_logits, "axis": self.axis, "dtype": self.dtype}
        )
        return config


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
    y_pred = ops.convert_to_tensor(y_pred)
    axis = resolve_class_axis(axis, y_pred.shape)
    if from_logits:
        refuse_probabilities(
            y_pred, remedy="or else give the loss `from_logits=False`."
        )
    labels, rows = to_rows(y_true, y_pred, axis)
    values = function(labels, _log_probabilities(rows, from_logits))
    return from_rows(values, y_pred, axis)


def expected_loss(labels, log_probabilities, function: Callable):
    """Returns the loss of each row's label, `function(log p_label)`.

    For soft labels it is the mean over the labels: sum_k y_k function(log p_k).
    `function` has to be finite for every finite log-probability.
    """
    if are_class_ids(labels):
        values = function(pick(log_probabilities, labels))
        # A factor, not a selected value: the gradient becomes NaN, too.
        return values * weight_of_ids(labels, values)
    return ops.sum(labels * function(log_probabilities), -1)


def pick(values, ids):
    """Returns the entry of each row at the class id (at 0 for what is no class)."""
    ids = ops.maximum(ids, 0)[:, None]
    return ops.squeeze(ops.take_along_axis(values, ids, -1), -1)


def one_minus_exp(log_probability):
    """Returns 1 - p, which does not cancel where p is close to 1."""
    return -ops.expm1(log_probability)


def _log_probabilities(rows, from_logits):
    rows = ops.cast(rows, compute_dtype_of(rows))
    if from_logits:
        return ops.log_softmax(rows, -1)
    tiny = float(np.finfo(keras.backend.standardize_dtype(rows.dtype)).tiny)
    return ops.log(ops.maximum(rows, constant(tiny, rows)))
