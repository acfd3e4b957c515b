"""The losses that are drawn, around each other, and their expected values.

Each makes the loss of the library, and computes its value and gradient by row, from the
reference of the tests, with the errors that the tests allow:

- a loss of the table: 1e-5 of the value and 2e-6 of what the loss can be at most; 2e-5
  of the largest entry of the gradient and 1e-8 of what it can be, or 1e-6 where it is a
  small difference: for soft labels, and for rows that are sure of a class;
- cross-entropy: 1e-6 of the value and of the largest gradient that a row could have;
- around these, 1e-6 l / 5 for logits that were clipped to a length l above 5.

In float64, 1e-13 takes the place of 1e-6.
"""

from collections import namedtuple
from dataclasses import dataclass
from functools import cache
from typing import Any

import keras
import numpy as np

from keras_logitclip import LogitClipLoss
from keras_logitclip import losses
from tests import loss_cases
from tests import oracle
from tests.loss_cases import CASES
from tests.loss_cases import scale_of

# The relative errors of what is computed, and of clipped logits if half precision
# holds them.
Units = namedtuple("Units", "computed stored")
# An error that is allowed where a number says nothing; its product with 0 is 0.
ANY = 1e99
# By row. `scale` is by how much the gradient changes with the logits.
Expected = namedtuple("Expected", "value gradient value_error gradient_error scale")


class Subject:
    """A loss, the labels that it takes, and what its reference costs."""

    takes_ids = takes_weights = takes_any_axis = True
    is_cross_entropy = clips = False
    # Whether an id outside of the classes gives NaN on every backend.
    gives_nan = True
    # Of the time of a formula of probabilities.
    cost = 1


@dataclass(frozen=True)
class Table(Subject):
    """A loss of `loss_cases.py`."""

    name: str

    @property
    def is_cross_entropy(self):
        return self.name == "CE"

    @property
    def cost(self):
        return 20 if self.name.startswith("Bi-tempered") else 1

    def loss(self, classes, **kwargs):
        return loss_cases.build(self.name, classes, **kwargs)

    def expected(self, y, z, units):
        if self.is_cross_entropy:
            return _cross_entropy(y, z, units.computed)
        given, formula = _arguments(self.name, z.shape[-1]), CASES[self.name].formula
        value = formula(y, z, **given)
        gradient = loss_cases.gradient(formula, y, z, **given)
        expected = _with_errors(self.name, value, gradient, y, z, units.computed)
        if self.name != "Bootstrap-hard":
            return expected
        # Rounding decides between classes that are as probable as that: that of
        # float32, in which Keras looks for the largest.
        rounding = 4 * (1e-6 + units.stored) * (1 + np.abs(z).max(-1))
        is_tie = _lead(z) < rounding
        return expected._replace(
            value_error=expected.value_error + np.where(is_tie, rounding, 0),
            gradient_error=np.where(is_tie, ANY, expected.gradient_error),
        )


@dataclass(frozen=True)
class OfKeras(Subject):
    """A loss of Keras."""

    name: str

    gives_nan = False

    @property
    def is_cross_entropy(self):
        return self.name in ("sparse", "categorical", "smoothed")

    @property
    def takes_ids(self):
        return self.name == "sparse"

    @property
    def takes_weights(self):
        return self.name != "sparse"

    @property
    def takes_any_axis(self):
        return self.name in ("sparse", "categorical")

    def loss(self, classes, axis=-1, **kwargs):
        if self.name == "squared":
            return keras.losses.MeanSquaredError(**kwargs)
        if self.name == "binary":
            return keras.losses.BinaryCrossentropy(from_logits=True, **kwargs)
        kwargs = {"from_logits": True, "axis": axis, **kwargs}
        if self.name == "sparse":
            return keras.losses.SparseCategoricalCrossentropy(**kwargs)
        smoothing = 0.1 if self.name == "smoothed" else 0.0
        return keras.losses.CategoricalCrossentropy(label_smoothing=smoothing, **kwargs)

    def expected(self, y, z, units):
        if self.name == "smoothed":
            y = 0.9 * y + 0.1 / z.shape[-1]
        # Keras rounds weights of the classes to the dtype of the loss.
        unit = units.computed + units.stored
        if self.is_cross_entropy:
            return _cross_entropy(y, z, unit)
        unit = max(unit, 1e-6)  # Keras takes means of float64 in float32.
        formula = {"binary": _binary_cross_entropy, "squared": _squared_error}
        value = formula[self.name](y, z)
        gradient = loss_cases.gradient(formula[self.name], y, z)
        largest = 1 + np.abs(z).max(-1)
        value_error = 10 * unit * value + 2 * unit
        return Expected(value, gradient, value_error, 20 * unit * largest, largest)


class Around(Subject):
    """A loss around another one, `inner`."""

    @property
    def takes_ids(self):
        return self.inner.takes_ids

    @property
    def takes_weights(self):
        return self.inner.takes_weights

    @property
    def takes_any_axis(self):
        return self.inner.takes_any_axis

    @property
    def gives_nan(self):
        return self.inner.gives_nan

    @property
    def cost(self):
        return self.inner.cost


@dataclass(frozen=True)
class Clipped(Around):
    """`LogitClipLoss`."""

    inner: Any
    tau: float
    p: float = 2

    clips = True

    @property
    def is_cross_entropy(self):
        return self.inner.is_cross_entropy

    @property
    def gives_nan(self):
        return self.inner.gives_nan or self.is_cross_entropy

    def loss(self, classes, reduction, normalize_gradient=False, **kwargs):
        return LogitClipLoss(
            self.inner.loss(classes, reduction="sum_over_batch_size", **kwargs),
            self.tau,
            self.p,
            normalize_gradient=normalize_gradient,
            reduction=reduction,
            **kwargs,
        )

    def expected(self, y, z, units):
        inner = self.inner.expected(y, oracle.clip(z, self.tau, self.p), units)
        norm = oracle.norm(z, self.p)
        length = np.minimum(norm, self.tau)
        rounding = units.computed * np.maximum(0, length / 5 - 1)
        if not (self.is_cross_entropy and self.p == 2):
            rounding = rounding + units.stored * length
        rounding = rounding * inner.scale
        pull = inner.gradient_error + rounding
        if not self.is_cross_entropy or self.p != 2:
            pull = pull + units.computed * np.abs(inner.gradient).max(-1)
            pull = pull * along_norm(z, norm, self.p)
        return Expected(
            inner.value,
            oracle.clip_vjp(z, inner.gradient, self.tau, self.p),
            inner.value_error + rounding,
            shrinking(norm, self.tau) * pull,
            inner.scale,
        )


@dataclass(frozen=True)
class ValueClipped(Around):
    """`LogitValueClip`."""

    inner: Any
    limit: float

    gives_nan = False  # Logits that are clipped have no gradient, whatever the label.

    def loss(self, classes, reduction, **kwargs):
        inner = self.inner.loss(classes, reduction="sum_over_batch_size", **kwargs)
        return losses.LogitValueClip(inner, self.limit, reduction=reduction, **kwargs)

    def expected(self, y, z, units):
        inner = self.inner.expected(y, np.clip(z, -self.limit, self.limit), units)
        return inner._replace(gradient=inner.gradient * (np.abs(z) <= self.limit))


@dataclass(frozen=True)
class Penalized(Around):
    """`NormPenalty`."""

    inner: Any
    weight: float
    p: float

    def loss(self, classes, reduction, **kwargs):
        inner = self.inner.loss(classes, reduction="sum_over_batch_size", **kwargs)
        return losses.NormPenalty(
            inner, self.weight, self.p, reduction=reduction, **kwargs
        )

    def expected(self, y, z, units):
        inner = self.inner.expected(y, z, units)
        penalty = self.weight * oracle.norm(z, self.p)
        pull = self.weight * oracle.norm_gradient(z, self.p)
        error = norm_gradient_unit(units.computed, self.p) * np.abs(pull).max(-1)
        return Expected(
            inner.value + penalty,
            inner.gradient + pull,
            inner.value_error + 2 * units.computed * penalty,
            inner.gradient_error + error,
            inner.scale + self.weight,
        )


@dataclass(frozen=True)
class Added(Subject):
    """`ActivePassive`."""

    active: Any
    passive: Any
    alpha: float
    beta: float

    @property
    def gives_nan(self):
        return self.active.gives_nan and self.passive.gives_nan

    @property
    def cost(self):
        return self.active.cost + self.passive.cost

    def loss(self, classes, reduction, **kwargs):
        active, passive = (
            each.loss(classes, reduction="sum_over_batch_size", **kwargs)
            for each in (self.active, self.passive)
        )
        return losses.ActivePassive(
            active, passive, self.alpha, self.beta, reduction=reduction, **kwargs
        )

    def expected(self, y, z, units):
        both = (each.expected(y, z, units) for each in (self.active, self.passive))
        pairs = zip(*both, strict=True)
        return Expected(*(self.alpha * a + self.beta * b for a, b in pairs))


def shrinking(norm, tau):
    """By what rows of this norm are multiplied."""
    return np.where(norm > tau, tau / np.where(norm > 0, norm, 1), 1)


def norm_gradient_unit(unit, p):
    """The relative error of the gradient of a norm: of the power of quotients."""
    return unit * max(2, p if np.isfinite(p) else 0)


def along_norm(z, norm, p):
    """By how much the projection of a gradient to the norm can enlarge its error."""
    length = oracle.norm(z, 2) / np.where(norm > 0, norm, 1)
    return 1 + length * np.abs(oracle.norm_gradient(z, p)).max(-1)


@cache
def _arguments(name, classes):
    return loss_cases.arguments(name, classes)


def _cross_entropy(y, z, unit):
    value = oracle.weighted_cross_entropy(y, z)
    scale = np.maximum(1, y.sum(-1))
    gradient = oracle.weighted_cross_entropy_gradient(y, z)
    return Expected(value, gradient, unit * (value + 1), unit * scale, scale)


def _with_errors(name, value, gradient, y, z, unit):
    if name == "Bi-tempered-slight" and unit < 1e-10:
        unit = 10 * unit  # Ill-conditioned.
    scale, spread = scale_of(name), z.max(-1) - z.min(-1)
    value_error = 10 * unit * np.abs(value) + 2 * unit * scale
    if CASES[name].bound is None:  # Logarithms are subtracted.
        value_error = value_error + 10 * unit * spread
    largest = np.abs(gradient).max(-1)
    if name == "LogitNorm":  # What lies along the logits is subtracted.
        scale = 1 / (CASES[name].arguments["temperature"] * (oracle.norm(z, 2) + 1e-7))
        error = 20 * unit * (largest + scale / 10)
        return Expected(value, gradient, value_error, error, scale)
    relative = 20 * unit
    if name == "Forward-zeros":  # The last place of logarithms of probabilities.
        relative = np.maximum(relative, unit * spread / 10)
        # It takes -1e30 for log 0.
        value_error = np.where(spread < 1e29, value_error, ANY)
    is_sure = np.exp(oracle.log_softmax(z)).max(-1) > 0.9
    is_difference = is_sure | (spread > 16) | (y.max(-1) < 1)
    difference = np.where(is_difference, unit, unit / 100)
    gradient_error = relative * largest + scale * difference
    return Expected(value, gradient, value_error, gradient_error, scale)


def _lead(z):
    """By how much the largest logits of each row are larger than the others."""
    largest = z.max(-1, keepdims=True)
    return -np.where(z < largest, z - largest, -np.inf).max(-1)


def _binary_cross_entropy(y, z):
    sign = np.where(z.real > 0, 1, -1)
    return (np.where(sign > 0, z, 0) - y * z + np.log1p(np.exp(-sign * z))).mean(-1)


def _squared_error(y, z):
    return ((y - z) ** 2).mean(-1)
