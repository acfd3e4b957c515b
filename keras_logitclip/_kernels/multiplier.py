"""The factor s = min(1, tau / norm) of each row, for the norm of order 2.

As fast as a norm can be: no pass over the logits for their maximum, unless a row
turns out to need it.
"""

from collections import namedtuple

import keras
from keras import ops

from keras_logitclip._kernels import compilers
from keras_logitclip._kernels import reductions
from keras_logitclip._numerics import constant
from keras_logitclip._numerics import pth_root

# Thresholds whose squares and quotients stay far from the ends of float32.
MIN_TAU, MAX_TAU = 1e-4, 1e6

# Norms up to `max_norm` are safe to square and to multiply by exp(MAX_EXPONENT),
# and so are the squares of s that go with them; every number of the dtype is safe
# after multiplication by `shrink`. That is a power of two and exact; what vanishes
# is nothing to a row that `MIN_TAU` clips.
Range = namedtuple("Range", "max_norm shrink")
RANGES = {"float32": Range(1e12, 2.0**-80), "float64": Range(1e100, 2.0**-600)}


def range_of(logits) -> Range:
    return RANGES[keras.backend.standardize_dtype(logits.dtype)]


def row_multiplier(logits, tau: float):
    """Returns a scalar unit, 1 or `shrink`, and s / unit of each row.

    s alone may be too small for the dtype. It is NaN where a row has no norm.
    """
    norm, unit = _norm_in_unit(logits)
    norm = ops.where(ops.isfinite(norm), norm, constant(float("nan"), norm))
    unclipped = norm <= tau * unit  # False for NaN.
    clipping = tau / ops.where(unclipped, constant(1.0, norm), norm)
    return unit, ops.where(unclipped, 1 / unit, clipping)


def is_unclipped(unit, multiplier):
    """Whether s is 1, for what `row_multiplier` returns; false for NaN."""
    return multiplier * unit == 1


def _norm_in_unit(logits):
    """Returns the norm of each row, multiplied by `unit`, and the unit."""
    max_norm, shrink = range_of(logits)
    if compilers.double_precision_is_free() and logits.dtype != "float64":
        wide = ops.cast(logits, "float64")
        norm = pth_root(reductions.row_dot(wide, wide), 2)
        unit = _select_unit(ops.all(norm < max_norm), logits)
        return ops.cast(norm * ops.cast(unit, "float64"), logits.dtype), unit

    square = reductions.row_dot(logits, logits)
    safe = square < max_norm**2  # False for NaN.
    all_safe = ops.all(safe)

    def shrunk_norm():
        small = logits * shrink
        norm = pth_root(reductions.row_dot(small, small), 2)
        return ops.where(safe, pth_root(square, 2) * shrink, norm)

    norm = compilers.cond(all_safe, lambda: pth_root(square, 2), shrunk_norm)
    return norm, _select_unit(all_safe, logits)


def _select_unit(all_safe, logits):
    # Not a Python number: XLA would multiply it into the other factors.
    shrink = range_of(logits).shrink
    return ops.where(all_safe, constant(1.0, logits), constant(shrink, logits))
