"""Focal loss, and what its normalized forms share with it."""

import keras
from keras import ops

from keras_logitclip._arguments import check_number
from keras_logitclip._numerics import constant
from keras_logitclip._numerics import nonzero
from keras_logitclip._numerics import power
from keras_logitclip.losses._classification import ClassificationLoss
from keras_logitclip.losses._classification import expected_loss
from keras_logitclip.losses._classification import loss_of_rows
from keras_logitclip.losses._classification import one_minus_exp


def focal(y_true, y_pred, gamma: float = 0.5, from_logits: bool = True, axis: int = -1):
    """Computes the focal loss of each sample.

    See `Focal` for the arguments.

    Returns:
        The losses: the shape of `y_pred` without `axis`, float64 for float64
        predictions and float32 for all others.
    """
    gamma = check_gamma(gamma)

    def loss(labels, log_probabilities):
        return expected_loss(
            labels, log_probabilities, lambda x: focal_of_log(x, gamma)
        )

    return loss_of_rows(loss, y_true, y_pred, from_logits, axis)


@keras.saving.register_keras_serializable(package="keras_logitclip")
class Focal(ClassificationLoss):
    """Weights cross-entropy down where the label is probable.

    The factor is part of the loss and has a gradient, as in the paper that
    introduced it. The code of several papers on noisy labels detaches it from the
    gradient instead.

    Unlike Keras's `CategoricalFocalCrossentropy`, it has no `alpha`, takes class
    ids, too, and has a gradient where the label is most wrong.

    Formula:

    ```python
    loss = -((1 - p_y) ** gamma) * log(p_y)
    ```

    Args:
        gamma: Exponent of the factor, not negative. Defaults to `0.5`, as in papers
            on noisy labels; in detection, 2 is usual.
        from_logits: Whether `y_pred` are logits, not probabilities. Defaults to
            `True`.
        axis: Integer, the class axis. Defaults to `-1`.
        reduction: As in `keras.losses.Loss`. Defaults to
            `"sum_over_batch_size"`.
        name: Name of the loss. Defaults to `"focal"`.
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
        ValueError: If `gamma` is negative, or labels do not fit.

    Example:

    >>> import keras
    >>> from keras_logitclip import losses
    >>> loss = losses.Focal(gamma=0.5)
    >>> print(round(float(loss([0], keras.ops.array([[2.0, 0.0]]))), 4))
    0.0438

    References:
        - [Lin et al., 2017](https://arxiv.org/abs/1708.02002)
    """

    def __init__(
        self,
        gamma: float = 0.5,
        from_logits: bool = True,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str = "focal",
        dtype=None,
    ):
        super().__init__(from_logits, axis, reduction, name, dtype)
        self.gamma = check_gamma(gamma)

    def call(self, y_true, y_pred):
        return focal(y_true, y_pred, self.gamma, self.from_logits, self.axis)

    def get_config(self):
        return {**super().get_config(), "gamma": self.gamma}


def check_gamma(gamma) -> float:
    """Returns the exponent `gamma` as a float if it is not negative."""
    return check_number("gamma", gamma, "[0, inf)")


def focal_of_log(log_probability, gamma):
    """Returns the focal loss for log p."""
    return -_rest_to_the_power(log_probability, gamma) * log_probability


def _rest_to_the_power(log_probability, gamma):
    """Returns (1 - p)**gamma, whose gradient counts as zero where p is 1.

    For `gamma` below 1 it is infinite there. The loss multiplies it by log p,
    which is zero there: a gradient of NaN, where that of the loss is zero.
    """
    rest = one_minus_exp(log_probability)
    at_zero = constant(0.0**gamma, rest)
    return ops.where(rest == 0, at_zero, power(nonzero(rest), gamma))
