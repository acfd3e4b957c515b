"""Clipping in the norm of order 2 and softmax cross-entropy, on JAX and TensorFlow.

With z a row of logits, n its norm and s = min(1, tau / n), the loss and its gradient
for the weights y of the classes (one-hot for a class id) are

    loss = sum_k y_k (log sum_j exp(s z_j) - s z_k)
    u = sum(y) softmax(s z) - y
    gradient = s (u - (u . z / n) z / n)    where n > tau, and u elsewhere

Clipped logits lie in [-tau, tau], so that the softmax needs no maximum of the row: the
sum of squares takes the place of that pass. The gradient is computed from the logits
and a few numbers per row, among them u . s z / tau^2, the `projection`.
"""

import math
import operator
from collections import namedtuple

from keras import ops

from keras_logitclip._kernels.compilers import compile_large
from keras_logitclip._kernels.compilers import row_sum
from keras_logitclip._labels import are_class_ids
from keras_logitclip._labels import as_column
from keras_logitclip._labels import nan_without_class
from keras_logitclip._labels import nearest_class
from keras_logitclip._numerics import inverse_mean

# What the gradient needs beside labels and logits, in columns: `multiplier` is s,
# `total` the sum of the exponentials, `weight` that of the labels' weights.
Residuals = namedtuple("Residuals", "multiplier total weight projection")


def serves(logits) -> bool:
    """Whether this form can be used: its numbers are those of float32."""
    return logits.dtype != "float64"


def logit_clip(logits, tau: float):
    """Clips the norm of each row along the last axis; see `_kernels`."""

    def backward(logits, multiplier, unclipped, upstream):
        clipped = ops.cast(logits, "float32") * multiplier
        upstream = ops.cast(upstream, "float32")
        projection = row_sum(operator.mul, [upstream, clipped]) / tau**2
        projection = ops.where(unclipped, 0.0, projection)
        gradient = (upstream - clipped * projection) * multiplier
        return ops.cast(gradient, logits.dtype)

    @ops.custom_gradient
    def differentiable(logits):
        rows = ops.cast(logits, "float32")
        multiplier, unclipped = _multiplier(rows, tau)

        def gradient(upstream):
            return compile_large(backward, logits)(
                logits, multiplier, unclipped, upstream
            )

        # Not compiled: functions of XLA cannot be exported to every format. Selecting
        # the rows that stay, whose multiplier is 1, would cost a tensor of their size.
        return ops.cast(rows * multiplier, logits.dtype), gradient

    return differentiable(logits)


def clipped_cross_entropy(labels, logits, tau: float, counted=None):
    """Computes the loss of each row; see `_kernels`."""

    def forward(labels, logits, *counted):
        losses, residuals = _forward(labels, ops.cast(logits, "float32"), tau)
        if counted:
            multiplier = ops.squeeze(residuals.multiplier, -1)
            return losses, residuals, inverse_mean(multiplier, *counted)
        return losses, residuals, None

    def backward(labels, logits, residuals, upstream):
        gradient = _backward(labels, ops.cast(logits, "float32"), residuals, upstream)
        return ops.cast(gradient, logits.dtype)

    # All tensors are arguments: JAX traces them into loops only then.
    @ops.custom_gradient
    def differentiable(labels, logits, *counted):
        losses, residuals, factor = compile_large(forward, logits)(
            labels, logits, *counted
        )

        def gradients(upstream):
            if counted:
                upstream = upstream * factor
            of_logits = compile_large(backward, logits)(
                labels, logits, residuals, upstream
            )
            of_labels = None  # Not compiled with the other: hardly anybody asks for it.
            if not are_class_ids(labels):
                of_labels = upstream[:, None] * _negative_log_softmax(logits, residuals)
            return of_labels, of_logits, *(None for _ in counted)

        return losses, gradients

    return differentiable(labels, logits, *(() if counted is None else (counted,)))


def _forward(labels, logits, tau):
    multiplier, unclipped = _multiplier(logits, tau)
    if are_class_ids(labels):
        labels = as_column(labels, logits)
        ids = nearest_class(labels, ops.shape(logits)[-1])
        # All that follows from the multiplier becomes NaN, too.
        multiplier = nan_without_class(ops.equal(ids, labels), multiplier)
        target = ops.take_along_axis(logits, ids, -1)
        weight = 1.0
    else:
        target = row_sum(lambda y, z: y * z, [labels, logits])
        weight = row_sum(lambda y: y, [labels])
    total = row_sum(lambda z, s: ops.exp(z * s), [logits], [multiplier])
    # The total is there so that it is computed before.
    dot = row_sum(lambda z, s, _: ops.exp(z * s) * z, [logits], [multiplier, total])
    projection = (weight * (dot / total) - target) * (multiplier / tau**2)
    projection = ops.where(unclipped, 0.0, projection)
    losses = weight * ops.log(total) - target * multiplier
    residuals = Residuals(multiplier, total, weight, projection)
    return ops.squeeze(losses, -1), residuals


def _multiplier(logits, tau):
    """Returns min(1, tau / norm) of each row, and where it is 1.

    It is NaN for rows that have no norm, and for those whose norm is above 1e33 tau.
    """
    shrink = _power_of_two_for_squares(tau)
    threshold = shrink * tau
    square = row_sum(lambda z: ops.square(z * shrink), [logits])
    unclipped = square <= threshold**2  # False for NaN.
    # Selected so that the ratio is 1: compilers may add up the square more than once,
    # and find a row clipped here and not there.
    ratio = ops.sqrt(ops.where(unclipped, threshold**2, square)) / threshold
    # What is added is NaN where the ratio is infinite: 0 would pass for a multiplier.
    return ops.where(unclipped, 1.0, 1 / ratio + 0 * ratio), unclipped


def _power_of_two_for_squares(tau):
    """Returns by what logits are multiplied before they are squared.

    The square of a norm of 1e-5 tau, below which it may vanish, and that of 1e33 tau
    are then in the range of float32. Powers of two keep all digits.
    """
    _, exponent = math.frexp(tau)
    return 2.0 ** (-46 - exponent)


def _backward(labels, logits, residuals, upstream):
    multiplier, total, weight, projection = residuals
    upstream = upstream[:, None] * multiplier
    clipped = logits * multiplier
    softmax = ops.exp(clipped) * (upstream * weight / total)
    gradient = softmax - clipped * (upstream * projection)
    if not are_class_ids(labels):
        return gradient - labels * upstream
    # Not `==`, whose result has no known rank in a graph of TensorFlow.
    classes = ops.arange(ops.shape(logits)[-1], dtype=labels.dtype)
    is_label = ops.equal(as_column(labels, logits), classes)
    return gradient - ops.where(is_label, upstream, 0.0)


def _negative_log_softmax(logits, residuals):
    logits = ops.cast(logits, "float32")
    return ops.log(residuals.total) - logits * residuals.multiplier
