"""Reads the Python version of CIFAR-10 and CIFAR-100, which is pickled batches."""

from pathlib import Path

import keras
import numpy as np

from keras_logitclip.datasets._files import find_files
from keras_logitclip.datasets._unpickle import names_in
from keras_logitclip.datasets._unpickle import read_pickle
from keras_logitclip.datasets._unpickle import shown

_CIFAR10_TRAIN = [f"data_batch_{number}" for number in range(1, 6)]
_PIXELS = 3 * 32 * 32


def read_cifar10(data_dir) -> tuple[np.ndarray, ...]:
    """Reads the folder `cifar-10-batches-py`.

    Returns:
        Images and labels to train on, images and labels to test on.
    """
    names = [*_CIFAR10_TRAIN, "test_batch"]
    paths = find_files(data_dir, "cifar-10-batches-py", names)
    batches = [_read_batch(path, "labels", 10) for path in paths]
    x_train, y_train = map(np.concatenate, zip(*batches[:-1], strict=True))
    x_test, y_test = batches[-1]
    return _to_images(x_train), y_train, _to_images(x_test), y_test


def read_cifar100(data_dir) -> tuple[np.ndarray, ...]:
    """Reads the folder `cifar-100-python`, with the 100 fine labels."""
    paths = find_files(data_dir, "cifar-100-python", ["train", "test"])
    (x_train, y_train), (x_test, y_test) = (
        _read_batch(path, "fine_labels", 100) for path in paths
    )
    return _to_images(x_train), y_train, _to_images(x_test), y_test


def _read_batch(path: Path, labels_key: str, num_classes: int):
    batch = read_pickle(path)
    pixels, labels = batch.get("data"), batch.get(labels_key)
    if not isinstance(pixels, np.ndarray) or not isinstance(labels, list):
        raise ValueError(
            f"Cannot read {path}: expected an array `data` and a list "
            f"`{labels_key}`. Received: a file with {names_in(batch)}"
        )
    if pixels.dtype != "uint8" or pixels.shape != (len(labels), _PIXELS):
        raise ValueError(
            f"Cannot read {path}: expected {_PIXELS} bytes for each of "
            f"{len(labels)} labels. Received: pixels of dtype {pixels.dtype} and "
            f"shape {pixels.shape}"
        )
    for label in labels:
        if type(label) is not int or not 0 <= label < num_classes:
            raise ValueError(
                f"Cannot read {path}: expected integer labels in [0, {num_classes}). "
                f"Received: {shown(label)}"
            )
    return pixels, np.array(labels, "int64")


def _to_images(pixels):
    """Returns images in Keras's format from rows of red, green and blue planes."""
    images = pixels.reshape(-1, 3, 32, 32)
    if keras.config.image_data_format() == "channels_last":
        images = images.transpose(0, 2, 3, 1)
    return images.copy()
