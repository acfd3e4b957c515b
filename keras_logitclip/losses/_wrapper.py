"""Base of the losses that change the logits, or add to the loss, of another one."""

import keras

from keras_logitclip._arguments import resolve_class_axis
from keras_logitclip._labels import refuse_probabilities
from keras_logitclip.losses._classification import LogitsLoss
from keras_logitclip.losses._inner import call_inner_loss
from keras_logitclip.losses._inner import check_inner_call
from keras_logitclip.losses._inner import check_nothing_is_ignored
from keras_logitclip.losses._inner import serialize_inner_loss
from keras_logitclip.losses._inner import standardize_inner_loss


class WrapperLoss(LogitsLoss):
    """Base of the losses around another one, `loss`.

    Subclasses define `wrap(y_true, y_pred, axis)`, which gets labels and logits
    that have been checked and an axis counted from the front, and returns one value
    per sample. They get the values of the wrapped loss from `inner_losses`.
    """

    def __init__(self, loss, axis, activation, reduction, name, dtype):
        super().__init__(axis, reduction, name, dtype)
        self.activation = _check_activation_name(activation)
        self.loss = standardize_inner_loss(loss, activation, self.axis)
        check_nothing_is_ignored(self.loss, self.dtype)

    def call(self, y_true, y_pred):
        y_true = keras.ops.convert_to_tensor(y_true)
        axis = resolve_class_axis(self.axis, y_pred.shape)
        refuse_probabilities(
            y_pred,
            remedy="if the wrapped loss needs probabilities, pass "
            f'`activation="softmax"` (or "sigmoid") to `{type(self).__name__}`.',
        )
        check_inner_call(self.loss, y_true, y_pred, self.axis)
        return self.wrap(y_true, y_pred, axis)

    def inner_losses(self, y_true, logits, axis):
        """Applies the activation and the wrapped loss to logits."""
        if self.activation == "softmax":
            logits = keras.ops.softmax(logits, axis)
        elif self.activation == "sigmoid":
            logits = keras.ops.sigmoid(logits)
        return call_inner_loss(self.loss, y_true, logits, axis)

    def get_config(self):
        return {
            **super().get_config(),
            "loss": serialize_inner_loss(self.loss),
            "activation": self.activation,
        }

    @classmethod
    def from_config(cls, config):
        loss = keras.saving.deserialize_keras_object(config["loss"])
        return cls(**{**config, "loss": loss})


def _check_activation_name(activation):
    if activation not in (None, "softmax", "sigmoid"):
        raise ValueError(
            "Invalid value for argument `activation`: expected `None`, "
            f'"softmax" or "sigmoid". Received: activation={activation!r}'
        )
    return activation
