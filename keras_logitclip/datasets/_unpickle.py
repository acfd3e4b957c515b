"""Reads pickled dictionaries of arrays without executing anything in a file.

A pickle is a program that may call anything. Here it may only name the functions and
classes of NumPy's array pickles, and gets stand-ins for them. Everything else is an
error. The stand-ins record the bytes, dtype and shape of an array. NumPy sees them only
afterwards, because its own `__setstate__` trusts its arguments.

A small file cannot take much memory or time, either. A pickle can refer to the same
object again and again, to any depth. So such objects are never copied for each
reference, and never hashed, compared or printed as a whole.
"""

import io
import pickle
import reprlib
import zipfile
from pathlib import Path

import numpy as np

from keras_logitclip.datasets._files import read_bytes

# The first object of a file by `torch.save` up to PyTorch 1.5.
_LEGACY_TORCH_MAGIC = 0x1950A86A20F9469CFC6C
# The first bytes of a file by `numpy.save`.
_NPY_MAGIC = b"\x93NUMPY"
# The largest number of characters from a file that an error shows.
_SHOWN = 200
_BYTE_ORDERS = ("|", "<", ">", "=")
_DTYPES = ("i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8")


def read_pickle(path: Path) -> dict:
    """Reads a dictionary of lists, texts and integer arrays.

    Args:
        path: Path of a pickle by Python 2 or 3, of a file by `torch.save` without
            tensors, or of a file by `numpy.save` with a dictionary.

    Raises:
        ValueError: If the file is damaged or contains anything else.
    """
    data = read_bytes(path)
    try:
        contents = _load(_pickle_of(data))
        return {_text(key): _to_numpy(value) for key, value in contents.items()}
    except Exception as error:  # A damaged pickle can cause any error.
        raise ValueError(
            f"Cannot read {path}: expected a complete pickle of a dictionary of "
            "integer arrays. For safety, nothing else is loaded. "
            f"Received: {type(error).__name__}: {str(error)[:_SHOWN]}"
        ) from error


def names_in(contents: dict) -> str:
    """Returns the first keys of a dictionary, as text."""
    return ", ".join(str(key)[:_SHOWN] for key in list(contents)[:10])[:_SHOWN]


def shown(value) -> str:
    """Returns the start of a value as text, even if it is nested deeply."""
    return reprlib.repr(value)[:_SHOWN]


class _Dtype:
    def __init__(self, code, align=False, copy=False):
        self.code = code
        self.byte_order = "|"

    def __setstate__(self, state):
        self.byte_order = state[1]


class _Array:
    def __init__(self, array_type, shape, code):
        """Takes the arguments for an empty array; its state follows."""

    def __setstate__(self, state):
        _, self.shape, self.dtype, self.is_fortran, self.data = state


class _Encoder:
    """Encodes each text only once, even if a pickle requests its bytes often."""

    __slots__ = ("_known",)

    def __init__(self):
        self._known = {}

    def __call__(self, text, encoding):
        if encoding != "latin1":
            raise pickle.UnpicklingError("an encoding other than latin1")
        if text not in self._known:
            self._known[text] = text.encode(encoding)
        return self._known[text]

    def __setstate__(self, state):
        raise pickle.UnpicklingError("a state of a function")


_STAND_INS = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,  # Up to NumPy 1.
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy", "ndarray"): "ndarray",
    ("numpy", "dtype"): _Dtype,
}

# Operations that pickles of arrays do not need: access to the process, objects without
# a call, sets, and integers of any length.
_REFUSED = {
    pickle.PERSID,
    pickle.BINPERSID,
    pickle.EXT1,
    pickle.EXT2,
    pickle.EXT4,
    pickle.INST,
    pickle.OBJ,
    pickle.NEWOBJ,
    pickle.NEWOBJ_EX,
    pickle.EMPTY_SET,
    pickle.ADDITEMS,
    pickle.FROZENSET,
    pickle.LONG4,
    pickle.BYTEARRAY8,
    pickle.NEXT_BUFFER,
    pickle.READONLY_BUFFER,
}


def _as_list(count):
    """Returns a function that loads a tuple of this size as a list."""

    def load(unpickler):
        unpickler.stack[-count:] = [unpickler.stack[-count:]]

    return load


class _ArrayUnpickler(pickle._Unpickler):
    """Loads pickles of arrays.

    It is based on the unpickler in Python, because the one in C makes a table as large
    as the highest object number in a file. It loads tuples as lists, because the hash
    of a nested tuple could take forever.
    """

    dispatch = {
        code: load
        for code, load in pickle._Unpickler.dispatch.items()
        if bytes([code]) not in _REFUSED
    } | {
        pickle.EMPTY_TUPLE[0]: pickle._Unpickler.load_empty_list,
        pickle.TUPLE[0]: pickle._Unpickler.load_list,
        pickle.TUPLE1[0]: _as_list(1),
        pickle.TUPLE2[0]: _as_list(2),
        pickle.TUPLE3[0]: _as_list(3),
    }

    def __init__(self, file):
        # Texts of Python 2, such as the contents of its arrays, stay bytes.
        super().__init__(file, encoding="bytes")
        self._encoder = _Encoder()

    def find_class(self, module, name):
        if (module, name) == ("_codecs", "encode"):  # Of the protocols before 3.
            return self._encoder
        if (module, name) not in _STAND_INS:
            raise pickle.UnpicklingError(f"a reference to `{module}.{name}`")
        return _STAND_INS[module, name]


def _pickle_of(data: bytes) -> io.BytesIO:
    """Returns the pickle inside a file by `torch.save` or `numpy.save`, or the file."""
    if data.startswith(_NPY_MAGIC):
        width = 2 if data[6] == 1 else 4
        header = int.from_bytes(data[8 : 8 + width], "little")
        return io.BytesIO(data[8 + width + header :])
    if not zipfile.is_zipfile(io.BytesIO(data)):
        return io.BytesIO(data)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        (pickled,) = [x for x in archive.infolist() if x.filename.endswith("/data.pkl")]
        if pickled.compress_type != zipfile.ZIP_STORED:
            raise ValueError("a compressed archive, which PyTorch does not write")
        return io.BytesIO(archive.read(pickled))


def _load(file: io.BytesIO):
    contents = _ArrayUnpickler(file).load()
    if contents == _LEGACY_TORCH_MAGIC:
        for _ in ("protocol version", "system"):
            _ArrayUnpickler(file).load()
        contents = _ArrayUnpickler(file).load()
    if isinstance(contents, _Array):
        (contents,) = contents.data
    return contents


def _to_numpy(value):
    if not isinstance(value, _Array):
        return value
    code, byte_order = _text(value.dtype.code), _text(value.dtype.byte_order)
    if code not in _DTYPES:
        raise TypeError(f"an array of dtype {shown(code)}")
    if byte_order not in _BYTE_ORDERS:
        raise TypeError("an array of an unknown byte order")
    dtype = np.dtype(code).newbyteorder(byte_order)
    order = "F" if value.is_fortran else "C"
    return np.frombuffer(value.data, dtype).reshape(value.shape, order=order)


def _text(value):
    return value.decode("latin1") if isinstance(value, bytes) else value
