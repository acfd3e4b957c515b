"""A search for the extreme values of a function over logits of bounded norm."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

_ROUNDS = 150
# After this many rounds, only the most promising kinds are kept.
_FIRST_ROUNDS = 15
_KEPT = 2
# Near an extreme value, shorter steps change no digit.
_SHORTEST_STEP = 1e-8


@dataclass(frozen=True)
class Kinds:
    """Describes kinds of logits: a label, and groups of classes with equal logits.

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
    """Returns kinds with one value for the label, one for a second class, and two more.

    The loss treats all classes except the label alike. So kinds differ only in how many
    classes have the third value and how many the fourth.
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
    """Returns a kind for each label, in which all logits can differ."""
    labels = np.arange(num_classes, dtype="int32")
    groups = np.tile(labels, (num_classes, 1))
    return Kinds(labels, groups, np.ones_like(groups))


def extreme_values(
    function: Callable, kinds: Kinds, radius: float, p: float, at_once: int
) -> tuple[float, float]:
    """Returns the smallest and the largest value that a search in a ball finds.

    For each end and each kind of logits, the search takes random steps from the best
    point so far. Steps grow after a success and shrink otherwise. The random numbers
    are always the same. A point has one coordinate for each group: the signed norm of
    the group's logits, relative to the radius.

    Args:
        function: Function of class ids of shape `(N,)` and logits of shape `(N, K)`
            that returns values of shape `(N,)`.
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
            kept = _most_promising(values, signs)
            kinds, signs = kinds.select(kept), signs[kept]
            best, values, steps = best[kept], values[kept], steps[kept]
        noise = rng.normal(size=(len(best), proposals, best.shape[1]))
        points = _into_ball(best[:, None] + steps[:, None, None] * noise, p)
        proposed, proposed_values = best_of(points)
        better = proposed_values > values
        best = np.where(better[:, None], proposed, best)
        values = np.where(better, proposed_values, values)
        steps = steps * np.where(better, 1.3, 0.7)
        if steps.max() < _SHORTEST_STEP:
            break
    # Adding zero turns -0.0 into 0.0.
    return 0.0 - values[signs < 0].max(), 0.0 + values[signs > 0].max()


def _most_promising(values, signs):
    order = np.argsort(values)
    ends = [order[signs[order] == sign][-_KEPT:] for sign in (-1, 1)]
    return np.concatenate(ends)


def _starts(kinds):
    """Returns points of each kind: a group, the others, one against all, and pairs."""
    groups = kinds.sizes.shape[1]
    one = np.eye(groups)
    label = one[kinds.labels][:, None]
    single = np.broadcast_to(one, (len(label), *one.shape))
    points = np.concatenate(
        [single, 1 - single, 1 - 2 * single, single - label], axis=1
    )
    return np.concatenate([points, -points], axis=1)


def _into_ball(points, p):
    """Moves points outside of the unit ball to its surface."""
    # First into the box around it. Scaling alone would miss the faces of the ball for
    # infinite p, and high powers of large numbers overflow.
    points = np.clip(points, -1, 1)
    return points / np.maximum(np.linalg.norm(points, p, -1, keepdims=True), 1)


def _values(function, kinds, points, radius, p, at_once):
    """Returns the values of the points of each kind."""
    number = points.shape[1]
    values = np.empty(len(points) * number)
    for start in range(0, len(values), at_once):
        rows = np.arange(start, min(start + at_once, len(values)))
        kind = rows // number
        shares = points[kind, rows % number] / kinds.sizes[kind] ** (1 / p)
        logits = radius * np.take_along_axis(shares, kinds.groups[kind], axis=1)
        values[rows] = function(kinds.labels[kind], logits)
    return values.reshape(-1, number)
