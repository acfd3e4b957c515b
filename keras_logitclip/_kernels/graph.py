"""Clipping with the norm of order 2 and softmax cross-entropy, on JAX and TensorFlow.

The names are those of `_kernels`. The gradient is computed from the logits and a few
numbers per row. One of them is the `projection`, u . s z / tau^2.
"""

import operator
from collections import namedtuple

from keras import ops

from keras_logitclip._kernels.compilers import compile_large
from keras_logitclip._kernels.compilers import entries
from keras_logitclip._kernels.compilers import row_sum
from keras_logitclip._labels import are_class_ids
from keras_logitclip._labels import as_column
from keras_logitclip._labels import nan_without_class
from keras_logitclip._labels import nearest_class
from keras_logitclip._numerics import inverse_mean
from keras_logitclip._numerics import scale_of_squares

# What the gradient needs besides labels and logits, as columns: `multiplier` is s,
# `total` the sum of the exponentials, and `weight` the sum of the class weights.
Residuals = namedtuple("Residuals", "multiplier total weight projection")


def serves(logits) -> bool:
    """Returns whether this form, which computes in float32, can be used."""
    return logits.dtype != "float64"


def logit_clip(logits, tau: float):
    """Clips the norm of each row along the last axis; see `_kernels`."""

    def backward(logits, multiplier, is_clipped, upstream):
        clipped = ops.cast(logits, "float32") * multiplier
        upstream = ops.cast(upstream, "float32")
        projection = row_sum(operator.mul, [upstream, clipped]) / tau**2
        gradient = upstream - clipped * ops.where(is_clipped, projection, 0.0)
        return ops.cast(gradient * multiplier, logits.dtype)

    @ops.custom_gradient
    def differentiable(logits):
        rows = ops.cast(logits, "float32")
        multiplier, is_clipped = _multiplier(rows, tau)

        def gradient(upstream):
            compiled = compile_large(backward, logits)
            return compiled(logits, multiplier, is_clipped, upstream)

        # Not compiled, because functions of XLA cannot be exported to every format.
        # Rows that stay have the multiplier 1; selecting them would cost a tensor.
        return ops.cast(rows * multiplier, logits.dtype), gradient

    return differentiable(logits)


def clipped_cross_entropy(labels, logits, tau: float, counted=None):
    """Computes the loss of each row; see `_kernels`."""

    def forward(labels, logits, *counted):
        losses, residuals = _forward(labels, ops.cast(logits, "float32"), tau)
        factor = None
        if counted:
            factor = inverse_mean(ops.squeeze(residuals.multiplier, -1), *counted)
        return losses, residuals, factor

    # All tensors are arguments, because JAX can trace only arguments into loops.
    @ops.custom_gradient
    def differentiable(labels, logits, *counted):
        compiled = compile_large(forward, logits)
        losses, residuals, factor = compiled(labels, logits, *counted)

        def gradients(upstream):
            if counted:
                upstream = upstream * factor
            arguments = labels, logits, residuals, upstream
            of_logits = compile_large(_gradient, logits)(*arguments)
            of_labels = None  # Not compiled with the other: it is rarely needed.
            if not are_class_ids(labels):
                of_labels = _gradient_of_labels(*arguments)
            return of_labels, of_logits, *(None for _ in counted)

        return losses, gradients

    return differentiable(labels, logits, *(() if counted is None else (counted,)))


def _forward(labels, logits, tau):
    multiplier, is_clipped = _multiplier(logits, tau)
    if are_class_ids(labels):
        labels = as_column(labels, logits)
        ids = nearest_class(labels, ops.shape(logits)[-1])
        # Everything computed from the multiplier becomes NaN, too.
        multiplier = nan_without_class(ops.equal(ids, labels), multiplier)
        target = entries(logits, ids)
        weight = 1.0
    else:
        target = row_sum(lambda y, z: y * z, [labels, logits])
        weight = row_sum(lambda y: y, [labels])
    total = row_sum(lambda z, s: ops.exp(z * s), [logits], [multiplier])
    # The total is an argument so that it is computed first.
    dot = row_sum(lambda z, s, _: ops.exp(z * s) * z, [logits], [multiplier, total])
    dot = (weight * (dot / total) - target) * multiplier
    projection = dot * ops.cast(is_clipped, "float32") / tau**2  # Not selected: slow.
    losses = weight * ops.log(total) - target * multiplier
    residuals = Residuals(multiplier, total, weight, projection)
    return ops.squeeze(losses, -1), residuals


def _multiplier(logits, tau):
    """Returns min(1, tau / norm) of each row, and which rows are clipped.

    The multiplier is NaN for rows whose norm is NaN, infinite or above 1e33 tau. It is
    not selected, which would be slow for small batches in TensorFlow's graphs.
    """
    shrink = scale_of_squares(tau)
    threshold = shrink * tau
    square = row_sum(lambda z: ops.square(z * shrink), [logits])
    norm = ops.sqrt(ops.maximum(square, 1e-37))  # The square root of 0 has no slope.
    # `0 * norm` is NaN where the norm is infinite: 0 would be a valid multiplier.
    multiplier = threshold / ops.maximum(norm, threshold) + 0 * norm
    return multiplier, norm > threshold


def _gradient(labels, logits, residuals, upstream):
    multiplier, total, weight, projection = residuals
    upstream = upstream[:, None] * multiplier
    clipped = ops.cast(logits, "float32") * multiplier
    softmax = ops.exp(clipped) * (upstream * weight / total)
    if are_class_ids(labels):
        labels = ops.one_hot(labels, ops.shape(logits)[-1], dtype="float32")
    gradient = softmax - clipped * (upstream * projection) - labels * upstream
    return ops.cast(gradient, logits.dtype)


def _gradient_of_labels(labels, logits, residuals, upstream):
    clipped = ops.cast(logits, "float32") * residuals.multiplier
    return upstream[:, None] * (ops.log(residuals.total) - clipped)
