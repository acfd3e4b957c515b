"""Checks of the loss and the optimizer of a compiled model."""

import inspect
import math

import keras
import numpy as np

from keras_logitclip._check.outputs import entry_of
from keras_logitclip._check.report import Problem
from keras_logitclip.layers import LogitClip
from keras_logitclip.losses import ClassificationLoss
from keras_logitclip.losses import LogitClipLoss
from keras_logitclip.losses._inner import describe
from keras_logitclip.losses._inner import takes_probabilities
from keras_logitclip.losses._wrapper import WrapperLoss

# The best learning rates of clipped losses with 77 and 150 classes. Smaller ones cost
# two points and more. With up to 26 classes the best ones were often no larger than
# those of the plain loss (docs/choosing_tau.md).
_MANY_CLASSES = 70
_BEST_RATES = {keras.optimizers.SGD: (0.1, 1.0), keras.optimizers.Adam: (0.003, 0.03)}


def compiled_loss(model: keras.Model, output: str | int | None = None):
    """Returns the loss of an output (or of the only one), `None` without a loss."""
    given = entry_of(model.loss, output) if model.compiled else None
    losses = (loss for loss in keras.tree.flatten(given) if loss is not None)
    loss = next(losses, None)
    return keras.losses.get(loss) if isinstance(loss, str) else loss


def innermost(loss):
    """Returns the innermost wrapped loss."""
    while isinstance(loss, WrapperLoss):
        loss = loss.loss
    return loss


def is_binary(loss) -> bool | None:
    """Returns whether a loss treats each output as a separate binary question.

    `None` if nothing is known of it.
    """
    inner = innermost(loss)
    name = describe(inner).lower()
    if "binary" in name:
        return True
    is_categorical = "categorical" in name or isinstance(inner, ClassificationLoss)
    return False if is_categorical else None


def takes_signs(loss) -> bool:
    """Returns whether a loss takes -1 and 1 for no and yes."""
    return loss is not None and "hinge" in describe(innermost(loss)).lower()


def clipping_of(model: keras.Model, loss) -> LogitClipLoss | LogitClip | None:
    """Returns the loss that clips the logits, or else the layer of the model."""
    while isinstance(loss, WrapperLoss):
        if isinstance(loss, LogitClipLoss):
            return loss
        loss = loss.loss
    layers = (layer for layer in model.layers if isinstance(layer, LogitClip))
    return next(layers, None)


def wrong_loss(loss) -> Problem | None:
    """Returns the problem of a class, or of a loss that takes probabilities."""
    if inspect.isclass(loss):
        return Problem(
            "the instance of a loss",
            f"the class {loss.__name__}",
            "Compile with an instance, such as "
            '`LogitClipLoss("sparse_categorical_crossentropy", tau=1.5)`',
        )
    if not takes_probabilities(loss):
        return None
    return Problem(
        "a loss that takes logits",
        f"{describe(loss)}, which takes probabilities",
        "Compile the model with a clipped loss, such as "
        '`LogitClipLoss("sparse_categorical_crossentropy", tau=1.5)`',
    )


def wrong_kind(loss, kind: str | None) -> Problem | None:
    """Returns the problem of labels of a kind that a Keras loss does not take.

    The losses of this package take all kinds.
    """
    inner = innermost(loss)
    if isinstance(inner, ClassificationLoss):
        return None
    name = describe(inner)
    plain = name.lower().replace("_", "")
    remedies = {
        "one-hot labels": "`y.argmax(-1)` makes ids of them",
        "soft labels": "Take the loss `categorical_crossentropy`",
    }
    if plain.startswith("sparsecategorical") and kind in remedies:
        return Problem(f"class ids, because of the loss {name}", kind, remedies[kind])
    if plain.startswith("categorical") and kind == "class ids":
        return Problem(
            f"one-hot or soft labels, because of the loss {name}",
            kind,
            "Take the loss `sparse_categorical_crossentropy`",
        )
    return None


def failing_loss(loss, labels, outputs) -> Problem | None:
    """Returns the problem of a loss that cannot be computed."""
    if not isinstance(loss, keras.losses.Loss):
        return None
    if labels.dtype.kind == "f":
        labels = labels.astype(keras.config.floatx())
    given = map(keras.ops.convert_to_tensor, (labels, outputs))
    try:
        value = keras.ops.convert_to_numpy(loss(*given))
        received = "NaN or infinity"
    except Exception as error:  # A loss can raise any error.
        value, received = math.nan, f"this error: {str(error).removesuffix('.')}"
    if np.isfinite(value).all():
        return None
    return Problem(
        f"a loss that takes labels of shape {labels.shape} for outputs of shape "
        f"{outputs.shape}",
        received,
        "Try it on a batch: `loss(y[:2], model.predict_on_batch(x[:2]))`",
    )


def unclipped(loss) -> Problem | None:
    """Returns the hint that a loss of logits does not clip them."""
    if loss is None or wrong_loss(loss):
        return None
    return Problem(
        "a loss that clips the logits",
        describe(loss),
        "Wrap it: `LogitClipLoss(loss, tau=1.5)`",
    )


def small_learning_rate(model: keras.Model, clipping, classes: int) -> Problem | None:
    """Returns the hint that a clipped loss and many classes want a larger rate."""
    optimizer = model.optimizer if model.compiled else None
    kind = next((kind for kind in _BEST_RATES if isinstance(optimizer, kind)), None)
    if kind is None or classes < _MANY_CLASSES:
        return None
    smallest, largest = _BEST_RATES[kind]
    rate = optimizer.get_config()["learning_rate"]
    is_schedule = not isinstance(rate, float)
    is_exact = clipping.tau < math.inf and not clipping.normalize_gradient
    # Keras stores the rate in float32.
    if is_schedule or rate >= np.float32(smallest) or not is_exact:
        return None
    remedy = "Try 10 and 30 times the rate of the plain loss"
    if kind is keras.optimizers.SGD:
        remedy += (
            ", or keep that one with `LogitClipLoss(..., normalize_gradient=True)`"
        )
    return Problem(
        f"a larger learning rate for {type(optimizer).__name__}, a clipped loss and "
        f"{classes} classes: {smallest:g} to {largest:g} were the best ones of our "
        "studies",
        f"{rate:g}",
        remedy,
    )
