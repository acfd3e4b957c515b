"""Bootstrapping: labels mixed with the model's own predictions."""

import keras
from keras import ops

from keras_logitclip._arguments import check_flag
from keras_logitclip._arguments import check_number
from keras_logitclip.losses._base import ClassificationLoss
from keras_logitclip.losses._base import mean_over_labels
from keras_logitclip.losses._base import pick


@keras.saving.register_keras_serializable(package="keras_logitclip")
class Bootstrap(ClassificationLoss):
    """Computes cross-entropy with a mixture of labels and the model's predictions.

    A wrong label then has less influence on a model that is certain of another class.
    The labels are mixed with the predicted probabilities (soft) or with the most
    probable class (hard). The gradient flows through the probabilities, too.

    Formula:

    ```python
    soft = -sum((beta * y_true + (1 - beta) * p) * log(p))
    hard = -beta * log(p_y) - (1 - beta) * max(log(p))
    ```

    Args:
        beta: Weight of the given labels in [0, 1]. Defaults to `None`, which means
            the paper's value: 0.95 for the soft form, 0.8 for the hard one.
        hard: Whether to use the most probable class instead of the probabilities.
            Defaults to `False`.
        **kwargs: The arguments of `ClassificationLoss`. The formula also holds for soft
            labels.

    Example:

    >>> import keras
    >>> from keras_logitclip import losses
    >>> loss = losses.Bootstrap(hard=True)
    >>> print(round(float(loss([1], keras.ops.array([[2.0, 0.0]]))), 4))
    1.7269

    References:
        - [Reed et al., 2014](https://arxiv.org/abs/1412.6596)
    """

    treats_other_classes_alike = True

    def __init__(self, beta: float | None = None, hard: bool = False, **kwargs):
        super().__init__(**kwargs)
        self.hard = check_flag(
            "hard",
            hard,
            "`True` for the most probable class or `False` for the probabilities",
        )
        if beta is None:
            beta = 0.8 if hard else 0.95
        self.beta = check_number("beta", beta, "[0, 1]")

    def of_rows(self, labels, log_probabilities):
        given = -mean_over_labels(labels, log_probabilities)
        own_loss = _loss_of_best_class if self.hard else _entropy
        return self.beta * given + (1 - self.beta) * own_loss(log_probabilities)

    def get_config(self) -> dict:
        return {**super().get_config(), "beta": self.beta, "hard": self.hard}


def _entropy(log_probabilities):
    return -ops.sum(ops.exp(log_probabilities) * log_probabilities, -1)


def _loss_of_best_class(log_probabilities):
    # The first of equal ones, because the gradients of the backends' maxima differ
    # there.
    best = ops.cast(ops.argmax(log_probabilities, -1), "int32")
    return -pick(log_probabilities, best)
