"""Jensen-Shannon divergence between labels and probabilities."""

import math

import keras
from keras import ops

from keras_logitclip._arguments import check_number
from keras_logitclip._labels import are_class_ids
from keras_logitclip.losses._classification import ClassificationLoss
from keras_logitclip.losses._classification import expected_loss
from keras_logitclip.losses._classification import finite_log
from keras_logitclip.losses._classification import loss_of_rows


def jensen_shannon(
    y_true, y_pred, weight: float = 0.5, from_logits: bool = True, axis: int = -1
):
    """Computes the scaled Jensen-Shannon divergence of each sample.

    See `JensenShannon` for the arguments.

    Returns:
        The losses: the shape of `y_pred` without `axis`, float64 for float64
        predictions and float32 for all others.
    """
    weight = check_weight(weight)

    def loss(labels, log_probabilities):
        return _divergence(labels, log_probabilities, weight)

    return loss_of_rows(loss, y_true, y_pred, from_logits, axis)


@keras.saving.register_keras_serializable(package="keras_logitclip")
class JensenShannon(ClassificationLoss):
    """Lies between cross-entropy (`weight` towards 0) and mean absolute error.

    With `weight` towards 1 it becomes half of `CategoricalMeanAbsoluteError`,
    slowly: the difference falls with `1 / log(1 - weight)`.

    Formula:

    ```python
    mean = weight * y + (1 - weight) * p
    divergence = weight * KL(y, mean) + (1 - weight) * KL(p, mean)
    loss = divergence / (-(1 - weight) * log(1 - weight))
    ```

    Args:
        weight: Weight of the labels in the mean, between 0 and 1. The paper has 0.1
            to 0.9 by noise rate. Defaults to `0.5`.
        from_logits: Whether `y_pred` are logits, not probabilities. Defaults to
            `True`.
        axis: Integer, the class axis. Defaults to `-1`.
        reduction: As in `keras.losses.Loss`. Defaults to
            `"sum_over_batch_size"`.
        name: Name of the loss. Defaults to `"jensen_shannon"`.
        dtype: The dtype of the loss's computations, as in
            `keras.losses.Loss`. Defaults to `None`, which means
            `keras.config.floatx()`.

    Call arguments:
        y_true: Class ids, of the shape of `y_pred` without `axis` or with size 1
            there, or one-hot or soft labels of the shape of `y_pred`. Soft labels
            are taken as the distribution that they are. An id outside of the
            classes gives NaN.
        y_pred: Logits of shape `(batch, ..., classes)`.

    Raises:
        ValueError: If `weight` is not between 0 and 1, or labels do not fit.

    Example:

    >>> import keras
    >>> from keras_logitclip import losses
    >>> loss = losses.JensenShannon(weight=0.5)
    >>> print(round(float(loss([0], keras.ops.array([[2.0, 0.0]]))), 4))
    0.1247

    References:
        - [Englesson and Azizpour, 2021](https://arxiv.org/abs/2105.04522)
    """

    def __init__(
        self,
        weight: float = 0.5,
        from_logits: bool = True,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str = "jensen_shannon",
        dtype=None,
    ):
        super().__init__(from_logits, axis, reduction, name, dtype)
        self.weight = check_weight(weight)

    def call(self, y_true, y_pred):
        return jensen_shannon(y_true, y_pred, self.weight, self.from_logits, self.axis)

    def get_config(self):
        return {**super().get_config(), "weight": self.weight}


def check_weight(weight) -> float:
    """Returns `weight` as a float if it is between 0 and 1."""
    return check_number("weight", weight, "(0, 1)")


def _divergence(labels, log_probabilities, weight):
    if are_class_ids(labels):
        return expected_loss(
            labels, log_probabilities, lambda x: 1 + _excess(1.0, x, 0.0, weight)
        )
    excess = _excess(labels, log_probabilities, finite_log(labels), weight)
    return 1 + ops.sum(excess, -1)


def _excess(label, log_probability, log_label, weight):
    """Returns the part of a class in the loss, less its probability.

    Drawn from the label with probability `weight` and from the model otherwise,
    a class came from the label with the probability sigmoid(u). The divergence
    is what it tells about where it came from:

        weight y (log sigmoid(u) - log weight)
        + (1 - weight) p (log sigmoid(-u) - log(1 - weight))

    The last summand, scaled, is p, which sums to 1 over the classes. Without it, a
    class without label has no part, and no gradient that would have to cancel.
    """
    logit = math.log(weight) - math.log1p(-weight) + (log_label - log_probability)
    from_label = ops.log_sigmoid(logit) - math.log(weight)
    from_model = ops.log_sigmoid(-logit)
    scale = -(1 - weight) * math.log1p(-weight)
    excess = weight * label * from_label
    excess = excess + (1 - weight) * ops.exp(log_probability) * from_model
    return excess / scale
