"""Describes labels that are not class ids, and the line that makes ids of them."""

import numbers

import numpy as np

from keras_logitclip._arguments import as_array

_PANDAS_GAPS = ("NAType", "NaTType")


def remedy_for_labels(labels, name: str) -> str:
    """Returns the advice of an error about labels that are not flat integers.

    Args:
        labels: The value that was passed.
        name: Its name in the code of the caller.

    Returns:
        A sentence that begins with a space, or `""` if no line helps.
    """
    array = _as_given(labels)
    if array.ndim and _is_missing(array).any():
        line = f"keep = {_kept(labels, array, name)}"
        return f" Missing labels have to go, with their samples: `{line}`."
    if array.ndim == 2 and array.dtype.kind in "biuf" and are_several(array):
        return f" Of several labels per sample, take each by itself: `{name}[:, 0]`."
    line = _line(labels, array, name)
    return f" Make ids of these labels with `{line}`." if line else ""


def describe_labels(labels, name: str) -> str:
    """Returns dtype and shape of labels, and the first that is missing or no class."""
    array = _as_given(labels)
    if not array.ndim:
        return f"{name} of type {type(labels).__name__}"
    received = f"{name} of dtype {array.dtype} and shape {array.shape}"
    positions = np.argwhere(_is_strange(array))
    if len(positions):
        first = tuple(positions[0].tolist())
        shown = first[0] if len(first) == 1 else first
        received += f", {array[first]} at position {shown}"
        received += f" and {len(positions) - 1} more" if len(positions) > 1 else ""
    return received


def are_binary(labels: np.ndarray) -> bool:
    """Returns whether these are ones and zeros."""
    return bool(np.isin(labels, (0, 1)).all())


def are_several(labels: np.ndarray) -> bool:
    """Returns whether these are ones and zeros, and not a single one in each row."""
    return are_binary(labels) and not (labels.sum(-1) == 1).all()


def _as_given(labels):
    """Returns an array in which gaps stay gaps: among texts, NaN would be "nan"."""
    array = as_array(labels)
    return np.asarray(labels, object) if array.dtype.kind in "UST" else array


def _line(labels, array, name):
    if hasattr(labels, "labels"):
        return f"{name}.labels"
    if array.ndim == 2 and array.shape[1] == 1:
        return f"np.ravel({name})"
    if array.ndim == 2:
        return f"np.argmax({name}, -1)"
    if array.ndim != 1 or not array.size:
        return ""
    # Not silently: the order of the categories need not be that of other data.
    if hasattr(labels, "cat"):
        return f"{name}.cat.codes"
    if hasattr(labels, "codes"):
        return f"{name}.codes"
    if _are(str | bytes, array).all():
        return f"names, ids = np.unique({name}, return_inverse=True)"
    are_whole = array.dtype.kind in "bf" and _is_whole(array).all()
    return f"np.array({name}, int)" if are_whole or _are(int, array).all() else ""


def _kept(labels, array, name):
    """Returns the line that selects the labels which are not missing."""
    if hasattr(labels, "notna"):
        return f"{name}.notna()"
    if array.dtype.kind == "f":
        return f"~np.isnan({name})"
    if _are(str | bytes, array).any():
        return f"[isinstance(label, str) for label in {name}]"
    return f"[label is not None for label in {name}]"


def _is_missing(array):
    if array.dtype.kind == "f":
        return np.isnan(array)
    return _each(_is_gap, array)


def _is_strange(array):
    if array.dtype.kind == "f":
        return ~_is_whole(array)
    are_names = _are(str | bytes, array)
    return _is_missing(array) | (~are_names & are_names.any())


def _is_gap(label):
    is_nan = isinstance(label, numbers.Real) and label != label
    return label is None or is_nan or type(label).__name__ in _PANDAS_GAPS


def _are(kind, array):
    return _each(lambda label: isinstance(label, kind), array)


def _each(function, array):
    """Returns `function` of each object, and false for arrays of other dtypes."""
    if array.dtype.kind != "O":
        return np.zeros(array.shape, bool)
    return np.array([function(label) for label in array.flat], bool).reshape(
        array.shape
    )


def _is_whole(array):
    return np.isfinite(array) & (np.floor(array) == array)
