"""Reverse cross-entropy, and its sum with cross-entropy."""

import math

import keras
from keras import ops

from keras_logitclip._arguments import check_number
from keras_logitclip._labels import are_class_ids
from keras_logitclip._numerics import constant
from keras_logitclip.losses._classification import ClassificationLoss
from keras_logitclip.losses._classification import expected_loss
from keras_logitclip.losses._classification import loss_of_rows
from keras_logitclip.losses._classification import one_minus_exp


def reverse_cross_entropy(
    y_true, y_pred, min_label: float = 1e-4, from_logits: bool = True, axis: int = -1
):
    """Computes the reverse cross-entropy of each sample.

    See `ReverseCrossEntropy` for the arguments.

    Returns:
        The losses: the shape of `y_pred` without `axis`, float64 for float64
        predictions and float32 for all others.
    """
    min_label = check_min_label(min_label)

    def loss(labels, log_probabilities):
        return _reverse(labels, log_probabilities, min_label)

    return loss_of_rows(loss, y_true, y_pred, from_logits, axis)


def symmetric_cross_entropy(
    y_true,
    y_pred,
    alpha: float = 0.1,
    beta: float = 1.0,
    min_label: float = 1e-4,
    from_logits: bool = True,
    axis: int = -1,
):
    """Computes the symmetric cross-entropy of each sample.

    See `SymmetricCrossEntropy` for the arguments.

    Returns:
        The losses: the shape of `y_pred` without `axis`, float64 for float64
        predictions and float32 for all others.
    """
    alpha = check_weight("alpha", alpha)
    beta = check_weight("beta", beta)
    min_label = check_min_label(min_label)

    def loss(labels, log_probabilities):
        direct = expected_loss(labels, log_probabilities, ops.negative)
        reverse = _reverse(labels, log_probabilities, min_label)
        return alpha * direct + beta * reverse

    return loss_of_rows(loss, y_true, y_pred, from_logits, axis)


@keras.saving.register_keras_serializable(package="keras_logitclip")
class ReverseCrossEntropy(ClassificationLoss):
    """Is cross-entropy with the labels and the probabilities exchanged.

    For a class id it is mean absolute error times `-log(min_label) / 2`.

    Formula:

    ```python
    loss = -sum(p * log(clip(y, min_label, 1)))
    ```

    Args:
        min_label: Labels below it, the zeros of a one-hot label among them, count
            as this number, whose logarithm is finite. A number between 0 and 1.
            Defaults to `1e-4`.
        from_logits: Whether `y_pred` are logits, not probabilities. Defaults to
            `True`.
        axis: Integer, the class axis. Defaults to `-1`.
        reduction: As in `keras.losses.Loss`. Defaults to
            `"sum_over_batch_size"`.
        name: Name of the loss. Defaults to `"reverse_cross_entropy"`.
        dtype: The dtype of the loss's computations, as in
            `keras.losses.Loss`. Defaults to `None`, which means
            `keras.config.floatx()`.

    Call arguments:
        y_true: Class ids, of the shape of `y_pred` without `axis` or with size 1
            there, or one-hot or soft labels of the shape of `y_pred`. An id outside
            of the classes gives NaN.
        y_pred: Logits of shape `(batch, ..., classes)`.

    Raises:
        ValueError: If `min_label` is not between 0 and 1, or labels do not fit.

    Example:

    >>> import keras
    >>> from keras_logitclip import losses
    >>> loss = losses.ReverseCrossEntropy()
    >>> print(round(float(loss([0], keras.ops.array([[2.0, 0.0]]))), 4))
    1.0979

    References:
        - [Wang et al., 2019](https://arxiv.org/abs/1908.06112)
    """

    def __init__(
        self,
        min_label: float = 1e-4,
        from_logits: bool = True,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str = "reverse_cross_entropy",
        dtype=None,
    ):
        super().__init__(from_logits, axis, reduction, name, dtype)
        self.min_label = check_min_label(min_label)

    def call(self, y_true, y_pred):
        return reverse_cross_entropy(
            y_true, y_pred, self.min_label, self.from_logits, self.axis
        )

    def get_config(self):
        return {**super().get_config(), "min_label": self.min_label}


@keras.saving.register_keras_serializable(package="keras_logitclip")
class SymmetricCrossEntropy(ClassificationLoss):
    """Adds the robust reverse cross-entropy to cross-entropy, which learns fast.

    Formula:

    ```python
    cross_entropy = -sum(y * log(p))
    reverse_cross_entropy = -sum(p * log(clip(y, min_label, 1)))
    loss = alpha * cross_entropy + beta * reverse_cross_entropy
    ```

    Args:
        alpha: Weight of cross-entropy, not negative. The paper has 0.1 for CIFAR-10
            and 6 for CIFAR-100. Defaults to `0.1`.
        beta: Weight of reverse cross-entropy, not negative. The paper has 1 for
            CIFAR-10 and 0.1 for CIFAR-100. Defaults to `1.0`.
        min_label: Labels below it, the zeros of a one-hot label among them, count
            as this number, whose logarithm is finite. A number between 0 and 1.
            Defaults to `1e-4`.
        from_logits: Whether `y_pred` are logits, not probabilities. Defaults to
            `True`.
        axis: Integer, the class axis. Defaults to `-1`.
        reduction: As in `keras.losses.Loss`. Defaults to
            `"sum_over_batch_size"`.
        name: Name of the loss. Defaults to `"symmetric_cross_entropy"`.
        dtype: The dtype of the loss's computations, as in
            `keras.losses.Loss`. Defaults to `None`, which means
            `keras.config.floatx()`.

    Call arguments:
        y_true: Class ids, of the shape of `y_pred` without `axis` or with size 1
            there, or one-hot or soft labels of the shape of `y_pred`. An id outside
            of the classes gives NaN.
        y_pred: Logits of shape `(batch, ..., classes)`.

    Raises:
        ValueError: If a weight is negative, `min_label` is not between 0 and 1, or
            labels do not fit.

    Example:

    >>> import keras
    >>> from keras_logitclip import losses
    >>> loss = losses.SymmetricCrossEntropy()
    >>> print(round(float(loss([0], keras.ops.array([[2.0, 0.0]]))), 4))
    1.1106

    References:
        - [Wang et al., 2019](https://arxiv.org/abs/1908.06112)
    """

    def __init__(
        self,
        alpha: float = 0.1,
        beta: float = 1.0,
        min_label: float = 1e-4,
        from_logits: bool = True,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str = "symmetric_cross_entropy",
        dtype=None,
    ):
        super().__init__(from_logits, axis, reduction, name, dtype)
        self.alpha = check_weight("alpha", alpha)
        self.beta = check_weight("beta", beta)
        self.min_label = check_min_label(min_label)

    def call(self, y_true, y_pred):
        return symmetric_cross_entropy(
            y_true,
            y_pred,
            self.alpha,
            self.beta,
            self.min_label,
            self.from_logits,
            self.axis,
        )

    def get_config(self):
        return {
            **super().get_config(),
            "alpha": self.alpha,
            "beta": self.beta,
            "min_label": self.min_label,
        }


def check_weight(name, weight) -> float:
    """Returns a weight of a sum of losses as a float if it is not negative."""
    return check_number(name, weight, "[0, inf)")


def check_min_label(min_label) -> float:
    """Returns `min_label` as a float if it is between 0 and 1."""
    return check_number("min_label", min_label, "(0, 1)")


def _reverse(labels, log_probabilities, min_label):
    scale = -math.log(min_label)
    if are_class_ids(labels):
        return expected_loss(
            labels, log_probabilities, lambda x: scale * one_minus_exp(x)
        )
    # The logarithms count from that of `min_label`: a class without label has the
    # weight zero, and no gradient that would have to cancel.
    clipped = ops.clip(labels, constant(min_label, labels), constant(1.0, labels))
    weights = ops.log(clipped) + scale
    return scale - ops.sum(weights * ops.exp(log_probabilities), -1)
