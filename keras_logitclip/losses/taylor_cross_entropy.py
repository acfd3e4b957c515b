"""Taylor cross-entropy: the first terms of a series of cross-entropy."""

import keras

from keras_logitclip._arguments import check_count
from keras_logitclip.losses._classification import ClassificationLoss
from keras_logitclip.losses._classification import expected_loss
from keras_logitclip.losses._classification import loss_of_rows
from keras_logitclip.losses._classification import one_minus_exp


def taylor_cross_entropy(
    y_true, y_pred, order: int = 2, from_logits: bool = True, axis: int = -1
):
    """Computes the Taylor cross-entropy of each sample.

    See `TaylorCrossEntropy` for the arguments.

    Returns:
        The losses: the shape of `y_pred` without `axis`, float64 for float64
        predictions and float32 for all others.
    """
    order = check_order(order)

    def loss(labels, log_probabilities):
        return expected_loss(labels, log_probabilities, lambda x: _series(x, order))

    return loss_of_rows(loss, y_true, y_pred, from_logits, axis)


@keras.saving.register_keras_serializable(package="keras_logitclip")
class TaylorCrossEntropy(ClassificationLoss):
    """Is the Taylor series of cross-entropy at `p_y = 1` up to an order.

    Order 1 is half of mean absolute error, and with growing order the loss becomes
    cross-entropy.

    Formula:

    ```python
    loss = sum((1 - p_y) ** i / i for i in range(1, order + 1))
    ```

    Args:
        order: Number of terms, an integer of at least 1. Defaults to `2`.
        from_logits: Whether `y_pred` are logits, not probabilities. Defaults to
            `True`.
        axis: Integer, the class axis. Defaults to `-1`.
        reduction: As in `keras.losses.Loss`. Defaults to
            `"sum_over_batch_size"`.
        name: Name of the loss. Defaults to `"taylor_cross_entropy"`.
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
        ValueError: If `order` is no integer of at least 1, or labels do not fit.

    Example:

    >>> import keras
    >>> from keras_logitclip import losses
    >>> loss = losses.TaylorCrossEntropy(order=2)
    >>> print(round(float(loss([0], keras.ops.array([[2.0, 0.0]]))), 4))
    0.1263

    References:
        - [Feng et al., 2020](https://www.ijcai.org/proceedings/2020/305)
    """

    def __init__(
        self,
        order: int = 2,
        from_logits: bool = True,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str = "taylor_cross_entropy",
        dtype=None,
    ):
        super().__init__(from_logits, axis, reduction, name, dtype)
        self.order = check_order(order)

    def call(self, y_true, y_pred):
        return taylor_cross_entropy(
            y_true, y_pred, self.order, self.from_logits, self.axis
        )

    def get_config(self):
        return {**super().get_config(), "order": self.order}


def check_order(order) -> int:
    """Returns `order` as an int if it is an integer of at least 1."""
    return check_count("order", order)


def _series(log_probability, order):
    """Returns the sum of (1 - p)**i / i for i from 1 to the order."""
    rest = one_minus_exp(log_probability)
    total = 0.0
    for i in range(order, 0, -1):
        total = (total + 1 / i) * rest
    return total
