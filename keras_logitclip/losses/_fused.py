"""Cross-entropies that `LogitClipLoss` computes together with the clipping."""

import keras

from keras_logitclip import ops
from keras_logitclip._labels import holds_class_ids
from keras_logitclip._labels import set_mask
from keras_logitclip.losses.cross_entropy import CrossEntropy


def can_fuse(loss, y_true, y_pred, axis: int) -> bool:
    """Whether `fused_cross_entropy` computes what clipping and `loss` would.

    Everything else is left to `loss` itself, its errors included.
    """
    if type(loss) is CrossEntropy:
        return loss.from_logits
    class_ids = holds_class_ids(y_true, y_pred, axis)
    if type(loss) is keras.losses.SparseCategoricalCrossentropy:
        return loss.from_logits and class_ids
    if type(loss) is keras.losses.CategoricalCrossentropy:
        # Keras smooths by the size of the last axis, whatever the class axis.
        smoothable = axis == len(y_pred.shape) - 1 or not loss.label_smoothing
        return loss.from_logits and smoothable and not class_ids
    return False


def fused_cross_entropy(loss, y_true, y_pred, tau: float, p: float, axis: int):
    """Computes the per-sample values of `loss` on clipped logits."""
    if type(loss) is keras.losses.SparseCategoricalCrossentropy:
        return _sparse(loss.ignore_class, y_true, y_pred, tau, p, axis)
    if type(loss) is keras.losses.CategoricalCrossentropy:
        y_true = _smooth(loss.label_smoothing, y_true, y_pred.shape[axis])
    return _per_sample(y_true, y_pred, tau, p, axis)


def _sparse(ignore_class, y_true, y_pred, tau, p, axis):
    if ignore_class is None:
        return _per_sample(y_true, y_pred, tau, p, axis)
    kept = keras.ops.not_equal(y_true, ignore_class)
    y_true = keras.ops.where(kept, y_true, keras.ops.zeros_like(y_true))
    losses = _per_sample(y_true, y_pred, tau, p, axis)
    kept = keras.ops.reshape(kept, keras.ops.shape(losses))
    losses = keras.ops.where(kept, losses, keras.ops.zeros_like(losses))
    set_mask(losses, kept)
    return losses


def _smooth(label_smoothing, y_true, classes):
    if not label_smoothing:
        return y_true
    return y_true * (1 - label_smoothing) + label_smoothing / classes


def _per_sample(y_true, y_pred, tau, p, axis):
    losses = ops.clipped_softmax_cross_entropy(y_true, y_pred, tau, p, axis)
    return keras.ops.cast(losses, y_pred.dtype)
