"""Normalized negative losses: the passive part of active negative losses."""

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
    """Normalizes what the loss of a label, that of a second base, is below its maximum.

    The loss is what is missing to 1; its sum over all labels is constant.
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
        # Selected, not clipped: exactly zero there, whatever the rounding.
        negative = ops.where(log_probabilities > least, negative, constant(0.0, least))
        shares = negative / ops.sum(negative, -1, keepdims=True)
        return mean_over_labels(labels, 1 - shares)

    def get_config(self):
        return {**super().get_config(), "min_probability": self.min_probability}

    def _check_classes(self, classes):
        """Raises an error if no class has to exceed `min_probability`."""
        if classes is not None and classes * self.min_probability >= 1:
            raise ValueError(
                "Invalid value for argument `min_probability`: expected less than 1 "
                "over the number of classes. Received: "
                f"min_probability={self.min_probability} for {classes} classes"
            )


@keras.saving.register_keras_serializable(package="keras_logitclip")
class NormalizedNegativeCrossEntropy(_NormalizedNegative, CrossEntropy):
    """Normalizes what cross-entropy is below its maximum.

    Cross-entropy is subtracted from its largest value and divided by the sum over
    all labels; the loss is what is missing to 1. The paper adds it to
    `NormalizedCrossEntropy` (ANL-CE) together with an L1 penalty on the model's
    parameters.

    Where `p_y` is below `min_probability`, the loss is 1 and has no gradient, by
    its definition.

    Formula:

    ```python
    cross_entropy = -log(maximum(p, min_probability))
    negative = -log(min_probability) - cross_entropy
    loss = 1 - negative[y] / sum(negative)
    ```

    Args:
        min_probability: Probabilities below it count as this number. Less than 1
            over the number of classes. Defaults to `1e-7`.
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
    """Normalizes what focal loss is below its maximum.

    Focal loss is subtracted from its largest value and divided by the sum over all
    labels; the loss is what is missing to 1. The paper adds it to `NormalizedFocal`
    (ANL-FL) together with an L1 penalty on the model's parameters.

    Where `p_y` is below `min_probability`, the loss is 1 and has no gradient, by
    its definition.

    Formula:

    ```python
    focal = -((1 - p) ** gamma) * log(p)  # p at least min_probability
    largest = -((1 - min_probability) ** gamma) * log(min_probability)
    loss = 1 - (largest - focal[y]) / sum(largest - focal)
    ```

    Args:
        gamma: Exponent of the factor, not negative. Defaults to `0.5`, as in papers
            on noisy labels; in detection, 2 is usual.
        min_probability: Probabilities below it count as this number. Less than 1
            over the number of classes. Defaults to `1e-7`.
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
