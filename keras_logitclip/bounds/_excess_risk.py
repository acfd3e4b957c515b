"""Bounds of the clean risk that a minimizer of the noisy risk loses."""

import math

import numpy as np
from numpy.typing import ArrayLike

from keras_logitclip._arguments import check_num_classes
from keras_logitclip._arguments import check_p
from keras_logitclip._arguments import check_tau
from keras_logitclip._arguments import check_transition_matrix
from keras_logitclip.bounds._cross_entropy import cross_entropy_bounds
from keras_logitclip.bounds._probability import check_noise_rate
from keras_logitclip.bounds._search import minimize


def excess_risk_bound(
    tau: float, num_classes: int, noise_rate: float, p: float = 2
) -> float:
    """Computes a bound of the excess risk under symmetric noise.

    Let one model of some architecture minimize the risk R, the mean cross-entropy with
    clean labels, and let another one minimize the risk with noisy labels. The R of the
    second exceeds the R of the first by at most the bound, whatever the data. The
    smaller `tau`, the smaller the bound. With `S`, the sum of a sample's losses over
    all labels,

        noisy risk = (1 - K * noise_rate / (K - 1)) * R + noise_rate / (K - 1) * E[S]

    so the range of `S` limits the difference of the two risks. The range of the loss
    itself limits it, too.

    `S` is smallest for equal logits. Its maximum is exact for the orders 1 (at a single
    logit that is not zero), infinity (at logits of `tau` and `-tau`) and 2 (at one
    logit above all others with the mean zero). For other orders, the ball is enclosed
    in balls of these three.

    Formula:

    ```python
    S = K * logsumexp(z) - sum(z)
    range_of_sum = max(S) - K * log(K)
    bound = noise_rate * range_of_sum / (K - 1 - K * noise_rate)
    bound = min(bound, upper - lower)  # of cross_entropy_bounds
    ```

    Args:
        tau: Threshold of the norm, a number greater than zero;
            `float("inf")` for no clipping.
        num_classes: Number of classes, at least 2.
        noise_rate: Probability that a label is replaced by another class, all of
            them equally likely. A number in `[0, (num_classes - 1) / num_classes)`.
        p: Order of the norm, a number of at least 1; `float("inf")` is the
            maximum norm. Defaults to `2`.

    Returns:
        The bound, in the unit of the cross-entropy.

    Raises:
        ValueError: If an argument is out of range.

    Example:

    >>> from keras_logitclip import bounds
    >>> for tau in (0.1, 1.0, 10.0):
    ...     print(round(bounds.excess_risk_bound(tau, 10, noise_rate=0.4), 4))
    0.0004
    0.0528
    5.7476

    References:
        - [Wei et al., 2023](https://arxiv.org/abs/2212.04055)
    """
    tau, num_classes, p = check_tau(tau), check_num_classes(num_classes), check_p(p)
    noise_rate = check_noise_rate(noise_rate, num_classes)
    if noise_rate == 0:
        return 0.0
    lower, upper = cross_entropy_bounds(tau, num_classes, p)
    most_certain = num_classes - 1 - num_classes * noise_rate
    bound = noise_rate / most_certain * _range_of_sum(tau, num_classes, p)
    return min(bound, upper - lower)


def class_dependent_excess_risk_bound(
    tau: float,
    matrix: ArrayLike,
    p: float = 2,
    class_frequencies: ArrayLike | None = None,
) -> float:
    """Computes a bound of the excess risk under noise that depends on the class.

    This is `excess_risk_bound` for a transition matrix. It assumes nothing about the
    data or about the smallest clean risk, which clipping keeps above zero. The true
    class need not be the most frequent label, but otherwise the bound is hardly below
    the range of the loss.

    For any `a > 0`, the noisy risk of a class `i` is `a` times its clean risk plus the
    losses of all labels with the weights `matrix[i] - a * onehot(i)`. The model that
    minimizes the noisy risk has the smaller one. So the clean risks differ by at most
    the range of these weighted losses, divided by `a`. A part `c` that the weights have
    in common contributes with the range of the sum of the losses, as with symmetric
    noise. The rest contributes with the range of one loss. The bound uses the best `a`
    and `c`.

    Formula:

    ```python
    weights = matrix - a * eye(K)
    ranges = abs(c) * range_of_sum + sum(abs(weights - c), axis=1) * (upper - lower)
    bound = sum(class_frequencies * ranges) / a
    ```

    Args:
        tau: Threshold of the norm, a number greater than zero;
            `float("inf")` for no clipping.
        matrix: Transition matrix of shape `(classes, classes)`: `matrix[i, j]` is
            the probability of label `j` for class `i`.
        p: Order of the norm, a number of at least 1; `float("inf")` is the
            maximum norm. Defaults to `2`.
        class_frequencies: Probabilities of the true classes. Defaults to `None`, which
            means a bound for all frequencies.

    Returns:
        The bound, in the unit of the cross-entropy.

    Raises:
        ValueError: If an argument is out of range, or the rows of the matrix or the
            frequencies do not sum to 1.

    Example:

    >>> import numpy as np
    >>> from keras_logitclip import bounds
    >>> pair_flip = 0.8 * np.eye(10) + 0.2 * np.roll(np.eye(10), 1, axis=1)
    >>> for tau in (0.1, 1.0, 10.0):
    ...     bound = bounds.class_dependent_excess_risk_bound(tau, pair_flip)
    ...     print(round(bound, 4))
    0.0474
    0.4674
    3.5372

    References:
        - [Wei et al., 2023](https://arxiv.org/abs/2212.04055)
    """
    tau, p = check_tau(tau), check_p(p)
    matrix = check_transition_matrix("matrix", matrix)
    matrix = matrix / matrix.sum(1, keepdims=True)
    frequencies = _check_frequencies(class_frequencies, len(matrix))
    if (matrix == np.eye(len(matrix))).all():
        return 0.0
    if tau == math.inf:
        return math.inf
    lower, upper = cross_entropy_bounds(tau, len(matrix), p)
    # Relative to the range of one loss, the numbers are moderate for any tau.
    relative = _range_of_sum(tau, len(matrix), p) / (upper - lower)
    relative = min(relative, len(matrix))

    def bound(a):
        ranges = _ranges(matrix - a * np.eye(len(matrix)), relative)
        mean = ranges.max() if frequencies is None else frequencies @ ranges
        return mean / a

    # The bound falls, then grows. It exceeds 1 beyond the largest diagonal entry.
    largest = matrix.diagonal().max()
    best = bound(minimize(bound, 1e-6 * largest, largest)) if largest > 0 else 1.0
    return (upper - lower) * float(min(best, 1.0))


def _range_of_sum(tau, num_classes, p):
    """Returns the largest S - K log K, exact for the orders 1, 2 and infinity.

    For other orders, the extreme logits have several values, and the number of classes
    with each value cannot be optimized smoothly. So the result is the smallest range
    over the balls of these orders that contain the ball.
    """
    if tau == math.inf:
        return math.inf
    around = {1.0: _range_in_ball_1, 2.0: _range_in_ball_2, math.inf: _range_in_cube}
    return min(
        range_of_sum(tau * num_classes ** max(1 / order - 1 / p, 0), num_classes)
        for order, range_of_sum in around.items()
        if p not in around or p == order
    )


def _range_in_ball_1(radius, num_classes):
    rest = num_classes - 1
    return max(
        _excess_of_sum([one, 0.0], [1, rest], num_classes) for one in (radius, -radius)
    )


def _range_in_ball_2(radius, num_classes):
    rest = num_classes - 1
    one = radius * math.sqrt(rest / num_classes)
    others = -radius / math.sqrt(num_classes * rest)
    return _excess_of_sum([one, others], [1, rest], num_classes)


def _range_in_cube(radius, num_classes):
    # S is concave in the share of the classes at the upper end. This is its maximum.
    share = 0.5
    if radius > 1e-6:
        share = 1 / (2 * radius) - 1 / math.expm1(min(2 * radius, 700.0))
    below = min(max(math.floor(share * num_classes), 1), num_classes - 1)
    return max(
        _excess_of_sum([radius, -radius], [many, num_classes - many], num_classes)
        for many in (below, min(below + 1, num_classes - 1))
    )


def _excess_of_sum(values, counts, num_classes):
    """Returns S - K log K for logits with these values and numbers of classes.

    It equals K log mean(exp(z - mean(z))). For small logits, the terms of first order
    are left out, because they cancel.
    """
    values, shares = np.array(values), np.array(counts) / num_classes
    values = values - shares @ values
    if np.abs(values).max() < 1:
        excess = math.log1p(shares @ _second_order(values))
    else:
        excess = float(np.logaddexp.reduce(values + np.log(shares)))
    return num_classes * excess


def _second_order(x):
    """Returns exp(x) - 1 - x without cancellation where x is close to 0."""
    return np.where(np.abs(x) < 1e-5, x * x / 2 * (1 + x / 3), np.expm1(x) - x)


def _ranges(weights, relative):
    """Returns the ranges of the weighted losses, for the best common part.

    A range falls with the common part while the number of weights above it is larger
    than `relative` plus the number of weights below it.
    """
    classes = weights.shape[1]
    place = classes - math.ceil((classes + relative) / 2)
    common = np.maximum(np.partition(weights, place, axis=1)[:, place], 0)
    return common * relative + np.abs(weights - common[:, None]).sum(1)


def _check_frequencies(class_frequencies, num_classes):
    if class_frequencies is None:
        return None
    frequencies = np.asarray(class_frequencies)
    fits = frequencies.shape == (num_classes,) and frequencies.dtype.kind in "iuf"
    # Negated so that NaN is refused, too.
    if not fits or not (
        (frequencies >= 0).all() and abs(frequencies.sum() - 1) <= 1e-6
    ):
        raise ValueError(
            "Invalid value for argument `class_frequencies`: expected probabilities "
            f"of shape `({num_classes},)` that sum to 1, such as "
            "`numpy.bincount(labels) / len(labels)`. "
            f"Received: class_frequencies={class_frequencies!r}"
        )
    return frequencies
