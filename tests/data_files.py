"""Small files in the formats of the data sets."""

import gzip
import io
import pickle
import struct
import zipfile

import numpy as np


class Python2Pickler(pickle._Pickler):
    """Writes bytes and the names of NumPy as Python 2 did."""

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


LEGACY_END = pickle.dumps([], 2)


def torch_legacy(data):
    magic = pickle.dumps(0x1950A86A20F9469CFC6C, 2)
    system = pickle.dumps({"little_endian": True}, 2)
    return magic + pickle.dumps(1001, 2) + system + data + LEGACY_END


def npy(data):
    """Returns the header that `numpy.save` writes before a pickled dictionary."""
    file = io.BytesIO()
    np.save(file, np.array({}), allow_pickle=True)
    return file.getvalue().partition(b"\n")[0] + b"\n" + data


CONTAINERS = {"plain": bytes, "zip": torch_zip, "legacy": torch_legacy, "npy": npy}


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


# Human labels.

CLEAN = np.arange(50) % 10
NOISY10 = {
    "aggre_label": 2,
    "random_label1": 5,
    "random_label2": 6,
    "random_label3": 7,
    "worse_label": 20,
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
