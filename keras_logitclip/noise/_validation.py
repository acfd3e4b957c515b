"""Argument checks shared by the generators of label noise."""

import operator

import numpy as np

from keras_logitclip._counts import check_count
from keras_logitclip._validation import check_parameter


def check_rate(rate) -> float:
    """Returns the noise rate as a float if it is in [0, 1]."""
    return check_parameter(
        "rate", rate, lambda number: 0 <= number <= 1, "a number in [0, 1]"
    )


def check_num_classes(num_classes) -> int:
    """Returns the number of classes as an int if there are at least two."""
    return check_count("num_classes", num_classes, minimum=2)


def check_labels(labels, num_classes: int, name: str = "labels") -> np.ndarray:
    """Returns a copy of the labels as int64 if they are ids of these classes."""
    labels = np.asarray(labels)
    received = f"Received: {name} of dtype {labels.dtype} and shape {labels.shape}"
    if labels.ndim != 1 or not labels.size:
        is_column = labels.shape[1:] == (1,)
        remedy = f" Make it so with `{name}.ravel()`." if is_column else ""
        raise ValueError(
            f"Invalid value for argument `{name}`: expected class ids of shape "
            f"`(samples,)`, at least one.{remedy} {received}"
        )
    if labels.dtype.kind not in "iu":
        raise ValueError(
            f"Invalid value for argument `{name}`: expected class ids, integers in "
            f"[0, {num_classes}). {received}"
        )
    outside = (labels < 0) | (labels >= num_classes)
    if outside.any():
        first = outside.argmax()
        raise ValueError(
            f"Invalid value for argument `{name}`: expected class ids in "
            f"[0, {num_classes}). Received: {labels[first]} at position {first} "
            f"({outside.sum()} of {len(labels)} are outside)"
        )
    return labels.astype("int64")


def check_seed(seed) -> np.random.Generator:
    """Returns a generator of random numbers: the one given, or one of that seed."""
    if isinstance(seed, np.random.Generator):
        return seed
    number = _as_integer(seed)
    if number is None or number < 0:
        raise ValueError(
            "Invalid value for argument `seed`: expected an integer of at least 0 or "
            "a `numpy.random.Generator`, so that the same noise can be drawn again. "
            f"Received: seed={seed!r} (of type {type(seed).__name__})"
        )
    return np.random.default_rng(number)


def describe_seed(seed) -> int | str:
    """Returns the seed, or the name of the generator that was given instead."""
    return str(seed) if isinstance(seed, np.random.Generator) else int(seed)


def _as_integer(value) -> int | None:
    if isinstance(value, bool):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None
