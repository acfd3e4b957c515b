"""Base class of the losses that wrap another loss."""

from collections.abc import Callable
from typing import Self

import keras

from keras_logitclip._labels import check_several_classes
from keras_logitclip._labels import refuse_probabilities
from keras_logitclip.losses._base import LogitsLoss
from keras_logitclip.losses._inner import call_inner_loss
from keras_logitclip.losses._inner import check_inner_loss
from keras_logitclip.losses._inner import describe
from keras_logitclip.losses._inner import fix_settings_of
from keras_logitclip.losses._inner import serialize_inner_loss
from keras_logitclip.losses._inner import shared_ignore_class
from keras_logitclip.losses._inner import standardize_inner_loss

_ACTIVATIONS = (None, "softmax", "sigmoid")


class WrapperLoss(LogitsLoss):
    """Computes a wrapped loss, `loss`, of logits that a subclass can change.

    Subclasses define `compute`, which gets checked labels and logits and calls
    `inner_losses` for the values of the wrapped loss.
    """

    def __init__(
        self,
        loss: keras.losses.Loss | str | Callable,
        activation: str | None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if activation not in _ACTIVATIONS:
            raise ValueError(
                "Invalid value for argument `activation`: expected `None`, "
                f'"softmax" or "sigmoid". Received: activation={activation!r}'
            )
        self.activation = activation
        self.loss = standardize_inner_loss(loss, activation, self.axis)
        check_inner_loss(self.loss, self.dtype)
        self.ignore_class = shared_ignore_class(self.ignore_class, self.loss)

    @property
    def treats_other_classes_alike(self) -> bool:
        return getattr(self.loss, "treats_other_classes_alike", False)

    def fix_settings(self) -> None:
        fix_settings_of(self.loss)
        super().fix_settings()

    def inner_losses(self, y_true, logits, axis: int, counted):
        """Computes the wrapped loss after the activation."""
        if self.activation == "softmax":
            check_several_classes(logits, axis)
            logits = keras.ops.softmax(logits, axis)
        elif self.activation == "sigmoid":
            logits = keras.ops.sigmoid(logits)
        return call_inner_loss(self.loss, y_true, logits, axis, counted)

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "loss": serialize_inner_loss(self.loss),
            "activation": self.activation,
        }

    @classmethod
    def from_config(cls, config: dict) -> Self:
        loss = keras.saving.deserialize_keras_object(config["loss"])
        return cls(**{**config, "loss": loss})

    def __repr__(self):
        return f"<{type(self).__name__} loss={describe(self.loss)}>"

    def _check_logits(self, y_pred):
        refuse_probabilities(
            y_pred,
            remedy="if the wrapped loss takes probabilities, pass "
            f'`activation="softmax"` (or "sigmoid") to `{type(self).__name__}`.',
        )
