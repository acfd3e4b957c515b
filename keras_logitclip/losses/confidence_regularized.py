"""Cross-entropy with the regularizer of CORES."""

import keras
from keras import ops

from keras_logitclip._arguments import check_number
from keras_logitclip.losses._classification import ClassificationLoss
from keras_logitclip.losses._classification import expected_loss
from keras_logitclip.losses._classification import loss_of_rows


def confidence_regularized(
    y_true, y_pred, beta: float, from_logits: bool = True, axis: int = -1
):
    """Computes the confidence-regularized cross-entropy of each sample.

    See `ConfidenceRegularized` for the arguments.

    Returns:
        The losses: the shape of `y_pred` without `axis`, float64 for float64
        predictions and float32 for all others.
    """
    beta = check_beta(beta)

    def loss(labels, log_probabilities):
        given = expected_loss(labels, log_probabilities, ops.negative)
        return given + beta * _mean(log_probabilities)

    return loss_of_rows(loss, y_true, y_pred, from_logits, axis)


@keras.saving.register_keras_serializable(package="keras_logitclip")
class ConfidenceRegularized(ClassificationLoss):
    """Cross-entropy minus `beta` times its mean over all classes as labels.

    The subtracted term rewards confident predictions, whatever the class, so that
    the model does not settle between a label and the classes that it is mistaken
    for. This is the regularizer of CORES; the selection of samples that goes with
    it in the paper (its sieve) needs to know the samples and is not here.

    The paper trains 10 epochs with `beta = 0`, then raises it up to 2. The value is
    part of the compiled training step: to set the attribute `beta` in a callback
    has no effect. Train in phases instead, each `compile` with its own loss and
    the same optimizer instance.

    For `beta > 1` the loss has no lower bound, and the logits grow: the authors
    add 1e-8 to the probabilities. A `LogitClipLoss` around it bounds it.

    Formula:

    ```python
    loss = -log(p_y) - beta * mean(-log(p))
    ```

    Args:
        beta: Weight of the regularizer, a number of at least 0.
        from_logits: Whether `y_pred` are logits, not probabilities. Defaults to
            `True`.
        axis: Integer, the class axis. Defaults to `-1`.
        reduction: As in `keras.losses.Loss`. Defaults to
            `"sum_over_batch_size"`.
        name: Name of the loss. Defaults to `"confidence_regularized"`.
        dtype: The dtype of the loss's computations, as in
            `keras.losses.Loss`. Defaults to `None`, which means
            `keras.config.floatx()`.

    Call arguments:
        y_true: Class ids, of the shape of `y_pred` without `axis` or with size 1
            there, or one-hot or soft labels of the shape of `y_pred`. Soft
            labels give the mean of the loss over the labels.
            An id outside of the classes gives NaN.
        y_pred: Logits of shape `(batch, ..., classes)`.

    Raises:
        ValueError: If `beta` is negative, or labels do not fit.

    Example:

    >>> import keras
    >>> from keras_logitclip import losses
    >>> loss = losses.ConfidenceRegularized(beta=0.5)
    >>> print(round(float(loss([0], keras.ops.array([[2.0, 0.0]]))), 4))
    -0.4365

    References:
        - [Cheng et al., 2020](https://arxiv.org/abs/2010.02347)
    """

    def __init__(
        self,
        beta: float,
        from_logits: bool = True,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str = "confidence_regularized",
        dtype=None,
    ):
        super().__init__(from_logits, axis, reduction, name, dtype)
        self.beta = check_beta(beta)

    def call(self, y_true, y_pred):
        return confidence_regularized(
            y_true, y_pred, self.beta, self.from_logits, self.axis
        )

    def get_config(self):
        return {**super().get_config(), "beta": self.beta}


def check_beta(beta) -> float:
    """Returns the weight `beta` as a float if it is a finite number of at least 0."""
    return check_number("beta", beta, "[0, inf)")


def _mean(log_probabilities):
    # Not `ops.mean`, which on torch computes float64 in float32.
    classes = ops.cast(ops.shape(log_probabilities)[-1], log_probabilities.dtype)
    return ops.sum(log_probabilities, -1) / classes
