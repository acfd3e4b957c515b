"""The losses in float64 NumPy, from the papers' formulas in probabilities.

Each takes labels `y` (weights of the classes), probabilities `p` and their
logarithms, of shape `(..., K)`, and its parameters by name. The formulas also hold
for complex numbers, which gives exact gradients (`gradient`).
"""

import numpy as np

from tests import oracle


def cross_entropy(y, p, log_p):
    return -(y * log_p).sum(-1)


def mean_absolute_error(y, p, log_p):
    return _absolute(p - y).sum(-1)


def reverse_cross_entropy(y, p, log_p, min_label=1e-4):
    return -(p * np.log(np.clip(y, min_label, 1))).sum(-1)


def symmetric_cross_entropy(y, p, log_p, alpha, beta):
    reverse = reverse_cross_entropy(y, p, log_p)
    return alpha * cross_entropy(y, p, log_p) + beta * reverse


def generalized_cross_entropy(y, p, log_p, q):
    return (y * (1 - np.exp(q * log_p)) / q).sum(-1)


def phuber_cross_entropy(y, p, log_p, threshold):
    below = -threshold * p + np.log(threshold) + 1
    return (y * np.where(p.real <= 1 / threshold, below, -log_p)).sum(-1)


def phuber_generalized_cross_entropy(y, p, log_p, q, threshold):
    turn = threshold ** (1 / (q - 1))
    below = -threshold * p + threshold * turn + (1 - turn**q) / q
    above = (1 - np.exp(q * log_p)) / q
    return (y * np.where(p.real <= turn, below, above)).sum(-1)


def taylor_cross_entropy(y, p, log_p, order):
    return (y * sum((1 - p) ** i / i for i in range(1, order + 1))).sum(-1)


def focal_losses(p, log_p, gamma):
    return -((1 - p) ** gamma) * log_p


def focal(y, p, log_p, gamma):
    return (y * focal_losses(p, log_p, gamma)).sum(-1)


def asymmetric_generalized_cross_entropy(y, p, log_p, a, q):
    return (y * ((a + 1) ** q - (a + p) ** q) / q).sum(-1)


def asymmetric_unhinged(y, p, log_p, a, q):
    return (y * ((a - p) ** q - (a - 1) ** q) / q).sum(-1)


def asymmetric_exponential(y, p, log_p, a):
    return (y * np.exp(-p / a)).sum(-1)


def normalized_cross_entropy(y, p, log_p):
    return (y * log_p).sum(-1) / log_p.sum(-1)


def normalized_focal(y, p, log_p, gamma):
    losses = focal_losses(p, log_p, gamma)
    return (y * losses).sum(-1) / losses.sum(-1)


def normalized_generalized_cross_entropy(y, p, log_p, q):
    powers = np.exp(q * log_p)
    return (y * (1 - powers)).sum(-1) / (p.shape[-1] - powers.sum(-1))


def normalized_negative_cross_entropy(y, p, log_p, min_probability=1e-7):
    clipped = np.where(p.real < min_probability, np.log(min_probability), log_p)
    negative = clipped - np.log(min_probability)
    return (y * (1 - negative / negative.sum(-1, keepdims=True))).sum(-1)


def normalized_negative_focal(y, p, log_p, gamma, min_probability=1e-7):
    clipped = np.where(p.real < min_probability, min_probability, p)
    largest = focal_losses(min_probability, np.log(min_probability), gamma)
    negative = largest - focal_losses(clipped, np.log(clipped), gamma)
    return (y * (1 - negative / negative.sum(-1, keepdims=True))).sum(-1)


def jensen_shannon(y, p, log_p, weight):
    mean = weight * y + (1 - weight) * p
    log_mean = np.log(np.where(mean == 0, 1, mean))
    log_y = np.log(np.where(y == 0, 1, y))
    divergence = weight * y * (log_y - log_mean)
    divergence = divergence + (1 - weight) * p * (log_p - log_mean)
    return divergence.sum(-1) / (-(1 - weight) * np.log(1 - weight))


def value(function, y, z, **parameters):
    """The losses of logits `z` along the last axis."""
    log_p = _log_softmax(np.asarray(z, "float64"))
    return function(np.asarray(y, "float64"), np.exp(log_p), log_p, **parameters)


def gradient(function, y, z, entries=None, **parameters):
    """The gradient of the sum of the losses with respect to the logits.

    By complex steps, which subtract nothing and are exact to rounding. `entries`
    are the classes to compute it for, all of them by default.
    """
    y, step = np.asarray(y, "float64"), 1e-100
    columns = []
    for k in range(y.shape[-1]) if entries is None else entries:
        moved = np.array(z, "complex128")
        moved[..., k] += 1j * step
        log_p = _log_softmax(moved)
        losses = function(y, np.exp(log_p), log_p, **parameters)
        columns.append(losses.imag / step)
    return np.stack(columns, -1)


def _log_softmax(z):
    if not np.iscomplexobj(z):
        return oracle.log_softmax(z)
    z = z - z.real.max(-1, keepdims=True)
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


def _absolute(x):
    return x * np.sign(x.real)
