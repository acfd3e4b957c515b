"""Taylor cross-entropy: the first terms of the Taylor series of cross-entropy."""

import keras

from keras_logitclip._arguments import check_count
from keras_logitclip._numerics import one_minus_exp
from keras_logitclip.losses._base import ClassificationLoss


@keras.saving.register_keras_serializable(package="keras_logitclip")
class TaylorCrossEntropy(ClassificationLoss):
    """Computes the first terms of the Taylor series of cross-entropy at `p_y = 1`.

    With order 1, it is half of mean absolute error. With growing order, it approaches
    cross-entropy.

    Formula:

    ```python
    loss = sum((1 - p_y) ** i / i for i in range(1, order + 1))
    ```

    Args:
        order: Number of terms, an integer of at least 1. Defaults to `2`.
        **kwargs: The arguments of `ClassificationLoss`.

    Example:

    >>> import keras
    >>> from keras_logitclip import losses
    >>> loss = losses.TaylorCrossEntropy(order=2)
    >>> print(round(float(loss([0], keras.ops.array([[2.0, 0.0]]))), 4))
    0.1263

    References:
        - [Feng et al., 2020](https://www.ijcai.org/proceedings/2020/305)
    """

    treats_other_classes_alike = True
    falls_with_probability = True

    def __init__(self, order: int = 2, **kwargs):
        super().__init__(**kwargs)
        self.order = check_count("order", order)

    def of_label(self, log_probability):
        rest = one_minus_exp(log_probability)
        total = 0.0
        for i in range(self.order, 0, -1):
            total = (total + 1 / i) * rest
        return total

    def get_config(self) -> dict:
        return {**super().get_config(), "order": self.order}
