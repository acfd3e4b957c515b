"""Normalized negative losses: the passive part of active negative losses."""

import math
from collections.abc import Callable

import keras
from keras import ops

from keras_logitclip._arguments import check_number
from keras_logitclip._numerics import constant
from keras_logitclip.losses._classification import ClassificationLoss
from keras_logitclip.losses._classification import loss_of_rows
from keras_logitclip.losses._classification import mean_over_labels
from keras_logitclip.losses.focal import check_gamma
from keras_logitclip.losses.focal import focal_of_log


def normalized_negative_cross_entropy(
    y_true,
    y_pred,
    min_probability: float = 1e-7,
    from_logits: bool = True,
    axis: int = -1,
):
    """Computes the normalized negative cross-entropy of each sample.

    See `NormalizedNegativeCrossEntropy` for the arguments.

    Returns:
        The losses: the shape of `y_pred` without `axis`, float64 for float64
        predictions and float32 for all others.
    """
    min_probability = check_min_probability(min_probability)

    def loss(labels, log_probabilities):
        return _normalized_negative(
            labels, log_probabilities, ops.negative, min_probability
        )

    return loss_of_rows(loss, y_true, y_pred, from_logits, axis)


def normalized_negative_focal(
    y_true,
    y_pred,
    gamma: float = 0.5,
    min_probability: float = 1e-7,
    from_logits: bool = True,
    axis: int = -1,
):
    """Computes the normalized negative focal loss of each sample.

    See `NormalizedNegativeFocal` for the arguments.

    Returns:
        The losses: the shape of `y_pred` without `axis`, float64 for float64
        predictions and float32 for all others.
    """
    gamma = check_gamma(gamma)
    min_probability = check_min_probability(min_probability)

    def focal(log_probability):
        return focal_of_log(log_probability, gamma)

    def loss(labels, log_probabilities):
        return _normalized_negative(labels, log_probabilities, focal, min_probability)

    return loss_of_rows(loss, y_true, y_pred, from_logits, axis)


@keras.saving.register_keras_serializable(package="keras_logitclip")
class NormalizedNegativeCrossEntropy(ClassificationLoss):
    """Turns cross-entropy around and normalizes it.

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
        from_logits: Whether `y_pred` are logits, not probabilities. Defaults to
            `True`.
        axis: Integer, the class axis. Defaults to `-1`.
        reduction: As in `keras.losses.Loss`. Defaults to
            `"sum_over_batch_size"`.
        name: Name of the loss. Defaults to `"normalized_negative_cross_entropy"`.
        dtype: The dtype of the loss's computations, as in
            `keras.losses.Loss`. Defaults to `None`, which means
            `keras.config.floatx()`.

    Call arguments:
        y_true: Class ids, of the shape of `y_pred` without `axis` or with size 1
            there, or one-hot or soft labels of the shape of `y_pred`. Soft labels
            give the mean of the loss over the labels. An id outside of the classes
            gives NaN.
        y_pred: Logits of shape `(batch, ..., classes)`.

    Raises:
        ValueError: If `min_probability` is not between 0 and 1 over the number of
            classes, or labels do not fit.

    Example:

    >>> import keras
    >>> from keras_logitclip import losses
    >>> loss = losses.NormalizedNegativeCrossEntropy()
    >>> print(round(float(loss([0], keras.ops.array([[2.0, 0.0]]))), 4))
    0.4666

    References:
        - [Ye et al., 2023](https://arxiv.org/abs/2310.20162)
    """

    def __init__(
        self,
        min_probability: float = 1e-7,
        from_logits: bool = True,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str = "normalized_negative_cross_entropy",
        dtype=None,
    ):
        super().__init__(from_logits, axis, reduction, name, dtype)
        self.min_probability = check_min_probability(min_probability)

    def call(self, y_true, y_pred):
        return normalized_negative_cross_entropy(
            y_true, y_pred, self.min_probability, self.from_logits, self.axis
        )

    def get_config(self):
        return {**super().get_config(), "min_probability": self.min_probability}


@keras.saving.register_keras_serializable(package="keras_logitclip")
class NormalizedNegativeFocal(ClassificationLoss):
    """Turns focal loss around and normalizes it.

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
        from_logits: Whether `y_pred` are logits, not probabilities. Defaults to
            `True`.
        axis: Integer, the class axis. Defaults to `-1`.
        reduction: As in `keras.losses.Loss`. Defaults to
            `"sum_over_batch_size"`.
        name: Name of the loss. Defaults to `"normalized_negative_focal"`.
        dtype: The dtype of the loss's computations, as in
            `keras.losses.Loss`. Defaults to `None`, which means
            `keras.config.floatx()`.

    Call arguments:
        y_true: Class ids, of the shape of `y_pred` without `axis` or with size 1
            there, or one-hot or soft labels of the shape of `y_pred`. Soft labels
            give the mean of the loss over the labels. An id outside of the classes
            gives NaN.
        y_pred: Logits of shape `(batch, ..., classes)`.

    Raises:
        ValueError: If `gamma` is negative, `min_probability` is not between 0 and 1
            over the number of classes, or labels do not fit.

    Example:

    >>> import keras
    >>> from keras_logitclip import losses
    >>> loss = losses.NormalizedNegativeFocal(gamma=0.5)
    >>> print(round(float(loss([0], keras.ops.array([[2.0, 0.0]]))), 4))
    0.4677

    References:
        - [Ye et al., 2023](https://arxiv.org/abs/2310.20162)
    """

    def __init__(
        self,
        gamma: float = 0.5,
        min_probability: float = 1e-7,
        from_logits: bool = True,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str = "normalized_negative_focal",
        dtype=None,
    ):
        super().__init__(from_logits, axis, reduction, name, dtype)
        self.gamma = check_gamma(gamma)
        self.min_probability = check_min_probability(min_probability)

    def call(self, y_true, y_pred):
        return normalized_negative_focal(
            y_true,
            y_pred,
            self.gamma,
            self.min_probability,
            self.from_logits,
            self.axis,
        )

    def get_config(self):
        return {
            **super().get_config(),
            "gamma": self.gamma,
            "min_probability": self.min_probability,
        }


def check_min_probability(min_probability) -> float:
    """Returns `min_probability` as a float if it is between 0 and 1."""
    return check_number("min_probability", min_probability, "(0, 1)")


def _normalized_negative(labels, log_probabilities, function: Callable, minimum):
    _check_classes(log_probabilities.shape[-1], minimum)
    least = constant(math.log(minimum), log_probabilities)
    negative = function(least) - function(log_probabilities)
    # Selected, not clipped: exactly zero there, whatever the rounding.
    negative = ops.where(log_probabilities > least, negative, constant(0.0, least))
    shares = negative / ops.sum(negative, -1, keepdims=True)
    return mean_over_labels(labels, 1 - shares)


def _check_classes(classes, min_probability):
    """Raises if all classes could be as improbable as `min_probability`."""
    if classes is not None and classes * min_probability >= 1:
        raise ValueError(
            "Invalid value for argument `min_probability`: expected less than 1 "
            "over the number of classes. "
            f"Received: min_probability={min_probability} for {classes} classes"
        )
