"""Losses whose slope in the probability is bounded."""

import math
from collections.abc import Callable

import keras
from keras import ops

from keras_logitclip._arguments import check_number
from keras_logitclip._numerics import constant
from keras_logitclip.losses._classification import ClassificationLoss
from keras_logitclip.losses._classification import expected_loss
from keras_logitclip.losses._classification import loss_of_rows
from keras_logitclip.losses.generalized_cross_entropy import box_cox


def phuber_cross_entropy(
    y_true, y_pred, threshold: float = 10.0, from_logits: bool = True, axis: int = -1
):
    """Computes the partially Huberized cross-entropy of each sample.

    See `PHuberCrossEntropy` for the arguments.

    Returns:
        The losses: the shape of `y_pred` without `axis`, float64 for float64
        predictions and float32 for all others.
    """
    threshold = check_threshold(threshold)
    turn = -math.log(threshold)

    def loss(labels, log_probabilities):
        return expected_loss(
            labels,
            log_probabilities,
            lambda x: _huberize(x, ops.negative, turn, threshold),
        )

    return loss_of_rows(loss, y_true, y_pred, from_logits, axis)


def phuber_generalized_cross_entropy(
    y_true,
    y_pred,
    q: float = 0.7,
    threshold: float = 10.0,
    from_logits: bool = True,
    axis: int = -1,
):
    """Computes the partially Huberized generalized cross-entropy of each sample.

    See `PHuberGeneralizedCrossEntropy` for the arguments.

    Returns:
        The losses: the shape of `y_pred` without `axis`, float64 for float64
        predictions and float32 for all others.
    """
    q = check_open_q(q)
    threshold = check_threshold(threshold)
    turn = -math.log(threshold) / (1 - q)

    def generalized(log_probability):
        return box_cox(log_probability, q)

    def loss(labels, log_probabilities):
        return expected_loss(
            labels,
            log_probabilities,
            lambda x: _huberize(x, generalized, turn, threshold),
        )

    return loss_of_rows(loss, y_true, y_pred, from_logits, axis)


@keras.saving.register_keras_serializable(package="keras_logitclip")
class PHuberCrossEntropy(ClassificationLoss):
    """Is cross-entropy, continued by its tangent where `p_y` is small.

    The slope in the probability stays below `threshold`: samples whose label the
    model finds improbable, wrong ones among them, cannot dominate.

    Formula:

    ```python
    if p_y > 1 / threshold:
        loss = -log(p_y)
    else:
        loss = log(threshold) + 1 - threshold * p_y
    ```

    Args:
        threshold: Largest magnitude of the slope of the loss in the probability, a
            number greater than 1. The paper has 2 or 10 for 10 classes, 10 to 50
            for 100. Defaults to `10.0`.
        from_logits: Whether `y_pred` are logits, not probabilities. Defaults to
            `True`.
        axis: Integer, the class axis. Defaults to `-1`.
        reduction: As in `keras.losses.Loss`. Defaults to
            `"sum_over_batch_size"`.
        name: Name of the loss. Defaults to `"phuber_cross_entropy"`.
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
        ValueError: If `threshold` is not greater than 1, or labels do not fit.

    Example:

    >>> import keras
    >>> from keras_logitclip import losses
    >>> loss = losses.PHuberCrossEntropy(threshold=10.0)
    >>> print(round(float(loss([0], keras.ops.array([[2.0, 0.0]]))), 4))
    0.1269

    References:
        - [Menon et al., 2020](https://openreview.net/forum?id=rklB76EKPr)
    """

    def __init__(
        self,
        threshold: float = 10.0,
        from_logits: bool = True,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str = "phuber_cross_entropy",
        dtype=None,
    ):
        super().__init__(from_logits, axis, reduction, name, dtype)
        self.threshold = check_threshold(threshold)

    def call(self, y_true, y_pred):
        return phuber_cross_entropy(
            y_true, y_pred, self.threshold, self.from_logits, self.axis
        )

    def get_config(self):
        return {**super().get_config(), "threshold": self.threshold}


@keras.saving.register_keras_serializable(package="keras_logitclip")
class PHuberGeneralizedCrossEntropy(ClassificationLoss):
    """Is generalized cross-entropy, continued by its tangent where `p_y` is small.

    The slope in the probability stays below `threshold`, as with
    `PHuberCrossEntropy`.

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
        threshold: Largest magnitude of the slope of the loss in the probability, a
            number greater than 1. The paper has 2 or 10 for 10 classes, 10 to 50
            for 100. Defaults to `10.0`.
        from_logits: Whether `y_pred` are logits, not probabilities. Defaults to
            `True`.
        axis: Integer, the class axis. Defaults to `-1`.
        reduction: As in `keras.losses.Loss`. Defaults to
            `"sum_over_batch_size"`.
        name: Name of the loss. Defaults to `"phuber_generalized_cross_entropy"`.
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
        ValueError: If `q` is not between 0 and 1, `threshold` is not greater than
            1, or labels do not fit.

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

    def __init__(
        self,
        q: float = 0.7,
        threshold: float = 10.0,
        from_logits: bool = True,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str = "phuber_generalized_cross_entropy",
        dtype=None,
    ):
        super().__init__(from_logits, axis, reduction, name, dtype)
        self.q = check_open_q(q)
        self.threshold = check_threshold(threshold)

    def call(self, y_true, y_pred):
        return phuber_generalized_cross_entropy(
            y_true, y_pred, self.q, self.threshold, self.from_logits, self.axis
        )

    def get_config(self):
        return {**super().get_config(), "q": self.q, "threshold": self.threshold}


def check_threshold(threshold) -> float:
    """Returns `threshold` as a float if it is greater than 1."""
    return check_number("threshold", threshold, "(1, inf)")


def check_open_q(q) -> float:
    """Returns the exponent `q` as a float if it is in (0, 1)."""
    return check_number("q", q, "(0, 1)")


def _huberize(log_probability, function: Callable, turn: float, threshold: float):
    """Returns `function(log p)`, or its tangent in p where log p is below `turn`.

    `threshold` is the magnitude of the slope in p there.
    """
    at_turn = function(constant(turn, log_probability))
    intercept = at_turn + threshold * math.exp(turn)
    tangent = intercept - threshold * ops.exp(log_probability)
    return ops.where(log_probability <= turn, tangent, function(log_probability))
