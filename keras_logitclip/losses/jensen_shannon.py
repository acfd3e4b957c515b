"""Jensen-Shannon divergence between labels and probabilities."""

import math

import keras
from keras import ops

from keras_logitclip._arguments import check_number
from keras_logitclip._labels import are_class_ids
from keras_logitclip._numerics import finite_log
from keras_logitclip.losses._base import ClassificationLoss


@keras.saving.register_keras_serializable(package="keras_logitclip")
class JensenShannon(ClassificationLoss):
    """Computes the scaled Jensen-Shannon divergence of labels and probabilities.

    In the limit `weight = 0`, it is cross-entropy. In the limit `weight = 1`, it is
    half of `CategoricalMeanAbsoluteError`, but the difference falls only with
    `1 / log(1 - weight)`.

    Formula:

    ```python
    mean = weight * y + (1 - weight) * p
    divergence = weight * KL(y, mean) + (1 - weight) * KL(p, mean)
    loss = divergence / (-(1 - weight) * log(1 - weight))
    ```

    Args:
        weight: Weight of the labels in the mean, between 0 and 1. The paper uses 0.1 to
            0.9, depending on the noise rate. Defaults to `0.5`.
        **kwargs: The arguments of `ClassificationLoss`. The formula also holds for soft
            labels.

    Example:

    >>> import keras
    >>> from keras_logitclip import losses
    >>> loss = losses.JensenShannon(weight=0.5)
    >>> print(round(float(loss([0], keras.ops.array([[2.0, 0.0]]))), 4))
    0.1247

    References:
        - [Englesson and Azizpour, 2021](https://arxiv.org/abs/2105.04522)
    """

    treats_other_classes_alike = True
    falls_with_probability = True

    def __init__(self, weight: float = 0.5, **kwargs):
        super().__init__(**kwargs)
        self.weight = check_number("weight", weight, "(0, 1)")

    def of_label(self, log_probability):
        return 1 + self._excess(1.0, log_probability, 0.0)

    def of_rows(self, labels, log_probabilities):
        if are_class_ids(labels):
            return super().of_rows(labels, log_probabilities)
        excess = self._excess(labels, log_probabilities, finite_log(labels))
        return 1 + ops.sum(excess, -1)

    def get_config(self) -> dict:
        return {**super().get_config(), "weight": self.weight}

    def _excess(self, label, log_probability, log_label):
        """Returns the contribution of a class to the loss, minus its probability.

        If a class is drawn from the label with probability `weight` and from the model
        otherwise, the probability that it came from the label is sigmoid(u). The
        divergence is the information about its origin:

            weight y (log sigmoid(u) - log weight)
            + (1 - weight) p (log sigmoid(-u) - log(1 - weight))

        The last summand, scaled, is p, whose sum over the classes is 1. Without it, a
        class with the label weight 0 contributes nothing, so no gradients have to
        cancel.
        """
        weight, rest = self.weight, 1 - self.weight
        log_weight, log_rest = math.log(weight), math.log1p(-weight)
        logit = log_weight - log_rest + (log_label - log_probability)
        from_label = ops.log_sigmoid(logit) - log_weight
        from_model = ops.log_sigmoid(-logit)
        excess = weight * label * from_label
        excess = excess + rest * ops.exp(log_probability) * from_model
        return excess / (-rest * log_rest)
