"""Files that are damaged, foreign, or made to do harm."""

import copyreg
import gzip
import importlib
import io
import os
import pickle
import struct
import zipfile
from collections import namedtuple

import numpy as np
import pytest
from hypothesis import given

from keras_logitclip import datasets
from keras_logitclip.datasets._files import MAX_BYTES
from keras_logitclip.datasets._unpickle import read_pickle
from keras_logitclip.study._config import DataSettings
from keras_logitclip.study._files import read_arrays
from tests.damages import MIB
from tests.damages import damages
from tests.damages import little
from tests.damages import reproducibly
from tests.data_files import CLEAN
from tests.data_files import CONTAINERS
from tests.data_files import LEGACY_END
from tests.data_files import cifar10n
from tests.data_files import some_images
from tests.data_files import write_cifar
from tests.data_files import write_labels
from tests.data_files import write_mnist

pytestmark = pytest.mark.once

PIXELS = some_images(2, 3072)


def loaded_or_refused(read, path):
    """Returns what is read, `None` for one clear error."""
    try:
        return read()
    except ValueError as error:
        message = str(error)
    assert message.startswith((f"Cannot read {path}", "Expected"))
    assert str(path) in message
    assert len(message) < 500 + 2 * len(str(path))
    return None


def refuses(read, path):
    assert loaded_or_refused(read, path) is None


# The readers: the files of a folder, the files to damage, and the function that reads.

Reader = namedtuple("Reader", "write damaged read")


def read_labels(folder):
    return datasets.load_human_labels(folder / "labels.pt", "worse", CLEAN)


def labels_in(container):
    def write(folder):
        write_labels(folder / "labels.pt", cifar10n(), container)

    return Reader(write, "labels.pt", read_labels)


def cifar(name, damaged):
    return Reader(
        lambda folder: write_cifar(name, folder),
        damaged,
        lambda folder: datasets.load(name, folder),
    )


def mnist(damaged):
    return Reader(write_mnist, damaged, lambda folder: datasets.load("mnist", folder))


ARRAYS = {
    "x_train": np.arange(60.0).reshape(20, 3),
    "y_train": np.arange(20) % 4,
    "x_test": np.ones((8, 3)),
    "y_test": np.array(list("abcdabcd")),
}


def packed(**arrays):
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def own_arrays(folder):
    return read_arrays([folder], DataSettings(name="own.npz"))


READERS = {
    "mnist-images": mnist("train-images-idx3-ubyte.gz"),
    "mnist-labels": mnist("t10k-labels-idx1-ubyte.gz"),
    "cifar10": cifar("cifar10", "data_batch_2"),
    "cifar100": cifar("cifar100", "test"),
    "arrays": Reader(
        lambda folder: (folder / "own.npz").write_bytes(packed(**ARRAYS)),
        "own.npz",
        own_arrays,
    ),
    **{f"labels-{name}": labels_in(CONTAINERS[name]) for name in CONTAINERS},
}
every_reader = pytest.mark.parametrize("reader", READERS.values(), ids=READERS)


@pytest.fixture
def damage(reader, tmp_path):
    """Writes other contents, and returns a reader and the path of the file."""
    reader.write(tmp_path)
    path = tmp_path / reader.damaged

    def write(contents):
        path.write_bytes(contents)
        return lambda: reader.read(tmp_path), path

    write.valid = path.read_bytes()
    return write


# Files with a missing or wrong part.


@every_reader
def test_a_file_that_ends_early(reader, damage):
    needed = len(damage.valid)
    if reader is READERS["labels-legacy"]:
        # Bytes after the dictionary in such a file are not read.
        needed = damage.valid.index(LEGACY_END)
    for size in range(0, needed, needed // 700 + 1):
        refuses(*damage(damage.valid[:size]))
    refuses(*damage(damage.valid[: needed - 1]))


@every_reader
@given(damaged=damages())
@reproducibly
def test_a_file_with_other_bytes(reader, damage, damaged):
    """The file is refused, or the result has the original shapes and ranges."""
    read, path = damage(damaged(damage.valid))
    with little():
        loaded = loaded_or_refused(read, path)
    if isinstance(loaded, datasets.Dataset):
        for images, labels in (loaded[:2], loaded[2:4]):
            assert images.dtype == "uint8"
            assert len(images) == len(labels) > 0
            assert 0 <= labels.min() <= labels.max() < len(loaded.class_names)
    elif isinstance(loaded, list):
        for samples, labels in zip(loaded[::2], loaded[1::2], strict=True):
            assert (samples.dtype, labels.shape) == ("float64", samples.shape[:1])
    elif loaded is not None:
        np.testing.assert_array_equal(loaded.clean, CLEAN)
        assert 0 <= loaded.labels.min() <= loaded.labels.max() < 10


FOREIGN = {
    "empty": b"",
    "zeros": bytes(5000),
    "page": b"<!DOCTYPE html><title>404 Not Found</title>",
    "picture": b"\x89PNG\r\n\x1a\n" + bytes(100),
    "hdf5": b"\x89HDF\r\n\x1a\n" + bytes(100),
    "pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
    "text-in-gzip": gzip.compress(b"text"),
    "nothing-in-gzip": gzip.compress(b""),
    "nothing-in-zip": b"PK\5\6" + bytes(18),
    "number": pickle.dumps(1, 2),
    "list": pickle.dumps([1, 2], 2),
    "nothing": pickle.dumps({}, 2),
    "two-labels": pickle.dumps({"labels": {1: 2}, "worse_label": None}, 2),
}


@every_reader
@pytest.mark.parametrize("contents", FOREIGN.values(), ids=FOREIGN)
def test_a_foreign_file(reader, damage, contents):
    with little():
        refuses(*damage(contents))


# Paths that are not files.


def folder(path):
    path.mkdir()


LINKS = {
    "folder": folder,
    "missing": lambda path: None,
    "link-to-nothing": lambda path: path.symlink_to("nothing"),
    "link-to-itself": lambda path: path.symlink_to(path.name),
    "link-to-a-folder": lambda path: path.symlink_to("."),
    "endless": lambda path: path.symlink_to("/dev/zero"),
    "pipe": os.mkfifo,
}


@every_reader
@pytest.mark.parametrize("make", LINKS.values(), ids=LINKS)
def test_what_is_no_file(reader, damage, make, tmp_path):
    path = tmp_path / reader.damaged
    path.unlink()
    make(path)
    with pytest.raises(FileNotFoundError) as caught:
        reader.read(tmp_path)
    assert reader.damaged in str(caught.value)


@every_reader
def test_a_link_to_a_file(reader, damage, tmp_path):
    path = tmp_path / reader.damaged
    path.rename(tmp_path / "elsewhere")
    path.symlink_to("elsewhere")
    reader.read(tmp_path)


# Small files that would take much memory or time.


def idx(*sizes, contents=b""):
    header = bytes([0, 0, 8, len(sizes)]) + struct.pack(f">{len(sizes)}I", *sizes)
    return gzip.compress(header + contents)


ZEROS = 300 * gzip.compress(bytes(MIB))
IDX_BOMBS = {
    "largest": idx(*3 * [2**32 - 1]),
    "too-large": idx(2**19, 28, 28),
    "zeros-behind": idx(5, 28, 28, contents=bytes(5 * 28 * 28)) + ZEROS,
    "zeros-for-header": ZEROS,
}


@pytest.mark.parametrize("bomb", IDX_BOMBS.values(), ids=IDX_BOMBS)
@pytest.mark.parametrize("reader", [READERS["mnist-images"]], ids=["mnist"])
def test_idx_files_that_want_much(reader, damage, bomb):
    read, path = damage(bomb)
    with little():
        refuses(read, path)


def test_an_idx_file_that_unpacks_to_as_much_as_it_says(tmp_path):
    write_mnist(tmp_path)
    path = tmp_path / "train-labels-idx1-ubyte.gz"
    path.write_bytes(idx(MAX_BYTES - 1) + ZEROS[: len(ZEROS) // 10])
    with little(MAX_BYTES + 16 * MIB):
        refuses(lambda: datasets.load("mnist", tmp_path), path)


def nested(refer_twice):
    """Returns opcodes of an object with two references to another such object."""
    store = b"q\0" + b"0"  # And take it off the stack.
    return b"K\1" + store + 60 * (refer_twice + store) + b"h\0"


TUPLES = nested(b"h\0h\0\x86")
LISTS = nested(b"](h\0h\0e")
SETS = nested(b"(h\0h\0\x91")
TEXT = pickle.BINUNICODE + struct.pack("<I", 2**18) + bytes(2**18)
BYTES = pickle.BINSTRING + struct.pack("<I", 2**18) + bytes(2**18)


def calls(name, *arguments):
    """A dictionary of what many calls with the same arguments return."""
    stored = b"".join(
        argument + b"q" + bytes([i]) + b"0" for i, argument in enumerate(arguments)
    )
    stored += b"c" + name + b"q\x7f0"
    call = b"h\x7f(" + b"".join(b"h" + bytes([i]) for i in range(len(arguments)))
    keys = (b"M" + struct.pack("<H", i) for i in range(4000))
    called = b"".join(key + call + b"tR" for key in keys)
    return b"\x80\x02" + stored + b"}(" + called + b"u."


PICKLE_BOMBS = {
    "place": b"\x80\x02Nr\xff\xff\xff\x7f.",
    "place-in-text": b"Np2147483647\n.",
    "bytes": b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b".",
    "bytearray": b"\x80\x05\x96" + struct.pack("<Q", 2**33) + b".",
    "text": b"\x80\x04\x8d" + struct.pack("<Q", 2**40) + b".",
    "python-2-text": b"\x80\x02T" + struct.pack("<i", 2**31 - 1) + b".",
    "integer": b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + b".",
    "long-integer": b"\x80\x02}K\0\x8b" + struct.pack("<i", MIB) + MIB * b"1" + b"s.",
    "integer-in-text": b"L" + MIB * b"9" + b"L\n.",
    "frame": b"\x80\x04\x95" + struct.pack("<Q", 2**60) + b".",
    "hashes": b"\x80\x02}" + TUPLES + b"Ns.",
    "sets": b"\x80\x04}" + SETS + b"Ns.",
    "whole-file": b"\x80\x02" + TUPLES + b".",
    "values": b"\x80\x02}K\0" + LISTS + b"s.",
    "reference": b"\x80\x02c" + 2**18 * b"x" + b"\ny\n.",
    "depth": b"\x80\x02}K\0" + 2**14 * b"]" + 2**14 * b"a" + b"s.",
    "keys": b"\x80\x02}" + TEXT + b"Ns.",
    "many-keys": pickle.dumps(dict.fromkeys(range(10**4)), 2),
    "encoded-again": calls(b"_codecs\nencode\n", TEXT, b"X\6\0\0\0latin1"),
    "codes": calls(b"numpy\ndtype\n", BYTES),
}


@pytest.mark.parametrize("container", CONTAINERS.values(), ids=CONTAINERS)
@pytest.mark.parametrize("bomb", PICKLE_BOMBS.values(), ids=PICKLE_BOMBS)
def test_pickles_that_want_much(bomb, container, tmp_path):
    write_cifar("cifar10", tmp_path)
    path = tmp_path / "data_batch_1"
    path.write_bytes(container(bomb))
    with little(64 * MIB):
        refuses(lambda: datasets.load("cifar10", tmp_path), path)
    with little(64 * MIB):
        refuses(lambda: datasets.load_human_labels(path, "worse", CLEAN), path)


ARRAY = pickle.dumps({"data": PIXELS, "labels": [0, 1]}, 2)
ARRAY_BOMBS = {
    "shape": ARRAY.replace(b"K\x02M\x00\x0c\x86", b"J\xff\xff\xff\x7fM\0\x0c\x86"),
    "code": ARRAY.replace(b"X\x02\x00\x00\x00u1", TUPLES),
    "byte-order": ARRAY.replace(b"X\x01\x00\x00\x00|", TUPLES),
    "labels": ARRAY.replace(b"K\x00K\x01e", LISTS + b"K\x01e"),
}


@pytest.mark.parametrize("bomb", ARRAY_BOMBS.values(), ids=ARRAY_BOMBS)
@pytest.mark.parametrize("reader", [READERS["cifar10"]], ids=["cifar10"])
def test_arrays_that_want_much(reader, damage, bomb):
    assert bomb != ARRAY
    damage(ARRAY)[0]()
    with little():
        refuses(*damage(bomb))


def deflated(data):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", data)
    return file.getvalue()


def test_archives_that_want_much(tmp_path):
    valid = pickle.dumps(cifar10n(), 2)
    stored = CONTAINERS["zip"](valid)
    size = struct.pack("<II", len(valid), len(valid))
    lies = stored.replace(size, struct.pack("<II", 2**32 - 2, 2**32 - 2))
    assert lies != stored
    path = tmp_path / "labels.pt"
    for archive in (deflated(bytes(100 * MIB)), deflated(valid), lies):
        path.write_bytes(archive)
        with little():
            refuses(lambda: read_labels(tmp_path), path)


def npy(shape, contents=b"", dtype="<f8"):
    header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}"
    size = struct.pack("<H", len(header))
    return b"\x93NUMPY\1\0" + size + header.encode() + contents


def archive_of(x_train, kind=zipfile.ZIP_DEFLATED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", kind) as archive:
        archive.writestr("x_train.npy", x_train)
        archive.writestr("y_train.npy", npy((1,), bytes(8), "<i8"))
    return file.getvalue()


NUMPY_BOMBS = {
    "largest": archive_of(npy((2**20, 2**40))),
    "large": archive_of(npy((2**24, 2)), kind=zipfile.ZIP_STORED),
    "negative": archive_of(npy((-(2**30), 2**30))),
    "nothing": archive_of(npy((2**62,), dtype="<V0")),
    "long-header": archive_of(npy((1,) * 10**4)),
    "deep-header": archive_of(npy("(" * 500 + ")" * 500)),
    "objects": archive_of(npy((1, 1), pickle.dumps([0]), "|O")),
    "says-so": archive_of(npy((2**27,))).replace(
        struct.pack("<I", len(npy((2**27,)))), struct.pack("<I", 2**31)
    ),
}


@pytest.mark.parametrize("bomb", NUMPY_BOMBS.values(), ids=NUMPY_BOMBS)
@pytest.mark.parametrize("reader", [READERS["arrays"]], ids=["arrays"])
def test_arrays_of_the_user_that_want_much(reader, damage, bomb):
    damage(archive_of(npy((1, 1), bytes(8))))[0]()
    with little():
        refuses(*damage(bomb))


TEXTS = b"category,text\n" + 20 * b"card,lost card\nrate,exchange rate\n"


def own_table(folder):
    settings = DataSettings(name="own.csv", label="category", text="text")
    return read_arrays([folder], settings)


@given(damaged=damages())
@reproducibly
def test_a_table_with_other_bytes(damaged, tmp_path):
    """The file is refused, or texts with labels are read."""
    path = tmp_path / "own.csv"
    path.write_bytes(damaged(TEXTS))
    with little(seconds=2.0):  # What pandas imports at first.
        loaded = loaded_or_refused(lambda: own_table(tmp_path), path)
    if loaded:
        texts, labels = loaded
        assert texts.shape == labels.shape
        assert all(isinstance(text, str) for text in texts)


@pytest.mark.parametrize("contents", FOREIGN.values(), ids=FOREIGN)
def test_a_foreign_table(contents, tmp_path):
    path = tmp_path / "own.csv"
    path.write_bytes(contents)
    with little(64 * MIB, seconds=2.0):
        refuses(lambda: own_table(tmp_path), path)


@every_reader
def test_a_file_larger_than_any_original(reader, damage, tmp_path):
    """Of holes, which take no space."""
    read, path = damage(b"")
    os.truncate(path, MAX_BYTES + 1)
    with little():
        refuses(read, path)


# Files that would execute something.

Call = namedtuple("Call", "function arguments state", defaults=(None,))


class Calling:
    """An object that is pickled as a call of a function."""

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
    """Returns files with the call in a place that is read."""
    return {
        "data": PIXELS,
        "labels": [0, 1],
        "clean_label": np.arange(2),
        "worse_label": np.arange(2),
        "more": [Calling(call)],
    }


def test_the_hostile_files_are_hostile(tmp_path):
    """`pickle` itself does execute their calls."""
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


def test_nothing_in_arrays_of_the_user_executes(tmp_path):
    folder = tmp_path / "executed"
    for name in ("system", "mkdir", "eval", "exec"):
        pickled = pickle.dumps(Calling(HOSTILE[name](str(folder))))
        (tmp_path / "own.npz").write_bytes(archive_of(npy((1, 1), pickled, "|O")))
        with pytest.raises(ValueError, match="Cannot read.*allow_pickle=False"):
            own_arrays(tmp_path)
    assert not folder.exists()


GLOBALS = {
    "reconstruct": b"cnumpy.core.multiarray\n_reconstruct\n",
    "ndarray": b"cnumpy\nndarray\n",
    "dtype": b"cnumpy\ndtype\n",
    "encode": b"c_codecs\nencode\n",
}
# Other uses of objects that a pickle may name.
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
