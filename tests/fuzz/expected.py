"""The expected results of draws, and the allowed errors.

Beside those of `subjects.py`:

- rows of more than 5000 logits: in proportion, since equal terms add up badly;
- norms and clipped logits: 2e-6 of the norm, or of the largest entry of a row; nothing
  for rows that are shorter than tau, which come back as they are;
- means, sums and weights: 1e-5 of the sum of magnitudes; on PyTorch also in float64,
  where Keras divides in float32;
- half precision: as in float32, and half of its last place where that is rounded once;
  four times that for losses that return it;
- what is below the smallest normal number of float32 may be zero.
"""

from collections import namedtuple

import numpy as np

from tests import oracle
from tests.conftest import BACKEND
from tests.fuzz.subjects import Expected
from tests.fuzz.subjects import Units
from tests.fuzz.subjects import along_norm
from tests.fuzz.subjects import norm_gradient_unit
from tests.fuzz.subjects import shrinking

# Errors are those of a value, and of all entries of a row of the gradient.
Allowed = namedtuple("Allowed", "value gradient value_error gradient_error")
HALF = {"float16": 5e-4, "bfloat16": 4e-3}
TINY = float(np.finfo("float32").tiny)


def unit_of(configuration):
    unit = 1e-13 if configuration.dtype == "float64" else 1e-6
    return unit * max(1, configuration.classes / 5000)


def expect(configuration, inputs, z):
    """The values and gradients of logits, which are those of the inputs or close."""
    compute = _clipped if configuration.kind in ("clip", "layer") else _losses
    with np.errstate(all="ignore"):
        return compute(configuration, inputs, z)


def may_overflow(configuration, z):
    """Which rows are too long for float32, if they are clipped."""
    c = configuration
    norm = oracle.norm(z, 2)
    most = 1e33 * min(1.0, c.tau)
    if c.kind not in ("clip", "layer"):
        if c.subject is None or not c.subject.clips:
            return np.zeros(norm.shape, bool)
        if c.subject.is_cross_entropy:  # Logits are multiplied by exponentials.
            most = min(most, 1e38 / np.exp(min(c.tau, 28.0)))
    return norm > most


def _clipped(c, inputs, z):
    unit, norm, upstream = unit_of(c), oracle.norm(z, c.p), inputs.upstream
    value = oracle.clip(z, c.tau, c.p)
    gradient = oracle.clip_vjp(z, upstream, c.tau, c.p)
    shrink = shrinking(norm, c.tau)
    pull = shrink * along_norm(z, norm, c.p) * np.abs(upstream).max(-1)
    half = HALF.get(c.dtype, 0)
    tiny = _smallest(c)
    value_error = (2 * unit + half) * np.abs(value).max(-1) + tiny
    gradient_error = 2 * unit * pull + half * np.abs(gradient).max(-1) + tiny
    shorter = norm < c.tau * (1 - 4 * unit)
    value_error = np.where(shorter, 0, value_error)[..., None]
    if not c.normalize_gradient:
        gradient_error = np.where(shorter, 0, gradient_error)
        return Allowed(value, gradient, value_error, gradient_error)
    factor = _factor(c, inputs, z)
    gradient = gradient * factor[..., None]
    gradient_error = factor * (gradient_error + (10 * unit + 3 * half) * pull)
    return Allowed(value, gradient, value_error, gradient_error)


def _losses(c, inputs, z):
    part = _by_row(c, inputs.y, z)
    unit, share = unit_of(c), _share_of_rows(c, inputs)
    upstream = inputs.upstream
    if c.reduction != "none":  # One number for all rows.
        upstream = np.expand_dims(upstream, tuple(range(1, share.ndim)))
    pull = share * upstream
    if c.normalize_gradient:
        pull = pull * _factor(c, inputs, z)
    half = HALF.get(c.dtype, 0) * (4 if c.is_half else 1)
    of_share = _unit_of_share(c, inputs)
    of_shares = of_share + 10 * unit * c.normalize_gradient
    largest = np.abs(part.gradient).max(-1)
    gradient_error = part.gradient_error + (of_shares + half) * largest
    value = np.where(inputs.invalid, np.nan, part.value) * share
    gradient = np.where(inputs.invalid, np.nan, pull)[..., None] * part.gradient
    value_error = part.value_error * share + 2 * of_share * np.abs(value)
    if c.is_half:
        value_error = value_error + half * np.abs(value)
    value_error = np.where(inputs.hidden, 0, value_error + _smallest(c))
    if c.reduction != "none":
        rows = tuple(range(1, value.ndim))
        value_error = value_error + 10 * unit * np.abs(value)
        value, value_error = value.sum(rows), value_error.sum(rows)
    gradient_error = gradient_error * np.abs(pull) + _smallest(c)
    # What is hidden is exactly zero.
    gradient_error = np.where(inputs.hidden, 0, gradient_error)
    return Allowed(value, gradient, value_error, gradient_error)


def _by_row(c, y, z):
    """The expected values of all rows, in the shape of the draws."""
    unit, rows = unit_of(c), z.reshape(-1, c.classes)
    if c.kind == "norm":
        part = _norm(rows, c.p, unit)
    else:
        units = Units(unit, 2 * HALF[c.loss_dtype] if c.is_half else 0)
        part = c.subject.expected(y.reshape(rows.shape), rows, units)
    shape = z.shape[:-1]
    return Expected(
        value=np.reshape(part.value, shape),
        gradient=np.reshape(part.gradient, z.shape),
        value_error=np.reshape(part.value_error, shape),
        gradient_error=np.reshape(part.gradient_error, shape),
        scale=None,
    )


def _norm(rows, p, unit):
    norm, gradient = oracle.norm(rows, p), oracle.norm_gradient(rows, p)
    error = norm_gradient_unit(unit, p) * np.abs(gradient).max(-1)
    return Expected(norm, gradient, 2 * unit * norm, error, None)


def _share_of_rows(c, inputs):
    """By what the value of each row is multiplied in the result, as in Keras."""
    shape = inputs.hidden.shape
    rows = tuple(range(1, len(shape)))
    mask = np.ones(shape) if inputs.mask is None else inputs.mask
    share = mask if inputs.weights is None else mask * inputs.weights
    if c.reduction in ("none", "sum"):
        return share
    of_total = share if c.reduction == "mean_with_sample_weight" else mask
    total = of_total.sum(rows, keepdims=True)
    return share / np.where(total > 0, total, 1)


def _unit_of_share(c, inputs):
    is_mean = "mean" in c.reduction or c.reduction == "sum_over_batch_size"
    hides = inputs.weights is not None or inputs.mask is not None
    return 1e-6 if BACKEND == "torch" and is_mean and hides else unit_of(c)


def _factor(c, inputs, z):
    """1 / mean(min(1, tau / norm)) of each draw's rows that count."""
    norm = oracle.norm(z, c.p)
    multiplier = shrinking(norm, c.tau)
    counted = ~inputs.hidden
    if c.kind == "layer" and inputs.mask is not None:
        counted = inputs.mask
    rows = tuple(range(1, norm.ndim))
    count = counted.sum(rows, keepdims=True)
    total = (multiplier * counted).sum(rows, keepdims=True)
    return np.where(count > 0, count, 1) / np.where(count > 0, total, 1)


def _smallest(c):
    """What may be lost of a number that is too small for its dtype."""
    if c.dtype == "float16":
        return 1e-7  # Twice its spacing there.
    if c.kind in ("clip", "layer", "norm") or not c.subject.is_cross_entropy:
        return 3 * TINY * max(1.0, min(c.tau, 1e3))
    # By the logits and by their exponentials, small factors are multiplied at last.
    return 3 * TINY * np.exp(min(c.tau, 28.0)) * max(1.0, min(c.tau, 1e3))
