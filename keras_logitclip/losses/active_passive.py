"""`ActivePassive`, the weighted sum of two losses."""

from collections.abc import Callable
from typing import Self

import keras

from keras_logitclip._arguments import check_number
from keras_logitclip._labels import mask_of
from keras_logitclip._labels import set_masks
from keras_logitclip.losses._base import LogitsLoss
from keras_logitclip.losses._inner import call_inner_loss
from keras_logitclip.losses._inner import check_inner_loss
from keras_logitclip.losses._inner import check_same_shape
from keras_logitclip.losses._inner import describe
from keras_logitclip.losses._inner import fix_settings_of
from keras_logitclip.losses._inner import serialize_inner_loss
from keras_logitclip.losses._inner import shared_ignore_class
from keras_logitclip.losses._inner import standardize_inner_loss


@keras.saving.register_keras_serializable(package="keras_logitclip")
class ActivePassive(LogitsLoss):
    """Computes the weighted sum of an active and a passive loss.

    An active loss, such as normalized cross-entropy, only raises the probability of the
    label. A passive loss, such as mean absolute error or reverse cross-entropy, also
    lowers the probabilities of the other classes. Robust losses of one kind tend to
    underfit. The sum of both kinds underfits less and stays robust.

    Set `reduction` and `dtype` here, and everything else on the two losses. Both get
    the same labels. The losses of this package take class ids and one-hot labels.

    Formula:

    ```python
    loss = alpha * active(y_true, y_pred) + beta * passive(y_true, y_pred)
    ```

    Args:
        active: The first loss: a loss instance that takes logits, the name of a
            Keras loss (it becomes an instance that takes logits), or a function
            `(y_true, y_pred)` that returns one value per sample.
        passive: The second loss, as `active`.
        alpha: Weight of the first loss, not negative. Defaults to `1.0`.
        beta: Weight of the second loss, not negative. Defaults to `1.0`.
        **kwargs: The arguments of `LogitsLoss`.

    Raises:
        ValueError: If a weight is negative, or if a loss is unknown, takes
            probabilities, or has its own reduction or dtype.

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
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.active, self.passive = (
            standardize_inner_loss(loss, None, self.axis) for loss in (active, passive)
        )
        self.alpha = check_number("alpha", alpha, "[0, inf)")
        self.beta = check_number("beta", beta, "[0, inf)")
        for loss in self._losses:
            check_inner_loss(loss, self.dtype)
        self.ignore_class = shared_ignore_class(self.ignore_class, *self._losses)

    @property
    def treats_other_classes_alike(self) -> bool:
        return all(
            getattr(loss, "treats_other_classes_alike", False) for loss in self._losses
        )

    @property
    def falls_with_probability(self) -> bool:
        return all(
            getattr(loss, "falls_with_probability", False) for loss in self._losses
        )

    def fix_settings(self) -> None:
        fix_settings_of(*self._losses)
        super().fix_settings()

    def compute(self, y_true, y_pred, axis: int, counted):
        active, passive = (
            call_inner_loss(loss, y_true, y_pred, axis, counted)
            for loss in self._losses
        )
        check_same_shape(active, passive)
        total = self.alpha * active + self.beta * passive
        set_masks(total, mask_of(active), mask_of(passive))
        return total

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "active": serialize_inner_loss(self.active),
            "passive": serialize_inner_loss(self.passive),
            "alpha": self.alpha,
            "beta": self.beta,
        }

    @classmethod
    def from_config(cls, config: dict) -> Self:
        losses = {
            name: keras.saving.deserialize_keras_object(config[name])
            for name in ("active", "passive")
        }
        return cls(**{**config, **losses})

    def __repr__(self):
        active, passive = map(describe, self._losses)
        return f"<ActivePassive active={active}, passive={passive}>"

    @property
    def _losses(self):
        return self.active, self.passive
