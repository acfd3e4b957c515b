"""Labels and logits of any rank as the rows of a matrix, and back."""

import keras
from keras import ops

from keras_logitclip._kernels.numerics import compute_dtype_of
from keras_logitclip._validation import check_class_ids_are_exact
from keras_logitclip._validation import check_labels
from keras_logitclip._validation import holds_class_ids
from keras_logitclip._validation import resolve_axis


def to_rows(y_true, y_pred, axis: int):
    """Returns labels and a matrix whose rows lie along `axis` of `y_pred`.

    Returns:
        The labels: class ids of shape `(N,)` and dtype int32, -1 for what is no
        class, or weights of the classes, of shape `(N, K)` and the dtype to
        compute in; and the predictions, of shape `(N, K)` and their own dtype.

    Raises:
        ValueError: If the shapes do not match, or if `y_pred` are integers.
    """
    y_true, y_pred = ops.convert_to_tensor(y_true), ops.convert_to_tensor(y_pred)
    axis = resolve_axis(axis, len(y_pred.shape))
    check_labels(y_true, y_pred, axis)
    check_class_ids_are_exact(y_true, y_pred, axis)
    dtype = compute_dtype_of(y_pred)
    rows = _rows(y_pred, axis)
    if holds_class_ids(y_true, y_pred, axis):
        return _class_ids(y_true, ops.shape(rows)[-1]), rows
    return ops.cast(_rows(y_true, axis), dtype), rows


def from_rows(values, y_pred, axis: int):
    """Returns one value per row in the shape of `y_pred` without `axis`."""
    if len(y_pred.shape) == 2:
        return values
    axis = resolve_axis(axis, len(y_pred.shape))
    return ops.reshape(values, without_axis(ops.shape(y_pred), axis))


def without_axis(shape, axis: int) -> tuple:
    return tuple(size for i, size in enumerate(shape) if i != axis)


def _rows(x, axis):
    if axis != len(x.shape) - 1:
        x = ops.moveaxis(x, axis, -1)
    return x if len(x.shape) == 2 else ops.reshape(x, (-1, ops.shape(x)[-1]))


def _class_ids(y_true, classes):
    """Returns flat class ids as int32, and -1 for what is no class.

    What the backends do with such an id differs: to raise, to return zero, or to
    ignore the sample.
    """
    given = y_true if len(y_true.shape) == 1 else ops.reshape(y_true, (-1,))
    # The small integer types cannot be compared with a large number of classes.
    dtype = keras.backend.standardize_dtype(given.dtype)
    ids = ops.cast(given, "int64" if dtype in ("int64", "uint64") else "int32")
    valid = (ids >= 0) & (ids < classes)
    if "float" in dtype:
        valid = valid & (ops.cast(ids, dtype) == given)
    return ops.cast(ops.where(valid, ids, -1), "int32")
