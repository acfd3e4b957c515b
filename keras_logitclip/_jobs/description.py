"""What decides a result, in a form that can be stored and compared.

Not names: a function of the same name can do something else.
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

# Longer descriptions are of use to nobody, and are cut down to a hash.
_LONGEST = 300
_INSTALLED = tuple(
    sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")
)
_OWN = ("keras", "keras_logitclip")


def keras_settings() -> dict[str, str]:
    """Returns the settings of Keras that decide a training."""
    return {
        "backend": keras.config.backend(),
        "floatx": keras.config.floatx(),
        "dtype_policy": keras.config.dtype_policy().name,
        "image_data_format": keras.config.image_data_format(),
    }


def fingerprint(*trees) -> str:
    """Returns a hash of all that arrays hold; texts count by their letters."""
    digest = hashlib.sha256()
    for array in keras.tree.flatten(trees):
        array = np.atleast_1d(array)
        digest.update(f"{array.dtype} {array.shape}".encode())
        if array.dtype == object:
            for item in array.ravel():
                digest.update(f"{type(item).__name__} {item!r}\n".encode())
        elif array.size:
            parts = -(-array.nbytes // 2**26)  # Those on the disk are not read at once.
            for part in np.array_split(array.reshape(len(array), -1), parts):
                digest.update(np.ascontiguousarray(part).view("uint8"))
    return digest.hexdigest()[:16]


def describe(value) -> str:
    """Returns what tells a loss, optimizer, callback or function from another one.

    An object of Keras is told by its configuration, a function or class of the user
    by its code and all that it refers to, another object by its attributes.
    """
    return _text(_Description().of(value))


def describe_model(build: Callable[[], keras.Model], inputs=None) -> str:
    """Returns what tells the models that a function builds from others.

    Two of them are built with two seeds: weights that are the same both times are not
    random ones, and belong to the description.

    Args:
        build: Function without arguments.
        inputs: A batch that a model without inputs of its own is called with.
            Defaults to `None`.

    Raises:
        ValueError: If the models share weights, with which trainings would go on.
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
    except Exception:  # Nothing but the code tells what a subclassed model does.
        structure = [build, layers[1:]]
    described = _Description(
        {layer.name: f"layer {i}" for i, layer in enumerate(layers)}
    )
    classes = {type(layer): None for layer in layers if not _is_installed(type(layer))}
    # In the structure, functions of the user have no more than a name.
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
            "time, with which every training begins anew. Received: models that share "
            f"{len(shared)} trainable weights, such as {shared[0]!r}. Make all layers "
            "inside of the function, or freeze them with `layer.trainable = False`"
        )


def _vocabulary(layer):
    """Returns what `adapt` leaves neither in the configuration nor in variables."""
    with contextlib.suppress(AttributeError, RuntimeError, ValueError):
        return layer.get_vocabulary()  # Some raise an error if there is none yet.


def _hash(details):
    return hashlib.sha256(json.dumps(details).encode()).hexdigest()[:16]


def _text(described):
    text = json.dumps(described)
    if len(text) <= _LONGEST:
        return text
    return f"{text[:_LONGEST]}..., {_hash(described)}"


def _is_installed(value):
    """Whether a class, function or module is of a package, and known by its name."""
    is_module = isinstance(value, types.ModuleType)
    name = getattr(value, "__name__" if is_module else "__module__", None) or ""
    if name.partition(".")[0] in _OWN:
        return True
    if name and name not in sys.modules:  # It is imported for a study alone.
        return False
    file = getattr(sys.modules.get(name), "__file__", None)
    return name != "__main__" and (file is None or file.startswith(_INSTALLED))


class _Description:
    """Describes values, each object once: functions can refer to each other.

    Args:
        names: What to write instead of some texts. Keras numbers the layers that it
            names, also in the next model of the same kind.
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
        # The value is kept, lest another one gets its address.
        self.seen[id(value)] = (len(self.seen), value)
        return self._of_object(value)

    def _of_object(self, value):
        if isinstance(value, np.ndarray | np.generic):
            return fingerprint(value)
        if keras.ops.is_tensor(value):
            return fingerprint(keras.ops.convert_to_numpy(value))
        if isinstance(value, dict) and value.get("class_name") == "__lambda__":
            return "lambda"  # As Keras writes its code, lines and files are in it.
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
        """Describes what names mean, and what they name of a module of the user."""
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
            with warnings.catch_warnings():  # This is not saved to be loaded.
                warnings.simplefilter("ignore")
                described.append(self.of(value.get_config()))
            # Else its configuration is that of a parent.
            complete = _is_installed(kind) or not _is_installed(kind.get_config)
        except (AttributeError, NotImplementedError):
            complete = False
        described.append(self.of(_parts(value)))
        return described if complete else [*described, self._attributes(value)]

    def _constant(self, key, value):
        """Returns a value of a configuration without what Keras numbers."""
        if key == "shared_object_id":
            return None
        if key == "module" and isinstance(value, str):  # Of a study: with its folder.
            return value.partition(" of ")[0]
        is_name = key == "name" and isinstance(value, str) and value not in self.names
        return re.sub(r"_\d+$", "", value) if is_name else value

    def _attributes(self, value):
        if not hasattr(value, "__dict__"):
            try:
                return self.of(value.__reduce_ex__(2)[1:3])
            except TypeError:  # It cannot be copied.
                return None
        named = {name for code in _codes(type(value)) for name in _names(code)}
        kept = {
            name: attribute
            for name, attribute in vars(value).items()
            if not name.startswith("_") or name in named
        }
        return self.of(kept)


def _parts(value):
    """Returns the attributes whose code or configuration decides what it does."""
    return [
        [name, part]
        for name, part in sorted(getattr(value, "__dict__", {}).items())
        if not isinstance(part, keras.Layer | type)
        and not hasattr(type(value), name)
        and (hasattr(part, "get_config") or _is_own(part))
    ]


def _is_own(value):
    """Whether a function, or the class of an object, is one of the user."""
    if isinstance(value, functools.partial):
        return _is_own(value.func)
    if isinstance(value, types.MethodType):
        return _is_own(value.__func__)
    is_function = isinstance(value, types.FunctionType)
    return not _is_installed(value if is_function else type(value))


def _members(kind):
    """Returns what a class and its parents define themselves, in their order."""
    return [
        [name, getattr(value, "__func__", getattr(value, "fget", value))]
        for parent in kind.__mro__
        if not _is_installed(parent)
        for name, value in sorted(vars(parent).items())
        if not _is_special(name) or callable(value)
    ]


def _is_special(name):
    """Whether Python or Keras makes a member, such as `__doc__`, of each class."""
    return name.startswith("__") or name in ("_abc_impl", "_keras_api_names")


def _codes(kind):
    """Returns the code of the functions that a class of the user defines itself."""
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
