"""The computations behind `ops`, in a form for each backend.

Let z be a row of logits, n its norm, s = min(1, tau / n) and y the class weights
(one-hot for a class id). The loss and its gradient are

    loss = sum_k y_k (log sum_j exp(s z_j) - s z_k)
    u = sum(y) softmax(s z) - y
    gradient = s (u - (u . z / n) z / n)    where n > tau, and u elsewhere
"""

import keras

from keras_logitclip._arguments import resolve_axis
from keras_logitclip._kernels import plain
from keras_logitclip._numerics import compute_dtype_of

match keras.config.backend():
    case "torch":
        from keras_logitclip._kernels import torch as fused
    case "jax" | "tensorflow":
        from keras_logitclip._kernels import graph as fused
    case _:
        fused = None

# The squares and quotients of thresholds in this range do not overflow or underflow.
_MIN_TAU, _MAX_TAU = 1e-4, 1e6
# The fused forms do not subtract the maximum before the exponential, as clipped logits
# lie in [-tau, tau]. Sums of 2**24 terms of exp(28) and their quotients fit in float32.
_MAX_TAU_OF_EXPONENTIALS = 28


def logit_norm(logits, p: float, axis: int, keepdims: bool):
    """Computes the norm of the logits along `axis`."""
    logits, axis = _standardize(logits, axis)
    if len(logits.shape) == 1:  # OpenVINO sums vectors wrongly.
        return logit_norm(logits[None], p, 1, keepdims)[0]
    return plain.logit_norm(logits, p, axis, keepdims)


def logit_clip(logits, tau: float, p: float, axis: int):
    """Clips the norm of the logits along `axis`."""
    logits, axis = _standardize(logits, axis)
    if len(logits.shape) == 1:  # OpenVINO sums vectors wrongly.
        return logit_clip(logits[None], tau, p, 1)[0]
    if axis == len(logits.shape) - 1 and _has_fused_form(logits, tau, p):
        return fused.logit_clip(logits, tau)
    return plain.logit_clip(logits, tau, p, axis)


def clipped_cross_entropy(labels, logits, tau: float, p: float, counted=None):
    """Computes the softmax cross-entropy of each row of clipped logits.

    Args:
        labels: Integer class ids of shape `(N,)`, for which loss and gradient are NaN
            outside of [0, K); or class weights of the shape of `logits` and the dtype
            of the computation.
        logits: Floating-point tensor of shape `(N, K)`.
        counted: `None` for the exact gradient. Otherwise the gradient is divided by the
            mean of min(1, tau / norm), a constant, over all rows (`True`) or over the
            rows of a boolean tensor of shape `(N,)`.
    """
    if tau <= _MAX_TAU_OF_EXPONENTIALS and _has_fused_form(logits, tau, p):
        return fused.clipped_cross_entropy(labels, logits, tau, counted)
    return plain.clipped_cross_entropy(labels, logits, tau, p, counted)


def _standardize(logits, axis):
    """Returns a tensor, and the axis as an index from the front."""
    logits = keras.ops.convert_to_tensor(logits)
    compute_dtype_of(logits)  # Refuses integers.
    return logits, resolve_axis(axis, len(logits.shape))


def _has_fused_form(logits, tau, p):
    in_range = p == 2 and _MIN_TAU <= tau <= _MAX_TAU
    return in_range and fused is not None and fused.serves(logits)
