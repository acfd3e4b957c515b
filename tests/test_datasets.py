import copyreg
import gzip
import importlib
import io
import os
import pickle
import struct
import sys
import zipfile
from collections import namedtuple
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_logitclip import datasets
from keras_logitclip.datasets import _idx
from keras_logitclip.datasets._class_names import CLASS_NAMES
from keras_logitclip.datasets._unpickle import read_pickle

pytestmark = pytest.mark.once

# The real files, where a user has them; the project's tests do without.
REAL_DATA = Path(
    os.environ.get("KERAS_LOGITCLIP_DATA", Path(__file__).parents[2] / "shared/data")
)


def real_file(name):
    if not (REAL_DATA / name).exists():
        pytest.skip(f"no {name} in {REAL_DATA} (set KERAS_LOGITCLIP_DATA)")
    return REAL_DATA / name


# Files in the formats of the originals.


class Python2Pickler(pickle._Pickler):
    """Writes bytes as Python 2 wrote its strings, and names NumPy as it did."""

    dispatch = pickle._Pickler.dispatch.copy()

    def __init__(self, file):
        super().__init__(file, protocol=2)

    def save_bytes(self, value):
        self.write(pickle.BINSTRING + struct.pack("<i", len(value)) + value)
        self.memoize(value)

    def save_str(self, value):
        self.save_bytes(value.encode())

    dispatch[bytes] = save_bytes
    dispatch[str] = save_str


def pickle_of_python2(value):
    file = io.BytesIO()
    Python2Pickler(file).dump(value)
    return file.getvalue().replace(b"numpy._core", b"numpy.core")


PICKLES = {
    "python-2": pickle_of_python2,
    **{
        f"protocol-{protocol}": lambda value, protocol=protocol: pickle.dumps(
            value, protocol
        )
        for protocol in (0, 1, 2, 3, 4)
    },
}


def torch_zip(data):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/version", "3\n")
    return file.getvalue()


def torch_legacy(data):
    magic = pickle.dumps(0x1950A86A20F9469CFC6C, 2)
    system = pickle.dumps({"little_endian": True}, 2)
    return magic + pickle.dumps(1001, 2) + system + data + pickle.dumps([], 2)


CONTAINERS = {"plain": bytes, "zip": torch_zip, "legacy": torch_legacy}


def write_idx(path, array):
    sizes = b"".join(struct.pack(">I", size) for size in array.shape)
    header = bytes([0, 0, 8, array.ndim]) + sizes
    path.write_bytes(gzip.compress(header + array.tobytes()))


def some_images(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, "uint8")


def write_mnist(folder):
    folder.mkdir(parents=True, exist_ok=True)
    images, labels = some_images(7, 28, 28), np.arange(7, dtype="uint8")
    for split, rows in (("train", slice(5)), ("t10k", slice(5, 7))):
        write_idx(folder / f"{split}-images-idx3-ubyte.gz", images[rows])
        write_idx(folder / f"{split}-labels-idx1-ubyte.gz", labels[rows])
    return images, labels


def write_cifar(name, folder, pickled=pickle_of_python2):
    """Writes batches of two images each."""
    folder.mkdir(parents=True, exist_ok=True)
    if name == "cifar10":
        files = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
        key, top = "labels", 9
    else:
        files, key, top = ["train", "test"], "fine_labels", 99
    pixels = some_images(2 * len(files), 3072)
    labels = np.arange(len(pixels)) % (top + 1)
    labels[-1] = top
    for i, file in enumerate(files):
        rows = slice(2 * i, 2 * i + 2)
        batch = {
            "data": pixels[rows],
            key: labels[rows].tolist(),
            "filenames": ["a.png", "b.png"],
        }
        (folder / file).write_bytes(pickled(batch))
    return pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), labels


def check_dataset(data, name, images, labels, num_test):
    assert data.x_train.dtype == data.x_test.dtype == "uint8"
    assert data.y_train.dtype == data.y_test.dtype == "int64"
    np.testing.assert_array_equal(data.x_train, images[:-num_test])
    np.testing.assert_array_equal(data.x_test, images[-num_test:])
    np.testing.assert_array_equal(data.y_train, labels[:-num_test])
    np.testing.assert_array_equal(data.y_test, labels[-num_test:])
    assert data.class_names == CLASS_NAMES[name]
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
    with pytest.raises(ValueError, match="of 'mnist'. Received: .* of 'fashion_mnist'"):
        datasets.load("mnist", tmp_path)


def truncations(data):
    """Pieces that lack a little, much, and all."""
    return [data[:size] for size in (0, 1, 5, len(data) // 2, len(data) - 1)]


def test_truncated_gzip_files(tmp_path):
    write_mnist(tmp_path)
    for path in sorted(tmp_path.iterdir()):
        data = path.read_bytes()
        middle = len(data) // 2
        without = data[:middle] + data[middle + 2 :]
        for piece in (*truncations(data), data + b"more", without):
            path.write_bytes(piece)
            with pytest.raises(ValueError, match=f"Cannot read .*{path.name}"):
                datasets.load("mnist", tmp_path)
        path.write_bytes(data)


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


def test_truncated_pickles(tmp_path):
    write_cifar("cifar10", tmp_path)
    path = tmp_path / "data_batch_2"
    for piece in truncations(path.read_bytes()):
        path.write_bytes(piece)
        with pytest.raises(ValueError, match="Cannot read .*data_batch_2: expected a"):
            datasets.load("cifar10", tmp_path)


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


# Files that want to execute something.

Call = namedtuple("Call", "function arguments state", defaults=(None,))


class Calling:
    """Pickled as a call of any function."""

    def __init__(self, call):
        self.call = call

    def __reduce__(self):
        reduced = (self.call.function, self.call.arguments)
        return reduced if self.call.state is None else (*reduced, self.call.state)


MAKE_FOLDER = "__import__('os').mkdir({!r})"
HOSTILE = {
    "system": lambda folder: Call(os.system, (f"mkdir {folder}",)),
    "mkdir": lambda folder: Call(os.mkdir, (folder,)),
    "eval": lambda folder: Call(eval, (MAKE_FOLDER.format(folder),)),
    "exec": lambda folder: Call(exec, (MAKE_FOLDER.format(folder),)),
    "getattr": lambda folder: Call(getattr, ("", "join")),
    "import": lambda folder: Call(importlib.import_module, ("os",)),
    "numpy-load": lambda folder: Call(np.load, (folder,)),
    "numpy-fromfile": lambda folder: Call(np.fromfile, (__file__,)),
    "numpy-memmap": lambda folder: Call(np.memmap, (folder, "u1", "w+", 0, 9)),
    "numpy-savetxt": lambda folder: Call(np.savetxt, (folder, [1])),
    "open": lambda folder: Call(open, (folder, "w")),
    "copyreg": lambda folder: Call(copyreg.add_extension, ("os", "system", 1)),
    "pickle": lambda folder: Call(
        pickle.loads, (pickle.dumps(Calling(Call(os.mkdir, (folder,)))),)
    ),
    "state": lambda folder: Call(np.dtype, ("i8",), Calling(Call(os.mkdir, (folder,)))),
}


def with_call(call):
    """The call in a place of a file that would otherwise be read."""
    return {
        "data": PIXELS,
        "labels": [0, 1],
        "clean_label": np.arange(2),
        "worse_label": np.arange(2),
        "more": [Calling(call)],
    }


def test_the_hostile_files_are_hostile(tmp_path):
    """Read by `pickle` itself, they do execute what they say."""
    for name in ("system", "mkdir", "eval", "exec", "pickle"):
        folder = tmp_path / name
        pickle.loads(pickle.dumps(with_call(HOSTILE[name](str(folder))), 2))
        assert folder.exists(), name


@pytest.mark.parametrize("container", CONTAINERS.values(), ids=CONTAINERS)
@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("name", HOSTILE)
def test_nothing_in_a_file_executes(name, protocol, container, tmp_path):
    folder = tmp_path / "executed"
    data = container(pickle.dumps(with_call(HOSTILE[name](str(folder))), protocol))
    write_cifar("cifar10", tmp_path)
    (tmp_path / "data_batch_1").write_bytes(data)
    with pytest.raises(ValueError, match="Received: UnpicklingError: a reference to"):
        datasets.load("cifar10", tmp_path)
    with pytest.raises(ValueError, match="Received: UnpicklingError: a reference to"):
        datasets.load_human_labels(tmp_path / "data_batch_1", "worse", [0, 1])
    assert not folder.exists()


GLOBALS = {
    "reconstruct": b"cnumpy.core.multiarray\n_reconstruct\n",
    "ndarray": b"cnumpy\nndarray\n",
    "dtype": b"cnumpy\ndtype\n",
    "encode": b"c_codecs\nencode\n",
}
# What else a pickle can do with an object that it may name.
MISUSES = {
    "set-state": b"}U\x04namek\x01sb.",
    "set-slots": b"N}U\x08__init__K\x01s\x86b.",
    "call": b"(K\x01K\x02K\x03K\x04tR.",
    "new": b")\x81.",
    "append": b"K\x01a.",
    "set-item": b"K\x01K\x02s.",
}


@pytest.mark.parametrize("misuse", MISUSES.values(), ids=MISUSES)
@pytest.mark.parametrize("allowed", GLOBALS.values(), ids=GLOBALS)
def test_what_a_file_may_name_cannot_be_misused(allowed, misuse, tmp_path):
    good = pickle.dumps({"x": np.arange(3)}, 2)
    (tmp_path / "good").write_bytes(good)
    (tmp_path / "bad").write_bytes(b"\x80\x02" + allowed + misuse)
    with pytest.raises(ValueError, match="Cannot read"):
        read_pickle(tmp_path / "bad")
    np.testing.assert_array_equal(read_pickle(tmp_path / "good")["x"], np.arange(3))


# Human labels.

CLEAN = np.arange(50) % 10
NOISY10 = {
    "aggre_label": 2,
    "random_label1": 5,
    "random_label2": 6,
    "random_label3": 7,
    "worse_label": 20,
}
KINDS = {
    "clean": "clean_label",
    "aggregate": "aggre_label",
    "random1": "random_label1",
    "random2": "random_label2",
    "random3": "random_label3",
    "worse": "worse_label",
}


def wrong_labels(clean, num_classes, number):
    return np.where(np.arange(len(clean)) < number, (clean + 1) % num_classes, clean)


def cifar10n(**others):
    wrong = {key: wrong_labels(CLEAN, 10, number) for key, number in NOISY10.items()}
    return {"clean_label": CLEAN, **wrong, **others}


def cifar100n():
    fine = np.arange(200) % 100
    coarse = fine // 5  # Any, as long as it is consistent.
    return {
        "clean_label": fine,
        "noisy_label": wrong_labels(fine, 100, 80),
        "clean_coarse_label": coarse,
        "noisy_coarse_label": wrong_labels(coarse, 20, 50),
    }


def write_labels(path, contents, container=torch_zip, protocol=2):
    path.write_bytes(container(pickle.dumps(contents, protocol)))
    return path


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
    with pytest.raises(ValueError, match="of all 50 images .* Received: 45 labels"):
        datasets.load_human_labels(path, "worse", CLEAN[:45])


BAD_Y_TRAIN = {
    "column": (CLEAN[:, None], r"`y_train.ravel\(\)`. Received: .*\(50, 1\)"),
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


@pytest.mark.parametrize("container", CONTAINERS.values(), ids=CONTAINERS)
def test_truncated_label_files(container, tmp_path):
    path = tmp_path / "labels.pt"
    data = container(pickle.dumps(cifar10n(), 2))
    # What follows the dictionary in a legacy file is not read.
    end = data.rindex(b"worse_label")
    for piece in truncations(data[: end + 100]):
        path.write_bytes(piece)
        with pytest.raises(ValueError, match="Cannot read .*labels.pt"):
            datasets.load_human_labels(path, "worse", CLEAN)


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
    with pytest.raises(ValueError, match="of 'mnist'. Received: .* of 'fashion_mnist'"):
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
