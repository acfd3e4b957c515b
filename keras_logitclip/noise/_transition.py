"""Drawing noisy labels from a transition matrix."""

import math

import numpy as np


def draw_independently(
    clean: np.ndarray, matrix: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Draws each noisy label from the row of its clean one."""
    noisy = np.empty_like(clean)
    uniform = rng.random(len(clean))
    for row, members in zip(matrix, _members(clean, len(matrix)), strict=True):
        cumulative = np.cumsum(row)
        # Ends in exactly 1, which no draw reaches.
        cumulative /= cumulative[-1]
        noisy[members] = np.searchsorted(cumulative, uniform[members], side="right")
    return noisy


def draw_exactly(
    clean: np.ndarray, matrix: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Flips the expected number of labels of each class to each other class.

    Numbers that are not whole are rounded by `apportion`: first the flips of the
    classes, then for each class the labels that its flips lead to.
    """
    noisy = clean.copy()
    samples = np.bincount(clean, minlength=len(matrix))
    flips = apportion(samples * (1 - matrix.diagonal()), rng)
    for label, members in enumerate(_members(clean, len(matrix))):
        if flips[label]:
            others = matrix[label].copy()
            others[label] = 0
            counts = apportion(flips[label] * others / others.sum(), rng)
            chosen = rng.permutation(members)[: flips[label]]
            noisy[chosen] = np.repeat(np.arange(len(matrix)), counts)
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
    """Returns the positions of each class, without a scan of the labels for each."""
    ends = np.cumsum(np.bincount(labels, minlength=num_classes))
    return np.split(np.argsort(labels, kind="stable"), ends[:-1])
