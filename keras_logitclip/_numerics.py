"""Numerical building blocks: norms without overflow, and guarded operations."""

import keras
import numpy as np
from keras import ops


def compute_dtype_of(logits) -> str:
    """The dtype to compute in: float32, or float64 for float64 logits."""
    dtype = keras.backend.standardize_dtype(logits.dtype)
    if "float" not in dtype:
        raise ValueError(
            "Invalid dtype for argument `logits`: expected floating-point "
            "logits. Cast them, for example with "
            f'`keras.ops.cast(logits, "float32")`. Received: dtype={dtype}'
        )
    # OpenVINO has no float64 arithmetic: it computes in float32 unasked.
    double = dtype == "float64" and keras.config.backend() != "openvino"
    return "float64" if double else "float32"


def factored_norm(rows, p, axis):
    """Returns `rows / scale`, and the norm of each row as `scale * root`.

    `scale` is the largest magnitude in the row and `root` the norm of the row
    divided by it, which lies in [1, K]: no power overflows or underflows, for
    rows as far out as 1e30 or 1e-30 in float32. A row of zeros has `scale` 1
    and `root` 0.

    `scale` stays within the numbers whose reciprocal is a normal number, too:
    compilers turn the division into a multiplication by the reciprocal, and
    flush that to zero otherwise. At the ends of the range this lets `root`
    leave [1, K] by a factor of 4.
    """
    tiny = float(np.finfo(keras.backend.standardize_dtype(rows.dtype)).tiny)
    magnitude = ops.abs(rows)
    scale = nonzero(row_maximum(magnitude, axis))
    scale = ops.clip(scale, constant(tiny, scale), constant(1 / tiny, scale))
    scaled = rows / scale
    if p == 2:
        root = pth_root(ops.sum(scaled * scaled, axis, keepdims=True), 2)
    else:
        root = norm_of_magnitude(magnitude / scale, p, axis)
    root = ops.where(ops.isfinite(root), root, constant(float("nan"), root))
    return scaled, scale, root


def norm_of_magnitude(magnitude, p, axis):
    if p == 1:
        return ops.sum(magnitude, axis, keepdims=True)
    peak = row_maximum(magnitude, axis)
    if p == float("inf"):
        # Backends differ in whether a maximum notices NaN; a sum does.
        noticed = ops.isnan(ops.sum(magnitude, axis, keepdims=True))
        return ops.where(noticed, constant(float("nan"), peak), peak)
    total = ops.sum(power(magnitude / nonzero(peak), p), axis, keepdims=True)
    return peak * pth_root(total, p)


def row_maximum(rows, axis, least=0.0):
    """Maximum of each row of numbers of at least `least`, also without rows.

    With an initial value, Keras's `max` can be traced neither by torch.compile inside
    a custom gradient nor for the ONNX export of JAX; elsewhere, its `amax` raises
    where a batch is empty.
    """
    if keras.config.backend() in ("torch", "jax"):
        return ops.amax(rows, axis, keepdims=True)
    return ops.max(rows, axis, keepdims=True, initial=least)


def pth_root(total, p):
    """The p-th root, with a finite derivative (zero) where the total is zero.

    The derivative reaches the user in derivatives of second order only.
    """
    safe = nonzero(total)
    root = ops.sqrt(safe) if p == 2 else power(safe, 1 / p)
    return ops.where(total == 0, total, root)


def power(base, exponent):
    return ops.power(base, constant(exponent, base))


def nonzero(x):
    """Replaces zero by one, so that `0 / x` is 0 where it would be NaN."""
    return ops.where(x == 0, constant(1.0, x), x)


def constant(value, like):
    """A number as a tensor of the dtype of `like`.

    Given a Python number and a float64 tensor, several of Keras's functions
    compute in float32.
    """
    return ops.convert_to_tensor(value, dtype=like.dtype)


def at_least(x, minimum: float):
    """Returns `ops.maximum`, which on torch makes float32 of float64."""
    minimum = constant(minimum, x)
    return ops.where(x < minimum, minimum, x)


def finite_log(x):
    """Returns the logarithm of `x`, or of the smallest normal number above it."""
    dtype = keras.backend.standardize_dtype(x.dtype)
    return ops.log(at_least(x, float(np.finfo(dtype).tiny)))


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


def box_cox(log_probability, q: float):
    """Returns (1 - p**q) / q, precise where p**q is close to 1."""
    return one_minus_exp(q * log_probability) / q


def inverse_of_mean(values, counted):
    """Returns 1 / mean of the positive values that count, and 1 if none does."""
    counted = ops.cast(counted, values.dtype)
    total = ops.sum(ops.where(counted == 1, values, ops.zeros_like(values)))
    mean_exists = total > 0  # False for NaN.
    inverse = ops.sum(counted) / ops.where(mean_exists, total, ops.ones_like(total))
    return ops.where(mean_exists, inverse, ops.ones_like(total))
