"""Cross-entropy, for class ids and for one-hot labels alike."""

import keras
from keras import ops

from keras_logitclip.losses._classification import ClassificationLoss
from keras_logitclip.losses._classification import expected_loss
from keras_logitclip.losses._classification import loss_of_rows


def cross_entropy(y_true, y_pred, from_logits: bool = True, axis: int = -1):
    """Computes the cross-entropy of each sample.

    See `CrossEntropy` for the arguments.

    Returns:
        The losses: the shape of `y_pred` without `axis`, float64 for float64
        predictions and float32 for all others.
    """

    def loss(labels, log_probabilities):
        return expected_loss(labels, log_probabilities, ops.negative)

    return loss_of_rows(loss, y_true, y_pred, from_logits, axis)


@keras.saving.register_keras_serializable(package="keras_logitclip")
class CrossEntropy(ClassificationLoss):
    """The cross-entropy that the other losses are compared with.

    What `keras.losses.SparseCategoricalCrossentropy` computes for class ids and
    `keras.losses.CategoricalCrossentropy` for one-hot and soft labels: with this
    one, the kind of labels can change and the loss stays. A `LogitClipLoss` around
    it is as fast as around those of Keras.

    Formula:

    ```python
    loss = -log(p_y)
    ```

    Args:
        from_logits: Whether `y_pred` are logits, not probabilities. Defaults to
            `True`.
        axis: Integer, the class axis. Defaults to `-1`.
        reduction: As in `keras.losses.Loss`. Defaults to
            `"sum_over_batch_size"`.
        name: Name of the loss. Defaults to `"cross_entropy"`.
        dtype: The dtype of the loss's computations, as in
            `keras.losses.Loss`. Defaults to `None`, which means
            `keras.config.floatx()`.

    Call arguments:
        y_true: Class ids, of the shape of `y_pred` without `axis` or with size 1
            there, or one-hot or soft labels of the shape of `y_pred`. Soft
            labels give the mean of the loss over the labels.
            An id outside of the classes gives NaN.
        y_pred: Logits of shape `(batch, ..., classes)`.

    Raises:
        ValueError: If an argument is none of the above, or labels do not fit.

    Example:

    >>> import keras
    >>> from keras_logitclip import losses
    >>> loss = losses.CrossEntropy()
    >>> logits = keras.ops.array([[2.0, 0.0]])
    >>> print(round(float(loss([0], logits)), 4))
    0.1269
    >>> print(round(float(loss([[1.0, 0.0]], logits)), 4))
    0.1269
    """

    def __init__(
        self,
        from_logits: bool = True,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str = "cross_entropy",
        dtype=None,
    ):
        super().__init__(from_logits, axis, reduction, name, dtype)

    def call(self, y_true, y_pred):
        return cross_entropy(y_true, y_pred, self.from_logits, self.axis)
