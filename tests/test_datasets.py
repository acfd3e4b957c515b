import gzip
import os
import pickle
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_logitclip import datasets
from keras_logitclip.datasets import _idx
from keras_logitclip.datasets._class_names import CLASS_NAMES
from keras_logitclip.datasets._unpickle import read_pickle
from tests.data_files import CLEAN
from tests.data_files import CONTAINERS
from tests.data_files import NOISY10
from tests.data_files import PICKLES
from tests.data_files import cifar10n
from tests.data_files import cifar100n
from tests.data_files import some_images
from tests.data_files import write_cifar
from tests.data_files import write_idx
from tests.data_files import write_labels
from tests.data_files import write_mnist

pytestmark = pytest.mark.once

# The real files, where a user has them; the project's tests do without.
REAL_DATA = Path(
    os.environ.get("KERAS_LOGITCLIP_DATA", Path(__file__).parents[2] / "shared/data")
)


def real_file(name):
    if not (REAL_DATA / name).exists():
        pytest.skip(f"no {name} in {REAL_DATA} (set KERAS_LOGITCLIP_DATA)")
    return REAL_DATA / name


def check_dataset(data, name, images, labels, num_test):
    assert data.x_train.dtype == data.x_test.dtype == "uint8"
    assert data.y_train.dtype == data.y_test.dtype == "int64"
    np.testing.assert_array_equal(data.x_train, images[:-num_test])
    np.testing.assert_array_equal(data.x_test, images[-num_test:])
    np.testing.assert_array_equal(data.y_train, labels[:-num_test])
    np.testing.assert_array_equal(data.y_test, labels[-num_test:])
    assert data.class_names == CLASS_NAMES[name]
    (x_train, y_train), (x_test, y_test) = data.splits()
    assert x_train is data.x_train
    assert y_train is data.y_train
    assert x_test is data.x_test
    assert y_test is data.y_test
    for array in data[:4]:
        array[:1] = 0  # Writable, as what `keras.datasets` returns.


FOLDERS = {"mnist": "mnist", "fashion_mnist": "fashion-mnist"}
places = pytest.mark.parametrize("direct", [False, True], ids=("nested", "direct"))


@places
@pytest.mark.parametrize("name", FOLDERS)
def test_mnist_from_files(name, direct, tmp_path):
    images, labels = write_mnist(tmp_path if direct else tmp_path / FOLDERS[name])
    check_dataset(datasets.load(name, tmp_path), name, images, labels, 2)


@places
@pytest.mark.parametrize("pickled", PICKLES.values(), ids=PICKLES)
def test_cifar10_from_files(pickled, direct, tmp_path):
    folder = tmp_path if direct else tmp_path / "cifar-10-batches-py"
    images, labels = write_cifar("cifar10", folder, pickled)
    check_dataset(datasets.load("cifar10", str(tmp_path)), "cifar10", images, labels, 2)


def test_cifar100_from_files(tmp_path):
    images, labels = write_cifar("cifar100", tmp_path / "cifar-100-python")
    check_dataset(datasets.load("cifar100", tmp_path), "cifar100", images, labels, 2)


@pytest.fixture
def channels_first():
    before = keras.config.image_data_format()
    keras.config.set_image_data_format("channels_first")
    yield
    keras.config.set_image_data_format(before)


def test_cifar_with_channels_first(channels_first, tmp_path):
    images, labels = write_cifar("cifar10", tmp_path)
    images = images.transpose(0, 3, 1, 2)
    check_dataset(datasets.load("cifar10", tmp_path), "cifar10", images, labels, 2)


def test_arrays_in_columns_and_of_other_byte_orders(tmp_path):
    array = np.arange(6).reshape(2, 3)
    arrays = {"columns": np.asfortranarray(array), "big": array.astype(">i2")}
    (tmp_path / "file").write_bytes(pickle.dumps(arrays, 2))
    for read in read_pickle(tmp_path / "file").values():
        np.testing.assert_array_equal(read, array)


@pytest.mark.parametrize("name", [name for name in CLASS_NAMES if name != "digits"])
def test_through_keras(name, monkeypatch):
    shape = (28, 28) if "mnist" in name else (32, 32, 3)
    column = (-1,) if "mnist" in name else (-1, 1)
    images, labels = some_images(5, *shape), np.arange(5, dtype="uint8")
    splits = (
        (images[:3].copy(), labels[:3].reshape(column)),
        (images[3:].copy(), labels[3:].reshape(column)),
    )
    module = getattr(keras.datasets, name)
    monkeypatch.setattr(module, "load_data", lambda: splits)
    check_dataset(datasets.load(name), name, images, labels, 2)


def test_failed_download(monkeypatch):
    def load_data():
        raise Exception("URL fetch failure")

    monkeypatch.setattr(keras.datasets.mnist, "load_data", load_data)
    with pytest.raises(OSError, match="`data_dir`. Received: Exception: URL fetch"):
        datasets.load("mnist")


def test_digits():
    sklearn = pytest.importorskip("sklearn.datasets")
    data, again = datasets.load("digits"), datasets.load("digits")
    assert [array.shape for array in data[:4]] == [
        (1437, 8, 8), (1437,), (360, 8, 8), (360,)
    ]  # fmt: skip
    assert data.x_train.dtype == "uint8"
    assert data.y_train.dtype == "int64"
    for first, second in zip(data[:4], again[:4], strict=True):
        np.testing.assert_array_equal(first, second)
    pixels, labels = sklearn.load_digits(return_X_y=True)
    both = np.concatenate([data.x_train, data.x_test]).reshape(-1, 64)
    both = np.column_stack([both, np.concatenate([data.y_train, data.y_test])])
    expected = np.column_stack([pixels, labels])
    np.testing.assert_array_equal(sorted(both.tolist()), sorted(expected.tolist()))
    shares = np.bincount(data.y_test) / np.bincount(labels)
    np.testing.assert_allclose(shares, 0.2, atol=0.005)


def test_a_dataset_tells_its_sizes_and_range(tmp_path):
    images, _ = write_cifar("cifar10", tmp_path)
    data = datasets.load("cifar10", tmp_path)
    assert images[:10].max() == 255
    assert repr(data) == (
        "Dataset(10 images to train on, 2 to test on, 32x32x3, 0..255, 10 classes)"
    )


def test_digits_without_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match="pip install scikit-learn"):
        datasets.load("digits")


# Files that are missing, damaged, or others.


def test_unknown_names():
    with pytest.raises(ValueError, match="'digits', 'mnist'.* Received: name='svhn'"):
        datasets.load("svhn")
    with pytest.raises(ValueError, match="`data_dir`: expected `None` for 'digits'"):
        datasets.load("digits", data_dir="data")


def test_missing_files(tmp_path):
    folder = tmp_path / "cifar-10-batches-py"
    write_cifar("cifar10", folder)
    (folder / "data_batch_3").unlink()
    with pytest.raises(FileNotFoundError) as caught:
        datasets.load("cifar10", tmp_path)
    assert f"{folder} (missing: data_batch_3);" in str(caught.value)
    assert f"{tmp_path} (missing: data_batch_1, data_batch_2" in str(caught.value)
    with pytest.raises(FileNotFoundError, match="missing: train-images-idx3-ubyte.gz"):
        datasets.load("mnist", tmp_path / "nowhere")


def test_one_mnist_is_not_taken_for_the_other(tmp_path, monkeypatch):
    write_mnist(tmp_path)
    data = (tmp_path / "train-labels-idx1-ubyte.gz").read_bytes()
    digest = _idx.hashlib.md5(data).hexdigest()
    monkeypatch.setitem(_idx._MD5, "fashion_mnist", digest)
    datasets.load("fashion_mnist", tmp_path)
    with pytest.raises(
        ValueError, match="of 'mnist'. Received: .* belongs to 'fashion_mnist'"
    ):
        datasets.load("mnist", tmp_path)


IMAGES, LABELS = "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"
BAD_IDX = {
    "labels-as-images": (IMAGES, np.zeros(5, "uint8"), "with 3 axes"),
    "images-as-labels": (LABELS, np.zeros((5, 28, 28), "uint8"), "with 1 axes"),
    "size": (IMAGES, np.zeros((5, 8, 8), "uint8"), r"28x28.*shape \(5, 8, 8\)"),
    "count": (LABELS, np.zeros(4, "uint8"), "5 images in .*, 4 labels in"),
    "range": (LABELS, np.arange(8, 13, dtype="uint8"), r"in \[0, 10\). Received: 12"),
}


@pytest.mark.parametrize(("file", "array", "message"), BAD_IDX.values(), ids=BAD_IDX)
def test_foreign_idx_files(file, array, message, tmp_path):
    write_mnist(tmp_path)
    write_idx(tmp_path / file, array)
    with pytest.raises(ValueError, match=message) as caught:
        datasets.load("mnist", tmp_path)
    assert str(tmp_path / file) in str(caught.value)


def test_idx_files_with_too_few_or_too_many_bytes(tmp_path):
    write_mnist(tmp_path)
    path = tmp_path / IMAGES
    contents = gzip.decompress(path.read_bytes())
    for wrong in (contents[:-1], contents + b"x"):
        path.write_bytes(gzip.compress(wrong))
        with pytest.raises(ValueError, match="expected 3920 bytes after the header"):
            datasets.load("mnist", tmp_path)


PIXELS = some_images(2, 3072)
BAD_BATCHES = {
    "no-labels": ({"data": PIXELS}, "a list `labels`. Received: a file with data"),
    "cifar100": ({"data": PIXELS, "fine_labels": [0, 1]}, "with data, fine_labels"),
    "no-array": ({"data": [1, 2], "labels": [0, 1]}, "expected an array `data`"),
    "no-dictionary": ([1, 2], "pickle of a dictionary"),
    "count": ({"data": PIXELS, "labels": [0]}, r"of 1 labels.*shape \(2, 3072\)"),
    "size": ({"data": PIXELS[:, 1:], "labels": [0, 1]}, r"shape \(2, 3071\)"),
    "dtype": ({"data": PIXELS.astype("i4"), "labels": [0, 1]}, "dtype int32"),
    "floats": ({"data": PIXELS / 1.0, "labels": [0, 1]}, "dtype 'f8'"),
    "objects": ({"data": PIXELS.astype(object), "labels": [0, 1]}, "dtype 'O8'"),
    "range": ({"data": PIXELS, "labels": [0, 10]}, r"in \[0, 10\). Received: 10"),
    "float-labels": ({"data": PIXELS, "labels": [0, 0.5]}, "Received: 0.5"),
}


@pytest.mark.parametrize(("batch", "message"), BAD_BATCHES.values(), ids=BAD_BATCHES)
def test_foreign_batches(batch, message, tmp_path):
    write_cifar("cifar10", tmp_path)
    (tmp_path / "data_batch_4").write_bytes(pickle.dumps(batch, 2))
    with pytest.raises(ValueError, match=message) as caught:
        datasets.load("cifar10", tmp_path)
    assert str(tmp_path / "data_batch_4") in str(caught.value)


# Human labels.

KINDS = {
    "clean": "clean_label",
    "aggregate": "aggre_label",
    "random1": "random_label1",
    "random2": "random_label2",
    "random3": "random_label3",
    "worse": "worse_label",
}


@pytest.mark.parametrize("container", CONTAINERS.values(), ids=CONTAINERS)
@pytest.mark.parametrize("kind", KINDS)
def test_human_labels_of_cifar10(kind, container, tmp_path):
    path = write_labels(tmp_path / "labels.pt", cifar10n(), container)
    for name in (kind, KINDS[kind]):
        noisy = datasets.load_human_labels(str(path), name, CLEAN.astype("uint8"))
        np.testing.assert_array_equal(noisy.labels, cifar10n()[KINDS[kind]])
        np.testing.assert_array_equal(noisy.clean, CLEAN)
        assert noisy.rate == NOISY10.get(KINDS[kind], 0) / 50
        assert repr(noisy) == (
            f"NoisyLabels(kind='human, {kind}', asked_rate=None, "
            f"rate={noisy.rate:g}, samples=50, num_classes=10, seed=None)"
        )


@pytest.mark.parametrize(
    ("kind", "num_classes", "rate"),
    [
        ("clean", 100, 0),
        ("noisy", 100, 0.4),
        ("clean_coarse", 20, 0),
        ("noisy_coarse", 20, 0.25),
    ],
)
def test_human_labels_of_cifar100(kind, num_classes, rate, tmp_path):
    path = write_labels(tmp_path / "labels.pt", cifar100n())
    noisy = datasets.load_human_labels(path, kind, cifar100n()["clean_label"])
    np.testing.assert_array_equal(noisy.labels, cifar100n()[f"{kind}_label"])
    assert (noisy.num_classes, noisy.rate) == (num_classes, rate)


def test_images_in_another_order(tmp_path):
    path = write_labels(tmp_path / "labels.pt", cifar10n())
    for order in (CLEAN[::-1], np.roll(CLEAN, 1)):
        with pytest.raises(ValueError) as caught:  # noqa: PT011
            datasets.load_human_labels(path, "worse", order)
        for part in ("data_batch_5", "torchvision", "TFDS", "at 50 of 50 positions"):
            assert part in str(caught.value)
    exchanged = CLEAN[[1, 0, *range(2, 50)]]
    with pytest.raises(ValueError, match="at 2 of 50 positions, the first at 0"):
        datasets.load_human_labels(path, "worse", exchanged)
    with pytest.raises(ValueError, match="of the 50 images .* Received: 51 labels"):
        datasets.load_human_labels(path, "worse", np.append(CLEAN, 0))


def test_human_labels_of_the_first_images(tmp_path):
    path = write_labels(tmp_path / "labels.pt", cifar10n())
    noisy = datasets.load_human_labels(path, "worse", CLEAN[:45])
    np.testing.assert_array_equal(noisy.labels, cifar10n()["worse_label"][:45])
    np.testing.assert_array_equal(noisy.clean, CLEAN[:45])
    with pytest.raises(ValueError, match="at 2 of 45 positions"):
        datasets.load_human_labels(path, "worse", CLEAN[[1, 0, *range(2, 45)]])


@pytest.mark.parametrize(
    ("contents", "kind"), [(cifar10n(), "worse"), (cifar100n(), "noisy")]
)
def test_human_labels_without_labels_to_compare_with(contents, kind, tmp_path):
    path = write_labels(tmp_path / "labels.pt", contents)
    noisy = datasets.load_human_labels(path, kind)
    np.testing.assert_array_equal(noisy.labels, contents[f"{kind}_label"])
    np.testing.assert_array_equal(noisy.clean, contents["clean_label"])


@pytest.mark.parametrize("version", [(1, 0), (2, 0)], ids=str)
def test_human_labels_in_the_order_of_tfds(version, tmp_path):
    path = tmp_path / "CIFAR-10_human_ordered.npy"
    with path.open("wb") as file:
        np.lib.format.write_array(file, np.array(cifar10n()), version)
    noisy = datasets.load_human_labels(path, "worse", CLEAN)
    np.testing.assert_array_equal(noisy.labels, cifar10n()["worse_label"])
    message = (
        "`y_train`, .* TensorFlow Datasets.* `.pt` file. Received: y_train=None, path="
    )
    with pytest.raises(ValueError, match=message):
        datasets.load_human_labels(path, "worse")


BAD_Y_TRAIN = {
    "column": (CLEAN[:, None], r"`np.ravel\(y_train\)`. Received: .*\(50, 1\)"),
    "floats": (CLEAN / 1.0, "`y_train`: .*dtype float64"),
    "range": (CLEAN + 1, "Received: 10 at position 9"),
}


@pytest.mark.parametrize(("y_train", "message"), BAD_Y_TRAIN.values(), ids=BAD_Y_TRAIN)
def test_bad_labels_to_compare_with(y_train, message, tmp_path):
    path = write_labels(tmp_path / "labels.pt", cifar10n())
    with pytest.raises(ValueError, match=message):
        datasets.load_human_labels(path, "worse", y_train)


BAD_LABEL_FILES = {
    "foreign": ({"labels": CLEAN}, "of CIFAR-10N.*a file with labels"),
    "no-clean": ({"worse_label": CLEAN}, "expected an array `clean_label`"),
    "list": (cifar10n(worse_label=[0]), "expected an array `worse_label`"),
    "floats": (cifar10n(worse_label=CLEAN / 1.0), "dtype 'f8'"),
    "array": (CLEAN, "expected a complete pickle of a dictionary"),
    "range": (cifar10n(worse_label=CLEAN + 1), r"worse_label.*in \[0, 10\)"),
    "count": (cifar10n(worse_label=CLEAN[:9]), "Received: 9 and 50"),
}


@pytest.mark.parametrize(
    ("contents", "message"), BAD_LABEL_FILES.values(), ids=BAD_LABEL_FILES
)
def test_foreign_label_files(contents, message, tmp_path):
    path = write_labels(tmp_path / "labels.pt", contents)
    with pytest.raises(ValueError, match=message) as caught:
        datasets.load_human_labels(path, "worse", CLEAN)
    assert str(path) in str(caught.value)


def test_unknown_kinds_and_paths(tmp_path):
    path = write_labels(tmp_path / "labels.pt", cifar10n())
    with pytest.raises(ValueError, match="'aggregate'.* file. Received: kind='worst'"):
        datasets.load_human_labels(path, "worst", CLEAN)
    with pytest.raises(
        FileNotFoundError, match=r"cifar-10-100n. Looked for: .*none.pt"
    ):
        datasets.load_human_labels(tmp_path / "none.pt", "worse", CLEAN)


# The real files.


def test_the_real_fashion_mnist():
    folder = real_file("fashion-mnist")
    data = datasets.load("fashion_mnist", folder)
    assert [array.shape for array in data[:4]] == [
        (60_000, 28, 28), (60_000,), (10_000, 28, 28), (10_000,)
    ]  # fmt: skip
    np.testing.assert_array_equal(np.bincount(data.y_train), 10 * [6000])
    np.testing.assert_array_equal(np.bincount(data.y_test), 10 * [1000])
    assert [data.class_names[i] for i in data.y_train[:2]] == [
        "Ankle boot",
        "T-shirt/top",
    ]
    assert data.x_train.mean() == pytest.approx(72.94, abs=0.005)
    with pytest.raises(
        ValueError, match="of 'mnist'. Received: .* belongs to 'fashion_mnist'"
    ):
        datasets.load("mnist", folder)


@pytest.mark.parametrize(
    ("kind", "percent"),
    [
        ("clean", 0),
        ("aggregate", 9.01),
        ("random1", 17.23),
        ("random2", 18.12),
        ("random3", 17.64),
        ("worse", 40.21),
    ],
)
def test_the_real_human_labels(kind, percent):
    path = real_file("cifar10n/CIFAR-10_human.pt")
    y_train = read_pickle(path)["clean_label"]
    noisy = datasets.load_human_labels(path, kind, y_train)
    assert len(noisy.labels) == 50_000
    assert round(100 * noisy.rate, 2) == percent
