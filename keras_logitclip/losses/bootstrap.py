"""Bootstrapping: labels mixed with what the model itself believes."""

import keras
from keras import ops

from keras_logitclip._arguments import check_flag
from keras_logitclip._arguments import check_number
from keras_logitclip.losses._classification import ClassificationLoss
from keras_logitclip.losses._classification import expected_loss
from keras_logitclip.losses._classification import loss_of_rows
from keras_logitclip.losses._classification import pick


def bootstrap(
    y_true,
    y_pred,
    beta: float = 0.95,
    hard: bool = False,
    from_logits: bool = True,
    axis: int = -1,
):
    """Computes the bootstrapped cross-entropy of each sample.

    See `Bootstrap` for the arguments.

    Returns:
        The losses: the shape of `y_pred` without `axis`, float64 for float64
        predictions and float32 for all others.
    """
    beta = check_beta(beta)
    loss_of_belief = _loss_of_best_class if check_hard(hard) else _entropy

    def loss(labels, log_probabilities):
        given = expected_loss(labels, log_probabilities, ops.negative)
        return beta * given + (1 - beta) * loss_of_belief(log_probabilities)

    return loss_of_rows(loss, y_true, y_pred, from_logits, axis)


@keras.saving.register_keras_serializable(package="keras_logitclip")
class Bootstrap(ClassificationLoss):
    """Cross-entropy with labels that are partly the model's own prediction.

    A model that has become sure of another class is contradicted less by a wrong
    label. The targets are mixed with the predicted probabilities (soft) or with
    the class of the largest one (hard), and the gradient flows through the
    probabilities.

    Formula:

    ```python
    soft = -sum((beta * y_true + (1 - beta) * p) * log(p))
    hard = -beta * log(p_y) - (1 - beta) * max(log(p))
    ```

    Args:
        beta: Weight of the given labels in [0, 1]. Defaults to `0.95`, the
            paper's value for the soft form; for the hard one it is `0.8`.
        hard: Whether the class of the largest probability takes the place of the
            probabilities. Defaults to `False`.
        from_logits: Whether `y_pred` are logits, not probabilities. Defaults to
            `True`.
        axis: Integer, the class axis. Defaults to `-1`.
        reduction: As in `keras.losses.Loss`. Defaults to
            `"sum_over_batch_size"`.
        name: Name of the loss. Defaults to `"bootstrap"`.
        dtype: The dtype of the loss's computations, as in
            `keras.losses.Loss`. Defaults to `None`, which means
            `keras.config.floatx()`.

    Call arguments:
        y_true: Class ids, of the shape of `y_pred` without `axis` or with size 1
            there, or one-hot or soft labels of the shape of `y_pred`. Soft
            labels take part as the formula says.
            An id outside of the classes gives NaN.
        y_pred: Logits of shape `(batch, ..., classes)`.

    Raises:
        ValueError: If `beta` is outside of [0, 1], `hard` is no boolean, or labels
            do not fit.

    Example:

    >>> import keras
    >>> from keras_logitclip import losses
    >>> loss = losses.Bootstrap(beta=0.8, hard=True)
    >>> print(round(float(loss([1], keras.ops.array([[2.0, 0.0]]))), 4))
    1.7269

    References:
        - [Reed et al., 2014](https://arxiv.org/abs/1412.6596)
    """

    def __init__(
        self,
        beta: float = 0.95,
        hard: bool = False,
        from_logits: bool = True,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str = "bootstrap",
        dtype=None,
    ):
        super().__init__(from_logits, axis, reduction, name, dtype)
        self.beta = check_beta(beta)
        self.hard = check_hard(hard)

    def call(self, y_true, y_pred):
        return bootstrap(
            y_true, y_pred, self.beta, self.hard, self.from_logits, self.axis
        )

    def get_config(self):
        return {**super().get_config(), "beta": self.beta, "hard": self.hard}


def check_beta(beta) -> float:
    """Returns the weight `beta` as a float if it is in [0, 1]."""
    return check_number("beta", beta, "[0, 1]")


def check_hard(hard) -> bool:
    """Returns `hard` if it is a boolean."""
    return check_flag(
        "hard",
        hard,
        "`True` for the most probable class or `False` for the probabilities",
    )


def _entropy(log_probabilities):
    return -ops.sum(ops.exp(log_probabilities) * log_probabilities, -1)


def _loss_of_best_class(log_probabilities):
    # The first of equal ones: the backends' maxima divide the gradient between
    # them in different ways.
    best = ops.cast(ops.argmax(log_probabilities, -1), "int32")
    return -pick(log_probabilities, best)
