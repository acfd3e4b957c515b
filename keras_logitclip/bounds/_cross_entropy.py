"""The range of the cross-entropy of logits of bounded norm."""

import math
from typing import NamedTuple

import numpy as np

from keras_logitclip._arguments import check_num_classes
from keras_logitclip._arguments import check_p
from keras_logitclip._arguments import check_tau
from keras_logitclip.bounds._search import bisect
from keras_logitclip.bounds._search import minimize


class Bounds(NamedTuple):
    """Holds the smallest and the largest value of a loss."""

    lower: float
    upper: float


def cross_entropy_bounds(tau: float, num_classes: int, p: float = 2) -> Bounds:
    """Computes the smallest and the largest cross-entropy of clipped logits.

    Both are attained: all logits of norm up to `tau` have a cross-entropy in this
    range, and some reach each end.

    At the smallest value, by Jensen's inequality all logits except that of the label
    are equal. By Hölder's inequality, the label can exceed them by at most
    `tau * spread`.

    At the largest value, the logit of the label is `-a`, and the others `z` are not
    negative, because a change of sign would raise the loss. With `x = z**p`, the sum of
    `exp(x ** (1 / p))` is maximal for a given sum of `x`. This function is concave for
    `z < p - 1` and convex beyond, so one logit is `b` and all others are the same
    `s <= b`. Either `s = b`, which is the smallest case with opposite signs, or the
    derivatives vanish at `b = s * exp((b - s) / (p - 1))`. Then `b - s` is the only
    unknown. The norm determines it, and bisection finds it.

    Formula:

    ```python
    spread = (1 + (K - 1) ** (-q / p)) ** (1 / q)  # 1 / p + 1 / q = 1
    lower = log(1 + (K - 1) * exp(-tau * spread))
    upper = max(log(1 + exp(a) * (exp(b) + (K - 2) * exp(s))))
    # over a**p + b**p + (K - 2) * s**p = tau**p
    ```

    Args:
        tau: Threshold of the norm, a number greater than zero;
            `float("inf")` for no clipping.
        num_classes: Number of classes, at least 2.
        p: Order of the norm, a number of at least 1; `float("inf")` is the
            maximum norm. Defaults to `2`.

    Returns:
        `Bounds(lower, upper)`.

    Raises:
        ValueError: If an argument is out of range.

    Example:

    >>> from keras_logitclip import bounds
    >>> lower, upper = bounds.cross_entropy_bounds(tau=1.0, num_classes=10)
    >>> print(f"{lower:.4f} to {upper:.4f}")
    1.4199 to 3.2893

    References:
        - [Wei et al., 2023](https://arxiv.org/abs/2212.04055)
    """
    tau, num_classes, p = _check(tau, num_classes, p)
    others = math.log(num_classes - 1)
    distance = tau * spread(num_classes, p)
    lower = softplus(others - distance)
    upper = softplus(others + distance)
    if num_classes > 2 and 1 < p < math.inf and tau < math.inf:
        upper = max(upper, _upper_with_one_large(tau, num_classes, p))
    return Bounds(lower, upper)


def closed_form_upper_bound(tau: float, num_classes: int, p: float = 2) -> float:
    """Computes a simple upper bound of the cross-entropy of clipped logits.

    By Hölder's inequality, two logits differ by at most `2 ** (1 - 1 / p) * tau`. The
    bound assumes that all other classes exceed the label by that much. It is attained
    for two classes, or if `p` is 1 or infinity. `cross_entropy_bounds` computes the
    largest value itself.

    Formula:

    ```python
    bound = log(1 + (K - 1) * exp(2 ** (1 - 1 / p) * tau))
    ```

    Args:
        tau: Threshold of the norm, a number greater than zero;
            `float("inf")` for no clipping.
        num_classes: Number of classes, at least 2.
        p: Order of the norm, a number of at least 1; `float("inf")` is the
            maximum norm. Defaults to `2`.

    Returns:
        The upper bound.

    Raises:
        ValueError: If an argument is out of range.

    Example:

    >>> from keras_logitclip import bounds
    >>> print(round(bounds.closed_form_upper_bound(tau=1.0, num_classes=10), 4))
    3.6381
    """
    tau, num_classes, p = _check(tau, num_classes, p)
    return softplus(math.log(num_classes - 1) + 2 ** (1 - 1 / p) * tau)


def paper_cross_entropy_bounds(tau: float, num_classes: int) -> Bounds:
    """Computes the bounds of the paper, which hold for a norm of any order.

    They are the bounds of the maximum norm, whose ball contains all others. For other
    norms, `cross_entropy_bounds` is tighter.

    Formula:

    ```python
    lower = log(1 + (K - 1) * exp(-2 * tau))
    upper = log(1 + (K - 1) * exp(2 * tau))
    ```

    Args:
        tau: Threshold of the norm, a number greater than zero;
            `float("inf")` for no clipping.
        num_classes: Number of classes, at least 2.

    Returns:
        `Bounds(lower, upper)`.

    Raises:
        ValueError: If an argument is out of range.

    Example:

    >>> from keras_logitclip import bounds
    >>> lower, upper = bounds.paper_cross_entropy_bounds(tau=1.0, num_classes=10)
    >>> print(f"{lower:.4f} to {upper:.4f}")
    0.7966 to 4.2121

    References:
        - [Wei et al., 2023](https://arxiv.org/abs/2212.04055)
    """
    return cross_entropy_bounds(tau, num_classes, math.inf)


def spread(num_classes: int, p: float) -> float:
    """Returns how far one logit can be above all others if the norm is 1."""
    if p == 1:
        return 1.0
    # -q / p and 1 / q, in a form that also works for infinite p.
    exponent, inverse_of_q = -1 / (p - 1), 1 - 1 / p
    return (1 + (num_classes - 1) ** exponent) ** inverse_of_q


def softplus(x: float) -> float:
    """Returns log(1 + exp(x)) without overflow."""
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def _check(tau, num_classes, p):
    return check_tau(tau), check_num_classes(num_classes), check_p(p)


def _upper_with_one_large(tau, num_classes, p):
    """Returns the largest loss with `b > s`, or minus infinity if there is none.

    As a function of `b - s`, the norm falls and then grows, so there are two solutions.
    The one with the larger difference is the maximum, and the other one is a minimum.
    """

    def log_norm(gap):
        return _stationary_point(gap, num_classes, p)[-1]

    # At a gap of tau, b alone is larger than tau.
    shortest = minimize(log_norm, 1e-9 * tau, tau)
    if log_norm(shortest) >= math.log(tau):
        return -math.inf
    gap = bisect(lambda gap: log_norm(gap) - math.log(tau), shortest, tau)
    log_a, log_b, log_s, log_norm_there = _stationary_point(gap, num_classes, p)
    # Scaled to a norm of exactly tau. Then a rounding error of the gap has no effect to
    # first order, and no result is above the maximum.
    a, b, s = (
        tau * math.exp(log_x - log_norm_there) for log_x in (log_a, log_b, log_s)
    )
    return softplus(a + float(np.logaddexp(b, math.log(num_classes - 2) + s)))


def _stationary_point(gap, num_classes, p):
    """Returns the logarithms of `a`, `b`, `s` and of their norm for `gap = b - s`.

    Because `b / s` is `exp(gap / (p - 1))`, the gap determines both. The derivative by
    `a` vanishes where `(a / b) ** (p - 1)` is `1 + (K - 2) * exp(-gap)`.
    """
    others = math.log(num_classes - 2)
    log_b = np.log(gap) - np.log(-np.expm1(-gap / (p - 1)))
    log_s = log_b - gap / (p - 1)
    log_a = log_b + np.log1p(np.exp(others - gap)) / (p - 1)
    powers = [p * (log_x - log_a) for log_x in (log_a, log_b, log_s)]
    powers[-1] = powers[-1] + others
    log_norm = log_a + np.logaddexp.reduce(powers) / p
    return log_a, log_b, log_s, log_norm
