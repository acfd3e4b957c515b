"""The computations behind `ops`, in the form that suits each backend."""

import keras

from keras_logitclip._arguments import resolve_axis
from keras_logitclip._kernels import plain
from keras_logitclip._numerics import compute_dtype_of

# The fused form of the backend, which is the same as long as the process lives.
match keras.config.backend():
    case "torch":
        from keras_logitclip._kernels import torch as fused
    case "jax" | "tensorflow":
        from keras_logitclip._kernels import graph as fused
    case _:
        fused = None

# Thresholds whose squares and quotients stay far from the ends of float32.
_MIN_TAU, _MAX_TAU = 1e-4, 1e6
# The fused forms take the exponentials of clipped logits as they are: between exp(-28)
# and exp(28), so that sums over 2**24 classes and their quotients fit in float32.
_MAX_TAU_OF_EXPONENTIALS = 28


def logit_norm(logits, p: float, axis: int, keepdims: bool):
    """Computes the norm of the logits along `axis`."""
    logits, axis = _standardize(logits, axis)
    if len(logits.shape) == 1:
        return logit_norm(logits[None], p, 1, keepdims)[0]  # See `_standardize`.
    return plain.logit_norm(logits, p, axis, keepdims)


def logit_clip(logits, tau: float, p: float, axis: int):
    """Clips the norm of the logits along `axis`."""
    logits, axis = _standardize(logits, axis)
    if len(logits.shape) == 1:
        return logit_clip(logits[None], tau, p, 1)[0]  # See `_standardize`.
    if axis == len(logits.shape) - 1 and _has_fused_form(logits, tau, p):
        return fused.logit_clip(logits, tau)
    return plain.logit_clip(logits, tau, p, axis)


def clipped_cross_entropy(labels, logits, tau: float, p: float, counted=None):
    """Computes the softmax cross-entropy of each row of clipped logits.

    Args:
        labels: Integer class ids of shape `(N,)`, of which those outside of [0, K)
            have a loss and a gradient of NaN; or the weights of the classes, of the
            shape of `logits` and the dtype to compute in.
        logits: Floating-point tensor of shape `(N, K)`.
        tau: Threshold of the norm.
        p: Order of the norm.
        counted: `None`, or `True` for all rows, or booleans of shape `(N,)`: the
            gradient is then divided by the mean of min(1, tau / norm) over these
            rows, a constant.
    """
    if tau <= _MAX_TAU_OF_EXPONENTIALS and _has_fused_form(logits, tau, p):
        return fused.clipped_cross_entropy(labels, logits, tau, counted)
    return plain.clipped_cross_entropy(labels, logits, tau, p, counted)


def _standardize(logits, axis):
    """Returns a tensor, and the axis counted from the front.

    A single vector is better given as a matrix: OpenVINO adds up vectors wrongly.
    """
    logits = keras.ops.convert_to_tensor(logits)
    compute_dtype_of(logits)  # Refuses integers.
    return logits, resolve_axis(axis, len(logits.shape))


def _has_fused_form(logits, tau, p):
    in_range = p == 2 and _MIN_TAU <= tau <= _MAX_TAU
    return in_range and fused is not None and fused.serves(logits)
