"""A search among the logits of bounded norm that have few different values."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

_ROUNDS = 150
# After so many rounds only the most promising kinds are followed.
_FIRST_ROUNDS = 15
_FOLLOWED = 2
# Shorter steps change no digit: the values do not differ to first order.
_SHORTEST_STEP = 1e-8


@dataclass(frozen=True)
class Kinds:
    """Kinds of logits, each with a label and with groups of classes of equal logits.

    Attributes:
        labels: The label of each kind.
        groups: The group of each class, a row for each kind.
        sizes: The number of classes of each group, a row for each kind; 1 for a
            group without classes.
    """

    labels: np.ndarray
    groups: np.ndarray
    sizes: np.ndarray

    def select(self, chosen: np.ndarray) -> "Kinds":
        return Kinds(self.labels[chosen], self.groups[chosen], self.sizes[chosen])


def kinds_for_symmetric_losses(num_classes: int) -> Kinds:
    """Returns logits with one value for the label, one for another class, and two.

    To the loss all classes but the label are the same: what remains to choose is how
    many of them have the one value and how many the other.
    """
    order = np.arange(num_classes)
    numbers = np.geomspace(1, max(num_classes - 2, 1), 9).round().astype(int)
    groups = np.stack(
        [
            np.where(order < 2, order, np.where(order < 2 + number, 2, 3))
            for number in np.unique(numbers)
        ]
    )
    sizes = np.stack([np.bincount(row, minlength=4) for row in groups])
    return Kinds(np.zeros(len(groups), "int32"), groups, np.maximum(sizes, 1))


def kinds_for_other_losses(num_classes: int) -> Kinds:
    """Returns logits without anything in common, once for each label."""
    labels = np.arange(num_classes, dtype="int32")
    groups = np.tile(labels, (num_classes, 1))
    return Kinds(labels, groups, np.ones_like(groups))


def extreme_values(
    function: Callable, kinds: Kinds, radius: float, p: float, at_once: int
) -> tuple[float, float]:
    """Returns the smallest and the largest value that a search finds in a ball.

    Random steps from the best point so far, for each end and each kind of logits:
    longer ones while they lead on, shorter ones otherwise. The random numbers are
    always the same. A point has one coordinate for each group, the norm of its
    logits relative to the radius, with their sign.

    Args:
        function: Takes class ids of shape `(N,)` and logits of shape `(N, K)`,
            returns values of shape `(N,)`.
        kinds: The kinds of logits to search among.
        radius: Largest norm of the logits.
        p: Order of the norm.
        at_once: Largest N.
    """
    rng = np.random.default_rng(0)
    number = len(kinds.labels)
    kinds = kinds.select(np.tile(np.arange(number), 2))
    signs = np.repeat([-1, 1], number)

    def best_of(points):
        values = _values(function, kinds, points, radius, p, at_once)
        values = signs[:, None] * values
        best, kind = values.argmax(1), np.arange(len(values))
        return points[kind, best], values[kind, best]

    best, values = best_of(_into_ball(_starts(kinds), p))
    steps = np.ones(len(values))
    proposals = min(8 * best.shape[1], 64)
    for round_ in range(_ROUNDS):
        if round_ == _FIRST_ROUNDS:
            followed = _most_promising(values, signs)
            kinds, signs = kinds.select(followed), signs[followed]
            best, values, steps = best[followed], values[followed], steps[followed]
        noise = rng.normal(size=(len(best), proposals, best.shape[1]))
        points = _into_ball(best[:, None] + steps[:, None, None] * noise, p)
        proposed, proposed_values = best_of(points)
        better = proposed_values > values
        best = np.where(better[:, None], proposed, best)
        values = np.where(better, proposed_values, values)
        steps = steps * np.where(better, 1.3, 0.7)
        if steps.max() < _SHORTEST_STEP:
            break
    # Plus zero: no zero is negative.
    return 0.0 - values[signs < 0].max(), 0.0 + values[signs > 0].max()


def _most_promising(values, signs):
    order = np.argsort(values)
    ends = [order[signs[order] == sign][-_FOLLOWED:] for sign in (-1, 1)]
    return np.concatenate(ends)


def _starts(kinds):
    """Returns points of each kind: single groups, others, against all, and pairs."""
    groups = kinds.sizes.shape[1]
    one = np.eye(groups)
    label = one[kinds.labels][:, None]
    single = np.broadcast_to(one, (len(label), *one.shape))
    points = np.concatenate(
        [single, 1 - single, 1 - 2 * single, single - label], axis=1
    )
    return np.concatenate([points, -points], axis=1)


def _into_ball(points, p):
    """Moves the points outside of the ball of radius 1 to its surface."""
    # First the box around it: the faces of one with p of infinity would be missed
    # along rays, and high powers of large numbers overflow.
    points = np.clip(points, -1, 1)
    return points / np.maximum(np.linalg.norm(points, p, -1, keepdims=True), 1)


def _values(function, kinds, points, radius, p, at_once):
    """Returns the values of some points for each kind."""
    number = points.shape[1]
    values = np.empty(len(points) * number)
    for start in range(0, len(values), at_once):
        rows = np.arange(start, min(start + at_once, len(values)))
        kind = rows // number
        shares = points[kind, rows % number] / kinds.sizes[kind] ** (1 / p)
        logits = radius * np.take_along_axis(shares, kinds.groups[kind], axis=1)
        values[rows] = function(kinds.labels[kind], logits)
    return values.reshape(-1, number)
