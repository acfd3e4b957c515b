"""The largest probability of a class, and the thresholds that follow from it."""

import math

from keras_logitclip._arguments import check_num_classes
from keras_logitclip._arguments import check_number
from keras_logitclip._arguments import check_p
from keras_logitclip.bounds._cross_entropy import cross_entropy_bounds
from keras_logitclip.bounds._cross_entropy import spread


def max_probability(tau: float, num_classes: int, p: float = 2) -> float:
    """Computes the largest probability that clipped logits can give to a class.

    It is `exp(-lower)` with the smallest cross-entropy of `cross_entropy_bounds`.

    Formula:

    ```python
    spread = (1 + (K - 1) ** (-q / p)) ** (1 / q)  # 1 / p + 1 / q = 1
    probability = 1 / (1 + (K - 1) * exp(-tau * spread))
    ```

    Args:
        tau: Threshold of the norm, a number greater than zero;
            `float("inf")` for no clipping.
        num_classes: Number of classes, at least 2.
        p: Order of the norm, a number of at least 1; `float("inf")` is the
            maximum norm. Defaults to `2`.

    Returns:
        The probability.

    Raises:
        ValueError: If an argument is out of range.

    Example:

    >>> from keras_logitclip import bounds
    >>> print(round(bounds.max_probability(tau=1.0, num_classes=10), 4))
    0.2417
    """
    return math.exp(-cross_entropy_bounds(tau, num_classes, p).lower)


def tau_for_probability(probability: float, num_classes: int, p: float = 2) -> float:
    """Computes the smallest threshold at which a class can have this probability.

    It is the inverse of `max_probability`.

    Formula:

    ```python
    spread = (1 + (K - 1) ** (-q / p)) ** (1 / q)  # 1 / p + 1 / q = 1
    tau = log((K - 1) * probability / (1 - probability)) / spread
    ```

    Args:
        probability: The probability, a number in `(1 / num_classes, 1)`.
        num_classes: Number of classes, at least 2.
        p: Order of the norm, a number of at least 1; `float("inf")` is the
            maximum norm. Defaults to `2`.

    Returns:
        The threshold.

    Raises:
        ValueError: If an argument is out of range.

    Example:

    >>> from keras_logitclip import bounds
    >>> print(round(bounds.tau_for_probability(0.9, num_classes=10), 4))
    4.1689
    """
    num_classes, p = check_num_classes(num_classes), check_p(p)
    probability = check_number(
        "probability",
        probability,
        f"({1 / num_classes}, 1)",
        f"more than a guess among {num_classes} classes",
    )
    excess = (num_classes * probability - 1) / (1 - probability)
    return math.log1p(excess) / spread(num_classes, p)


def tau_for_noise_rate(noise_rate: float, num_classes: int, p: float = 2) -> float:
    """Computes the smallest threshold that does not underfit symmetric noise.

    If a label is wrong with probability `noise_rate`, a perfect model gives the true
    class the probability `1 - noise_rate`. The threshold that allows this is
    `tau_for_probability(1 - noise_rate)`. With a smaller one, no model can be as
    certain as it should be. A larger one leaves room to memorize.

    A model can predict the right class without being that certain, and smaller
    thresholds had better accuracies in our measurements (docs/choosing_tau.md).

    Args:
        noise_rate: Probability that a label is replaced by another class, all of
            them equally likely. A number in `[0, (num_classes - 1) / num_classes)`.
        num_classes: Number of classes, at least 2.
        p: Order of the norm, a number of at least 1; `float("inf")` is the
            maximum norm. Defaults to `2`.

    Returns:
        The threshold, `float("inf")` for a rate of 0.

    Raises:
        ValueError: If an argument is out of range.

    Example:

    >>> from keras_logitclip import bounds
    >>> print(round(bounds.tau_for_noise_rate(0.4, num_classes=10), 4))
    2.4691
    """
    num_classes, p = check_num_classes(num_classes), check_p(p)
    noise_rate = check_noise_rate(noise_rate, num_classes)
    if noise_rate == 0:
        return math.inf
    # Without the difference `1 - noise_rate`, which would round off a small rate.
    excess = (num_classes - 1 - num_classes * noise_rate) / noise_rate
    return math.log1p(excess) / spread(num_classes, p)


def check_noise_rate(noise_rate, num_classes: int) -> float:
    """Returns the rate as a float if the true class is the most frequent."""
    return check_number(
        "noise_rate",
        noise_rate,
        f"[0, {1 - 1 / num_classes})",
        f"so that of {num_classes} classes the true one is the most frequent label",
    )
