"""Partially Huberized losses, whose slope in the probability is bounded."""

import math
from collections.abc import Callable

import keras
from keras import ops

from keras_logitclip._arguments import check_number
from keras_logitclip._numerics import box_cox
from keras_logitclip._numerics import constant
from keras_logitclip.losses._base import ClassificationLoss


@keras.saving.register_keras_serializable(package="keras_logitclip")
class PHuberCrossEntropy(ClassificationLoss):
    """Computes cross-entropy, continued by its tangent for small `p_y`.

    The magnitude of the slope in the probability is at most `threshold`. So improbable
    labels, which include wrong ones, cannot dominate.

    Formula:

    ```python
    if p_y > 1 / threshold:
        loss = -log(p_y)
    else:
        loss = log(threshold) + 1 - threshold * p_y
    ```

    Args:
        threshold: Largest magnitude of the slope in the probability, a number greater
            than 1. The paper uses 2 or 10 for 10 classes, and 10 to 50 for 100.
            Defaults to `10.0`.
        **kwargs: The arguments of `ClassificationLoss`.

    Example:

    >>> import keras
    >>> from keras_logitclip import losses
    >>> loss = losses.PHuberCrossEntropy(threshold=10.0)
    >>> print(round(float(loss([0], keras.ops.array([[2.0, 0.0]]))), 4))
    0.1269

    References:
        - [Menon et al., 2020](https://openreview.net/forum?id=rklB76EKPr)
    """

    treats_other_classes_alike = True
    falls_with_probability = True

    def __init__(self, threshold: float = 10.0, **kwargs):
        super().__init__(**kwargs)
        self.threshold = check_number("threshold", threshold, "(1, inf)")

    def of_label(self, log_probability):
        turn = -math.log(self.threshold)
        return _huberize(ops.negative, log_probability, turn, self.threshold)

    def get_config(self) -> dict:
        return {**super().get_config(), "threshold": self.threshold}


@keras.saving.register_keras_serializable(package="keras_logitclip")
class PHuberGeneralizedCrossEntropy(ClassificationLoss):
    """Computes generalized cross-entropy, continued by its tangent for small `p_y`.

    The magnitude of the slope is at most `threshold`, as in `PHuberCrossEntropy`.

    Formula:

    ```python
    turn = threshold ** (1 / (q - 1))
    if p_y > turn:
        loss = (1 - p_y**q) / q
    else:
        loss = (1 - turn**q) / q + threshold * (turn - p_y)
    ```

    Args:
        q: Exponent between 0 and 1. Defaults to `0.7`.
        threshold: As in `PHuberCrossEntropy`. Defaults to `10.0`.
        **kwargs: The arguments of `ClassificationLoss`.

    Example:

    >>> import keras
    >>> from keras_logitclip import losses
    >>> loss = losses.PHuberGeneralizedCrossEntropy(q=0.7, threshold=10.0)
    >>> print(round(float(loss([0], keras.ops.array([[2.0, 0.0]]))), 4))
    0.1215

    References:
        - [Menon et al., 2020](https://openreview.net/forum?id=rklB76EKPr)
        - [Zhang and Sabuncu, 2018](https://arxiv.org/abs/1805.07836)
    """

    treats_other_classes_alike = True
    falls_with_probability = True

    def __init__(self, q: float = 0.7, threshold: float = 10.0, **kwargs):
        super().__init__(**kwargs)
        self.q = check_number("q", q, "(0, 1)")
        self.threshold = check_number("threshold", threshold, "(1, inf)")

    def of_label(self, log_probability):
        turn = -math.log(self.threshold) / (1 - self.q)
        return _huberize(
            lambda x: box_cox(x, self.q), log_probability, turn, self.threshold
        )

    def get_config(self) -> dict:
        return {**super().get_config(), "q": self.q, "threshold": self.threshold}


def _huberize(function: Callable, log_probability, turn: float, threshold: float):
    """Returns `function(log p)`, or its tangent in p where log p is below `turn`.

    `threshold` is the magnitude of the slope in p there.
    """
    at_turn = function(constant(turn, log_probability))
    intercept = at_turn + threshold * math.exp(turn)
    tangent = intercept - threshold * ops.exp(log_probability)
    return ops.where(log_probability <= turn, tangent, function(log_probability))
