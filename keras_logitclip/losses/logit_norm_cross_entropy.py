"""LogitNorm: cross-entropy of normalized logits."""

import keras
from keras import ops as keras_ops

from keras_logitclip import ops
from keras_logitclip._arguments import check_number
from keras_logitclip.losses._base import LogitsLoss
from keras_logitclip.losses._base import mean_over_labels

# The constant that the authors add to the norm.
_EPSILON = 1e-7


@keras.saving.register_keras_serializable(package="keras_logitclip")
class LogitNormCrossEntropy(LogitsLoss):
    """Computes cross-entropy of logits divided by their norm and a temperature.

    Every row gets the norm `1 / temperature`, except for rows of zeros. So the length
    of the logits has no influence, whereas `LogitClipLoss` keeps short rows unchanged.

    Formula:

    ```python
    loss = cross_entropy(y_true, y_pred / (temperature * (norm(y_pred) + 1e-7)))
    ```

    Args:
        temperature: A finite number greater than zero. The authors use 0.01 to 0.04.
            Defaults to `0.04`.
        **kwargs: The arguments of `LogitsLoss`.

    Example:

    >>> import keras
    >>> from keras_logitclip import losses
    >>> loss = losses.LogitNormCrossEntropy(temperature=0.5)
    >>> print(round(float(loss([0], keras.ops.array([[3.0, 4.0]]))), 4))
    0.913

    References:
        - [Wei et al., 2022](https://arxiv.org/abs/2205.09310)
    """

    treats_other_classes_alike = True

    def __init__(self, temperature: float = 0.04, **kwargs):
        super().__init__(**kwargs)
        self.temperature = check_number("temperature", temperature, "(0, inf)")

    def of_rows(self, labels, logits):
        normalized = _unit_rows(logits) / self.temperature
        return -mean_over_labels(labels, keras_ops.log_softmax(normalized, -1))

    def get_config(self) -> dict:
        return {**super().get_config(), "temperature": self.temperature}


def _unit_rows(logits):
    """Returns each row divided by its norm, and rows of zeros unchanged.

    Long rows are clipped first, because the quotient of huge logits and their norm, or
    its gradient, would overflow. Every finite row can be clipped at this threshold.
    """
    shorter = ops.logit_clip(logits, tau=1e6)
    return shorter / (ops.logit_norm(shorter, keepdims=True) + _EPSILON)
