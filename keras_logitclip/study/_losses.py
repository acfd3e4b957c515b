"""The loss of a cell."""

import keras

from keras_logitclip import losses
from keras_logitclip.losses.presets import PRESETS
from keras_logitclip.losses.presets import has_few_classes
from keras_logitclip.study._config import Cell

_METHODS = {
    "plain": lambda loss, value: loss,
    "tau": losses.LogitClipLoss,
    "value_limit": losses.LogitValueClip,
    "norm_penalty": losses.NormPenalty,
}


def make_loss(cell: Cell, num_classes: int) -> keras.losses.Loss:
    """Returns the loss with the values of its paper, clipped as the cell says."""
    return _METHODS[cell.method](losses.preset(cell.loss, num_classes), cell.value)


def l1_weight(cell: Cell, num_classes: int) -> float:
    """Returns the weight of the L1 norm of all parameters that the loss needs."""
    few_classes, many_classes = PRESETS[cell.loss].l1
    return few_classes if has_few_classes(num_classes) else many_classes
