"""The samples of a check."""

from collections.abc import Iterable
from itertools import islice

import keras
import numpy as np

from keras_logitclip._check.report import Problem
from keras_logitclip._jobs.arrays import as_array
from keras_logitclip._labels import counted_values


def first_batches(dataset: Iterable, samples: int) -> tuple:
    """Returns inputs, labels and weights (or `None`) of the first batches.

    They have at least this number of samples, or fewer if the samples of the next batch
    have another shape.
    """
    batches, count = [], 0
    limit = getattr(dataset, "num_batches", None)  # Of a `PyDataset`.
    for batch in islice(iter(dataset), limit):
        if not isinstance(batch, list | tuple) or len(batch) < 2:
            raise ValueError(
                "Invalid value for argument `x`: expected a dataset that yields pairs "
                f"of inputs and labels. Received: {type(batch).__name__}"
            )
        given = keras.tree.map_structure(as_array, tuple(batch[:3]))
        if not np.ndim(given[1]):
            raise ValueError(
                "Invalid value for argument `x`: expected a dataset that yields an "
                "array of labels in each batch; `x.batch(128)` makes batches of "
                f"samples. Received: one label of type {type(batch[1]).__name__}"
            )
        if batches and _shapes(given) != _shapes(batches[0]):
            break
        batches.append(given)
        count += len(given[1])
        if count >= samples:
            break
    if not batches:
        raise ValueError(
            "Invalid value for argument `x`: expected a dataset of at least one batch. "
            "Received: none"
        )
    inputs, labels, *weights = keras.tree.map_structure(
        lambda *parts: np.concatenate(parts), *batches
    )
    return inputs, labels, weights[0] if weights else None


def _shapes(batch):
    """Returns the shapes of samples, which differ if texts are padded by batch."""
    return [array.shape[1:] for array in keras.tree.flatten(batch)]


def counted(shape: tuple[int, ...], mask, sample_weight) -> np.ndarray | None:
    """Returns which labels neither a mask nor a weight of 0 hides, `None` for all.

    Args:
        shape: Shape of the labels, without a class axis.
        mask: An array of that shape, or `None`.
        sample_weight: An array of this shape or of its first axes, or `None`.
    """
    if sample_weight is not None:
        missing = max(0, len(shape) - sample_weight.ndim)
        sample_weight = sample_weight[(..., *[None] * missing)]
    values = counted_values(shape, mask, sample_weight)
    return None if values is None else keras.ops.convert_to_numpy(values)


def with_harmless(labels: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """Returns labels in which a counted label replaces the hidden ones."""
    labels = labels.copy()
    if counted.any():
        labels[~counted] = labels[counted][0]
    return labels


def spread(length: int, samples: int) -> np.ndarray:
    """Returns positions that are spread over the data, which may be sorted."""
    return np.linspace(0, length - 1, min(length, samples)).astype(int)


def wrong_inputs(inputs) -> Problem | None:
    """Returns what is wrong with inputs that are not finite.

    A model may replace them: then it is a hint.
    """
    given = [x for x in keras.tree.flatten(inputs) if x.dtype.kind == "f"]
    bad = [x for x in given if not np.isfinite(x).all()]
    if not bad:
        return None
    rows = ~np.isfinite(bad[0]).reshape(len(bad[0]), -1).all(-1)
    return Problem(
        "finite inputs",
        f"NaN or infinity in {rows.sum()} of {len(rows)} samples",
        "Drop these samples, `keep = np.isfinite(x).all(-1)`, or fill the gaps with "
        "`np.nan_to_num(x)`",
    )
