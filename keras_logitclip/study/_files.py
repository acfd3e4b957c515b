"""Reads samples and labels from NPZ files and tables of the user."""

import contextlib
import math
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd

from keras_logitclip.study._config import DataSettings

_ARRAYS = ("x_train", "y_train", "x_test", "y_test")
# The largest possible compression ratio of a ZIP file.
_LARGEST_RATIO = 1032
# The largest number of characters of a message, which may quote the file.
_LONGEST = 300


def find_file(folders: list[Path], name: str) -> Path:
    """Returns the path of a file in the first of the folders that has it."""
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    places = ", ".join(str(folder.absolute()) for folder in folders)
    raise FileNotFoundError(f"Expected the file {name!r} in: {places}")


def read_arrays(folders: list[Path], settings: DataSettings) -> list[np.ndarray]:
    """Returns samples and labels for training, and for testing if there are any."""
    names = [settings.name, settings.test] if settings.test else [settings.name]
    paths = [find_file(folders, name) for name in names]
    if settings.label is None:
        return _read_npz(paths[0])
    tables = [_read_table(path, settings.label, settings.text) for path in paths]
    names = [settings.text] if settings.text else tables[0].columns.drop(settings.label)
    arrays = []
    for path, table in zip(paths, tables, strict=True):
        with _explained(path):
            arrays += [_samples(table[[*names]], settings.text), table[settings.label]]
    return [np.asarray(array) for array in arrays]


@contextlib.contextmanager
def _explained(path):
    try:
        yield
    except Exception as error:  # A damaged file can cause any error.
        kind = "" if type(error) is ValueError else f"{type(error).__name__}: "
        message = f"{kind}{error}"[:_LONGEST]
        raise ValueError(f"Cannot read {path}: {message}") from error


def _read_npz(path):
    with _explained(path), zipfile.ZipFile(path) as archive:
        names = {name.removesuffix(".npy") for name in archive.namelist()}
        wanted = _ARRAYS if "x_test" in names else _ARRAYS[:2]
        if not names.issuperset(wanted):
            raise ValueError(
                f"expected the arrays {', '.join(wanted)}. "
                f"Received: {', '.join(sorted(names)[:10])}"
            )
        most = _LARGEST_RATIO * path.stat().st_size
        return [_read_array(archive, f"{name}.npy", most) for name in wanted]


def _read_array(archive, name, most):
    """Reads an array without pickles, if the size in its header is possible."""
    npy = np.lib.format
    with archive.open(name) as file:
        if npy.read_magic(file) == (1, 0):
            shape, _, dtype = npy.read_array_header_1_0(file)
        else:
            shape, _, dtype = npy.read_array_header_2_0(file)
    size = math.prod(shape) * max(1, dtype.itemsize)
    if size > min(most, archive.getinfo(name).file_size):
        raise ValueError(
            f"expected {size} bytes of {name}, as its header says. Received: fewer"
        )
    with archive.open(name) as file:
        return npy.read_array(file, allow_pickle=False)


def _read_table(path, label, text):
    with _explained(path):
        # "NA" can be a label or a text.
        table = pd.read_csv(path, keep_default_na=False, low_memory=False)
        if not table.index.equals(pd.RangeIndex(len(table))):
            raise ValueError("expected a name for each column in the first row")
        for name in filter(None, (label, text)):
            if name not in table:
                raise ValueError(
                    f"expected a column {name!r}. Received: {[*table.columns[:10]]}"
                )
        if (table[label].astype(str) == "").any() or table[label].dtype.kind == "f":
            raise ValueError(
                f"expected integers or texts in each row of {label!r}. Received: "
                "fractions or empty rows"
            )
        return table


def _samples(table, text):
    if text:
        return table[text].astype(str).to_numpy(object)
    others = [name for name in table if table[name].dtype.kind not in "iufb"]
    if others:
        raise ValueError(
            "expected numbers without gaps in all columns except `label`, or the name "
            f"of one column as `text`. Received: {others[:10]}"
        )
    return table.to_numpy("float64")


def text_features(train: np.ndarray, test: np.ndarray, features: int) -> list:
    """Returns text features with a mean square of 1, fitted to the training texts.

    Truncated SVD reduces TF-IDF of words and pairs of words to this number of features.
    """
    try:
        from sklearn.decomposition import TruncatedSVD
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.preprocessing import normalize
    except ModuleNotFoundError as error:
        raise ImportError(
            f"Texts need {error.name}, which is not installed. Install it with: "
            'pip install "keras-logitclip[study]"'
        ) from error
    svd = TruncatedSVD(features, random_state=0)
    tfidf = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    counted = tfidf.fit_transform(train)
    if features > min(counted.shape):
        raise ValueError(
            "Expected `features` in [data] to be at most the number of training texts, "
            f"and of the words and pairs of words in them. Received: {features}, "
            f"{counted.shape[0]} texts, {counted.shape[1]} terms"
        )
    both = svd.fit_transform(counted), svd.transform(tfidf.transform(test))
    return [(normalize(x) * math.sqrt(features)).astype("float32") for x in both]
