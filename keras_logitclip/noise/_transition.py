"""Draws noisy labels with the probabilities of a transition matrix."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Row(NamedTuple):
    """Holds the possible labels of a class, in ascending order, with probabilities."""

    labels: np.ndarray
    probabilities: np.ndarray


class Transition(NamedTuple):
    """Holds a transition matrix by rows, because a large one would not fit into memory.

    Attributes:
        diagonal: The probability of each class that a label is not flipped.
        row: Function that returns the row of a class.
    """

    diagonal: np.ndarray
    row: Callable[[int], Row]


def draw_independently(
    clean: np.ndarray, transition: Transition, rng: np.random.Generator
) -> np.ndarray:
    """Draws each noisy label from the row of its clean one."""
    noisy = np.empty_like(clean)
    uniform = rng.random(len(clean))
    for label, members in _members(clean, len(transition.diagonal)):
        row = transition.row(label)
        cumulative = np.cumsum(row.probabilities)
        # The last entry is exactly 1, which no draw reaches.
        cumulative /= cumulative[-1]
        drawn = np.searchsorted(cumulative, uniform[members], side="right")
        noisy[members] = row.labels[drawn]
    return noisy


def draw_exactly(
    clean: np.ndarray, transition: Transition, rng: np.random.Generator
) -> np.ndarray:
    """Flips the expected number of labels of each class to each other class.

    `apportion` rounds the numbers of flips of all classes, and then for each class the
    numbers of its new labels.
    """
    noisy = clean.copy()
    num_classes = len(transition.diagonal)
    samples = np.bincount(clean, minlength=num_classes)
    flips = apportion(samples * (1 - transition.diagonal), rng)
    for label, members in _members(clean, num_classes):
        if flips[label]:
            row, others = transition.row(label), np.zeros(num_classes)
            others[row.labels] = row.probabilities
            others[label] = 0
            counts = apportion(flips[label] * others / others.sum(), rng)
            chosen = rng.permutation(members)[: flips[label]]
            noisy[chosen] = np.repeat(np.arange(num_classes), counts)
    return noisy


def apportion(quotas: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Rounds numbers up or down so that their sum is rounded, too.

    By the method of largest remainders, the largest fractions are rounded up. Equal
    fractions are in random order, because otherwise low class ids would be preferred.
    """
    counts = np.floor(quotas).astype("int64")
    missing = round(math.fsum(quotas)) - counts.sum()
    order = rng.permutation(len(quotas))
    order = order[np.argsort((counts - quotas)[order], kind="stable")]
    counts[order[:missing]] += 1
    return counts


def _members(labels, num_classes):
    """Yields each class that occurs, and the positions of its labels."""
    order = np.argsort(labels, kind="stable")
    ends = np.cumsum(np.bincount(labels, minlength=num_classes))
    starts = np.concatenate([[0], ends[:-1]])
    for label in np.flatnonzero(ends > starts):
        yield label, order[starts[label] : ends[label]]
