"""`NormPenalty`, which adds the norm of the logits to any loss."""

from collections.abc import Callable

import keras

from keras_logitclip import ops
from keras_logitclip._arguments import check_number
from keras_logitclip._arguments import check_p
from keras_logitclip._labels import mask_of
from keras_logitclip._labels import set_masks
from keras_logitclip.losses._inner import check_same_shape
from keras_logitclip.losses._wrapper import WrapperLoss


@keras.saving.register_keras_serializable(package="keras_logitclip")
class NormPenalty(WrapperLoss):
    """Computes another loss plus `weight` times the norm of the logits.

    This is an ablation of `LogitClipLoss` from the same paper. It makes long logits
    costly, but does not bound them. The penalty is part of the loss of each sample, so
    sample weights and masks apply to it, too.

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
        activation: As in `LogitClipLoss`, applied to the logits. Defaults to `None`.
        **kwargs: The arguments of `LogitsLoss`.

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
        activation: str | None = None,
        **kwargs,
    ):
        super().__init__(loss, activation, **kwargs)
        self.weight = check_number("weight", weight, "[0, inf)")
        self.p = check_p(p)

    def compute(self, y_true, y_pred, axis: int, counted):
        losses = self.inner_losses(y_true, y_pred, axis, counted)
        norm = keras.ops.cast(ops.logit_norm(y_pred, self.p, axis), losses.dtype)
        check_same_shape(losses, norm)
        total = losses + self.weight * norm
        set_masks(total, mask_of(losses))
        return total

    def get_config(self) -> dict:
        return {**super().get_config(), "weight": self.weight, "p": self.p}
