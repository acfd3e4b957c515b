"""Checks of labels against the outputs of a model."""

from collections.abc import Iterator

import numpy as np

from keras_logitclip._check.report import Problem
from keras_logitclip._remedies import are_binary
from keras_logitclip._remedies import are_several
from keras_logitclip._remedies import describe_labels
from keras_logitclip._remedies import remedy_for_labels


def kind_of(labels: np.ndarray, output_shape: tuple[int, ...]) -> str | None:
    """Returns the kind of labels for outputs of this shape (class axis last).

    `None` if they fit nothing.
    """
    *positions, classes = output_shape[1:]
    shape = [*labels.shape[1:]]
    has_no_class_axis = shape in (positions, [*positions, 1])
    if has_no_class_axis:
        return "one logit" if classes == 1 else "class ids"
    if shape != [*positions, classes]:
        return None
    if are_several(labels):
        return "several labels"
    return "one-hot labels" if are_binary(labels) else "soft labels"


def no_numbers(labels: np.ndarray) -> Problem | None:
    """Returns the problem of labels that are not numbers."""
    if labels.dtype.kind in "biuf":
        return None
    return Problem(
        "labels as numbers",
        describe_labels(labels, "labels"),
        remedy_for_labels(labels, "y").strip() or "Number the classes from 0",
    )


def without_signs(labels: np.ndarray) -> np.ndarray:
    """Returns 0 and 1 for labels of -1 and 1, all others as they are."""
    are_signs = np.isin(labels, (-1, 1)).all()
    return (labels > 0).astype("int32") if are_signs else labels


def wrong_labels(
    labels: np.ndarray,
    output_shape: tuple[int, ...],
    ignore_class: int | None,
    binary_loss: bool | None,
) -> Iterator[Problem]:
    """Yields the problems of labels for outputs of this shape.

    Args:
        labels: Numbers.
        output_shape: The shape of the outputs, the class axis being the last.
        ignore_class: Class id of labels that do not count.
        binary_loss: Whether the loss treats each output as a separate binary question,
            `None` if it is unknown.
    """
    kind, classes = kind_of(labels, output_shape), output_shape[-1]
    if kind is None:
        yield _unfit(labels, output_shape)
    elif kind in ("class ids", "one logit"):
        counted = labels[labels != ignore_class]
        limit = max(classes, 2)
        if kind == "one logit" and binary_loss and _are_shares(counted):
            return  # Soft labels.
        if (counted != np.round(counted)).any():  # NaN, too.
            yield _not_whole(labels)
        elif counted.size and not (0 <= counted.min() <= counted.max() < limit):
            yield _out_of_range(counted, limit)
    elif binary_loss:
        if not _are_shares(labels):
            yield _no_shares(labels)
    elif kind == "soft labels" or binary_loss is False:
        sums = labels.sum(-1)
        if not (labels >= 0).all() or not (abs(sums - 1) <= 1e-3).all():
            yield _no_distributions(labels, sums)


def _are_shares(labels):
    return bool(((labels >= 0) & (labels <= 1)).all())


def _unfit(labels, output_shape):
    *positions, classes = output_shape[1:]
    return Problem(
        f"class ids of shape {_batch_of(*positions)}, or one weight per class of shape "
        f"{_batch_of(*positions, classes)}",
        f"labels of shape {_batch_of(*labels.shape[1:])}",
        "One-hot labels become ids with `y.argmax(-1)`; the last layer needs as many "
        "outputs as there are classes",
    )


def _batch_of(*sizes):
    return f"`({', '.join(map(str, ('batch', *sizes)))})`"


def _not_whole(labels):
    return Problem(
        "class ids, which are whole numbers",
        describe_labels(labels, "labels"),
        remedy_for_labels(labels, "y").strip()
        or "The probability of the second of two classes becomes an id with "
        "`(y > 0.5).astype(int)`",
    )


def _out_of_range(labels, limit):
    low, high = int(labels.min()), int(labels.max())
    if low == 1 and high <= limit:
        remedy = "Class ids begin at 0: `y - 1`"
    elif (low, high, limit) == (-1, 1, 2):
        remedy = "The classes are 0 and 1: `y > 0`"
    elif low < 0:
        remedy = f"Labels that do not count need a loss with `ignore_class={low}`"
    else:
        remedy = (
            "Give the last layer more outputs, number the classes with `names, y = "
            "np.unique(y, return_inverse=True)`, or give the loss `ignore_class="
            f"{high}` if those do not count"
        )
    return Problem(
        f"class ids in [0, {limit}), or a model with at least {high + 1} classes",
        f"ids from {low} to {high}",
        remedy,
    )


def _no_shares(labels):
    return Problem(
        "labels from 0 to 1, because the loss is a binary one",
        f"labels from {labels.min():g} to {labels.max():g}",
        "Make them 0 or 1 for each sample and output: `(y > 0).astype(int)`",
    )


def _no_distributions(labels, sums):
    if are_binary(labels):
        remedy = (
            'Several labels per sample take `LogitClipLoss("binary_crossentropy", tau)`'
        )
    else:
        remedy = "Divide the rows by their sum: `y / y.sum(-1, keepdims=True)`"
    return Problem(
        "one weight per class, at least 0, whose sum is 1 in each row",
        f"weights from {labels.min():g} to {labels.max():g} with sums from "
        f"{sums.min():g} to {sums.max():g}",
        remedy,
    )
