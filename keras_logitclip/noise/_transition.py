"""Drawing noisy labels with the probabilities of a transition matrix."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Transition(NamedTuple):
    """A transition matrix, row by row: of many classes it would not fit into memory.

    Attributes:
        diagonal: For each class the probability that a label stays.
        row: Returns the row of a class.
    """

    diagonal: np.ndarray
    row: Callable[[int], np.ndarray]


def draw_independently(
    clean: np.ndarray, transition: Transition, rng: np.random.Generator
) -> np.ndarray:
    """Draws each noisy label from the row of its clean one."""
    noisy = np.empty_like(clean)
    uniform = rng.random(len(clean))
    for label, members in _members(clean, len(transition.diagonal)):
        cumulative = np.cumsum(transition.row(label))
        # Ends in exactly 1, which no draw reaches.
        cumulative /= cumulative[-1]
        noisy[members] = np.searchsorted(cumulative, uniform[members], side="right")
    return noisy


def draw_exactly(
    clean: np.ndarray, transition: Transition, rng: np.random.Generator
) -> np.ndarray:
    """Flips the expected number of labels of each class to each other class.

    Numbers that are not whole are rounded by `apportion`: first the flips of the
    classes, then for each class the labels that its flips lead to.
    """
    noisy = clean.copy()
    num_classes = len(transition.diagonal)
    samples = np.bincount(clean, minlength=num_classes)
    flips = apportion(samples * (1 - transition.diagonal), rng)
    for label, members in _members(clean, num_classes):
        if flips[label]:
            others = transition.row(label).copy()
            others[label] = 0
            counts = apportion(flips[label] * others / others.sum(), rng)
            chosen = rng.permutation(members)[: flips[label]]
            noisy[chosen] = np.repeat(np.arange(num_classes), counts)
    return noisy


def apportion(quotas: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Rounds numbers up or down so that their sum is rounded, too.

    The method of largest remainders: those with the largest fractions are rounded
    up. Equal fractions are put in random order, or low class ids would gain.
    """
    counts = np.floor(quotas).astype("int64")
    missing = round(math.fsum(quotas)) - counts.sum()
    order = rng.permutation(len(quotas))
    order = order[np.argsort((counts - quotas)[order], kind="stable")]
    counts[order[:missing]] += 1
    return counts


def _members(labels, num_classes):
    """Yields each class that there is, and its positions, from one sort."""
    order = np.argsort(labels, kind="stable")
    ends = np.cumsum(np.bincount(labels, minlength=num_classes))
    starts = np.concatenate([[0], ends[:-1]])
    for label in np.flatnonzero(ends > starts):
        yield label, order[starts[label] : ends[label]]
