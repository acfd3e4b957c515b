"""Reverse cross-entropy, and its sum with cross-entropy."""

import math

import keras
from keras import ops

from keras_logitclip._arguments import check_number
from keras_logitclip._labels import are_class_ids
from keras_logitclip._numerics import constant
from keras_logitclip._numerics import one_minus_exp
from keras_logitclip.losses._base import ClassificationLoss
from keras_logitclip.losses._base import mean_over_labels


@keras.saving.register_keras_serializable(package="keras_logitclip")
class ReverseCrossEntropy(ClassificationLoss):
    """Computes cross-entropy with labels and probabilities swapped.

    For a class id, it is mean absolute error times `-log(min_label) / 2`.

    Formula:

    ```python
    loss = -sum(p * log(clip(y, min_label, 1)))
    ```

    Args:
        min_label: Smallest label, which replaces smaller ones such as the zeros of
            one-hot labels, so that the logarithm is finite. A number between 0 and 1.
            Defaults to `1e-4`.
        **kwargs: The arguments of `ClassificationLoss`. The formula also holds for
            soft labels.

    Example:

    >>> import keras
    >>> from keras_logitclip import losses
    >>> loss = losses.ReverseCrossEntropy()
    >>> print(round(float(loss([0], keras.ops.array([[2.0, 0.0]]))), 4))
    1.0979

    References:
        - [Wang et al., 2019](https://arxiv.org/abs/1908.06112)
    """

    treats_other_classes_alike = True
    falls_with_probability = True
    is_symmetric = True

    def __init__(self, min_label: float = 1e-4, **kwargs):
        super().__init__(**kwargs)
        self.min_label = check_number("min_label", min_label, "(0, 1)")

    def of_label(self, log_probability):
        return -math.log(self.min_label) * one_minus_exp(log_probability)

    def of_rows(self, labels, log_probabilities):
        if are_class_ids(labels):
            return super().of_rows(labels, log_probabilities)
        # Logarithms are relative to log(min_label), so that classes with the label 0
        # have the weight zero and no gradients that would have to cancel.
        least, most = constant(self.min_label, labels), constant(1.0, labels)
        scale = -math.log(self.min_label)
        weights = ops.log(ops.clip(labels, least, most)) + scale
        return scale - ops.sum(weights * ops.exp(log_probabilities), -1)

    def get_config(self) -> dict:
        return {**super().get_config(), "min_label": self.min_label}


@keras.saving.register_keras_serializable(package="keras_logitclip")
class SymmetricCrossEntropy(ReverseCrossEntropy):
    """Computes the weighted sum of cross-entropy and reverse cross-entropy.

    Formula:

    ```python
    cross_entropy = -sum(y * log(p))
    reverse_cross_entropy = -sum(p * log(clip(y, min_label, 1)))
    loss = alpha * cross_entropy + beta * reverse_cross_entropy
    ```

    Args:
        alpha: Weight of cross-entropy, not negative. The paper uses 0.1 for CIFAR-10
            and 6 for CIFAR-100. Defaults to `0.1`.
        beta: Weight of reverse cross-entropy, not negative. The paper uses 1 for
            CIFAR-10 and 0.1 for CIFAR-100. Defaults to `1.0`.
        min_label: As in `ReverseCrossEntropy`. Defaults to `1e-4`.
        **kwargs: The arguments of `ClassificationLoss`. The formula also holds for
            soft labels.

    Example:

    >>> import keras
    >>> from keras_logitclip import losses
    >>> loss = losses.SymmetricCrossEntropy()
    >>> print(round(float(loss([0], keras.ops.array([[2.0, 0.0]]))), 4))
    1.1106

    References:
        - [Wang et al., 2019](https://arxiv.org/abs/1908.06112)
    """

    is_symmetric = False

    def __init__(
        self, alpha: float = 0.1, beta: float = 1.0, min_label: float = 1e-4, **kwargs
    ):
        super().__init__(min_label, **kwargs)
        self.alpha = check_number("alpha", alpha, "[0, inf)")
        self.beta = check_number("beta", beta, "[0, inf)")

    def of_rows(self, labels, log_probabilities):
        cross_entropy = -mean_over_labels(labels, log_probabilities)
        reverse = super().of_rows(labels, log_probabilities)
        return self.alpha * cross_entropy + self.beta * reverse

    def get_config(self) -> dict:
        return {**super().get_config(), "alpha": self.alpha, "beta": self.beta}
