"""Numerical building blocks: dtypes, constants and guarded operations."""

import math

import keras
import numpy as np
from keras import ops


def compute_dtype_of(logits) -> str:
    """Returns the dtype to compute in: float64 for float64 logits, else float32."""
    dtype = keras.backend.standardize_dtype(logits.dtype)
    if "float" not in dtype:
        raise ValueError(
            "Invalid dtype for argument `logits`: expected floating-point logits. Cast "
            'them, for example with `keras.ops.cast(logits, "float32")`. Received: '
            f"dtype={dtype}"
        )
    # OpenVINO computes float64 in float32.
    double = dtype == "float64" and keras.config.backend() != "openvino"
    return "float64" if double else "float32"


def row_maximum(rows, axis, least=0.0):
    """Returns the maximum of each row of numbers that are at least `least`.

    An empty batch is allowed. On the other backends that needs an initial value,
    because `amax` raises an error for it. On PyTorch and JAX an initial value would
    break `torch.compile` inside a custom gradient and JAX's export to ONNX.
    """
    if keras.config.backend() in ("torch", "jax"):
        return ops.amax(rows, axis, keepdims=True)
    return ops.max(rows, axis, keepdims=True, initial=least)


def power(base, exponent):
    return ops.power(base, constant(exponent, base))


def nonzero(x):
    """Replaces 0 by 1, so that `0 / x` is 0 instead of NaN."""
    return ops.where(x == 0, constant(1.0, x), x)


def constant(value, like):
    """Returns a number as a tensor of the dtype of `like`.

    Several of Keras's functions compute a Python number and a float64 tensor in
    float32.
    """
    return ops.convert_to_tensor(value, dtype=like.dtype)


def at_least(x, minimum: float):
    """Returns `ops.maximum`, which on torch would turn float64 into float32."""
    minimum = constant(minimum, x)
    return ops.where(x < minimum, minimum, x)


def scale_of_squares(tau, is_double=False):
    """Returns a power of two, to multiply rows by before they are squared.

    With it, the squares of norms from 1e-5 tau to 1e33 tau are in the range of float32,
    or 1e-3 tau to 1e300 tau of float64. Multiplication by a power of two is exact.
    """
    return 2.0 ** -(math.frexp(tau)[1] + (500 if is_double else 46))


def finite_log(x):
    """Returns `log(max(x, tiny))`, where `tiny` is the smallest normal number."""
    dtype = keras.backend.standardize_dtype(x.dtype)
    return ops.log(at_least(x, float(np.finfo(dtype).tiny)))


def one_minus_exp(log_probability):
    """Returns 1 - p without cancellation where p is close to 1.

    The gradient does not vanish where p is close to 0. The gradient of `ops.expm1`
    does: JAX and torch compute it as `expm1(x) + 1`, which is zero for p below 6e-8.
    """
    probability = ops.exp(log_probability)
    if keras.config.backend() == "openvino":
        # OpenVINO computes `expm1` as `exp(x) - 1`. On the others, `tanh` is less
        # exact.
        near = ops.tanh(log_probability / 2) * (probability + 1)
    else:
        near = ops.expm1(log_probability)
    return -ops.where(log_probability > -1, near, probability - 1)


def box_cox(log_probability, q: float):
    """Returns (1 - p**q) / q without cancellation where p**q is close to 1."""
    return one_minus_exp(q * log_probability) / q


def inverse_mean(multiplier, counted):
    """Returns 1 / mean(multiplier) over the counted rows, as a constant.

    Rows whose norm is not finite are left out. If no row is left, the result is 1.
    """
    counted = ops.logical_and(counted, multiplier > 0)  # False for NaN.
    total = ops.sum(ops.where(counted, multiplier, constant(0.0, multiplier)))
    count = ops.sum(ops.cast(counted, multiplier.dtype))
    return ops.stop_gradient(nonzero(count) / nonzero(total))
