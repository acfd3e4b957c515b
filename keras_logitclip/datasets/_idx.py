"""Reads the files of MNIST and Fashion-MNIST."""

import gzip
import hashlib
import math
import zlib
from pathlib import Path

import numpy as np

from keras_logitclip.datasets._files import MAX_BYTES
from keras_logitclip.datasets._files import find_files
from keras_logitclip.datasets._files import read_bytes

_FILES = [
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
]
_FOLDERS = {"mnist": "mnist", "fashion_mnist": "fashion-mnist"}
_IMAGE_SIZE = (28, 28)
_NUM_CLASSES = 10
_PIECE = 2**20
# Checksums of the published training labels. The files of both data sets have the same
# names and shapes, and could be confused.
_MD5 = {
    "mnist": "d53e105ee54ea40749a09fcbcd1e9432",
    "fashion_mnist": "25c81989df183df01b3e8a0aad5dffbe",
}


def read_mnist(name: str, data_dir) -> tuple[np.ndarray, ...]:
    """Reads the four files of MNIST or Fashion-MNIST.

    Returns:
        Images and labels to train on, images and labels to test on, uint8.
    """
    paths = find_files(data_dir, _FOLDERS[name], _FILES)
    _check_not_confused(name, paths[1])
    return *_read_split(*paths[:2]), *_read_split(*paths[2:])


def _read_split(images_path, labels_path):
    images, labels = _read_idx(images_path, 3), _read_idx(labels_path, 1)
    if images.shape[1:] != _IMAGE_SIZE:
        raise ValueError(
            f"Cannot read {images_path}: expected images of 28x28 pixels. "
            f"Received: an array of shape {images.shape}"
        )
    if len(images) != len(labels):
        raise ValueError(
            "Expected as many images as labels. Received: "
            f"{len(images)} images in {images_path}, {len(labels)} labels in "
            f"{labels_path}"
        )
    if (labels >= _NUM_CLASSES).any():
        raise ValueError(
            f"Cannot read {labels_path}: expected labels in [0, {_NUM_CLASSES}). "
            f"Received: {labels.max()}"
        )
    return images, labels


def _read_idx(path: Path, rank: int) -> np.ndarray:
    """Reads an array of bytes: two zeros, type, rank, sizes, and the contents."""
    try:
        with gzip.open(path) as file:
            shape = _read_shape(path, file, rank)
            contents = _read_no_more_than(math.prod(shape), file)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(
            f"Cannot read {path}: expected a complete gzip file. Received: {error}"
        ) from error
    if len(contents) != math.prod(shape):
        received = "more" if len(contents) > math.prod(shape) else len(contents)
        raise ValueError(
            f"Cannot read {path}: expected {math.prod(shape)} bytes after the "
            f"header, for an array of shape {shape}. Received: {received}"
        )
    return np.frombuffer(contents, "uint8").reshape(shape)


def _read_shape(path, file, rank):
    header = file.read(4 + 4 * rank)
    if header[:4] != bytes([0, 0, 8, rank]) or len(header) < 4 + 4 * rank:
        raise ValueError(
            f"Cannot read {path}: expected an IDX file of bytes with {rank} axes. "
            f"Received: a file that begins with {header[:4].hex(' ')!r}"
        )
    shape = tuple(np.frombuffer(header, ">u4", rank, offset=4).tolist())
    if math.prod(shape) > MAX_BYTES:
        raise ValueError(
            f"Cannot read {path}: expected an array of at most {MAX_BYTES} bytes. "
            f"Received: one of shape {shape}"
        )
    return shape


def _read_no_more_than(size, file):
    """Reads the contents, but at most one piece more than the expected size.

    It reads piece by piece, so that a wrong size takes no memory.
    """
    contents = bytearray()
    while len(contents) <= size and (piece := file.read(_PIECE)):
        contents += piece
    return contents


def _check_not_confused(name, path):
    # Not for security, so FIPS builds of Python allow it, too.
    digest = hashlib.md5(read_bytes(path), usedforsecurity=False).hexdigest()
    for other, md5 in _MD5.items():
        if other != name and digest == md5:
            raise ValueError(
                f"Expected the files of {name!r}. "
                f"Received: {path}, which belongs to {other!r}"
            )
