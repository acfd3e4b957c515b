"""`LogitValueClip`, which clips each single logit before any loss."""

from collections.abc import Callable

import keras

from keras_logitclip._arguments import check_number
from keras_logitclip._numerics import constant
from keras_logitclip.losses._wrapper import WrapperLoss


@keras.saving.register_keras_serializable(package="keras_logitclip")
class LogitValueClip(WrapperLoss):
    """Clips each logit at `-limit` and `limit`, then computes another loss.

    This is an ablation of `LogitClipLoss` from the same paper. It bounds the loss, too,
    but changes the direction of the logit vector, so several classes can have the same
    largest logit. The gradient of a clipped logit is zero.

    Formula:

    ```python
    clipped = minimum(limit, maximum(-limit, y_pred))
    loss = wrapped_loss(y_true, activation(clipped))
    ```

    Args:
        loss: The loss of the clipped logits, as in `LogitClipLoss`: a loss instance
            that takes logits, the name of a Keras loss, or a function
            `(y_true, y_pred)` that returns one value per sample.
        limit: Largest magnitude of a logit, a number greater than zero;
            `float("inf")` for no clipping.
        activation: As in `LogitClipLoss`. Defaults to `None`.
        **kwargs: The arguments of `LogitsLoss`.

    Example:

    >>> import keras
    >>> from keras_logitclip import losses
    >>> loss = losses.LogitValueClip("sparse_categorical_crossentropy", limit=1.0)
    >>> print(round(float(loss([1], keras.ops.array([[9.0, 0.0]]))), 4))
    1.3133

    References:
        - [Wei et al., 2023](https://arxiv.org/abs/2212.04055)
    """

    def __init__(
        self,
        loss: keras.losses.Loss | str | Callable,
        limit: float,
        activation: str | None = None,
        **kwargs,
    ):
        super().__init__(loss, activation, **kwargs)
        self.limit = check_number("limit", limit, "(0, inf]")

    def compute(self, y_true, y_pred, axis: int, counted):
        limit = constant(self.limit, y_pred)
        clipped = keras.ops.clip(y_pred, -limit, limit)
        return self.inner_losses(y_true, clipped, axis, counted)

    def get_config(self) -> dict:
        return {**super().get_config(), "limit": self.limit}
