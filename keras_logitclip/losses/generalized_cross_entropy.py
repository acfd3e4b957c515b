"""Generalized cross-entropy: between cross-entropy and mean absolute error."""

import keras

from keras_logitclip._arguments import check_number
from keras_logitclip.losses._classification import ClassificationLoss
from keras_logitclip.losses._classification import expected_loss
from keras_logitclip.losses._classification import loss_of_rows
from keras_logitclip.losses._classification import one_minus_exp


def generalized_cross_entropy(
    y_true, y_pred, q: float = 0.7, from_logits: bool = True, axis: int = -1
):
    """Computes the generalized cross-entropy of each sample.

    See `GeneralizedCrossEntropy` for the arguments.

    Returns:
        The losses: the shape of `y_pred` without `axis`, float64 for float64
        predictions and float32 for all others.
    """
    q = check_q(q)

    def loss(labels, log_probabilities):
        return expected_loss(labels, log_probabilities, lambda x: box_cox(x, q))

    return loss_of_rows(loss, y_true, y_pred, from_logits, axis)


@keras.saving.register_keras_serializable(package="keras_logitclip")
class GeneralizedCrossEntropy(ClassificationLoss):
    """Lies between cross-entropy (`q` towards 0) and mean absolute error (`q=1`).

    The gradient of a sample is that of cross-entropy times `p_y ** q`: samples
    whose label the model finds improbable, wrong ones among them, count less.

    Formula:

    ```python
    loss = (1 - p_y**q) / q
    ```

    Args:
        q: Exponent in (0, 1]. Defaults to `0.7`.
        from_logits: Whether `y_pred` are logits, not probabilities. Defaults to
            `True`.
        axis: Integer, the class axis. Defaults to `-1`.
        reduction: As in `keras.losses.Loss`. Defaults to
            `"sum_over_batch_size"`.
        name: Name of the loss. Defaults to `"generalized_cross_entropy"`.
        dtype: The dtype of the loss's computations, as in
            `keras.losses.Loss`. Defaults to `None`, which means
            `keras.config.floatx()`.

    Call arguments:
        y_true: Class ids, of the shape of `y_pred` without `axis` or with size 1
            there, or one-hot or soft labels of the shape of `y_pred`. Soft
            labels give the mean of the loss over the labels. An id outside of
            the classes gives NaN.
        y_pred: Logits of shape `(batch, ..., classes)`.

    Raises:
        ValueError: If `q` is outside of (0, 1], or labels do not fit.

    Example:

    >>> import keras
    >>> from keras_logitclip import losses
    >>> loss = losses.GeneralizedCrossEntropy(q=0.7)
    >>> print(round(float(loss([0], keras.ops.array([[2.0, 0.0]]))), 4))
    0.1215

    References:
        - [Zhang and Sabuncu, 2018](https://arxiv.org/abs/1805.07836)
    """

    def __init__(
        self,
        q: float = 0.7,
        from_logits: bool = True,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str = "generalized_cross_entropy",
        dtype=None,
    ):
        super().__init__(from_logits, axis, reduction, name, dtype)
        self.q = check_q(q)

    def call(self, y_true, y_pred):
        return generalized_cross_entropy(
            y_true, y_pred, self.q, self.from_logits, self.axis
        )

    def get_config(self):
        return {**super().get_config(), "q": self.q}


def check_q(q) -> float:
    """Returns the exponent `q` as a float if it is in (0, 1]."""
    return check_number("q", q, "(0, 1]")


def box_cox(log_probability, q):
    """Returns (1 - p**q) / q, precise where p**q is close to 1."""
    return one_minus_exp(q * log_probability) / q
