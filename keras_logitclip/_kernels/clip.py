"""Norm and clipping, with gradients of their own."""

import keras
from keras import ops

from keras_logitclip._arguments import resolve_axis
from keras_logitclip._kernels import compilers
from keras_logitclip._kernels import reductions
from keras_logitclip._kernels.multiplier import is_unclipped
from keras_logitclip._kernels.multiplier import row_multiplier
from keras_logitclip._numerics import compute_dtype_of
from keras_logitclip._numerics import factored_norm
from keras_logitclip._numerics import nonzero
from keras_logitclip._numerics import power
from keras_logitclip._numerics import row_maximum


def logit_norm(logits, p, axis, keepdims):
    logits = ops.convert_to_tensor(logits)
    axis = resolve_axis(axis, len(logits.shape))
    compute_dtype = compute_dtype_of(logits)

    def value(logits):
        _, scale, root = factored_norm(ops.cast(logits, compute_dtype), p, axis)
        norm = scale * root
        return norm if keepdims else ops.squeeze(norm, axis)

    def vjp(logits, upstream):
        rows = ops.cast(logits, compute_dtype)
        scaled, _, root = factored_norm(rows, p, axis)
        upstream = ops.reshape(upstream, ops.shape(root))
        gradient = upstream * norm_gradient(scaled, root, p, axis)
        return ops.cast(gradient, logits.dtype)

    return differentiate_with_vjp(value, vjp, logits)


def logit_clip(logits, tau, p, axis):
    axis = resolve_axis(axis, len(logits.shape))
    compute_dtype = compute_dtype_of(logits)
    if tau == float("inf"):
        return logits

    def value(logits):
        rows = ops.cast(logits, compute_dtype)
        scaled, scale, root = factored_norm(rows, p, axis)
        clipped = scaled * (tau / nonzero(root))
        # Selected, not multiplied by 1: shorter rows come back bit for bit.
        clipped = ops.where(is_within(scale, root, tau), rows, clipped)
        return ops.cast(clipped, logits.dtype)

    def vjp(logits, upstream):
        # With n the norm and s = tau / n, the Jacobian of s z is
        # s (I - (z / n) (dn/dz)^T) on clipped rows and I on the others.
        rows = ops.cast(logits, compute_dtype)
        upstream = ops.cast(upstream, compute_dtype)
        scaled, scale, root = factored_norm(rows, p, axis)
        along_row = ops.sum(upstream * scaled, axis, keepdims=True) / nonzero(root)
        across = upstream - along_row * norm_gradient(scaled, root, p, axis)
        # `tau / (scale * root)` would overflow in the divisor for huge rows.
        gradient = across * (tau / nonzero(root) / scale)
        gradient = ops.where(is_within(scale, root, tau), upstream, gradient)
        return ops.cast(gradient, logits.dtype)

    return differentiate_with_vjp(value, vjp, logits)


def clip_rows(logits, tau):
    """Clips the norm of order 2 along the last axis: the same, and faster.

    For a `tau` in the range of `multiplier`, and not on torch: the gradient takes
    over what the value has computed.
    """
    compute_dtype = compute_dtype_of(logits)

    def vjp(logits, kept, unit, multiplier, upstream):
        rows = ops.cast(logits, compute_dtype)
        upstream = ops.cast(upstream, compute_dtype)
        if kept is None:
            rescaled = reductions.rescale(rows, unit)
            along = multiplier * reductions.row_dot(upstream, rescaled)
        else:
            along = reductions.row_dot_in_memory(upstream, kept)
        along = ops.where(is_unclipped(unit, multiplier), 0.0, along / tau**2)
        if kept is None:
            across = upstream - reductions.rescale(rows, unit, multiplier, along)
        else:
            across = upstream - kept * along
        return ops.cast(across * (multiplier * unit), logits.dtype)

    @ops.custom_gradient
    def differentiable(logits):
        rows = ops.cast(logits, compute_dtype)
        unit, multiplier = row_multiplier(rows, tau)
        value = reductions.rescale(rows, unit, multiplier)
        # Selected, not multiplied by 1: shorter rows come back bit for bit.
        unclipped = is_unclipped(unit, multiplier)
        value = reductions.select_rows(unclipped, rows, value)
        # In TensorFlow's graphs, whatever takes the value can then reuse its memory.
        kept = value if compilers.fused_by_compiler() else None

        def gradient(upstream):
            compiled = compilers.with_compiler(vjp, logits)
            return compiled(logits, kept, unit, multiplier, upstream)

        return ops.cast(value, logits.dtype), gradient

    return differentiable(logits)


def norm_gradient(scaled, root, p, axis):
    """Returns the gradient of the norm: sign(z) (|z| / norm)^(p - 1).

    At entries where the norm is not differentiable this is the sub-gradient
    of the smallest magnitude for p = 1 (zero at zero entries) and the mean
    over the largest entries for p = inf.
    """
    if p == 2:
        return scaled / nonzero(root)
    if p == 1:
        return ops.sign(scaled)
    magnitude = ops.abs(scaled)
    if p == float("inf"):
        largest = magnitude == row_maximum(magnitude, axis)
        largest = ops.cast(largest, scaled.dtype)
        count = ops.sum(largest, axis, keepdims=True)
        return ops.sign(scaled) * largest / count
    return ops.sign(scaled) * power(magnitude / nonzero(root), p - 1)


def is_within(scale, root, tau):
    # Not `norm > tau`: of the two, only this one is false for NaN, and rows
    # that have no norm must not pass as unclipped.
    return scale * root <= tau


def differentiate_with_vjp(value, vjp, logits):
    """Applies `value(logits)`, with `vjp(logits, upstream)` as its gradient.

    Both are functions of the logits and share nothing else: on torch, what
    `vjp` took over from `value` would count as a constant in derivatives of
    second order, which would silently be wrong.
    """
    # Keras's NumPy and OpenVINO backends only infer, and their
    # `custom_gradient` warns of that at every call.
    if keras.config.backend() in ("numpy", "openvino"):
        return value(logits)

    @ops.custom_gradient
    def differentiable(logits):
        def gradient(*args, upstream=None):
            # TensorFlow and JAX call `gradient(upstream)`, torch
            # `gradient(logits, upstream=upstream)` with a copy of the logits
            # that it protects from in-place changes.
            if upstream is None:
                return vjp(logits, *args)
            return vjp(*args, upstream)

        return value(logits), gradient

    return differentiable(logits)
