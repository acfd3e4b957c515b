"""Checks and conversions of labels: class ids or weights, shapes, ranges and masks."""

import functools

import keras
import numpy as np
from keras import ops

from keras_logitclip._arguments import as_array
from keras_logitclip._arguments import resolve_axis
from keras_logitclip._numerics import compute_dtype_of
from keras_logitclip._remedies import describe_labels
from keras_logitclip._remedies import remedy_for_labels

_SMALL_INTEGERS = ("int8", "int16", "uint8", "uint16")
# The largest number of classes whose ids the dtype represents exactly.
_MAX_CLASSES = {"bfloat16": 256, "float16": 2048}


def to_rows(y_true, y_pred, axis: int):
    """Returns the labels, and the predictions as a matrix with one row per sample.

    Args:
        y_true: Tensor of labels.
        y_pred: Tensor of predictions.
        axis: The class axis.

    Returns:
        The labels, either integer class ids of shape `(N,)` or class weights of shape
        `(N, K)` in the dtype of the computation, and the predictions of shape `(N, K)`
        in their own dtype.

    Raises:
        ValueError: If the shapes do not match, if there is only one class, or if
            `y_pred` has an integer dtype.
    """
    axis = resolve_axis(axis, len(y_pred.shape))
    check_several_classes(y_pred, axis)
    check_labels(y_true, y_pred, axis)
    dtype = compute_dtype_of(y_pred)
    rows = _rows(y_pred, axis)
    if holds_class_ids(y_true, y_pred, axis):
        check_class_ids_are_exact(y_true, y_pred.shape[axis])
        if len(y_true.shape) == len(y_pred.shape):
            y_true = ops.squeeze(y_true, axis)
        return _class_ids(y_true), rows
    if y_true.shape[axis] is None:
        return _weights_of_unknown_kind(_rows(y_true, axis), rows), rows
    return ops.cast(_rows(y_true, axis), dtype), rows


def mark_invalid(ids, classes):
    """Returns class ids as int32, with -1 in place of invalid ones.

    The backends treat invalid ids differently: they raise an error, return zero or
    ignore the sample.
    """
    is_class = ops.equal(nearest_class(ids, classes), ids)
    return ops.cast(ops.where(is_class, ids, -1), "int32")


def as_column(ids, rows):
    """Returns class ids, one per row, in the shape `(N, 1)`.

    In a graph with unknown sizes, a single id would broadcast to all rows. The reshape
    makes such a graph fail when it runs.
    """
    return ops.reshape(ids, (ops.shape(rows)[0], 1))


def nearest_class(ids, classes):
    """Returns class ids, with the nearest valid id in place of invalid ones."""
    largest = classes - 1
    if not isinstance(largest, int):  # A tensor in a graph, where dtypes must agree.
        largest = ops.cast(largest, ids.dtype)
    return ops.clip(ids, 0, largest)


def from_rows(values, y_pred, axis: int):
    """Returns one value per row in the shape of `y_pred` without `axis`."""
    if len(y_pred.shape) == 2:
        return values
    axis = resolve_axis(axis, len(y_pred.shape))
    return ops.reshape(values, without_axis(ops.shape(y_pred), axis))


def without_axis(shape, axis: int) -> tuple:
    """Returns a shape without one axis."""
    return tuple(size for i, size in enumerate(shape) if i != axis)


def are_class_ids(labels) -> bool:
    """Returns whether labels from `to_rows` are class ids, not class weights."""
    return len(labels.shape) == 1


def nan_without_class(is_class, values):
    """Returns the values, with NaN where the class id is invalid.

    The multiplication makes the gradient NaN there, too. NaN is computed as the square
    root of -1, because debuggers that search for NaN would find a constant in every
    graph.
    """
    return values * (1 + ops.sqrt(ops.cast(is_class, values.dtype) - 1))


def holds_class_ids(y_true, logits, axis: int) -> bool:
    """Returns whether the labels are class ids, not one weight per class."""
    if len(y_true.shape) < len(logits.shape):
        return True
    return y_true.shape[axis] == 1 and logits.shape[axis] != 1


def check_labels(y_true, logits, axis: int) -> None:
    """Raises an error if the shape of the labels does not fit the logits."""
    expected = list(logits.shape)
    if len(y_true.shape) < len(expected):
        del expected[axis]
    elif holds_class_ids(y_true, logits, axis):
        expected[axis] = 1
    fits = len(y_true.shape) == len(expected) and all(
        size is None or limit is None or size == limit
        for size, limit in zip(y_true.shape, expected, strict=True)
    )
    if not fits:
        raise ValueError(
            "Expected labels of the shape of the logits, or class ids of that shape "
            f"without axis {axis} or with size 1 there. Received: "
            f"y_true.shape={tuple(y_true.shape)}, logits.shape={tuple(logits.shape)}"
        )


def check_several_classes(y_pred, axis: int) -> None:
    """Raises an error for a single class, whose softmax is always 1."""
    if y_pred.shape[axis] == 1:
        raise ValueError(
            "Expected logits of at least two classes, of shape "
            "`(batch, ..., classes)`. Give a model with one logit two outputs, or use "
            "a binary loss such as `keras.losses.BinaryCrossentropy`. Received: "
            f"y_pred.shape={tuple(y_pred.shape)}, axis={axis}"
        )


def check_class_ids_are_exact(y_true, classes: int | None) -> None:
    """Raises an error if the dtype of class ids cannot represent all of them."""
    dtype = keras.backend.standardize_dtype(y_true.dtype)
    limit = _MAX_CLASSES.get(dtype)
    if limit and classes and classes > limit:
        raise ValueError(
            f"Class ids of more than {limit} classes cannot be represented in "
            f"{dtype}. Expected ids of an integer dtype, or one-hot labels. "
            f"Received: {classes} classes, labels of dtype {dtype}"
        )


def check_class_ids(labels, num_classes: float, name: str = "labels") -> np.ndarray:
    """Returns a copy of the labels as int64 if they are valid class ids.

    Args:
        labels: Integers, such as a list, an array or a pandas Series.
        num_classes: Number of classes, `inf` for any.
        name: Name of the caller's argument.

    Raises:
        ValueError: Otherwise. The message has a line of code that makes class ids of
            the labels.
    """
    ids = as_array(labels)
    expected = f"Invalid value for argument `{name}`: expected class ids"
    if ids.ndim != 1 or not ids.size or ids.dtype.kind not in "iu":
        raise ValueError(
            f"{expected}, integers in [0, {num_classes}) of shape `(samples,)`, at "
            f"least one label.{remedy_for_labels(labels, name)} Received: "
            f"{describe_labels(labels, name)}"
        )
    outside = (ids < 0) | (ids >= num_classes)
    if outside.any():
        first = outside.argmax()
        from_one = ids.min() == 1 and ids.max() == num_classes
        remedy = f" Count from 0 with `np.subtract({name}, 1)`." if from_one else ""
        raise ValueError(
            f"{expected} in [0, {num_classes}).{remedy} Received: {ids[first]} at "
            f"position {first} ({outside.sum()} of {len(ids)} are outside)"
        )
    return ids.astype("int64")


def refuse_probabilities(logits, remedy: str) -> None:
    """Raises an error for the output of a softmax or sigmoid, as far as it is marked.

    If such an output were used as logits, the loss would be finite but wrong.
    """
    if hasattr(logits, "_keras_logits") or _comes_from_activation(logits):
        raise ValueError(
            "Expected logits. Received: probabilities, the output of a softmax or "
            "sigmoid activation. Remove that activation from the model's last "
            f"layer; {remedy}"
        )


def look_like_probabilities(values: np.ndarray, axis: int = -1) -> bool:
    """Returns whether all rows are probability distributions."""
    values = np.asarray(values, "float64")
    if not values.size or not (values >= 0).all():
        return False
    return bool(np.allclose(values.sum(axis), 1, rtol=0, atol=1e-2))


def activation_behind(operation) -> str | None:
    """Returns "softmax" or "sigmoid" if a layer or operation ends with it."""
    activation = getattr(operation, "activation", operation)
    name = getattr(activation, "__name__", type(activation).__name__).lower()
    return name if name in ("softmax", "sigmoid") else None


def _comes_from_activation(logits) -> bool:
    """Returns whether a symbolic tensor is the output of a softmax or sigmoid.

    Keras stores the logits on the tensor that an activation returns, except under JAX,
    whose tensors take no attributes. The symbolic tensors of a functional model know
    the operation that computes them.
    """
    history = getattr(logits, "_keras_history", None)
    return activation_behind(getattr(history, "operation", None)) is not None


def counted_values(shape, mask, sample_weight):
    """Returns which values neither a mask nor a sample weight of zero hides.

    Args:
        shape: Shape of the values.
        mask: Tensor of the shape of the values, or `None`.
        sample_weight: Weights whose shape, without a last axis of size 1, broadcasts to
            `shape`, or `None`.

    Returns:
        A boolean tensor of this shape, or `None` if nothing is hidden.
    """
    counted = None
    for name, given in (("mask", mask), ("sample_weight", sample_weight)):
        if given is not None:
            given = ops.cast(ops.convert_to_tensor(given), "bool")
            given = _broadcast(name, given, shape)
            counted = given if counted is None else ops.logical_and(counted, given)
    return counted


def as_labels(y_true):
    """Returns labels as a tensor.

    Raises:
        ValueError: If they are not numbers.
    """
    try:
        labels = ops.convert_to_tensor(y_true)
        is_text = keras.backend.standardize_dtype(labels.dtype) == "string"
        # Older versions of JAX convert `None` to NaN.
        is_number = not is_text and y_true is not None
    except (TypeError, ValueError):
        is_number = False
    if not is_number:
        kind = getattr(y_true, "dtype", type(y_true).__name__)
        raise ValueError(
            "Expected labels as numbers: class ids, or one weight per class. Convert "
            "class names to ids with `names, ids = numpy.unique(labels, "
            f"return_inverse=True)`. Received: {kind}"
        )
    return labels


def as_class_ids(y_true, y_pred, axis: int, reason: str):
    """Returns labels that have to be class ids, without a class axis of unknown size.

    Raises:
        ValueError: If they are one weight per class.
    """
    if holds_class_ids(y_true, y_pred, axis):
        return y_true
    if y_true.shape[axis] is None:
        return ops.reshape(y_true, without_axis(ops.shape(y_pred), axis))
    raise _wrong_kind("class ids", reason, y_true, y_pred)


def as_weights(y_true, y_pred, axis: int, reason: str):
    """Returns labels that have to be class weights, with the shape of the logits.

    Raises:
        ValueError: If they are class ids.
    """
    if holds_class_ids(y_true, y_pred, axis):
        raise _wrong_kind("one weight per class", reason, y_true, y_pred)
    if y_true.shape[axis] is None:
        return ops.reshape(y_true, ops.shape(y_pred))
    return y_true


def _wrong_kind(expected, reason, y_true, y_pred):
    return ValueError(
        f"Expected {expected} as labels, because {reason}. Received: labels of shape "
        f"{tuple(y_true.shape)} for logits of shape {tuple(y_pred.shape)}"
    )


def is_kept(y_true, y_pred, axis: int, ignore_class: int):
    """Returns which labels are not `ignore_class`, one value per sample."""
    if keras.backend.standardize_dtype(y_true.dtype) in _SMALL_INTEGERS:
        y_true = ops.cast(y_true, "int32")  # Small types may not hold `ignore_class`.
    kept = ops.not_equal(y_true, ignore_class)
    return ops.reshape(kept, without_axis(ops.shape(y_pred), axis))


def hide(y_true, y_pred, axis: int, counted):
    """Returns labels and predictions, with harmless ones for the hidden samples.

    Those predictions are all `1 / classes`, which is a distribution, too.
    """
    counted = ops.expand_dims(counted, axis)
    uniform = ops.ones_like(y_pred) / ops.cast(ops.shape(y_pred)[axis], y_pred.dtype)
    y_pred = ops.where(counted, y_pred, uniform)
    if holds_class_ids(y_true, y_pred, axis):
        counted = ops.reshape(counted, ops.shape(y_true))
    return ops.where(counted, y_true, ops.zeros_like(y_true)), y_pred


def mask_of(x):
    """Returns the mask of a tensor, or `None`.

    Keras has no public function for this. Under JAX, the mask is not an attribute of
    the tensor.
    """
    from keras.src.backend import get_keras_mask

    return get_keras_mask(x)


def set_masks(values, *masks) -> None:
    """Sets Keras's mask of values to where all masks are true; some may be `None`."""
    from keras.src.backend import set_keras_mask

    masks = [mask for mask in masks if mask is not None]
    if masks:
        set_keras_mask(values, mask=functools.reduce(ops.logical_and, masks))


def _rows(x, axis):
    if axis != len(x.shape) - 1:
        x = ops.moveaxis(x, axis, -1)
    return x if len(x.shape) == 2 else ops.reshape(x, (-1, ops.shape(x)[-1]))


def _class_ids(y_true):
    """Returns flat class ids, with -1 in place of numbers that are not whole."""
    ids = y_true if len(y_true.shape) == 1 else ops.reshape(y_true, (-1,))
    dtype = keras.backend.standardize_dtype(ids.dtype)
    if dtype in ("int32", "int64"):
        return ids
    if "float" not in dtype:
        # Small types could not be compared with a large number of classes.
        return ops.cast(ids, "int64" if dtype in ("uint32", "uint64") else "int32")
    whole = ops.cast(ids, "int32")
    return ops.where(ops.equal(ops.cast(whole, dtype), ids), whole, -1)


def _weights_of_unknown_kind(labels, rows):
    """Returns class weights for labels whose number of columns is unknown to the graph.

    One column holds class ids. Any other number of columns has to be the number of
    classes, which `ops.where` checks when the graph runs.
    """
    classes, dtype = ops.shape(rows)[-1], compute_dtype_of(rows)
    column = as_column(labels[:, 0], rows)
    # Not `==`, whose result has an unknown rank in a graph of TensorFlow.
    is_class = ops.equal(ops.cast(ops.arange(classes), labels.dtype), column)
    one_hot = ops.cast(is_class, dtype)
    # The weights of an invalid id become 0 / 0, which is NaN.
    one_hot = one_hot / ops.sum(one_hot, -1, keepdims=True)
    holds_ids = ops.equal(ops.shape(labels)[-1], 1)
    return ops.where(holds_ids, one_hot, ops.cast(labels, dtype))


def _broadcast(name, given, shape):
    rank = len(shape)
    if len(given.shape) == rank + 1 and given.shape[-1] == 1:
        given = ops.squeeze(given, -1)
    elif len(given.shape) == rank - 1 and shape[-1] == 1:  # As Keras does.
        given = ops.expand_dims(given, -1)
    ends = zip(reversed(given.shape), reversed(shape), strict=False)
    known = [pair for pair in ends if all(isinstance(size, int) for size in pair)]
    if len(given.shape) > rank or any(n not in (1, size) for n, size in known):
        raise ValueError(
            f"Invalid value for argument `{name}`: expected a shape that broadcasts to "
            f"that of the losses. Received: shape {tuple(given.shape)} for losses of "
            f"shape {tuple(shape)}"
        )
    return ops.broadcast_to(given, shape)
