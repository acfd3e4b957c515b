"""Normalized negative losses, the passive part of active negative losses."""

import math

import keras
from keras import ops

from keras_logitclip._arguments import check_number
from keras_logitclip._numerics import constant
from keras_logitclip.losses._base import ClassificationLoss
from keras_logitclip.losses._base import mean_over_labels
from keras_logitclip.losses.cross_entropy import CrossEntropy
from keras_logitclip.losses.focal import Focal


class _NormalizedNegative(ClassificationLoss):
    """Computes 1 minus the normalized negative loss of a second base class.

    The negative loss is the largest loss minus the loss. The sum of the result over all
    labels is constant.
    """

    treats_other_classes_alike = True
    falls_with_probability = False
    is_symmetric = True

    def __init__(self, min_probability: float = 1e-7, **kwargs):
        super().__init__(**kwargs)
        self.min_probability = check_number(
            "min_probability", min_probability, "(0, 1)"
        )

    def of_rows(self, labels, log_probabilities):
        self._check_classes(log_probabilities.shape[-1])
        least = constant(math.log(self.min_probability), log_probabilities)
        negative = self.of_label(least) - self.of_label(log_probabilities)
        # Selected, not clipped, so that it is exactly zero despite rounding.
        negative = ops.where(log_probabilities > least, negative, constant(0.0, least))
        shares = negative / ops.sum(negative, -1, keepdims=True)
        return mean_over_labels(labels, 1 - shares)

    def get_config(self) -> dict:
        return {**super().get_config(), "min_probability": self.min_probability}

    def _check_classes(self, classes):
        """Raises an error if all probabilities could be below `min_probability`."""
        if classes is not None and classes * self.min_probability >= 1:
            raise ValueError(
                "Invalid value for argument `min_probability`: expected a number below "
                f"`1 / classes`. Received: min_probability={self.min_probability} for "
                f"{classes} classes"
            )


@keras.saving.register_keras_serializable(package="keras_logitclip")
class NormalizedNegativeCrossEntropy(_NormalizedNegative, CrossEntropy):
    """Computes 1 minus normalized negative cross-entropy.

    Negative cross-entropy is its largest value minus cross-entropy. The paper adds the
    loss to `NormalizedCrossEntropy` (ANL-CE), together with an L1 penalty of the
    parameters.

    If `p_y` is below `min_probability`, the loss is 1 and has no gradient.

    Formula:

    ```python
    cross_entropy = -log(maximum(p, min_probability))
    negative = -log(min_probability) - cross_entropy
    loss = 1 - negative[y] / sum(negative)
    ```

    Args:
        min_probability: Smallest probability, which replaces smaller ones. A number
            below `1 / classes`. Defaults to `1e-7`.
        **kwargs: The arguments of `ClassificationLoss`.

    Example:

    >>> import keras
    >>> from keras_logitclip import losses
    >>> loss = losses.NormalizedNegativeCrossEntropy()
    >>> print(round(float(loss([0], keras.ops.array([[2.0, 0.0]]))), 4))
    0.4666

    References:
        - [Ye et al., 2023](https://arxiv.org/abs/2310.20162)
    """


@keras.saving.register_keras_serializable(package="keras_logitclip")
class NormalizedNegativeFocal(_NormalizedNegative, Focal):
    """Computes 1 minus normalized negative focal loss.

    Negative focal loss is its largest value minus focal loss. The paper adds the loss
    to `NormalizedFocal` (ANL-FL), together with an L1 penalty of the parameters.

    If `p_y` is below `min_probability`, the loss is 1 and has no gradient.

    Formula:

    ```python
    focal = -((1 - p) ** gamma) * log(p)  # p at least min_probability
    largest = -((1 - min_probability) ** gamma) * log(min_probability)
    loss = 1 - (largest - focal[y]) / sum(largest - focal)
    ```

    Args:
        gamma: Exponent of the factor, not negative. Defaults to `0.5`, as in papers
            on noisy labels; in detection, 2 is usual.
        min_probability: Smallest probability, which replaces smaller ones. A number
            below `1 / classes`. Defaults to `1e-7`.
        **kwargs: The arguments of `ClassificationLoss`.

    Example:

    >>> import keras
    >>> from keras_logitclip import losses
    >>> loss = losses.NormalizedNegativeFocal(gamma=0.5)
    >>> print(round(float(loss([0], keras.ops.array([[2.0, 0.0]]))), 4))
    0.4677

    References:
        - [Ye et al., 2023](https://arxiv.org/abs/2310.20162)
    """

    def __init__(self, gamma: float = 0.5, min_probability: float = 1e-7, **kwargs):
        super().__init__(min_probability, gamma=gamma, **kwargs)
