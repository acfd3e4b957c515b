"""Norm, clipping and its cross-entropy in operations that differentiate themselves.

This is the form for every order of the norm, every threshold and every backend: no
operation here has a gradient of its own, so that derivatives of any order and kind,
transformations and exported graphs need nothing else.
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
        # Not the backend's own, whose gradient may take the sum of weights for 1.
        losses = -ops.sum(labels * ops.log_softmax(clipped, -1), -1)
    if counted is None or tau == float("inf"):
        return losses
    factor = inverse_mean(ops.squeeze(multiplier, -1), counted)
    # The difference is zero, and its gradient that of the losses.
    return losses + (factor - 1) * (losses - ops.stop_gradient(losses))


def _clip(rows, tau, p, axis):
    """Returns the clipped rows and min(1, tau / norm) of each."""
    if tau == float("inf"):
        return rows, None
    scaled, scale, root = _factored_norm(rows, p, axis)
    # The norm is `scale * root`; as the root is at least 1, this bound decides the same
    # without overflow. Not `>`: of the two, only this one is false for NaN, which must
    # not pass as unclipped.
    bounded = ops.where(scale > 2 * tau, constant(2 * tau, scale), scale)
    unclipped = bounded * root <= tau
    # Not selected by `unclipped`, which compilers may compute twice, with two results.
    shrink = tau / nonzero(root)
    # Selected, not multiplied by 1: shorter rows come back bit for bit.
    clipped = ops.where(unclipped, rows, scaled * shrink)
    return clipped, shrink / ops.maximum(scale, shrink)


def _factored_norm(rows, p, axis):
    """Returns `rows / scale`, and the norm of each row as `scale * root`.

    `scale` is the largest magnitude of the row and a constant: neither the norm nor
    the clipped row depends on it. `root`, the norm of the row divided by it, lies in
    [1, K], so that no power overflows or underflows. It is 0 for a row of zeros, and
    NaN for one with an infinite entry.
    """
    tiny = float(np.finfo(backend.standardize_dtype(rows.dtype)).tiny)
    scale = ops.stop_gradient(row_maximum(ops.abs(rows), axis))
    scale = ops.where(scale < tiny, constant(tiny, scale), scale)
    # Compilers multiply by the reciprocal of the divisor, and flush that to zero where
    # it is no normal number.
    quarter = ops.where(scale > 1, constant(0.25, scale), constant(1.0, scale))
    scaled = (rows * quarter) / (scale * quarter)
    return scaled, scale, _norm(scaled, p, axis)


def _norm(rows, p, axis):
    """Returns the norm of rows whose powers are in range.

    Its gradient is that of the smallest magnitude for p = 1 (zero at zero entries),
    and the mean over the largest entries for p = inf.
    """
    # Selected at zero, where the derivative of `ops.abs` is 1 on JAX.
    magnitude = ops.where(rows == 0, constant(0.0, rows), ops.abs(rows))
    if p == 1:
        return ops.sum(magnitude, axis, keepdims=True)
    if p == float("inf"):
        # A mean: backends differ in whether a maximum notices NaN, which is not less
        # than it, and in how its gradient divides between equals.
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
    """Applies a function that keeps 0, with derivatives of 0 there in place of NaN."""
    return ops.where(x == 0, x, function(nonzero(x)))
