"""Compares the results of the library with the reference, draw by draw."""

from collections import namedtuple

import numpy as np

from tests.fuzz.compute import values_and_gradients
from tests.fuzz.configurations import draw_configuration
from tests.fuzz.expected import HALF
from tests.fuzz.expected import expect
from tests.fuzz.expected import may_overflow
from tests.fuzz.expected import unit_of
from tests.fuzz.inputs import draw_inputs
from tests.fuzz.inputs import largest_of
from tests.fuzz.inputs import of_draws

# Of each draw, as multiples of what is allowed.
Errors = namedtuple("Errors", "value gradient")


def errors_of_draws(configuration, inputs):
    """Computes all draws, and compares them with the reference."""
    found = values_and_gradients(configuration, inputs.given)
    errors = _compare(configuration, inputs, found, [inputs.z])
    wrong = np.flatnonzero(~(np.maximum(*errors) <= 1))
    if wrong.size:
        # At a kink, both one-sided derivatives and the values between them are right.
        few, found = of_draws(inputs, wrong), [x[wrong] for x in found]
        closer = _compare(configuration, few, found, _neighbours(configuration, few.z))
        for error, smaller in zip(errors, closer, strict=True):
            error[wrong] = smaller
    return errors


def draw_all(seed, configuration):
    """Returns the configuration of a number, and the inputs of its draws."""
    drawn = draw_configuration(np.random.default_rng([seed, configuration]))
    return drawn, draw_inputs(drawn, np.random.default_rng([seed, configuration, 1]))


def check(seed, configuration, draw):
    """Raises an error that shows a draw with a wrong value or gradient."""
    drawn, inputs = draw_all(seed, configuration)
    inputs = of_draws(inputs, [draw])
    errors = errors_of_draws(drawn, inputs)
    if not max(errors.value[0], errors.gradient[0]) <= 1:
        found = values_and_gradients(drawn, inputs.given)
        expected = expect(drawn, inputs, inputs.z)
        raise AssertionError(
            f"{drawn}\nErrors, as multiples of what is allowed: {errors}\n"
            f"Inputs: {inputs.given}\nExpected: {expected}\nFound: {found}"
        )


def _compare(configuration, inputs, found, logits):
    """Returns the smallest errors of the results over equivalent logits."""
    c, (value, gradient) = configuration, found
    expected = [expect(c, inputs, z) for z in logits]
    too_long = may_overflow(c, inputs.z)
    of_value = too_long
    if c.reduction != "none":
        of_value = too_long.any(tuple(range(1, too_long.ndim)))
    elif value.ndim > too_long.ndim:
        of_value = too_long[..., None]
    errors = (
        _excess(
            value,
            [each.value for each in expected],
            _largest([each.value_error for each in expected]),
            largest_of(c.value_dtype),
            of_value,
        ),
        _excess(
            gradient,
            [each.gradient for each in expected],
            _largest([each.gradient_error[..., None] for each in expected]),
            largest_of(c.dtype),
            too_long[..., None] | _overflows(c, expected[0].gradient),
        ),
    )
    return Errors(*(x.max(tuple(range(1, x.ndim)), initial=0) for x in errors))


def _overflows(c, gradient):
    """Rows of which a part does, before half precision adds the parts up."""
    return np.abs(gradient).max(-1, keepdims=True) > 0.99 * largest_of(c.dtype)


def _largest(arrays):
    return np.max(arrays, 0)


def _excess(found, expected, allowed, largest, may_overflow):
    """Returns the distance to the expected interval, relative to the allowed one."""
    low, high = np.min(expected, 0), np.max(expected, 0)
    with np.errstate(all="ignore"):
        distance = np.maximum(0, np.maximum(low - found, found - high))
        excess = np.where(distance == 0, 0, distance / allowed)
    overflows = np.maximum(np.abs(low), np.abs(high)) > 0.99 * largest
    right = ~np.isfinite(found) & (overflows | may_overflow)
    right = right | (np.isnan(found) & np.isnan(low))
    excess = np.where(right, 0, excess)
    return np.where(np.isnan(excess), np.inf, excess)


def _neighbours(configuration, z):
    """Returns equivalent logits: rounded to longer, shorter and other rows."""
    unit = unit_of(configuration)
    if configuration.is_half:
        unit = HALF[configuration.dtype]
    others = np.random.default_rng(0).uniform(-1, 1, (6, *z.shape))
    return [z * (1 + 2 * unit * direction) for direction in (0, 1, -1, *others)]
