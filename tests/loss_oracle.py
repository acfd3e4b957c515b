"""The losses in float64 NumPy, from the papers' formulas.

Each takes labels `y` (weights of the classes) and logits `z` of shape `(..., K)`, and
its parameters by name. The formulas also hold for complex logits, whose imaginary
parts become exact derivatives (`gradient`).
"""

from functools import cache

import numpy as np


def value(formula, y, z, **parameters):
    """The losses of logits `z` along the last axis."""
    return formula(np.asarray(y, "float64"), np.asarray(z, "float64"), **parameters)


def gradient(formula, y, z, entries=None, **parameters):
    """The gradient of the sum of the losses with respect to the logits.

    By complex steps, which subtract nothing and are exact to rounding. `entries`
    are the classes to compute it for, all of them by default.
    """
    y, z, step = np.asarray(y, "float64"), np.asarray(z, "float64"), 1e-100
    columns = []
    for k in range(z.shape[-1]) if entries is None else entries:
        moved = z.astype("complex128")
        moved[..., k] += 1j * step
        columns.append(formula(y, moved, **parameters).imag / step)
    return np.stack(columns, -1)


def log_softmax(z):
    z = z - z.real.max(-1, keepdims=True)
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


def norm(z):
    """The norm of order 2, for complex numbers without conjugation."""
    scale = np.abs(z.real).max(-1, keepdims=True)
    scale = np.where(scale > 0, scale, 1)
    return scale * np.sqrt(((z / scale) ** 2).sum(-1, keepdims=True))


def _absolute(x):
    return x * np.sign(x.real)


# Losses of the label's probability.


def cross_entropy(y, z):
    return -(y * log_softmax(z)).sum(-1)


def mean_absolute_error(y, z):
    return _absolute(np.exp(log_softmax(z)) - y).sum(-1)


def reverse_cross_entropy(y, z, min_label=1e-4):
    return -(np.exp(log_softmax(z)) * np.log(np.clip(y, min_label, 1))).sum(-1)


def symmetric_cross_entropy(y, z, alpha, beta, min_label=1e-4):
    reverse = reverse_cross_entropy(y, z, min_label)
    return alpha * cross_entropy(y, z) + beta * reverse


def generalized_cross_entropy(y, z, q):
    return (y * (1 - np.exp(q * log_softmax(z))) / q).sum(-1)


def phuber_cross_entropy(y, z, threshold):
    log_p = log_softmax(z)
    p = np.exp(log_p)
    below = -threshold * p + np.log(threshold) + 1
    return (y * np.where(p.real <= 1 / threshold, below, -log_p)).sum(-1)


def phuber_generalized_cross_entropy(y, z, q, threshold):
    log_p = log_softmax(z)
    p = np.exp(log_p)
    turn = threshold ** (1 / (q - 1))
    below = -threshold * p + threshold * turn + (1 - turn**q) / q
    above = (1 - np.exp(q * log_p)) / q
    return (y * np.where(p.real <= turn, below, above)).sum(-1)


def taylor_cross_entropy(y, z, order):
    rest = 1 - np.exp(log_softmax(z))
    return (y * sum(rest**i / i for i in range(1, order + 1))).sum(-1)


def _focal_of_log(log_p, gamma):
    return -((1 - np.exp(log_p)) ** gamma) * log_p


def focal(y, z, gamma):
    return (y * _focal_of_log(log_softmax(z), gamma)).sum(-1)


def asymmetric_generalized_cross_entropy(y, z, a, q):
    p = np.exp(log_softmax(z))
    return (y * ((a + 1) ** q - (a + p) ** q) / q).sum(-1)


def asymmetric_unhinged(y, z, a, q):
    p = np.exp(log_softmax(z))
    return (y * ((a - p) ** q - (a - 1) ** q) / q).sum(-1)


def asymmetric_exponential(y, z, a):
    return (y * np.exp(-np.exp(log_softmax(z)) / a)).sum(-1)


# Losses of all probabilities.


def normalized_cross_entropy(y, z):
    log_p = log_softmax(z)
    return (y * log_p).sum(-1) / log_p.sum(-1)


def normalized_focal(y, z, gamma):
    losses = _focal_of_log(log_softmax(z), gamma)
    return (y * losses).sum(-1) / losses.sum(-1)


def normalized_generalized_cross_entropy(y, z, q):
    powers = np.exp(q * log_softmax(z))
    return (y * (1 - powers)).sum(-1) / (z.shape[-1] - powers.sum(-1))


def normalized_negative_cross_entropy(y, z, min_probability=1e-7):
    log_p = _clipped_below(log_softmax(z), min_probability)
    negative = log_p - np.log(min_probability)
    return (y * (1 - negative / negative.sum(-1, keepdims=True))).sum(-1)


def normalized_negative_focal(y, z, gamma, min_probability=1e-7):
    log_p = _clipped_below(log_softmax(z), min_probability)
    largest = _focal_of_log(np.log(min_probability), gamma)
    negative = largest - _focal_of_log(log_p, gamma)
    return (y * (1 - negative / negative.sum(-1, keepdims=True))).sum(-1)


def _clipped_below(log_p, minimum):
    return np.where(np.exp(log_p.real) < minimum, np.log(minimum), log_p)


def jensen_shannon(y, z, weight):
    log_p = log_softmax(z)
    p = np.exp(log_p)
    mean = weight * y + (1 - weight) * p
    log_mean = np.log(np.where(mean == 0, 1, mean))
    log_y = np.log(np.where(y == 0, 1, y))
    divergence = weight * y * (log_y - log_mean)
    divergence = divergence + (1 - weight) * p * (log_p - log_mean)
    return divergence.sum(-1) / (-(1 - weight) * np.log(1 - weight))


def confidence_regularized(y, z, beta):
    return cross_entropy(y, z) + beta * log_softmax(z).mean(-1)


def bootstrap(y, z, beta, hard=False):
    log_p = log_softmax(z)
    belief = np.exp(log_p)
    if hard:
        belief = np.eye(z.shape[-1])[z.real.argmax(-1)]
    return -((beta * y + (1 - beta) * belief) * log_p).sum(-1)


# Losses with the matrix of the noise.


def forward_correction(y, z, transition):
    log_p = log_softmax(z)
    peak = log_p.real.max(-1, keepdims=True)
    if log_p.real.min() < -100 and (transition == 0).any():
        # Underflow would make log 0 of a tiny number.
        with np.errstate(divide="ignore"):
            log_joint = log_p[..., None] + np.log(transition)
        peak = log_joint.real.max(-2, keepdims=True)
        given = np.log(np.exp(log_joint - peak).sum(-2)) + peak[..., 0, :]
    else:
        given = np.log(np.exp(log_p - peak) @ transition) + peak
    return -(y * given).sum(-1)


def backward_correction(y, z, transition):
    inverse = _inverse(transition.tobytes(), len(transition))
    return -((y @ inverse) * log_softmax(z)).sum(-1)


@cache
def _inverse(matrix, size):
    return np.linalg.inv(np.frombuffer(matrix).reshape(size, size))


# Losses of the logits themselves.


def logit_norm_cross_entropy(y, z, temperature):
    length = norm(z)
    epsilon = 1e-7 * np.where(length.real > 1, length, 1)
    return cross_entropy(y, z / (temperature * (length + epsilon)))


def bi_tempered(y, z, t1, t2):
    p = tempered_softmax(z, t2)
    of_labels = y * tempered_log(np.where(y == 0, 1, y), t1) - y ** (2 - t1) / (2 - t1)
    p = np.where(p == 0, np.finfo("float64").tiny, p)
    return (of_labels - y * tempered_log(p, t1) + p ** (2 - t1) / (2 - t1)).sum(-1)


def tempered_log(x, t):
    return np.log(x) if t == 1 else (x ** (1 - t) - 1) / (1 - t)


def tempered_softmax(z, t2):
    """By bisection, and the last digits and imaginary parts by Newton's steps."""
    s = t2 - 1
    if s == 0:
        return np.exp(log_softmax(z))
    z = z - z.real.max(-1, keepdims=True)
    low = np.zeros((*z.shape[:-1], 1))
    high = np.full_like(low, (z.shape[-1] ** s - 1) / s)
    for _ in range(40):
        middle = (low + high) / 2
        above = ((1 + s * (middle - z.real)) ** (-1 / s)).sum(-1, keepdims=True) > 1
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    normalizer = (low + high) / 2
    for _ in range(6):
        base = 1 + s * (normalizer - z)
        excess = (base ** (-1 / s)).sum(-1, keepdims=True) - 1
        slope = -(base ** (-1 / s - 1)).sum(-1, keepdims=True)
        normalizer = normalizer - excess / slope
    return (1 + s * (normalizer - z)) ** (-1 / s)


# Losses around cross-entropy, and a sum of two losses.


def clipped_cross_entropy(y, z, tau):
    length = norm(z)
    longer = length.real > tau
    return cross_entropy(y, np.where(longer, z * tau / np.where(longer, length, 1), z))


def value_clipped_cross_entropy(y, z, limit):
    inside = np.abs(z.real) <= limit
    return cross_entropy(y, np.where(inside, z, np.sign(z.real) * limit))


def penalized_cross_entropy(y, z, weight):
    return cross_entropy(y, z) + weight * norm(z)[..., 0]


def active_passive(y, z, alpha, beta):
    """With normalized cross-entropy and mean absolute error."""
    return alpha * normalized_cross_entropy(y, z) + beta * mean_absolute_error(y, z)
