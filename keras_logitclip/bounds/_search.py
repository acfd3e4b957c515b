"""Searches in one dimension."""

from collections.abc import Callable

import numpy as np

_POINTS = 33
_ROUNDS = 12


def minimize(function: Callable, low: float, high: float) -> float:
    """Returns the minimizer in an interval of a function that falls, then grows.

    Each round evaluates equidistant points between the neighbours of the best one.
    """
    for _ in range(_ROUNDS):
        points = np.linspace(low, high, _POINTS)
        best = int(np.argmin([function(point) for point in points]))
        low, high = points[max(best - 1, 0)], points[min(best + 1, _POINTS - 1)]
    return float(points[best])


def bisect(function: Callable, low: float, high: float) -> float:
    """Returns the zero of a growing function."""
    middle = (low + high) / 2
    while low < middle < high:
        low, high = (middle, high) if function(middle) < 0 else (low, middle)
        middle = (low + high) / 2
    return middle
