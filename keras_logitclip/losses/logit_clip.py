"""`LogitClipLoss`, which clips the logits before any loss."""

from collections.abc import Callable

import keras

from keras_logitclip import ops
from keras_logitclip._arguments import check_p
from keras_logitclip._arguments import check_tau
from keras_logitclip.losses._fused import can_fuse
from keras_logitclip.losses._fused import fused_cross_entropy
from keras_logitclip.losses._wrapper import WrapperLoss


@keras.saving.register_keras_serializable(package="keras_logitclip")
class LogitClipLoss(WrapperLoss):
    """Clips the norm of the logits at `tau`, then computes another loss.

    The clipped logits are bounded, and with them every loss that is
    continuous in the logits: a wrong label cannot pull without limit. The
    model itself, its predicted classes and its raw logits stay as they are.

    Label smoothing, `ignore_class`, focal weights and the like are set on the
    wrapped loss; `reduction` and `dtype` are set here. Sample weights, class
    weights and masks work as with every Keras loss.

    Formula:

    ```python
    clipped = y_pred * minimum(1, tau / norm(y_pred, p, axis))
    loss = wrapped_loss(y_true, activation(clipped))
    ```

    Args:
        loss: The loss to compute on the clipped logits: a loss instance that
            takes logits, the name of a Keras loss (it becomes an instance that
            takes logits), or a function `(y_true, y_pred)` that returns one
            value per sample. A loss without notion of logits, such as
            `"mean_absolute_error"`, compares the labels with the clipped
            logits themselves unless `activation` is given.
        tau: Threshold of the norm, a number greater than zero;
            `float("inf")` for no clipping.
        p: Order of the norm, a number of at least 1; `float("inf")` is the
            maximum norm. Defaults to `2`.
        axis: Integer, the class axis. Defaults to `-1`.
        activation: `None`, `"softmax"` (along `axis`) or `"sigmoid"`: applied
            to the clipped logits for a loss that takes probabilities.
            Defaults to `None`.
        reduction: As in `keras.losses.Loss`: `"sum_over_batch_size"`,
            `"sum"`, `"mean"`, `"mean_with_sample_weight"`, `"none"` or
            `None`. Defaults to `"sum_over_batch_size"`.
        name: Name of the loss. Defaults to `"logit_clip"`.
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
    >>> from keras_logitclip import LogitClipLoss
    >>> model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(10)])
    >>> model.compile(
    ...     optimizer="sgd",
    ...     loss=LogitClipLoss("sparse_categorical_crossentropy", tau=1.0),
    ...     metrics=["accuracy"],
    ... )

    References:
        - [Wei et al., 2023](https://arxiv.org/abs/2212.04055)
    """

    def __init__(
        self,
        loss: keras.losses.Loss | str | Callable,
        tau: float,
        p: float = 2,
        axis: int = -1,
        activation: str | None = None,
        reduction: str | None = "sum_over_batch_size",
        name: str = "logit_clip",
        dtype=None,
    ):
        super().__init__(loss, axis, activation, reduction, name, dtype)
        self.tau = check_tau(tau)
        self.p = check_p(p)

    def wrap(self, y_true, y_pred, axis):
        if can_fuse(self.loss, y_true, y_pred, axis):
            return fused_cross_entropy(
                self.loss, y_true, y_pred, self.tau, self.p, axis
            )
        clipped = ops.logit_clip(y_pred, self.tau, self.p, axis)
        return self.inner_losses(y_true, clipped, axis)

    def get_config(self):
        return {**super().get_config(), "tau": self.tau, "p": self.p}
