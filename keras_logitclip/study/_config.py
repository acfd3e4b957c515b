"""Study files: what a study compares, in TOML, checked before any training."""

import dataclasses
import json
import math
import re
import tomllib
from pathlib import Path
from typing import NamedTuple

import keras

from keras_logitclip import noise as noises
from keras_logitclip.losses.presets import find_name
from keras_logitclip.study.models import MODELS

# Of settings and records. Raised when older versions could not use them.
FORMAT = 1
BACKENDS = ("tensorflow", "jax", "torch")
DATA = ("digits", "mnist", "fashion_mnist", "cifar10", "cifar100")
SCHEDULES = ("constant", "steps", "cosine")
CONFUSIONS = {
    "digits": noises.MNIST_CONFUSIONS,
    "mnist": noises.MNIST_CONFUSIONS,
    "fashion_mnist": noises.FASHION_MNIST_CONFUSIONS,
    "cifar10": noises.CIFAR10_CONFUSIONS,
    "cifar100": noises.CIFAR100_SUPERCLASSES,
}

_FUNCTION = re.compile(r"[\w.]+:\w+")
_NAME = re.compile(r"\w[\w.-]*")
_REQUIRED = object()


class Key(NamedTuple):
    """A key of a section: the type of its value, and the default if it has one."""

    type: type
    default: object = _REQUIRED


_STUDY = {
    "backend": Key(str, "tensorflow"),
    "epochs": Key(int),
    "batch_size": Key(int, 128),
    "seeds": Key(int, 1),
    "validation_split": Key(float, 0.1),
    "data": Key(dict),
    "model": Key(dict),
    "optimizer": Key(dict),
    "noise": Key(list),
    "methods": Key(list),
}
_DATA = {
    "name": Key(str),
    "train_samples": Key(int, None),
    "test_samples": Key(int, None),
    "standardize": Key(bool, False),
}
_OPTIMIZER = {
    "name": Key(str),
    "learning_rate": Key(float),
    "schedule": Key(str, "constant"),
    "boundaries": Key(list, []),
    "factor": Key(float, 0.1),
}
_METHODS = {
    "losses": Key(list),
    "plain": Key(bool, True),
    "taus": Key(list, []),
    "value_limits": Key(list, []),
    "norm_penalties": Key(list, []),
}
_RATE = {"rate": Key(float), "exact": Key(bool, False)}
_NOISE = {
    "clean": {},
    "symmetric": {**_RATE, "include_true_class": Key(bool, False)},
    "asymmetric": {**_RATE, "mapping": Key(list, None)},
    "pair_flip": _RATE,
    "instance_dependent": {"rate": Key(float), "scale": Key(float, 1.0)},
    "human": {"file": Key(str), "labels": Key(str)},
}


class Cell(NamedTuple):
    """One training of a study.

    Attributes:
        noise: Name of the noise.
        loss: Name of the loss.
        method: `"plain"`, `"tau"`, `"value_limit"` or `"norm_penalty"`.
        value: The value of the method, `None` for `"plain"`.
        seed: Seed of noise, split and training.
    """

    noise: str
    loss: str
    method: str
    value: float | None
    seed: int


@dataclasses.dataclass(frozen=True)
class Study:
    """What a study compares. `study.load` makes one from a file.

    Attributes:
        name: The name: that of the file.
        folder: The folder of the file. Files that it names are relative to it.
        settings: All settings, with the defaults of those left out.
    """

    name: str
    folder: Path
    settings: dict

    @property
    def noises(self) -> dict[str, dict]:
        """The kinds of noise by their names."""
        return {noise_name(noise): noise for noise in self.settings["noise"]}

    @property
    def cells(self) -> list[Cell]:
        """All trainings: those of one seed before those of the next."""
        methods = [
            (loss, *method)
            for section in self.settings["methods"]
            for loss in section["losses"]
            for method in _methods(section)
        ]
        return [
            Cell(noise, *method, seed)
            for seed in range(self.settings["seeds"])
            for noise in self.noises
            for method in dict.fromkeys(methods)
        ]


def noise_name(noise: dict) -> str:
    """Returns the name of a noise: its kind and its rate or label set."""
    details = [f"{noise['rate']:g}"] if "rate" in noise else []
    details += [noise["labels"]] if "labels" in noise else []
    return " ".join([noise["kind"].replace("_", "-"), *details])


def _methods(section):
    if section["plain"]:
        yield "plain", None
    for key, method in (
        ("taus", "tau"),
        ("value_limits", "value_limit"),
        ("norm_penalties", "norm_penalty"),
    ):
        for value in section[key]:
            yield method, value


def load(path: str | Path) -> Study:
    """Reads a study file.

    Args:
        path: A TOML file; `docs/studies.md` describes what is in it.

    Returns:
        A `Study`.

    Raises:
        ValueError: If the file is no TOML, or says what cannot be done.
        OSError: If it cannot be read.
    """
    path = Path(path)
    try:
        contents = tomllib.loads(path.read_text(encoding="utf-8"))
        name = path.stem
        if not _NAME.fullmatch(name):
            raise ValueError(
                "expected a file name of letters, digits and `_`, `.`, `-`. "
                f"Received: {path.name!r}"
            )
        return Study(name, path.parent, check_settings(contents))
    # The latter two for numbers and for nesting without end.
    except (ValueError, OverflowError, RecursionError) as error:
        raise ValueError(f"Cannot use {path.name}: {error}") from error


def check_settings(contents: dict) -> dict:
    """Returns the settings of a study, with defaults for those left out.

    Raises:
        ValueError: If a key is unknown or missing, or a value impossible.
    """
    settings = _section("the study", contents, _STUDY)
    _check_choice("`backend`", settings["backend"], BACKENDS)
    for name in ("epochs", "batch_size", "seeds"):
        _check_positive(name, settings[name])
    if not 0 < settings["validation_split"] < 1:
        raise ValueError(
            "expected `validation_split` between 0 and 1. "
            f"Received: {settings['validation_split']}"
        )
    settings["data"] = data = _section("[data]", settings["data"], _DATA)
    _check_choice("`name` in [data]", data["name"], DATA, or_function=True)
    for name in ("train_samples", "test_samples"):
        if data[name] is not None:
            _check_positive(name, data[name])
    _check_model(settings["model"])
    settings["optimizer"] = _check_optimizer(settings["optimizer"])
    settings["noise"] = [_check_noise(noise, data) for noise in settings["noise"]]
    settings["methods"] = [_check_methods(section) for section in settings["methods"]]
    for name in ("noise", "methods"):
        if not settings[name]:
            raise ValueError(f"expected at least one section [[{name}]]")
    names = [noise_name(noise) for noise in settings["noise"]]
    if len(set(names)) < len(names):
        raise ValueError(f"expected each noise once. Received: {', '.join(names)}")
    _check_storable(settings)
    return settings


def _check_storable(settings):
    """Raises for what TOML has and a record cannot hold: dates, inf and nan."""
    for name, section in settings.items():
        try:
            json.dumps(section, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"expected `{name}` to have finite numbers, strings, booleans and "
                f"lists of them. Received: {section!r}"
            ) from error


def _section(title, section, keys, others_allowed=False):
    """Returns a section with all the keys that it can have, of the right types."""
    if not isinstance(section, dict):
        raise ValueError(f"expected {title} to be a table. Received: {section!r}")
    unknown = [key for key in section if key not in keys]
    if unknown and not others_allowed:
        raise ValueError(
            f"expected no other keys in {title} than {', '.join(keys)}. "
            f"Received: {', '.join(unknown)}"
        )
    complete = {}
    for name, key in keys.items():
        value = section.get(name, key.default)
        if value is _REQUIRED:
            raise ValueError(f"expected `{name}` in {title}. Received: none")
        if name in section:
            value = _check_type(title, name, value, key.type)
        complete[name] = value
    return {**section, **complete}


def _check_type(title, name, value, expected):
    if expected is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not expected:
        raise ValueError(
            f"expected `{name}` in {title} to be of type {expected.__name__}. "
            f"Received: {value!r}"
        )
    return value


def _check_choice(name, value, choices, or_function=False):
    if isinstance(value, str) and (
        value in choices or (or_function and _FUNCTION.fullmatch(value))
    ):
        return
    other = ', or a function of yours as "module:function"' if or_function else ""
    raise ValueError(
        f"expected {name} to be one of {', '.join(choices)}{other}. Received: {value!r}"
    )


def _check_positive(name, value):
    if not (value > 0 and math.isfinite(value)):
        raise ValueError(f"expected `{name}` to be above zero. Received: {value}")


def _check_model(section):
    if not isinstance(section.get("name"), str):
        raise ValueError("expected `name` in [model] to be a string")
    _check_choice("`name` in [model]", section["name"], MODELS, or_function=True)


def _check_optimizer(section):
    section = _section("[optimizer]", section, _OPTIMIZER, others_allowed=True)
    _check_choice("`schedule` in [optimizer]", section["schedule"], SCHEDULES)
    _check_positive("learning_rate", section["learning_rate"])
    _check_positive("factor", section["factor"])
    boundaries = section["boundaries"]
    if bool(boundaries) != (section["schedule"] == "steps"):
        raise ValueError(
            'expected `boundaries` in [optimizer] with `schedule = "steps"`, and only '
            f"then. Received: {boundaries}, schedule {section['schedule']!r}"
        )
    in_range = all(isinstance(b, float) and 0 < b < 1 for b in boundaries)
    if not in_range or sorted(set(boundaries)) != boundaries:
        raise ValueError(
            "expected `boundaries` in [optimizer] to be growing shares of the "
            f"training, such as [0.4, 0.7]. Received: {boundaries}"
        )
    make_optimizer(section, steps=100)
    return section


def make_optimizer(section: dict, steps: int) -> keras.optimizers.Optimizer:
    """Returns the optimizer of a study for a training of so many steps.

    Raises:
        ValueError: If Keras has no such optimizer, or one without such an argument.
    """
    rate = section["learning_rate"]
    if section["schedule"] == "steps":
        boundaries = [max(1, round(share * steps)) for share in section["boundaries"]]
        values = [rate * section["factor"] ** i for i in range(len(boundaries) + 1)]
        rate = keras.optimizers.schedules.PiecewiseConstantDecay(boundaries, values)
    elif section["schedule"] == "cosine":
        rate = keras.optimizers.schedules.CosineDecay(rate, steps)
    arguments = {key: value for key, value in section.items() if key not in _OPTIMIZER}
    try:
        optimizer = type(keras.optimizers.get(section["name"]))
        return optimizer(learning_rate=rate, **arguments)
    except (ValueError, TypeError) as error:
        raise ValueError(f"expected another [optimizer]. {error}") from error


def _check_noise(section, data):
    kind = section.get("kind") if isinstance(section, dict) else section
    _check_choice("`kind` in [[noise]]", kind, _NOISE)
    title = f'[[noise]] of kind "{kind}"'
    section = _section(title, section, {"kind": Key(str), **_NOISE[kind]})
    if not 0 < section.get("rate", 0.5) <= 1:
        raise ValueError(
            f"expected `rate` in {title} above 0 and at most 1. "
            f"Received: {section['rate']}"
        )
    _check_positive("scale", section.get("scale", 1.0))
    if section.get("mapping", ()) is None:
        if data["name"] not in CONFUSIONS:
            raise ValueError(
                f"expected `mapping` in {title}, a list with the class that each "
                "class becomes, because the data are your own"
            )
        section["mapping"] = list(CONFUSIONS[data["name"]])
    return section


def _check_methods(section):
    section = _section("[[methods]]", section, _METHODS)
    section["losses"] = [find_name(loss) for loss in section["losses"]]
    values = {
        name: [_check_type("[[methods]]", name, v, float) for v in section[name]]
        for name in ("taus", "value_limits", "norm_penalties")
    }
    for name, numbers in values.items():
        for number in numbers:
            _check_positive(name, number)
    section.update(values)
    if not section["losses"] or not any(True for _ in _methods(section)):
        raise ValueError(
            "expected [[methods]] with `losses`, and with `plain = true` or values of "
            f"`taus`, `value_limits` or `norm_penalties`. Received: {section}"
        )
    return section
