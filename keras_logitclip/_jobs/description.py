"""Descriptions of models, data and functions that can be stored and compared.

A description contains code, not only names, because another function can have the same
name.
"""

import contextlib
import functools
import hashlib
import json
import re
import sys
import sysconfig
import types
import warnings
from collections.abc import Callable

import keras
import numpy as np

# The largest number of characters of a description; the rest becomes a hash.
_LONGEST = 300
_INSTALLED = tuple(
    sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")
)
_OWN = ("keras", "keras_logitclip")


def keras_settings() -> dict[str, str]:
    """Returns the settings of Keras that affect a training."""
    return {
        "backend": keras.config.backend(),
        "floatx": keras.config.floatx(),
        "dtype_policy": keras.config.dtype_policy().name,
        "image_data_format": keras.config.image_data_format(),
    }


def fingerprint(*trees) -> str:
    """Returns a hash of the contents of arrays, including texts."""
    digest = hashlib.sha256()
    for array in keras.tree.flatten(trees):
        array = np.atleast_1d(array)
        digest.update(f"{array.dtype} {array.shape}".encode())
        if array.dtype == object:
            for item in array.ravel():
                digest.update(f"{type(item).__name__} {item!r}\n".encode())
        elif array.size:
            parts = -(-array.nbytes // 2**26)  # Arrays on disk are read in parts.
            for part in np.array_split(array.reshape(len(array), -1), parts):
                digest.update(np.ascontiguousarray(part).view("uint8"))
    return digest.hexdigest()[:16]


def describe(value) -> str:
    """Returns a text that identifies a loss, optimizer, callback or function.

    It contains the configuration of a Keras object, the code of a user's function or
    class and everything that it refers to, and the attributes of other objects.
    """
    return _text(_Description().of(value))


def describe_model(build: Callable[[], keras.Model], inputs=None) -> str:
    """Returns a text that identifies the models that a function builds.

    It builds two models with different seeds. Weights that are equal in both are not
    random, and are part of the description.

    Args:
        build: Function without arguments.
        inputs: A batch with which an unbuilt model is called. Defaults to `None`.

    Raises:
        ValueError: If the models share weights, which earlier trainings would change.
    """
    models = []
    for seed in (0, 1):
        keras.utils.set_random_seed(seed)
        models.append(build())
        if inputs is not None and not models[-1].built:
            models[-1].predict_on_batch(inputs)
    _check_apart(*models)
    pairs = zip(
        *(map(keras.ops.convert_to_numpy, m.variables) for m in models), strict=True
    )
    equal = [one for one, other in pairs if np.array_equal(one, other)]
    model = models[0]
    layers = list(model._flatten_layers())
    try:
        structure = keras.saving.serialize_keras_object(model)
    except Exception:  # Only the code describes a subclassed model.
        structure = [build, layers[1:]]
    described = _Description(
        {layer.name: f"layer {i}" for i, layer in enumerate(layers)}
    )
    classes = {type(layer): None for layer in layers if not _is_installed(type(layer))}
    # In the structure, functions of the user have only a name.
    parts = [_parts(layer) for layer in layers]
    words = [_vocabulary(layer) for layer in layers]
    details = [described.of(one) for one in (structure, [*classes], parts, words)]
    details.append(fingerprint(*equal))
    details += [str(variable.shape) for variable in model.variables]
    return f"{model.count_params()} parameters, {_hash(details)}"


def _check_apart(one, other):
    weights = {id(weight) for weight in one.trainable_variables}
    shared = [w.path for w in other.trainable_variables if id(w) in weights]
    if shared:
        raise ValueError(
            "Expected the function that builds the model to make new weights each "
            "time, because every training begins anew. Make all layers inside of the "
            "function, or freeze them with `layer.trainable = False`. Received: models "
            f"that share {len(shared)} trainable weights, such as {shared[0]!r}"
        )


def _vocabulary(layer):
    """Returns the vocabulary, which neither configuration nor variables contain."""
    with contextlib.suppress(AttributeError, RuntimeError, ValueError):
        return layer.get_vocabulary()  # Some layers raise an error without one.


def _hash(details):
    return hashlib.sha256(json.dumps(details).encode()).hexdigest()[:16]


def _text(described):
    text = json.dumps(described)
    if len(text) <= _LONGEST:
        return text
    return f"{text[:_LONGEST]}..., {_hash(described)}"


def _is_installed(value):
    """Returns whether a class, function or module is part of an installed package."""
    is_module = isinstance(value, types.ModuleType)
    name = getattr(value, "__name__" if is_module else "__module__", None) or ""
    if name.partition(".")[0] in _OWN:
        return True
    if name and name not in sys.modules:  # It was imported only for a study.
        return False
    file = getattr(sys.modules.get(name), "__file__", None)
    return name != "__main__" and (file is None or file.startswith(_INSTALLED))


class _Description:
    """Describes values, each object once, because functions can refer to each other.

    Args:
        names: Replacements of texts. Keras numbers the layers that it names,
            differently in each model.
    """

    def __init__(self, names: dict[str, str] | None = None):
        self.names = names or {}
        self.seen = {}

    def of(self, value):
        if isinstance(value, str):
            return self.names.get(value, value)
        if isinstance(value, bytes):
            return hashlib.sha256(value).hexdigest()[:16]
        if isinstance(value, int | float | complex | None):
            return repr(value)
        if id(value) in self.seen:
            return f"object {self.seen[id(value)][0]}"
        # The value is kept so that no other value gets its address.
        self.seen[id(value)] = (len(self.seen), value)
        return self._of_object(value)

    def _of_object(self, value):
        if isinstance(value, np.ndarray | np.generic):
            return fingerprint(value)
        if keras.ops.is_tensor(value):
            return fingerprint(keras.ops.convert_to_numpy(value))
        if isinstance(value, dict) and value.get("class_name") == "__lambda__":
            return "lambda"  # Keras's form of its code contains lines and files.
        if isinstance(value, dict):
            return [
                [self.of(k), self.of(self._constant(k, v))] for k, v in value.items()
            ]
        if isinstance(value, list | tuple):
            return [self.of(item) for item in value]
        if isinstance(value, set | frozenset):
            return sorted(map(json.dumps, map(self.of, value)))
        if isinstance(value, keras.Variable):
            return str(value.shape)
        if isinstance(value, functools.partial):
            return self.of([value.func, value.args, value.keywords])
        if isinstance(value, types.MethodType):
            return self.of([value.__self__, value.__func__])
        if isinstance(value, types.CodeType):
            code = [value.co_code, value.co_names, value.co_freevars]
            return self.of([*code, *(c for c in value.co_consts if c is not None)])
        if isinstance(value, types.FunctionType) and not _is_installed(value):
            return self._of_function(value)
        if isinstance(value, type) and not _is_installed(value):
            return [value.__qualname__, self.of(_members(value))]
        name = getattr(value, "__qualname__", None) or getattr(value, "__name__", None)
        if name is not None:
            return f"{getattr(value, '__module__', None)}.{name}"
        return self._of_instance(value)

    def _of_function(self, function):
        names = {*_names(function.__code__)}
        return [
            function.__qualname__,
            self.of(function.__code__),
            self.of([function.__defaults__, function.__kwdefaults__]),
            [self.of(_contents(cell)) for cell in function.__closure__ or ()],
            self._of_names(function.__globals__, names),
        ]

    def _of_names(self, namespace, names):
        """Describes the values of names, and the used names of a user's module."""
        described = []
        for name in sorted(names & namespace.keys()):
            value = namespace[name]
            is_own = isinstance(value, types.ModuleType) and not _is_installed(value)
            of = self._of_names(vars(value), names - {name}) if is_own else None
            described.append([name, of if is_own else self.of(value)])
        return described

    def _of_instance(self, value):
        kind = type(value)
        described = [self.of(kind)]
        try:
            with warnings.catch_warnings():  # The configuration is never loaded.
                warnings.simplefilter("ignore")
                described.append(self.of(value.get_config()))
            # Otherwise the configuration is from a parent class.
            complete = _is_installed(kind) or not _is_installed(kind.get_config)
        except (AttributeError, NotImplementedError):
            complete = False
        described.append(self.of(_parts(value)))
        return described if complete else [*described, self._attributes(value)]

    def _constant(self, key, value):
        """Returns a value of a configuration without Keras's numbers."""
        if key == "shared_object_id":
            return None
        if key == "module" and isinstance(value, str):  # A study adds its folder.
            return value.partition(" of ")[0]
        is_name = key == "name" and isinstance(value, str) and value not in self.names
        return re.sub(r"_\d+$", "", value) if is_name else value

    def _attributes(self, value):
        if not hasattr(value, "__dict__"):
            try:
                return self.of(value.__reduce_ex__(2)[1:3])
            except TypeError:  # It cannot be pickled.
                return None
        named = {name for code in _codes(type(value)) for name in _names(code)}
        kept = {
            name: attribute
            for name, attribute in vars(value).items()
            if not name.startswith("_") or name in named
        }
        return self.of(kept)


def _parts(value):
    """Returns the attributes whose code or configuration determines the behaviour."""
    return [
        [name, part]
        for name, part in sorted(getattr(value, "__dict__", {}).items())
        if not isinstance(part, keras.Layer | type)
        and not hasattr(type(value), name)
        and (hasattr(part, "get_config") or _is_own(part))
    ]


def _is_own(value):
    """Returns whether a function, or the class of an object, is the user's."""
    if isinstance(value, functools.partial):
        return _is_own(value.func)
    if isinstance(value, types.MethodType):
        return _is_own(value.__func__)
    is_function = isinstance(value, types.FunctionType)
    return not _is_installed(value if is_function else type(value))


def _members(kind):
    """Returns the members that the user's class and its parents define, in order."""
    return [
        [name, getattr(value, "__func__", getattr(value, "fget", value))]
        for parent in kind.__mro__
        if not _is_installed(parent)
        for name, value in sorted(vars(parent).items())
        if not _is_special(name) or callable(value)
    ]


def _is_special(name):
    """Returns whether every class has this member, such as `__doc__`."""
    return name.startswith("__") or name in ("_abc_impl", "_keras_api_names")


def _codes(kind):
    """Returns the code of the functions that a user's class defines."""
    functions = (getattr(value, "__func__", value) for _, value in _members(kind))
    return [f.__code__ for f in functions if isinstance(f, types.FunctionType)]


def _names(code):
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)


def _contents(cell):
    try:
        return cell.cell_contents
    except ValueError:  # It is empty.
        return None
