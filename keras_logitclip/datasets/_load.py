"""Loads data sets in one form."""

import os
from typing import NamedTuple

import keras
import numpy as np

from keras_logitclip.datasets._cifar import read_cifar10
from keras_logitclip.datasets._cifar import read_cifar100
from keras_logitclip.datasets._class_names import CLASS_NAMES
from keras_logitclip.datasets._idx import read_mnist

_Split = tuple[np.ndarray, np.ndarray]


class Dataset(NamedTuple):
    """Holds training and test images with their labels.

    Pixels are stored as whole numbers from 0 to 255, or to 16 for the digits. Divide
    them by that number for a model.

    Attributes:
        x_train: Images, uint8.
        y_train: Class ids, int64, of shape `(samples,)`.
        x_test: As `x_train`.
        y_test: As `y_train`.
        class_names: The name of each class.
    """

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    class_names: tuple[str, ...]

    def splits(self) -> tuple[_Split, _Split]:
        """Returns the pairs of images and labels for training and for testing."""
        return (self.x_train, self.y_train), (self.x_test, self.y_test)

    def __repr__(self) -> str:
        size = "x".join(map(str, self.x_train.shape[1:]))
        return (
            f"Dataset({len(self.x_train)} images to train on, {len(self.x_test)} to "
            f"test on, {size}, 0..{self.x_train.max()}, "
            f"{len(self.class_names)} classes)"
        )


def load(name: str, data_dir: str | os.PathLike[str] | None = None) -> Dataset:
    """Loads a data set, from its own files or through `keras.datasets`.

    | name | training images | files in `data_dir` |
    |---|---|---|
    | `"digits"` | 1,437 of 8x8, 0..16 | none: they are part of scikit-learn |
    | `"mnist"` | 60,000 of 28x28, 0..255 | `mnist/*.gz`, the four original files |
    | `"fashion_mnist"` | 60,000 of 28x28, 0..255 | `fashion-mnist/*.gz`, likewise |
    | `"cifar10"` | 50,000 of 32x32x3, 0..255 | `cifar-10-batches-py/*` |
    | `"cifar100"` | 50,000 of 32x32x3, 0..255 | `cifar-100-python/*` |

    Samples are in the order of the files. CIFAR-100 has its 100 fine labels. The axes
    of CIFAR's images follow `keras.config.image_data_format()`. The split of the digits
    is fixed and stratified by class.

    Args:
        name: One of the names above.
        data_dir: Folder that contains the original files, directly or in the folder
            named above. Nothing in the files is executed. Defaults to `None`, which
            means that `keras.datasets` downloads the data set or uses its earlier
            download.

    Returns:
        A `Dataset`.

    Raises:
        ValueError: If the name is unknown, or if a file is damaged or belongs to
            another data set.
        FileNotFoundError: If files are missing from `data_dir`.
        OSError: If the download fails.
        ImportError: If scikit-learn, which has the digits, is not installed.

    Example:

    >>> from keras_logitclip import datasets
    >>> digits = datasets.load("digits")
    >>> digits
    Dataset(1437 images to train on, 360 to test on, 8x8, 0..16, 10 classes)
    >>> (x_train, y_train), (x_test, y_test) = digits.splits()
    >>> x_train.shape, y_train.shape
    ((1437, 8, 8), (1437,))
    """
    if name not in CLASS_NAMES:
        raise ValueError(
            "Invalid value for argument `name`: expected one of "
            f"{', '.join(map(repr, CLASS_NAMES))}. Received: name={name!r}"
        )
    arrays = _read(name, data_dir) if data_dir is not None else _fetch(name)
    x_train, y_train, x_test, y_test = arrays
    return Dataset(
        x_train,
        y_train.ravel().astype("int64"),
        x_test,
        y_test.ravel().astype("int64"),
        CLASS_NAMES[name],
    )


def _read(name, data_dir):
    if name == "digits":
        raise ValueError(
            "Invalid value for argument `data_dir`: expected `None` for 'digits', "
            f"which are part of scikit-learn. Received: data_dir={data_dir!r}"
        )
    if name == "cifar10":
        return read_cifar10(data_dir)
    if name == "cifar100":
        return read_cifar100(data_dir)
    return read_mnist(name, data_dir)


def _fetch(name):
    if name == "digits":
        return _load_digits()
    try:
        train, test = getattr(keras.datasets, name).load_data()
    except Exception as error:  # Keras raises no narrower error for a download.
        raise OSError(
            f"`keras.datasets.{name}` could not be loaded. Without a network, pass "
            "the folder with the original files as `data_dir`. "
            f"Received: {type(error).__name__}: {error}"
        ) from error
    return *train, *test


def _load_digits():
    try:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split
    except ModuleNotFoundError as error:
        raise ImportError(
            "The digits need scikit-learn, which is not installed. "
            "Install it with: pip install scikit-learn"
        ) from error
    digits = load_digits()
    x_train, x_test, y_train, y_test = train_test_split(
        digits.images.astype("uint8"),
        digits.target,
        test_size=0.2,
        stratify=digits.target,
        random_state=0,
    )
    return x_train, y_train, x_test, y_test
