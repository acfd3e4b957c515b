"""Searching along one dimension."""

from collections.abc import Callable

import numpy as np

_POINTS = 33
_ROUNDS = 12


def minimize(function: Callable, low: float, high: float) -> float:
    """Returns where a function that falls, then grows, is smallest in an interval.

    Looks at points of equal distances, and again between the neighbors of the best
    one.
    """
    for _ in range(_ROUNDS):
        points = np.linspace(low, high, _POINTS)
        best = int(np.argmin([function(point) for point in points]))
        low, high = points[max(best - 1, 0)], points[min(best + 1, _POINTS - 1)]
    return float(points[best])


def bisect(function: Callable, low: float, high: float) -> float:
    """Returns where a function that grows from below zero to above it is zero."""
    middle = (low + high) / 2
    while low < middle < high:
        low, high = (middle, high) if function(middle) < 0 else (low, middle)
        middle = (low + high) / 2
    return middle
