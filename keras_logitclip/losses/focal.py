"""Focal loss."""

import keras
from keras import ops

from keras_logitclip._arguments import check_number
from keras_logitclip._numerics import constant
from keras_logitclip._numerics import one_minus_exp
from keras_logitclip._numerics import power
from keras_logitclip.losses._base import ClassificationLoss


@keras.saving.register_keras_serializable(package="keras_logitclip")
class Focal(ClassificationLoss):
    """Computes cross-entropy with a smaller weight where the label is probable.

    The factor `(1 - p_y) ** gamma` has a gradient, as in the original paper. The code
    of several papers on noisy labels treats the factor as a constant.

    Unlike Keras's `CategoricalFocalCrossentropy`, it has no `alpha`, also takes class
    ids, and has a gradient where the probability of the label is nearly 0.

    Formula:

    ```python
    loss = -((1 - p_y) ** gamma) * log(p_y)
    ```

    Args:
        gamma: Exponent of the factor, not negative. Defaults to `0.5`, as in papers
            on noisy labels; in detection, 2 is usual.
        **kwargs: The arguments of `ClassificationLoss`.

    Example:

    >>> import keras
    >>> from keras_logitclip import losses
    >>> loss = losses.Focal(gamma=0.5)
    >>> print(round(float(loss([0], keras.ops.array([[2.0, 0.0]]))), 4))
    0.0438

    References:
        - [Lin et al., 2017](https://arxiv.org/abs/1708.02002)
    """

    treats_other_classes_alike = True
    falls_with_probability = True

    def __init__(self, gamma: float = 0.5, **kwargs):
        super().__init__(**kwargs)
        self.gamma = check_number("gamma", gamma, "[0, inf)")

    def of_label(self, log_probability):
        return -_rest_to_the_power(log_probability, self.gamma) * log_probability

    def get_config(self) -> dict:
        return {**super().get_config(), "gamma": self.gamma}


def _rest_to_the_power(log_probability, gamma):
    """Returns (1 - p)**gamma, with a gradient of zero where p is 1.

    For `gamma` below 1, the true gradient is infinite there. The loss multiplies it by
    log p, which is zero there. So its gradient would be NaN instead of zero.
    """
    rest = one_minus_exp(log_probability)
    at_zero = constant(0.0**gamma, rest)
    # Compilers may round a logit and the maximum of its row differently, which makes a
    # probability slightly larger than 1.
    is_positive = rest > 0
    base = ops.where(is_positive, rest, constant(1.0, rest))
    return ops.where(is_positive, power(base, gamma), at_zero)
