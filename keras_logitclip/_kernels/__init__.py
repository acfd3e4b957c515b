"""The computations behind `ops`, in the form that suits each backend."""

import keras

from keras_logitclip._arguments import resolve_axis
from keras_logitclip._kernels import clip
from keras_logitclip._kernels import cross_entropy
from keras_logitclip._kernels import multiplier
from keras_logitclip._numerics import compute_dtype_of


def logit_clip(logits, tau: float, p: float, axis: int):
    """Clips the norm of the logits along `axis`."""
    logits = keras.ops.convert_to_tensor(logits)
    compute_dtype_of(logits)  # Refuses integers.
    last = resolve_axis(axis, len(logits.shape)) == len(logits.shape) - 1
    if last and _has_torch_form(logits, tau, p):
        from keras_logitclip._kernels import torch as torch_kernels

        return torch_kernels.logit_clip(logits, tau)
    if last and _has_graph_form(tau, p):
        return clip.clip_rows(logits, tau)
    return clip.logit_clip(logits, tau, p, axis)


def clipped_cross_entropy(labels, logits, tau: float, p: float, counted=None):
    """Computes the softmax cross-entropy of each row of clipped logits.

    Args:
        labels: Class ids of shape `(N,)` and dtype int32, in [0, K) or -1 for a
            loss and a gradient of NaN; or the weights of the classes, of the
            shape of `logits` and the dtype to compute in.
        logits: Floating-point tensor of shape `(N, K)`.
        tau: Threshold of the norm.
        p: Order of the norm.
    """
    if _has_torch_form(logits, tau, p):
        from keras_logitclip._kernels import torch as torch_kernels

        return torch_kernels.clipped_cross_entropy(labels, logits, tau)
    if _has_graph_form(tau, p):
        return cross_entropy.clipped_cross_entropy(labels, logits, tau)
    return cross_entropy.clip_then_cross_entropy(labels, logits, tau, p)


def _has_fast_form(tau, p):
    return p == 2 and multiplier.MIN_TAU <= tau <= multiplier.MAX_TAU


def _has_graph_form(tau, p):
    return keras.config.backend() in ("tensorflow", "jax") and _has_fast_form(tau, p)


def _has_torch_form(logits, tau, p):
    # Devices that compute in float64, which long rows need.
    return (
        keras.config.backend() == "torch"
        and _has_fast_form(tau, p)
        and logits.device.type in ("cpu", "cuda")
    )
