"""`NormPenalty`, which adds the norm of the logits to any loss."""

from collections.abc import Callable

import keras

from keras_logitclip import ops
from keras_logitclip._arguments import check_p
from keras_logitclip._labels import copy_masks
from keras_logitclip.losses._inner import check_same_shape
from keras_logitclip.losses._wrapper import WrapperLoss
from keras_logitclip.losses.symmetric_cross_entropy import check_weight


@keras.saving.register_keras_serializable(package="keras_logitclip")
class NormPenalty(WrapperLoss):
    """Adds `weight` times the norm of the logits to another loss.

    An ablation of `LogitClipLoss` from the same paper: it keeps the logits short
    by a price instead of a limit, and bounds nothing. The penalty is part of each
    sample's loss, so sample weights and masks apply to it, too.

    Formula:

    ```python
    loss = wrapped_loss(y_true, activation(y_pred)) + weight * norm(y_pred, p, axis)
    ```

    Args:
        loss: The loss to add to, as in `LogitClipLoss`: a loss instance that takes
            logits, the name of a Keras loss, or a function `(y_true, y_pred)` that
            returns one value per sample.
        weight: Weight of the norm, not negative.
        p: Order of the norm, a number of at least 1; `float("inf")` is the
            maximum norm. Defaults to `2`.
        axis: Integer, the class axis. Defaults to `-1`.
        activation: `None`, `"softmax"` (along `axis`) or `"sigmoid"`: applied
            to the logits for a loss that takes probabilities. Defaults to
            `None`.
        reduction: As in `keras.losses.Loss`. Defaults to
            `"sum_over_batch_size"`.
        name: Name of the loss. Defaults to `"norm_penalty"`.
        dtype: The dtype of the loss's computations, as in
            `keras.losses.Loss`. Defaults to `None`, which means
            `keras.config.floatx()`.

    Raises:
        ValueError: If an argument is out of range; if the wrapped loss is
            unknown, has a reduction or dtype of its own, or takes
            probabilities without an `activation`; and, when called, if the
            labels do not fit or `y_pred` came out of a softmax or sigmoid
            (unnoticed under JAX, where Keras leaves no mark of it).

    Example:

    >>> import keras
    >>> from keras_logitclip import losses
    >>> loss = losses.NormPenalty("sparse_categorical_crossentropy", weight=0.1)
    >>> print(round(float(loss([1], keras.ops.array([[3.0, 4.0]]))), 4))
    0.8133

    References:
        - [Wei et al., 2023](https://arxiv.org/abs/2212.04055)
    """

    def __init__(
        self,
        loss: keras.losses.Loss | str | Callable,
        weight: float,
        p: float = 2,
        axis: int = -1,
        activation: str | None = None,
        reduction: str | None = "sum_over_batch_size",
        name: str = "norm_penalty",
        dtype=None,
    ):
        super().__init__(loss, axis, activation, reduction, name, dtype)
        self.weight = check_weight("weight", weight)
        self.p = check_p(p)

    def wrap(self, y_true, y_pred, axis):
        losses = self.inner_losses(y_true, y_pred, axis)
        norm = keras.ops.cast(ops.logit_norm(y_pred, self.p, axis), losses.dtype)
        check_same_shape(losses, norm)
        total = losses + self.weight * norm
        copy_masks(total, losses)
        return total

    def get_config(self):
        return {**super().get_config(), "weight": self.weight, "p": self.p}
