"""Norm, clipping and clipped cross-entropy by automatic differentiation.

This form works for every order of the norm, every threshold and every backend. It
defines no custom gradients, so derivatives of any order, transformations and exports
work without special cases.
"""

import numpy as np
from keras import backend
from keras import ops

from keras_logitclip._labels import are_class_ids
from keras_logitclip._labels import nan_without_class
from keras_logitclip._labels import nearest_class
from keras_logitclip._numerics import compute_dtype_of
from keras_logitclip._numerics import constant
from keras_logitclip._numerics import inverse_mean
from keras_logitclip._numerics import nonzero
from keras_logitclip._numerics import power
from keras_logitclip._numerics import row_maximum


def logit_norm(logits, p: float, axis: int, keepdims: bool):
    """Computes the norm of each row along `axis`."""
    rows = ops.cast(logits, compute_dtype_of(logits))
    _, scale, root = _factored_norm(rows, p, axis)
    norm = scale * root
    return norm if keepdims else ops.squeeze(norm, axis)


def logit_clip(logits, tau: float, p: float, axis: int):
    """Clips the norm of each row along `axis` at `tau`."""
    rows = ops.cast(logits, compute_dtype_of(logits))
    clipped, _ = _clip(rows, tau, p, axis)
    return ops.cast(clipped, logits.dtype)


def clipped_cross_entropy(labels, logits, tau: float, p: float, counted=None):
    """Computes the cross-entropy of each row of clipped logits; see `_kernels`."""
    rows = ops.cast(logits, compute_dtype_of(logits))
    clipped, multiplier = _clip(rows, tau, p, axis=-1)
    if are_class_ids(labels):
        ids = nearest_class(labels, ops.shape(clipped)[-1])
        losses = ops.sparse_categorical_crossentropy(ids, clipped, from_logits=True)
        losses = nan_without_class(ops.equal(ids, labels), losses)
    else:
        # Not the backend's, whose gradient may assume that the weights sum to 1.
        losses = -ops.sum(labels * ops.log_softmax(clipped, -1), -1)
    if counted is None or tau == float("inf"):
        return losses
    factor = inverse_mean(ops.squeeze(multiplier, -1), counted)
    # The difference is zero, but its gradient is the gradient of the losses.
    return losses + (factor - 1) * (losses - ops.stop_gradient(losses))


def _clip(rows, tau, p, axis):
    """Returns the clipped rows and min(1, tau / norm) of each."""
    if tau == float("inf"):
        return rows, None
    scaled, scale, root = _factored_norm(rows, p, axis)
    # The norm is `scale * root`. Because the root is at least 1, the bounded scale
    # gives the same decision without overflow. `<=` is false for NaN, so NaN counts as
    # clipped.
    bounded = ops.where(scale > 2 * tau, constant(2 * tau, scale), scale)
    unclipped = bounded * root <= tau
    # Not selected by `unclipped`: compilers may compute it twice, with two results.
    shrink = tau / nonzero(root)
    # Selected, not multiplied by 1, so that shorter rows are returned bit for bit.
    clipped = ops.where(unclipped, rows, scaled * shrink)
    # Not `ops.maximum`, which on torch would turn float64 into float32.
    return clipped, shrink / ops.where(scale > shrink, scale, shrink)


def _factored_norm(rows, p, axis):
    """Returns `rows / scale`, and the norm of each row as `scale * root`.

    `scale` is the largest magnitude of the row, without a gradient, because neither the
    norm nor the clipped row depends on it. `root` is the norm of `rows / scale`. It
    lies in [1, K], so no power overflows. It is 0 for a row of zeros, and NaN for a row
    with an infinite entry.
    """
    tiny = float(np.finfo(backend.standardize_dtype(rows.dtype)).tiny)
    scale = ops.stop_gradient(row_maximum(ops.abs(rows), axis))
    scale = ops.where(scale < tiny, constant(tiny, scale), scale)
    # Compilers multiply by the reciprocal of the divisor, which they round to zero if
    # it is not a normal number.
    quarter = ops.where(scale > 1, constant(0.25, scale), constant(1.0, scale))
    scaled = (rows * quarter) / (scale * quarter)
    return scaled, scale, _norm(scaled, p, axis)


def _norm(rows, p, axis):
    """Returns the norm of rows whose powers do not overflow.

    Where the norm is not differentiable, its gradient is zero at zero entries (`p=1`),
    and the mean over the largest entries (`p=inf`).
    """
    # Selected at zero, where the derivative of `ops.abs` is 1 on JAX.
    magnitude = ops.where(rows == 0, constant(0.0, rows), ops.abs(rows))
    if p == 1:
        return ops.sum(magnitude, axis, keepdims=True)
    if p == float("inf"):
        # Not the maximum, which differs between backends for NaN and in the gradient of
        # equal entries. NaN is not less than the maximum, so it stays in the mean.
        largest = ops.logical_not(magnitude < row_maximum(magnitude, axis))
        weight = ops.cast(largest, rows.dtype)
        total = ops.sum(weight * magnitude, axis, keepdims=True)
        return total / ops.sum(weight, axis, keepdims=True)
    if p == 2:
        total = ops.sum(rows * rows, axis, keepdims=True)
        return _differentiable_at_zero(ops.sqrt, total)
    powers = _differentiable_at_zero(lambda x: power(x, p), magnitude)
    total = ops.sum(powers, axis, keepdims=True)
    return _differentiable_at_zero(lambda x: power(x, 1 / p), total)


def _differentiable_at_zero(function, x):
    """Applies a function that maps 0 to 0, with derivatives of 0 there, not NaN."""
    return ops.where(x == 0, x, function(nonzero(x)))
