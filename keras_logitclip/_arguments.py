"""Checks of arguments: numbers, flags, axes, seeds and transition matrices."""

import math
import numbers
import operator

import keras
import numpy as np


def check_number(name: str, value, interval: str, reason: str = "") -> float:
    """Returns an argument as a float if it is a number in an interval.

    Args:
        name: Name of the argument.
        value: The value that was passed.
        interval: The allowed range, such as `"(0, 1]"` or `"[0, inf)"`. A square
            bracket includes the end, a round one excludes it.
        reason: Text that an error adds after the interval.
    """
    if not _is_real(value) or not _contains(interval, value):
        raise ValueError(
            f"Invalid value for argument `{name}`: expected {_in_words(interval)}"
            f"{reason and ', ' + reason}. "
            f"Received: {name}={value!r} (of type {type(value).__name__})"
        )
    return float(value)


def check_count(name: str, value, minimum: int = 1) -> int:
    """Returns an argument as an int if it is an integer of at least `minimum`."""
    number = _as_integer(value)
    if number is None or number < minimum:
        raise ValueError(
            f"Invalid value for argument `{name}`: expected an integer of at least "
            f"{minimum}. Received: {name}={value!r} (of type {type(value).__name__})"
        )
    return number


def check_flag(name: str, value, expected: str = "`True` or `False`") -> bool:
    """Returns an argument if it is a boolean."""
    if not isinstance(value, bool):
        raise ValueError(
            f"Invalid value for argument `{name}`: expected {expected}. "
            f"Received: {name}={value!r}"
        )
    return value


def check_tau(tau) -> float:
    """Returns `tau` as a float if it is a positive number (`inf` included)."""
    return check_number("tau", tau, "(0, inf]")


def check_p(p) -> float:
    """Returns the order `p` of a norm as a float if it is at least 1."""
    return check_number("p", p, "[1, inf]")


def check_rate(rate) -> float:
    """Returns the noise rate as a float if it is in [0, 1]."""
    return check_number("rate", rate, "[0, 1]")


def check_num_classes(num_classes) -> int:
    """Returns the number of classes as an int if there are at least two."""
    return check_count("num_classes", num_classes, minimum=2)


def check_ignore_class(ignore_class) -> int | None:
    """Returns the class id to ignore as an int, or `None` if there is none."""
    number = _as_integer(ignore_class)
    if number is None and ignore_class is not None:
        raise ValueError(
            "Invalid value for argument `ignore_class`: expected a class id, an "
            "integer, or `None`. Received: "
            f"ignore_class={ignore_class!r} (of type {type(ignore_class).__name__})"
        )
    return number


def check_axis(axis) -> int:
    """Returns `axis` as an int if it is a single integer."""
    number = _as_integer(axis)
    if number is None:
        raise ValueError(
            "Invalid value for argument `axis`: expected one integer, the "
            "position of the class axis. "
            f"Received: axis={axis!r} (of type {type(axis).__name__})"
        )
    return number


def resolve_axis(axis: int, rank: int) -> int:
    """Returns `axis` as an index from the front of a tensor of this rank."""
    if not -rank <= axis < rank:
        raise ValueError(
            "Invalid value for argument `axis`: expected an integer in "
            f"[{-rank}, {rank}) for logits of rank {rank}. "
            f"Received: axis={axis}"
        )
    return axis % rank


def resolve_class_axis(axis: int, shape) -> int:
    """Returns `axis` as an index from the front; refuses the batch axis, which is 0."""
    resolved = resolve_axis(axis, len(shape))
    if resolved == 0:
        raise ValueError(
            "Expected logits with a batch axis and a class axis, of shape "
            "`(batch, ..., classes)`. Along the batch axis, samples would be clipped "
            f"together. Received: shape={tuple(shape)}, axis={axis}"
        )
    return resolved


def check_transition_matrix(name: str, value) -> np.ndarray:
    """Returns a copy of a transition matrix in float64 if its rows are distributions.

    The sum of a row may differ from 1 by the rounding error of float32.
    """
    matrix = as_array(value)
    square = matrix.ndim == 2 and matrix.shape[0] == matrix.shape[1] >= 2
    if not square or matrix.dtype.kind not in "biuf":
        raise ValueError(
            f"Invalid value for argument `{name}`: expected numbers of shape "
            "`(classes, classes)` for at least two classes. "
            f"Received: {name} of dtype {matrix.dtype} and shape {matrix.shape}"
        )
    matrix = matrix.astype("float64")
    # Negated so that NaN is refused, too.
    negative = ~(matrix >= 0)
    if negative.any():
        row, column = np.argwhere(negative)[0]
        raise ValueError(
            f"Invalid value for argument `{name}`: expected probabilities, at least 0. "
            f"Received: {name}[{row}, {column}]={matrix[row, column]}"
        )
    wrong = ~_sum_to_one(matrix, axis=1)
    if wrong.any():
        hint = (
            " The columns sum to 1: transpose the matrix."
            if _sum_to_one(matrix, axis=0).all()
            else ""
        )
        row = wrong.argmax()
        raise ValueError(
            f"Invalid value for argument `{name}`: expected rows that sum to 1, "
            f"because `{name}[i, j]` is the probability of label `j` for class "
            f"`i`.{hint} Received: a sum of {matrix[row].sum():.6g} in row {row}"
        )
    return matrix


def check_seed(seed) -> np.random.Generator:
    """Returns the generator that was passed, or a new one with this seed."""
    if isinstance(seed, np.random.Generator):
        return seed
    number = _as_integer(seed)
    if number is None or number < 0:
        raise ValueError(
            "Invalid value for argument `seed`: expected an integer of at least 0 or a "
            "`numpy.random.Generator`, because the noise has to be reproducible. "
            f"Received: seed={seed!r} (of type {type(seed).__name__})"
        )
    return np.random.default_rng(number)


def as_array(value) -> np.ndarray:
    """Returns a value as an array, of objects if its rows differ in length."""
    # Not for NumPy arrays, which may be on disk and would be copied.
    if keras.ops.is_tensor(value) and not isinstance(value, np.ndarray):
        value = keras.ops.convert_to_numpy(value)
    try:
        return np.asarray(value)
    except ValueError:
        return np.asarray(value, "object")


def describe_seed(seed) -> int | str:
    """Returns the seed, or the text form of a generator."""
    return str(seed) if isinstance(seed, np.random.Generator) else int(seed)


def _sum_to_one(matrix, axis) -> np.ndarray:
    return abs(matrix.sum(axis) - 1) <= 1e-6


def _ends(interval: str) -> tuple[float, float]:
    lower, upper = interval[1:-1].split(",")
    return float(lower), float(upper)


def _contains(interval, value) -> bool:
    """Returns whether a number is in an interval. NaN never is."""
    lower, upper = _ends(interval)
    above = lower <= value if interval[0] == "[" else lower < value
    return above and (value <= upper if interval[-1] == "]" else value < upper)


def _in_words(interval) -> str:
    lower, upper = _ends(interval)
    if upper < math.inf:
        return f"a number in {interval}"
    limit = (
        f"of at least {lower:g}" if interval[0] == "[" else f"greater than {lower:g}"
    )
    if interval[-1] == "]":
        return f'a number {limit} (`float("inf")` included)'
    return f"a finite number {limit}"


def _is_real(value) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _as_integer(value) -> int | None:
    if isinstance(value, bool):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None
