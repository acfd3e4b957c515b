"""Loads the data of a study, and makes the noise of a cell."""

from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from keras_logitclip import datasets
from keras_logitclip import noise
from keras_logitclip._jobs.arrays import split
from keras_logitclip._jobs.description import fingerprint
from keras_logitclip.noise import NoisyLabels
from keras_logitclip.study import _files
from keras_logitclip.study._config import CONFUSIONS
from keras_logitclip.study._config import Study
from keras_logitclip.study._functions import import_function

# The images of a study do not depend on the seed of a cell.
_SUBSET_SEED = 0


class Data(NamedTuple):
    """Holds training and test samples."""

    x_train: np.ndarray  # As stored: uint8 for images.
    y_train: np.ndarray  # Their clean labels.
    x_test: np.ndarray
    y_test: np.ndarray
    num_classes: int
    scale: np.ndarray  # Factor of the samples, which broadcasts with them.
    offset: np.ndarray  # Added after the multiplication.
    rows: np.ndarray  # Positions of `x_train` among all training samples.
    y_all: np.ndarray  # The clean labels of all training samples.
    fingerprint: str  # Hash of the samples (texts unconverted) and the labels.

    def inputs(self, samples: np.ndarray) -> np.ndarray:
        """Returns scaled samples in float32, as the model takes them."""
        return np.asarray(samples * self.scale + self.offset, "float32")


def load_data(study: Study, data_dir: str | Path | None) -> Data:
    """Loads the training and test samples of a study."""
    settings = study.settings.data
    x_train, y_all, x_test, y_test = _load(study, data_dir)
    num_classes = 1 + int(max(y_all.max(), y_test.max()))
    rows = _subset("train_samples", len(x_train), settings.train_samples)
    test_rows = _subset("test_samples", len(x_test), settings.test_samples)
    arrays = [x_train[rows], y_all[rows], x_test[test_rows], y_test[test_rows]]
    # The last digits of text features depend on the machine.
    contents = fingerprint(*arrays)
    if settings.text:
        arrays[::2] = _files.text_features(*arrays[::2], settings.features)
    if arrays[0].ndim == 3:
        arrays[::2] = [x[..., None] for x in arrays[::2]]
    scale, offset = _normalization(arrays[0], settings.standardize)
    return Data(*arrays, num_classes, scale, offset, rows, y_all, contents)


def _load(study, data_dir):
    settings = study.settings.data
    if settings.name in CONFUSIONS:
        x_train, y_train, x_test, y_test, _ = datasets.load(settings.name, data_dir)
        return x_train, y_train, x_test, y_test
    if ":" in settings.name:
        returned = import_function(study, settings.name)()
        arrays = [np.asarray(array) for array in (() if returned is None else returned)]
    else:
        arrays = _files.read_arrays(_folders(study, data_dir), settings)
    _check(settings, arrays)
    x_train, y_train, *test = arrays
    ids = np.unique(np.concatenate(arrays[1::2]), return_inverse=True)[1]
    if test:
        return x_train, ids[: len(y_train)], test[0], ids[len(y_train) :]
    rows, test_rows = split(ids, settings.test_split, _SUBSET_SEED, "test_split")
    return x_train[rows], ids[rows], x_train[test_rows], ids[test_rows]


def _folders(study, data_dir):
    return [Path(folder) for folder in (data_dir, study.folder) if folder is not None]


def _check(settings, arrays):
    name, shapes = settings.name, [array.shape for array in arrays]
    is_filled = len(arrays) in (2, 4) and all(array.size for array in arrays)
    one_shape = len({shape[1:] for shape in shapes[::2]}) == 1
    lengths = [shape[:1] for shape in shapes]
    if not (is_filled and one_shape and lengths[::2] == lengths[1::2]):
        raise ValueError(
            f"Expected {name!r} to have `x_train`, `y_train`, `x_test` and `y_test`, "
            "or the first two: arrays with one label for each sample, and samples of "
            f"equal shape. Received: arrays of shapes {shapes}"
        )
    for x in () if settings.text else arrays[::2]:
        if x.dtype.kind not in "iuf" or x.ndim < 2 or not np.isfinite(x).all():
            raise ValueError(
                f"Expected the samples of {name!r} to be finite numbers, of shape "
                f"`(samples, ...)`. Received: {x.dtype} of shape {x.shape}"
            )
    labels = arrays[1::2]
    are_flat = all(y.ndim == 1 for y in labels)
    are_ids = all(y.dtype.kind in "iu" and y.min() >= 0 for y in labels)
    if not are_flat or not (are_ids or all(map(_are_names, labels))):
        raise ValueError(
            f"Expected the labels of {name!r} to be all class ids, integers from 0, or "
            "all names of classes, of shape `(samples,)`. Received: "
            f"{' and '.join(f'{y.dtype} of shape {y.shape}' for y in labels)}"
        )


def _are_names(labels):
    return labels.dtype.kind in "bUS" or all(isinstance(y, str) for y in labels)


def _subset(name, available, asked):
    if asked is None:
        return np.arange(available)
    if asked > available:
        raise ValueError(
            f"Expected `{name}` in [data] to be at most {available}, the number of "
            f"samples. Received: {asked}"
        )
    rng = np.random.default_rng(_SUBSET_SEED)
    return np.sort(rng.permutation(available)[:asked])


def _normalization(x, standardize):
    """Returns scale and offset to [0, 1], or to mean 0 and standard deviation 1."""
    scale = 1 / max(1, x.max()) if x.dtype.kind in "iu" else 1.0
    if not standardize:
        return np.float32(scale), np.float32(0)
    # Each channel of images, and each column of tables, is standardized separately.
    axes = tuple(range(x.ndim - 1))
    mean = x.mean(axes, "float64", keepdims=True) * scale
    deviation = x.std(axes, "float64", keepdims=True) * scale
    deviation = np.where(deviation > 0, deviation, 1.0)
    return np.float32(scale / deviation), np.float32(-mean / deviation)


def make_noise(
    study: Study, data: Data, name: str, seed: int, data_dir: str | Path | None
) -> NoisyLabels:
    """Returns the noisy training labels of a cell."""
    kind, settings = study.noises[name].kind, msgspec.structs.asdict(study.noises[name])
    labels, num_classes = data.y_train, data.num_classes
    if kind == "clean":
        return NoisyLabels(labels, labels, num_classes, kind="clean")
    if kind == "human":
        path = _files.find_file(_folders(study, data_dir), settings["file"])
        human = datasets.load_human_labels(path, settings["labels"], data.y_all)
        given = human.labels[data.rows]
        noisy = NoisyLabels(given, labels, human.num_classes, kind=human.kind)
    else:
        if kind == "asymmetric":
            settings["mapping"] = settings["mapping"] or _confusions(study, name)
        else:
            settings["num_classes"] = num_classes
        if kind == "instance_dependent":
            settings["features"] = data.x_train.reshape(len(labels), -1)
            # The scale is relative to samples in [0, 1].
            settings["scale"] /= max(1, data.x_train.max())
        noisy = getattr(noise, kind)(labels=labels, seed=seed, **settings)
    if noisy.num_classes != num_classes:
        raise ValueError(
            f"Expected the noise {name!r} to have the {num_classes} classes of the "
            f"data. Received: {noisy.num_classes}"
        )
    return noisy


def _confusions(study, name):
    if study.settings.data.name not in CONFUSIONS:
        raise ValueError(
            f"Expected `mapping` in the noise {name!r}, a list with the class that "
            "each class becomes, because it has no default for your own data"
        )
    return CONFUSIONS[study.settings.data.name]
