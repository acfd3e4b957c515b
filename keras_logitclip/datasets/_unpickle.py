"""Reading pickled dictionaries of arrays; nothing in a file can execute.

A pickle is a program that may call anything. Here it may name what NumPy's arrays
are pickled with, gets stand-ins for that, and everything else is an error. The
stand-ins record the bytes, dtype and shape of an array. NumPy sees them only
afterwards, since its own `__setstate__` trusts what it is given.
"""

import io
import pickle
import zipfile
from pathlib import Path

import numpy as np

# What `torch.save` wrote first, up to PyTorch 1.5.
_LEGACY_TORCH_MAGIC = 0x1950A86A20F9469CFC6C
_DTYPES = ("i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8")


def read_pickle(path: Path) -> dict:
    """Reads a dictionary of lists, texts and integer arrays.

    Args:
        path: Of a pickle, by Python 2 or 3, or of a file of `torch.save` that
            holds no tensors.

    Raises:
        ValueError: If the file is damaged or holds anything else.
    """
    data = path.read_bytes()
    try:
        contents = _load(_pickle_of(data))
        return {_text(key): _to_numpy(value) for key, value in contents.items()}
    except Exception as error:  # Anything can come of a damaged pickle.
        raise ValueError(
            f"Cannot read {path}: expected a complete pickle of a dictionary of "
            "integer arrays. For safety, nothing else is loaded. "
            f"Received: {type(error).__name__}: {error}"
        ) from error


class _Dtype:
    def __init__(self, code, align=False, copy=False):
        self.code = _text(code)
        self.byte_order = "|"

    def __setstate__(self, state):
        self.byte_order = _text(state[1])


class _Array:
    def __init__(self, array_type, shape, code):
        """Called with what makes an empty array; the state follows."""

    def __setstate__(self, state):
        _, self.shape, self.dtype, self.is_fortran, self.data = state


_STAND_INS = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,  # Up to NumPy 1.
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy", "ndarray"): "ndarray",
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): str.encode,  # Bytes, in the protocols before 3.
}


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module, name):
        if (module, name) not in _STAND_INS:
            raise pickle.UnpicklingError(f"a reference to `{module}.{name}`")
        return _STAND_INS[module, name]


def _pickle_of(data: bytes) -> io.BytesIO:
    """Returns the pickle in a file of `torch.save`, or the file itself."""
    if not zipfile.is_zipfile(io.BytesIO(data)):
        return io.BytesIO(data)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        (name,) = [x for x in archive.namelist() if x.endswith("/data.pkl")]
        return io.BytesIO(archive.read(name))


def _load(file: io.BytesIO):
    contents = _load_one(file)
    if contents == _LEGACY_TORCH_MAGIC:
        for _ in ("protocol version", "system"):
            _load_one(file)
        contents = _load_one(file)
    return contents


def _load_one(file):
    # Texts of Python 2 stay bytes, the contents of its arrays among them.
    return _ArrayUnpickler(file, encoding="bytes").load()


def _to_numpy(value):
    if not isinstance(value, _Array):
        return value
    if value.dtype.code not in _DTYPES:
        raise TypeError(f"an array of dtype {value.dtype.code!r}")
    dtype = np.dtype(value.dtype.code).newbyteorder(value.dtype.byte_order)
    order = "F" if value.is_fortran else "C"
    return np.frombuffer(value.data, dtype).reshape(value.shape, order=order)


def _text(value):
    return value.decode("latin1") if isinstance(value, bytes) else value
