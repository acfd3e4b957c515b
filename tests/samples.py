"""Logits and labels of few shapes, so that backends reuse compiled functions."""

from collections import namedtuple

import numpy as np

# What most tests use.
ROWS, CLASSES = 6, 10


def logits(*shape, scale=3.0, seed=0):
    shape = shape or (ROWS, CLASSES)
    return scale * np.random.default_rng(seed).normal(size=shape).astype("float32")


Labels = namedtuple("Labels", "given weights")
# The ways to give labels to a loss.
KINDS = ("sparse", "column", "one-hot", "soft")


def some_labels(kind, shape=(ROWS,), classes=CLASSES):
    """Returns labels for a loss, and the class weights that they mean.

    The last label is the class 0. Beyond `KINDS` there are "smooth" weights and two
    kinds whose sum is not one, "unnormalized" and "zero".
    """
    rng = np.random.default_rng(1)
    ids = rng.integers(0, classes, shape).astype("int32")
    ids.flat[-1] = 0
    one_hot = (ids[..., None] == np.arange(classes)).astype("float32")
    if kind == "sparse":
        return Labels(ids, one_hot)
    if kind == "column":
        return Labels(ids[..., None], one_hot)
    weights = {
        "one-hot": lambda: one_hot,
        "smooth": lambda: 0.9 * one_hot + 0.1 / classes,
        "soft": lambda: _soft(rng, shape, classes),
        "unnormalized": lambda: rng.uniform(0, 0.3, (*shape, classes)),
        "zero": lambda: np.zeros((*shape, classes)),
    }[kind]().astype("float32")
    return Labels(weights, weights)


def _soft(rng, shape, classes):
    """With an exact zero, the weight of the class 0."""
    weights = rng.dirichlet(np.ones(classes), shape)
    weights[..., 0] = 0
    return weights / weights.sum(-1, keepdims=True)
