"""Argument checks shared by the functions, the layer and the losses."""

import math
import numbers
import operator
from collections.abc import Callable

import keras

# Numbers of classes up to which a dtype represents every class id.
_MAX_CLASSES = {"bfloat16": 256, "float16": 2048}


def check_tau(tau) -> float:
    """Returns `tau` as a float if it is a positive number (`inf` included)."""
    return check_parameter(
        "tau",
        tau,
        lambda number: number > 0,
        'a number greater than zero (`float("inf")` for no clipping)',
    )


def check_p(p) -> float:
    """Returns the norm order `p` as a float if it is at least 1."""
    return check_parameter(
        "p",
        p,
        lambda number: number >= 1,
        "the order of a norm, a number of at least 1 "
        '(`float("inf")` for the maximum norm)',
    )


def check_parameter(name: str, value, valid: Callable, expected: str) -> float:
    """Returns an argument as a float if it is a number in its range.

    Args:
        name: Name of the argument.
        value: What was given for it.
        valid: Whether a number is in the range.
        expected: The range, in words that follow "expected".
    """
    if not _is_real(value) or not valid(value):
        raise ValueError(
            f"Invalid value for argument `{name}`: expected {expected}. "
            f"Received: {name}={value!r} (of type {type(value).__name__})"
        )
    return float(value)


def check_flag(name: str, value, expected: str = "`True` or `False`") -> bool:
    """Returns an argument if it is a boolean."""
    if not isinstance(value, bool):
        raise ValueError(
            f"Invalid value for argument `{name}`: expected {expected}. "
            f"Received: {name}={value!r}"
        )
    return value


def check_from_logits(from_logits) -> bool:
    """Returns `from_logits` if it is a boolean."""
    return check_flag(
        "from_logits", from_logits, "`True` for logits or `False` for probabilities"
    )


def check_axis(axis) -> int:
    """Returns `axis` as an int if it is a single integer."""
    try:
        if isinstance(axis, bool):
            raise TypeError
        return operator.index(axis)
    except TypeError:
        raise ValueError(
            "Invalid value for argument `axis`: expected one integer, the "
            "position of the class axis. "
            f"Received: axis={axis!r} (of type {type(axis).__name__})"
        ) from None


def resolve_axis(axis: int, rank: int) -> int:
    """Returns `axis` counted from the front of a tensor of that rank."""
    if not -rank <= axis < rank:
        raise ValueError(
            "Invalid value for argument `axis`: expected an integer in "
            f"[{-rank}, {rank}) for logits of rank {rank}. "
            f"Received: axis={axis}"
        )
    return axis % rank


def resolve_class_axis(axis: int, shape) -> int:
    """Like `resolve_axis`, for batches: the first axis holds the samples."""
    resolved = resolve_axis(axis, len(shape))
    if resolved == 0:
        raise ValueError(
            "Expected logits with a batch axis and a class axis, of shape "
            "`(batch, ..., classes)`; along the batch axis, samples would be "
            f"clipped together. Received: shape={tuple(shape)}, axis={axis}"
        )
    return resolved


def holds_class_ids(y_true, logits, axis: int) -> bool:
    """Whether the labels are class ids, not one value per class."""
    if len(y_true.shape) < len(logits.shape):
        return True
    return y_true.shape[axis] == 1 and logits.shape[axis] != 1


def check_labels(y_true, logits, axis: int) -> None:
    """Raises if the labels have neither shape that fits logits."""
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
            "Expected labels of the shape of the logits, or of that shape without "
            f"axis {axis} or with size 1 there for class ids. "
            f"Received: y_true.shape={tuple(y_true.shape)}, "
            f"logits.shape={tuple(logits.shape)}"
        )


def check_class_ids_are_exact(y_true, logits, axis: int) -> None:
    """Raises if class ids have a dtype that cannot represent all of them.

    Keras casts labels to the dtype of the loss before the loss sees them.
    """
    dtype = keras.backend.standardize_dtype(y_true.dtype)
    limit, classes = _MAX_CLASSES.get(dtype, math.inf), logits.shape[axis]
    if (classes or 0) > limit and holds_class_ids(y_true, logits, axis):
        raise ValueError(
            f"Class ids of more than {limit} classes cannot be represented in "
            f"{dtype}, and Keras casts labels to the dtype of the loss. Expected a "
            '(outermost) loss with `dtype="float32"`, or one-hot labels. '
            f"Received: {classes} classes, labels of dtype {dtype}"
        )


def refuse_probabilities(logits, remedy: str) -> None:
    """Raises if Keras recorded that this tensor came out of an activation.

    Keras leaves the logits on what its softmax and sigmoid return (not under
    JAX, whose tensors take no attributes). Taken for logits, such an output
    gives a finite loss of the wrong kind, and nobody would notice.
    """
    if hasattr(logits, "_keras_logits"):
        raise ValueError(
            "Expected logits. Received: probabilities, the output of a softmax or "
            "sigmoid activation. Remove that activation from the model's last "
            f"layer; {remedy}"
        )


def _is_real(value) -> bool:
    return (
        isinstance(value, numbers.Real)
        and not isinstance(value, bool)
        and not math.isnan(value)
    )
