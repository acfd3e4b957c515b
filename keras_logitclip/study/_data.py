"""The data of a study, and the noise of a cell."""

import importlib
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np

from keras_logitclip import datasets
from keras_logitclip import noise
from keras_logitclip.noise import NoisyLabels
from keras_logitclip.study._config import DATA
from keras_logitclip.study._config import Study

# So that the images of a study do not depend on the seed of a cell.
_SUBSET_SEED = 0


class Data(NamedTuple):
    """Samples to train and to test on.

    Attributes:
        x_train: Samples as they are stored, uint8 where they are images.
        y_train: Their clean labels.
        x_test: As `x_train`.
        y_test: As `y_train`.
        num_classes: Number of classes.
        scale: What to multiply the samples by, an array that broadcasts with them.
        offset: What to add then.
        rows: Positions of `x_train` among all training samples.
        y_all: The clean labels of all training samples.
    """

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    num_classes: int
    scale: np.ndarray
    offset: np.ndarray
    rows: np.ndarray
    y_all: np.ndarray


def load_data(study: Study, data_dir: str | Path | None) -> Data:
    """Loads the samples that a study trains and tests on."""
    settings = study.settings["data"]
    if settings["name"] in DATA:
        x_train, y_train, x_test, y_test, _ = datasets.load(settings["name"], data_dir)
    else:
        x_train, y_train, x_test, y_test = _own_data(study, settings["name"])
    num_classes = 1 + int(max(y_train.max(), y_test.max()))
    rows = _subset("train_samples", len(x_train), settings["train_samples"])
    test_rows = _subset("test_samples", len(x_test), settings["test_samples"])
    scale, offset = _normalization(x_train[rows], settings["standardize"])
    if x_train.ndim == 3:
        x_train, x_test = x_train[..., None], x_test[..., None]
    return Data(
        x_train[rows],
        y_train[rows],
        x_test[test_rows],
        y_test[test_rows],
        num_classes,
        scale,
        offset,
        rows,
        y_train,
    )


def import_function(study: Study, name: str):
    """Returns a function given as "module:function"; modules beside the study too.

    Raises:
        ValueError: If there is none of that name.
    """
    module, function = name.split(":")
    sys.path.insert(0, str(study.folder.resolve()))
    try:
        return getattr(importlib.import_module(module), function)
    except (ModuleNotFoundError, AttributeError) as error:
        raise ValueError(f"Cannot use {name!r}: {error}") from error
    finally:
        sys.path.pop(0)


def _own_data(study, name):
    returned = import_function(study, name)()
    returned = () if returned is None else returned
    arrays = [np.asarray(array) for array in returned][:4]
    shapes = [array.shape for array in arrays]
    if not _fit_together(shapes):
        raise ValueError(
            f"Expected {name!r} to return `x_train`, `y_train`, `x_test` and `y_test`, "
            "arrays with a label for each sample, and with samples of one shape. "
            f"Received: arrays of shapes {shapes}"
        )
    for samples, labels in (arrays[:2], arrays[2:]):
        if samples.dtype.kind not in "iuf" or samples.ndim < 2:
            raise ValueError(
                f"Expected the samples of {name!r} to be numbers, of shape `(samples, "
                f"...)`. Received: {samples.dtype} of shape {samples.shape}"
            )
        if labels.ndim != 1 or labels.dtype.kind not in "iu" or labels.min() < 0:
            raise ValueError(
                f"Expected the labels of {name!r} to be class ids, integers from 0 of "
                f"shape `(samples,)`. Received: {labels.dtype} of shape {labels.shape}"
            )
    return arrays


def _fit_together(shapes):
    if len(shapes) != 4 or not all(map(all, shapes)) or () in shapes:
        return False
    x_train, y_train, x_test, y_test = shapes
    lengths_fit = x_train[0] == y_train[0] and x_test[0] == y_test[0]
    return lengths_fit and x_train[1:] == x_test[1:]


def _subset(name, available, asked):
    if asked is None:
        return np.arange(available)
    if asked > available:
        raise ValueError(
            f"Expected `{name}` in [data] to be at most {available}, of which the data "
            f"consist. Received: {asked}"
        )
    rng = np.random.default_rng(_SUBSET_SEED)
    return np.sort(rng.permutation(available)[:asked])


def _normalization(x, standardize):
    """Returns scale and offset: to [0, 1], or to mean 0 and deviation 1."""
    scale = 1 / max(1, x.max()) if x.dtype.kind in "iu" else 1.0
    if not standardize:
        return np.float32(scale), np.float32(0)
    # The channels of an image are standardized apart, as are the columns of a table.
    axes = 0 if x.ndim == 2 else (0, 1, 2)
    mean = x.mean(axis=axes, dtype="float64") * scale
    deviation = x.std(axis=axes, dtype="float64") * scale
    deviation = np.where(deviation > 0, deviation, 1.0)
    return np.float32(scale / deviation), np.float32(-mean / deviation)


def _check_classes(noisy, data, name):
    if noisy.num_classes != data.num_classes:
        raise ValueError(
            f"Expected {name} in [[noise]] to have the {data.num_classes} classes of "
            f"the data. Received: {noisy.num_classes}"
        )


def make_noise(
    study: Study, data: Data, name: str, seed: int, data_dir: str | Path | None
) -> NoisyLabels:
    """Returns the noisy training labels of a cell."""
    settings = dict(study.noises[name])
    kind = settings.pop("kind")
    labels, num_classes = data.y_train, data.num_classes
    if kind == "clean":
        return NoisyLabels(labels, labels, num_classes, kind="clean")
    if kind == "human":
        path = Path(data_dir or study.folder) / settings["file"]
        human = datasets.load_human_labels(path, settings["labels"], data.y_all)
        _check_classes(human, data, f"the labels {settings['labels']!r}")
        return NoisyLabels(
            human.labels[data.rows], labels, num_classes, kind=human.kind
        )
    if kind == "asymmetric":
        noisy = noise.asymmetric(labels, seed=seed, **settings)
        _check_classes(noisy, data, "`mapping`")
        return noisy
    if kind == "instance_dependent":
        features = data.x_train.reshape(len(labels), -1)
        # As in [0, 1], whatever the samples are stored as.
        scale = settings["scale"] * (1 / features.max() if features.max() > 1 else 1)
        return noise.instance_dependent(
            features, labels, settings["rate"], num_classes, scale=scale, seed=seed
        )
    generator = {"symmetric": noise.symmetric, "pair_flip": noise.pair_flip}[kind]
    return generator(labels, num_classes=num_classes, seed=seed, **settings)
