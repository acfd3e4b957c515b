"""Numerical building blocks: dtypes, constants and guarded operations."""

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


def row_maximum(rows, axis, least=0.0):
    """Maximum of each row of numbers of at least `least`, also without rows.

    With an initial value, Keras's `max` can be traced neither by torch.compile inside
    a custom gradient nor for the ONNX export of JAX; elsewhere, its `amax` raises
    where a batch is empty.
    """
    if keras.config.backend() in ("torch", "jax"):
        return ops.amax(rows, axis, keepdims=True)
    return ops.max(rows, axis, keepdims=True, initial=least)


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


def inverse_mean(multiplier, counted):
    """Returns 1 / the mean of the multipliers of the counted rows, as a constant.

    Rows without a norm do not count; without any row that counts it is 1.
    """
    counted = ops.logical_and(counted, multiplier > 0)  # False for NaN.
    total = ops.sum(ops.where(counted, multiplier, constant(0.0, multiplier)))
    count = ops.sum(ops.cast(counted, multiplier.dtype))
    return ops.stop_gradient(nonzero(count) / nonzero(total))
