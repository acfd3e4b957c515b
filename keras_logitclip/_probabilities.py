"""Checks of NumPy arrays of logits and labels, and the softmax."""

import numpy as np

from keras_logitclip._jobs.arrays import check_array
from keras_logitclip._labels import check_class_ids
from keras_logitclip._labels import look_like_probabilities


def check_logits(name: str, values) -> np.ndarray:
    """Returns logits as float64 if they are finite and not probabilities."""
    logits = check_rows(name, values)
    if look_like_probabilities(logits):
        raise ValueError(
            f"Invalid value for argument `{name}`: expected logits. Received: "
            f"probabilities. Convert them with `np.log(np.maximum({name}, 1e-12))`"
        )
    return logits


def check_rows(name: str, values) -> np.ndarray:
    """Returns a matrix as float64 if all its numbers are finite."""
    given = check_array(values, name)
    are_numbers = given.dtype.kind in "iuf" and given.size > 0
    if not are_numbers or given.ndim != 2 or given.shape[1] < 2:
        is_one_logit = are_numbers and given.shape in ((len(given),), (len(given), 1))
        remedy = (
            " One logit becomes two with "
            f"`np.column_stack([np.zeros(len({name})), {name}])`."
        )
        raise ValueError(
            f"Invalid value for argument `{name}`: expected numbers of shape "
            "`(samples, classes)`, with at least two classes."
            f"{remedy if is_one_logit else ''} "
            f"Received: {name} of dtype {given.dtype} and shape {given.shape}"
        )
    finite = np.isfinite(given).all(1)
    if not finite.all():
        raise ValueError(
            f"Invalid value for argument `{name}`: expected finite numbers. Received: "
            f"NaN or infinity in {np.sum(~finite)} of {len(given)} rows, the first "
            f"at {finite.argmin()}"
        )
    return given.astype("float64")


def check_labels(name: str, labels, logits: np.ndarray) -> np.ndarray:
    """Returns labels as class ids if there is one for each row of the logits."""
    samples, classes = logits.shape
    ids = check_class_ids(labels, classes, name)
    if len(ids) != samples:
        raise ValueError(
            f"Invalid value for argument `{name}`: expected one label for each row of "
            f"the logits. Received: {len(ids)} labels, {samples} rows"
        )
    return ids


def softmax(logits: np.ndarray) -> np.ndarray:
    """Returns the probabilities of each row."""
    exponentials = np.exp(logits - logits.max(1, keepdims=True))
    return exponentials / exponentials.sum(1, keepdims=True)


def log_sum_exp(rows: np.ndarray) -> np.ndarray:
    """Returns the logarithm of the sum of the exponentials of each row."""
    largest = rows.max(1)
    return largest + np.log(np.exp(rows - largest[:, None]).sum(1))
