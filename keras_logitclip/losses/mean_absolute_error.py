"""Mean absolute error of the probabilities, the first robust loss."""

import keras
from keras import ops

from keras_logitclip._labels import are_class_ids
from keras_logitclip.losses._classification import ClassificationLoss
from keras_logitclip.losses._classification import expected_loss
from keras_logitclip.losses._classification import loss_of_rows
from keras_logitclip.losses._classification import one_minus_exp


def categorical_mean_absolute_error(
    y_true, y_pred, from_logits: bool = True, axis: int = -1
):
    """Computes the mean absolute error of each sample.

    See `CategoricalMeanAbsoluteError` for the arguments.

    Returns:
        The losses: the shape of `y_pred` without `axis`, float64 for float64
        predictions and float32 for all others.
    """
    return loss_of_rows(_loss, y_true, y_pred, from_logits, axis)


@keras.saving.register_keras_serializable(package="keras_logitclip")
class CategoricalMeanAbsoluteError(ClassificationLoss):
    """Is the distance between the labels and the probabilities.

    It is bounded, and its sum over all labels is constant: uniform noise does not
    move its minimum. Its gradient is that of cross-entropy times `2 * p_y`, so it
    learns slowly where the label is improbable.

    Some papers use half of it, `1 - p_y`, under the same name: weights given for
    that one have to be halved here.

    Formula:

    ```python
    loss = sum(abs(p - y))  # 2 * (1 - p_y) for a class id
    ```

    Args:
        from_logits: Whether `y_pred` are logits, not probabilities. Defaults to
            `True`.
        axis: Integer, the class axis. Defaults to `-1`.
        reduction: As in `keras.losses.Loss`. Defaults to
            `"sum_over_batch_size"`.
        name: Name of the loss. Defaults to `"categorical_mean_absolute_error"`.
        dtype: The dtype of the loss's computations, as in
            `keras.losses.Loss`. Defaults to `None`, which means
            `keras.config.floatx()`.

    Call arguments:
        y_true: Class ids, of the shape of `y_pred` without `axis` or with size 1
            there, or one-hot or soft labels of the shape of `y_pred`. An id outside
            of the classes gives NaN.
        y_pred: Logits of shape `(batch, ..., classes)`.

    Raises:
        ValueError: If labels do not fit.

    Example:

    >>> import keras
    >>> from keras_logitclip import losses
    >>> loss = losses.CategoricalMeanAbsoluteError()
    >>> print(round(float(loss([0], keras.ops.array([[2.0, 0.0]]))), 4))
    0.2384

    References:
        - [Ghosh et al., 2017](https://arxiv.org/abs/1712.09482)
    """

    def __init__(
        self,
        from_logits: bool = True,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str = "categorical_mean_absolute_error",
        dtype=None,
    ):
        super().__init__(from_logits, axis, reduction, name, dtype)

    def call(self, y_true, y_pred):
        return categorical_mean_absolute_error(
            y_true, y_pred, self.from_logits, self.axis
        )


def _loss(labels, log_probabilities):
    if are_class_ids(labels):
        return expected_loss(labels, log_probabilities, _distance_to_one_hot)
    # Both sums to 1, p exceeds y by as much as y exceeds p. Counted on the side of
    # y, the classes without label have no gradients that would have to cancel.
    missing = ops.relu(labels - ops.exp(log_probabilities))
    return 2 * ops.sum(missing, -1) + (1 - ops.sum(labels, -1))


def _distance_to_one_hot(log_probability):
    return 2 * one_minus_exp(log_probability)
