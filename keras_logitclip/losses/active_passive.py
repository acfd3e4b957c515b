"""`ActivePassive`, the weighted sum of two losses."""

from collections.abc import Callable

import keras

from keras_logitclip._arguments import resolve_class_axis
from keras_logitclip._labels import copy_masks
from keras_logitclip._labels import refuse_probabilities
from keras_logitclip.losses._classification import LogitsLoss
from keras_logitclip.losses._inner import call_inner_loss
from keras_logitclip.losses._inner import check_inner_call
from keras_logitclip.losses._inner import check_nothing_is_ignored
from keras_logitclip.losses._inner import check_same_shape
from keras_logitclip.losses._inner import serialize_inner_loss
from keras_logitclip.losses._inner import standardize_inner_loss
from keras_logitclip.losses.symmetric_cross_entropy import check_weight


@keras.saving.register_keras_serializable(package="keras_logitclip")
class ActivePassive(LogitsLoss):
    """Adds two losses: one fits the label, one pushes the other classes down.

    Active losses (normalized cross-entropy) only raise the probability of the
    label, passive ones (mean absolute error, reverse cross-entropy) lower those of
    the other classes. Robust losses of one kind tend to underfit; the sum of one
    of each does so less, and stays robust.

    `reduction` and `dtype` are set here, everything else on the two losses. Both
    see the same labels: ours take class ids and one-hot labels alike.

    Formula:

    ```python
    loss = alpha * active(y_true, y_pred) + beta * passive(y_true, y_pred)
    ```

    Args:
        active: The first loss: a loss instance that takes logits, the name of a
            Keras loss (it becomes an instance that takes logits), or a function
            `(y_true, y_pred)` that returns one value per sample.
        passive: The second loss, likewise.
        alpha: Weight of the first loss, not negative. Defaults to `1.0`.
        beta: Weight of the second loss, not negative. Defaults to `1.0`.
        axis: Integer, the class axis. Defaults to `-1`.
        reduction: As in `keras.losses.Loss`. Defaults to
            `"sum_over_batch_size"`.
        name: Name of the loss. Defaults to `"active_passive"`.
        dtype: The dtype of the loss's computations, as in
            `keras.losses.Loss`. Defaults to `None`, which means
            `keras.config.floatx()`.

    Raises:
        ValueError: If a weight is negative; if a loss is unknown, takes
            probabilities, or has a reduction or dtype of its own; and, when called,
            if the labels do not fit or `y_pred` came out of a softmax or sigmoid
            (unnoticed under JAX, where Keras leaves no mark of it).

    Example:

    >>> import keras
    >>> from keras_logitclip import losses
    >>> active = losses.NormalizedCrossEntropy()
    >>> passive = losses.CategoricalMeanAbsoluteError()
    >>> loss = losses.ActivePassive(active, passive, alpha=1.0, beta=0.5)
    >>> print(round(float(loss([0], keras.ops.array([[2.0, 0.0]]))), 4))
    0.1755

    References:
        - [Ma et al., 2020](https://arxiv.org/abs/2006.13554)
    """

    def __init__(
        self,
        active: keras.losses.Loss | str | Callable,
        passive: keras.losses.Loss | str | Callable,
        alpha: float = 1.0,
        beta: float = 1.0,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str = "active_passive",
        dtype=None,
    ):
        super().__init__(axis, reduction, name, dtype)
        self.active, self.passive = (
            standardize_inner_loss(loss, None, self.axis) for loss in (active, passive)
        )
        self.alpha = check_weight("alpha", alpha)
        self.beta = check_weight("beta", beta)
        for loss in (self.active, self.passive):
            check_nothing_is_ignored(loss, self.dtype)

    def call(self, y_true, y_pred):
        y_true = keras.ops.convert_to_tensor(y_true)
        axis = resolve_class_axis(self.axis, y_pred.shape)
        refuse_probabilities(y_pred, remedy="both losses take logits.")
        active, passive = (
            self._values(loss, y_true, y_pred, axis)
            for loss in (self.active, self.passive)
        )
        check_same_shape(active, passive)
        total = self.alpha * active + self.beta * passive
        copy_masks(total, active, passive)
        return total

    def get_config(self):
        return {
            **super().get_config(),
            "active": serialize_inner_loss(self.active),
            "passive": serialize_inner_loss(self.passive),
            "alpha": self.alpha,
            "beta": self.beta,
        }

    @classmethod
    def from_config(cls, config):
        losses = {
            name: keras.saving.deserialize_keras_object(config[name])
            for name in ("active", "passive")
        }
        return cls(**{**config, **losses})

    def _values(self, loss, y_true, y_pred, axis):
        check_inner_call(loss, y_true, y_pred, self.axis)
        return call_inner_loss(loss, y_true, y_pred, axis)
