"""LogitNorm: cross-entropy of logits that all have the same norm."""

import keras
from keras import ops as keras_ops

from keras_logitclip import ops
from keras_logitclip._arguments import check_number
from keras_logitclip.losses._classification import LogitsLoss
from keras_logitclip.losses._classification import expected_loss
from keras_logitclip.losses._classification import loss_of_logits

# What the authors add to the norm.
_EPSILON = 1e-7


def logit_norm_cross_entropy(y_true, y_pred, temperature: float = 0.04, axis: int = -1):
    """Computes the cross-entropy of each sample, of logits with the same norm.

    See `LogitNormCrossEntropy` for the arguments.

    Returns:
        The losses: the shape of `y_pred` without `axis`, float64 for float64
        logits and float32 for all others.
    """
    temperature = check_temperature(temperature)

    def loss(labels, logits):
        normalized = unit_rows(logits) / temperature
        log_probabilities = keras_ops.log_softmax(normalized, -1)
        return expected_loss(labels, log_probabilities, keras_ops.negative)

    return loss_of_logits(loss, y_true, y_pred, axis)


@keras.saving.register_keras_serializable(package="keras_logitclip")
class LogitNormCrossEntropy(LogitsLoss):
    """Cross-entropy of logits that are divided by their norm and a temperature.

    Every row gets the norm `1 / temperature`: unlike `LogitClipLoss`, which leaves
    short rows as they are, it takes the length of the logits out of training
    altogether. A row of zeros stays one.

    Formula:

    ```python
    loss = cross_entropy(y_true, y_pred / (temperature * (norm(y_pred) + 1e-7)))
    ```

    Args:
        temperature: A finite number greater than zero. Defaults to `0.04`; the
            authors take 0.01 to 0.04.
        axis: Integer, the class axis. Defaults to `-1`.
        reduction: As in `keras.losses.Loss`. Defaults to
            `"sum_over_batch_size"`.
        name: Name of the loss. Defaults to `"logit_norm_cross_entropy"`.
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
        ValueError: If `temperature` is not greater than zero; and, when called, if
            the labels do not fit or `y_pred` came out of a softmax or sigmoid
            (unnoticed under JAX, where Keras leaves no mark of it).

    Example:

    >>> import keras
    >>> from keras_logitclip import losses
    >>> loss = losses.LogitNormCrossEntropy(temperature=0.5)
    >>> print(round(float(loss([0], keras.ops.array([[3.0, 4.0]]))), 4))
    0.913

    References:
        - [Wei et al., 2022](https://arxiv.org/abs/2205.09310)
    """

    def __init__(
        self,
        temperature: float = 0.04,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str = "logit_norm_cross_entropy",
        dtype=None,
    ):
        super().__init__(axis, reduction, name, dtype)
        self.temperature = check_temperature(temperature)

    def call(self, y_true, y_pred):
        return logit_norm_cross_entropy(y_true, y_pred, self.temperature, self.axis)

    def get_config(self):
        return {**super().get_config(), "temperature": self.temperature}


def check_temperature(temperature) -> float:
    """Returns `temperature` as a float if it is finite and greater than zero."""
    return check_number("temperature", temperature, "(0, inf)")


def unit_rows(logits):
    """Returns each row divided by its norm, and rows of zeros as they are.

    Long rows are clipped first: the quotient of huge logits and their norm, or its
    gradient, would overflow. Then the norm is at most 1, to which 1e-7 is as little
    as to a longer one.
    """
    shorter = ops.logit_clip(logits, tau=1.0)
    return shorter / (ops.logit_norm(shorter, keepdims=True) + _EPSILON)
