"""Reads CIFAR-10N and CIFAR-100N, human labels of the images of CIFAR."""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from keras_logitclip._labels import check_class_ids
from keras_logitclip.datasets._unpickle import names_in
from keras_logitclip.datasets._unpickle import read_pickle
from keras_logitclip.noise._noisy_labels import NoisyLabels


class _LabelSet(NamedTuple):
    noisy: str
    clean: str
    num_classes: int


_CIFAR10N = {
    "clean": _LabelSet("clean_label", "clean_label", 10),
    "aggregate": _LabelSet("aggre_label", "clean_label", 10),
    "random1": _LabelSet("random_label1", "clean_label", 10),
    "random2": _LabelSet("random_label2", "clean_label", 10),
    "random3": _LabelSet("random_label3", "clean_label", 10),
    "worse": _LabelSet("worse_label", "clean_label", 10),
}
_CIFAR100N = {
    "clean": _LabelSet("clean_label", "clean_label", 100),
    "noisy": _LabelSet("noisy_label", "clean_label", 100),
    "clean_coarse": _LabelSet("clean_coarse_label", "clean_coarse_label", 20),
    "noisy_coarse": _LabelSet("noisy_coarse_label", "clean_coarse_label", 20),
}


def load_human_labels(
    path: str | os.PathLike[str], kind: str, y_train: ArrayLike | None = None
) -> NoisyLabels:
    """Loads a set of labels from a file of CIFAR-10N or CIFAR-100N.

    The authors publish the labels for non-commercial use (CC BY-NC 4.0). The files
    `CIFAR-10_human.pt` and `CIFAR-100_human.pt` are in the order of the original
    images, which `load`, `keras.datasets` and torchvision keep. The files
    `CIFAR-10_human_ordered.npy` and `CIFAR-100_human_ordered.npy` are in the order of
    TensorFlow Datasets (TFDS). PyTorch is not needed, and nothing in a file is
    executed.

    | file | kind | name in the file | wrong |
    |---|---|---|---|
    | CIFAR-10N | `"clean"` | `clean_label` | 0% |
    | | `"aggregate"` | `aggre_label`, the majority of three | 9.01% |
    | | `"random1"` | `random_label1`, of the first person | 17.23% |
    | | `"random2"` | `random_label2`, of the second | 18.12% |
    | | `"random3"` | `random_label3`, of the third | 17.64% |
    | | `"worse"` | `worse_label`, a wrong one of the three if any | 40.21% |
    | CIFAR-100N | `"clean"` | `clean_label` | 0% |
    | | `"noisy"` | `noisy_label` | 40.20% |
    | | `"clean_coarse"` | `clean_coarse_label`, the 20 superclasses | 0% |
    | | `"noisy_coarse"` | `noisy_coarse_label` | 25.60% |

    Args:
        path: Path of the file.
        kind: A kind or a name in the file, from the table.
        y_train: The labels of the training images, as `load` returns them, or of the
            first ones. For CIFAR-100, always the fine labels. They have to equal the
            clean labels of the file, which proves that the images are in the same
            order. Required for an `.npy` file, because `load` has another order.
            Defaults to `None`, which means all labels without a comparison.

    Returns:
        `NoisyLabels` for these images.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged or not one of these files, if it has no
            labels of this kind, or if `y_train` is required or differs from its clean
            labels.

    Example:

    ```python
    data = datasets.load("cifar10", data_dir="data")
    noisy = datasets.load_human_labels("CIFAR-10_human.pt", "worse", data.y_train)
    model.fit(data.x_train, noisy.labels)
    ```

    References:
        - [Wei et al., 2022](https://arxiv.org/abs/2110.12088)
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            "Expected a file of CIFAR-10N or CIFAR-100N, as published at "
            f"https://github.com/UCSC-REAL/cifar-10-100n. Looked for: {path.absolute()}"
        )
    if y_train is None and path.suffix == ".npy":
        raise ValueError(
            "Expected `y_train`, the labels of the images from TensorFlow Datasets, "
            "because the `.npy` files of CIFAR-10N and CIFAR-100N are in their order. "
            "For images of `keras_logitclip.datasets.load`, use the `.pt` file. "
            f"Received: y_train=None, path={path}"
        )
    contents = read_pickle(path)
    label_sets = _label_sets_of(path, contents)
    name, chosen = _find(kind, label_sets)
    labels, clean = (
        _labels(path, contents, key, chosen.num_classes)
        for key in (chosen.noisy, chosen.clean)
    )
    if len(labels) != len(clean):
        raise ValueError(
            f"Cannot read {path}: expected as many labels in `{chosen.noisy}` as in "
            f"`{chosen.clean}`. Received: {len(labels)} and {len(clean)}"
        )
    if y_train is not None:
        num_fine = label_sets["clean"].num_classes
        given = check_class_ids(y_train, num_fine, "y_train")
        _check_order(path, given, _labels(path, contents, "clean_label", num_fine))
        labels, clean = labels[: len(given)], clean[: len(given)]
    return NoisyLabels(labels, clean, chosen.num_classes, kind=f"human, {name}")


def _label_sets_of(path, contents):
    if "worse_label" in contents:
        return _CIFAR10N
    if "noisy_label" in contents:
        return _CIFAR100N
    raise ValueError(
        f"Cannot read {path}: expected a file of CIFAR-10N, with `worse_label`, or of "
        "CIFAR-100N, with `noisy_label`. Received: a file with "
        f"{names_in(contents)}"
    )


def _find(kind, label_sets):
    for name, label_set in label_sets.items():
        if kind in (name, label_set.noisy):
            return name, label_set
    raise ValueError(
        "Invalid value for argument `kind`: expected one of "
        f"{', '.join(map(repr, label_sets))} for this file. Received: kind={kind!r}"
    )


def _labels(path, contents, key, num_classes):
    labels = contents.get(key)
    if not isinstance(labels, np.ndarray):
        raise ValueError(
            f"Cannot read {path}: expected an array `{key}`. "
            f"Received: a file with {names_in(contents)}"
        )
    try:
        return check_class_ids(labels, num_classes, key)
    except ValueError as error:
        raise ValueError(f"Cannot read {path}. {error}") from error


def _check_order(path, y_train, clean):
    if len(y_train) > len(clean):
        raise ValueError(
            f"Expected `y_train` to be the labels of the {len(clean)} images of "
            f"{path}, or of the first of them. Received: {len(y_train)} labels"
        )
    different = np.flatnonzero(y_train != clean[: len(y_train)])
    if different.size:
        raise ValueError(
            f"Expected `y_train` to equal the clean labels of {path}. There are two "
            "orders of the images. The files `..._human.pt`, "
            "`keras_logitclip.datasets.load`, `keras.datasets` and torchvision have "
            "the order of the original files (for CIFAR-10, `data_batch_1` to "
            "`data_batch_5`). The files `..._human_ordered.npy` have the order of "
            "TensorFlow Datasets (TFDS). Use images and labels in the same order, not "
            f"shuffled. Received: other labels at {different.size} of {len(y_train)} "
            f"positions, the first at {different[0]}"
        )
