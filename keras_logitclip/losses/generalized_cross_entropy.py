"""Generalized cross-entropy: between cross-entropy and mean absolute error."""

import keras

from keras_logitclip._arguments import check_number
from keras_logitclip._numerics import box_cox
from keras_logitclip.losses._base import ClassificationLoss


@keras.saving.register_keras_serializable(package="keras_logitclip")
class GeneralizedCrossEntropy(ClassificationLoss):
    """Computes a loss between cross-entropy (`q` near 0) and MAE (`q=1`).

    The gradient is the gradient of cross-entropy times `p_y ** q`. So improbable
    labels, which include wrong ones, have less influence.

    Formula:

    ```python
    loss = (1 - p_y**q) / q
    ```

    Args:
        q: Exponent in (0, 1]. Defaults to `0.7`, the paper's value.
        **kwargs: The arguments of `ClassificationLoss`.

    Example:

    >>> import keras
    >>> from keras_logitclip import losses
    >>> loss = losses.GeneralizedCrossEntropy(q=0.7)
    >>> print(round(float(loss([0], keras.ops.array([[2.0, 0.0]]))), 4))
    0.1215

    References:
        - [Zhang and Sabuncu, 2018](https://arxiv.org/abs/1805.07836)
    """

    treats_other_classes_alike = True
    falls_with_probability = True

    def __init__(self, q: float = 0.7, **kwargs):
        super().__init__(**kwargs)
        self.q = check_number("q", q, "(0, 1]")

    def of_label(self, log_probability):
        return box_cox(log_probability, self.q)

    def get_config(self) -> dict:
        return {**super().get_config(), "q": self.q}
