"""Asymmetric losses, which are robust if most labels of each class are correct."""

import math

import keras
from keras import ops

from keras_logitclip._arguments import check_number
from keras_logitclip._numerics import box_cox
from keras_logitclip._numerics import one_minus_exp
from keras_logitclip.losses._base import ClassificationLoss


@keras.saving.register_keras_serializable(package="keras_logitclip")
class AsymmetricGeneralizedCrossEntropy(ClassificationLoss):
    """Computes generalized cross-entropy of the probability plus a constant.

    In the limit `a = 0`, it is generalized cross-entropy.

    Formula:

    ```python
    loss = ((a + 1) ** q - (a + p_y) ** q) / q
    ```

    Args:
        a: Constant that is added to the probability, a number greater than 0. Defaults
            to `0.6`, the paper's value.
        q: Exponent, a number greater than 0. Defaults to `0.6`, the paper's value.
        **kwargs: The arguments of `ClassificationLoss`.

    Example:

    >>> import keras
    >>> from keras_logitclip import losses
    >>> loss = losses.AsymmetricGeneralizedCrossEntropy(a=0.6, q=0.6)
    >>> print(round(float(loss([0], keras.ops.array([[2.0, 0.0]]))), 4))
    0.1003

    References:
        - [Zhou et al., 2021](https://arxiv.org/abs/2106.03110)
    """

    treats_other_classes_alike = True
    falls_with_probability = True

    def __init__(self, a: float = 0.6, q: float = 0.6, **kwargs):
        super().__init__(**kwargs)
        self.a = check_number("a", a, "(0, inf)")
        self.q = check_number("q", q, "(0, inf)")

    def of_label(self, log_probability):
        # log((a + p) / (a + 1)) without cancellation.
        rest = one_minus_exp(log_probability)
        base = -ops.log1p(rest / (self.a + ops.exp(log_probability)))
        return (self.a + 1) ** self.q * box_cox(base, self.q)

    def get_config(self) -> dict:
        return {**super().get_config(), "a": self.a, "q": self.q}


@keras.saving.register_keras_serializable(package="keras_logitclip")
class AsymmetricUnhinged(ClassificationLoss):
    """Computes a power of the distance between `p_y` and a number greater than 1.

    With `q = 1` it is half of mean absolute error.

    Formula:

    ```python
    loss = ((a - p_y) ** q - (a - 1) ** q) / q
    ```

    Args:
        a: The number from which the distance is measured, greater than 1. Defaults to
            `5.5`, the paper's value.
        q: Exponent, a number greater than 0. Defaults to `3.0`, the paper's value.
        **kwargs: The arguments of `ClassificationLoss`.

    Example:

    >>> import keras
    >>> from keras_logitclip import losses
    >>> loss = losses.AsymmetricUnhinged(a=5.5, q=3.0)
    >>> print(round(float(loss([0], keras.ops.array([[2.0, 0.0]]))), 4))
    2.4784

    References:
        - [Zhou et al., 2021](https://arxiv.org/abs/2106.03110)
    """

    treats_other_classes_alike = True
    falls_with_probability = True

    def __init__(self, a: float = 5.5, q: float = 3.0, **kwargs):
        super().__init__(**kwargs)
        self.a = check_number("a", a, "(1, inf)")
        self.q = check_number("q", q, "(0, inf)")

    def of_label(self, log_probability):
        # As a difference of two differences from a**q, which does not cancel for small
        # q.
        distance = (self.a - 1) + one_minus_exp(log_probability)
        below = box_cox(ops.log(distance / self.a), self.q)
        of_one = -math.expm1(self.q * math.log1p(-1 / self.a)) / self.q
        return self.a**self.q * (of_one - below)

    def get_config(self) -> dict:
        return {**super().get_config(), "a": self.a, "q": self.q}


@keras.saving.register_keras_serializable(package="keras_logitclip")
class AsymmetricExponential(ClassificationLoss):
    """Computes a loss that falls exponentially with the probability of the label.

    Formula:

    ```python
    loss = exp(-p_y / a)
    ```

    Args:
        a: Scale of the probability, a number greater than 0. Defaults to `2.5`, the
            paper's value.
        **kwargs: The arguments of `ClassificationLoss`.

    Example:

    >>> import keras
    >>> from keras_logitclip import losses
    >>> loss = losses.AsymmetricExponential(a=2.5)
    >>> print(round(float(loss([0], keras.ops.array([[2.0, 0.0]]))), 4))
    0.7031

    References:
        - [Zhou et al., 2021](https://arxiv.org/abs/2106.03110)
    """

    treats_other_classes_alike = True
    falls_with_probability = True

    def __init__(self, a: float = 2.5, **kwargs):
        super().__init__(**kwargs)
        self.a = check_number("a", a, "(0, inf)")

    def of_label(self, log_probability):
        return ops.exp(-ops.exp(log_probability) / self.a)

    def get_config(self) -> dict:
        return {**super().get_config(), "a": self.a}
