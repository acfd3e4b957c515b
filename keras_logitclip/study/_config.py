"""Reads study files in TOML and checks them before any training."""

import functools
import itertools
import json
import math
import random
import re
import reprlib
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated
from typing import Literal
from typing import NamedTuple

import keras
import msgspec

from keras_logitclip import noise as noises
from keras_logitclip.losses.presets import find_name
from keras_logitclip.study.models import MODELS

_FUNCTION = re.compile(r"[\w.]+:\w+")
FORMAT = 2  # Of records. Raised if older versions could not use new ones.
BACKENDS = ("tensorflow", "jax", "torch")
SCHEDULES = ("constant", "steps", "cosine")
# The built-in data sets, and the classes that are confused in them.
CONFUSIONS = {
    "digits": noises.MNIST_CONFUSIONS,
    "mnist": noises.MNIST_CONFUSIONS,
    "fashion_mnist": noises.FASHION_MNIST_CONFUSIONS,
    "cifar10": noises.CIFAR10_CONFUSIONS,
    "cifar100": noises.CIFAR100_SUPERCLASSES,
}

Count = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]
Share = Annotated[float, msgspec.Meta(gt=0, lt=1)]
Rate = Annotated[float, msgspec.Meta(gt=0, le=1)]
Positive = Annotated[float, msgspec.Meta(gt=0, le=1e30)]
Tau = Annotated[float, msgspec.Meta(gt=0)]  # `inf` clips nothing.
LearningRates = Annotated[tuple[Positive, ...], msgspec.Meta(min_length=1)]


class Section(msgspec.Struct, forbid_unknown_fields=True):
    """Base of the sections of a study file, which `docs/studies.md` describes."""


class DataSettings(Section):
    name: str
    train_samples: Count | None = None
    test_samples: Count | None = None
    standardize: bool = False
    test_split: Share = 0.2
    test: str | None = None
    label: str | None = None
    text: str | None = None
    features: Count = 300

    def __post_init__(self):
        is_table = self.name.endswith(".csv")
        if not is_table and not self.name.endswith(".npz"):
            _check_name("data", self.name, [*CONFUSIONS, "FILE.npz", "FILE.csv"])
        if is_table != bool(self.label) or (not is_table and (self.text or self.test)):
            raise ValueError(
                "expected `label` in [data], the name of a column, if the data are a "
                "table, and `label`, `text` and `test` only for tables. "
                f"Received: {self}"
            )


class ModelSettings(Section):
    name: str
    arguments: dict

    def __post_init__(self):
        _check_name("model", self.name, MODELS)


class OptimizerSettings(Section, kw_only=True):
    name: str
    learning_rates: LearningRates
    schedule: Literal[SCHEDULES] = "constant"
    boundaries: tuple[Share, ...] = ()
    factor: Positive = 0.1
    arguments: dict

    def __post_init__(self):
        growing = sorted(set(self.boundaries)) == list(self.boundaries)
        if not growing or bool(self.boundaries) != (self.schedule == "steps"):
            raise ValueError(
                "expected `boundaries` in [optimizer] if and only if "
                '`schedule = "steps"`: growing shares of the training, such as '
                "[0.4, 0.7]. "
                f"Received: {list(self.boundaries)}, schedule {self.schedule!r}"
            )
        if make_optimizer(self, self.learning_rates[0]).use_ema:
            raise ValueError(
                "expected no `use_ema` in [optimizer], because Keras replaces the "
                "weights by their averages at the end of `fit`, which a study calls "
                "for each epoch"
            )


class Noise(Section, tag_field="kind"):
    """Base of the kinds of noise."""

    @property
    def kind(self) -> str:
        return self.__struct_config__.tag

    @property
    def name(self) -> str:
        rate = f"{self.rate:g}" if hasattr(self, "rate") else ""
        detail = getattr(self, "labels", rate)
        return f"{self.kind.replace('_', '-')} {detail}".strip()


class Clean(Noise, tag="clean"):
    pass


class Symmetric(Noise, tag="symmetric"):
    rate: Rate
    exact: bool = False
    include_true_class: bool = False


class Asymmetric(Noise, tag="asymmetric"):
    rate: Rate
    exact: bool = False
    mapping: list[int] | None = None


class PairFlip(Noise, tag="pair_flip"):
    rate: Rate
    exact: bool = False


class InstanceDependent(Noise, tag="instance_dependent"):
    rate: Rate
    scale: Positive = 1.0


class Human(Noise, tag="human"):
    file: str
    labels: str


class MethodSettings(Section):
    losses: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    plain: bool = True
    taus: tuple[Tau, ...] = ()
    normalize_gradient: bool = False
    value_limits: tuple[Positive, ...] = ()
    norm_penalties: tuple[Positive, ...] = ()
    learning_rates: LearningRates | None = None

    def __post_init__(self):
        self.losses = tuple(map(_check_loss, self.losses))
        if not any(self.values.values()) or self.normalize_gradient > bool(self.taus):
            raise ValueError(
                "expected [[methods]] with `plain = true` or values of `taus`, "
                "`value_limits` or `norm_penalties`; `normalize_gradient` needs "
                f"`taus`. Received: {self}"
            )

    @property
    def values(self) -> dict[str, tuple]:
        """Returns the values of each method."""
        return {
            "plain": (None,) if self.plain else (),
            "normalized_tau" if self.normalize_gradient else "tau": self.taus,
            "value_limit": self.value_limits,
            "norm_penalty": self.norm_penalties,
        }


AnyNoise = Clean | Symmetric | Asymmetric | PairFlip | InstanceDependent | Human


class Settings(Section, kw_only=True):
    backend: Literal[BACKENDS] | None = None
    epochs: Count
    batch_size: Count = 128
    seeds: Count = 1
    select_seeds: Count | None = None
    trials: Count | None = None
    validation_split: Share = 0.1
    data: DataSettings
    model: ModelSettings
    optimizer: OptimizerSettings
    noise: Annotated[tuple[AnyNoise, ...], msgspec.Meta(min_length=1)]
    methods: Annotated[tuple[MethodSettings, ...], msgspec.Meta(min_length=1)]

    def __post_init__(self):
        names = [noise.name for noise in self.noise]
        if len(set(names)) < len(names):
            raise ValueError(f"expected each noise once. Received: {', '.join(names)}")
        fewest = min(map(len, _candidates(self).values()))
        if fewest < (self.trials or 0):
            raise ValueError(
                f"expected at most {fewest} `trials`, because one of the methods has "
                "only that many pairs of a value and a learning rate. Received: "
                f"{self.trials}"
            )


class Candidate(NamedTuple):
    """Holds a value of a method, `None` for `"plain"`, and a learning rate."""

    value: float | None
    learning_rate: float


@dataclass(frozen=True)
class Study:
    """Holds the settings of a study. `study.load` reads it from a file.

    Attributes:
        name: The name of the study, which is the name of the file.
        folder: The folder of the study file, and of the modules and files that it
            names.
        settings: All settings, including defaults.
    """

    name: str
    folder: Path
    settings: Settings

    @property
    def noises(self) -> dict[str, Noise]:
        """Returns the kinds of noise by their names."""
        return {noise.name: noise for noise in self.settings.noise}

    @functools.cached_property
    def candidates(self) -> dict[tuple[str, str], list[Candidate]]:
        """Returns the candidates of each loss and method."""
        return _candidates(self.settings)

    @property
    def config(self) -> dict:
        """Returns all settings as JSON-able values, with "inf" for infinity."""
        encoded = json.dumps(msgspec.to_builtins(self.settings))
        return json.loads(encoded, parse_constant=lambda name: str(float(name)))


def _candidates(settings):
    found = {}
    for section in settings.methods:
        rates = section.learning_rates or settings.optimizer.learning_rates
        for loss, method in itertools.product(section.losses, section.values):
            of = found.setdefault((loss, method), {})
            for pair in itertools.product(section.values[method], rates):
                of[Candidate(*pair)] = None
    return {key: _draw(key, of, settings.trials) for key, of in found.items() if of}


def _draw(key, candidates, trials):
    """Returns this number of candidates, or all of them for `None`.

    The rank of a candidate in the draw depends only on itself. So more trials keep the
    drawn candidates, and more candidates replace few of them.
    """

    def place(candidate):
        return random.Random(repr((*key, *candidate))).random()

    drawn = sorted(candidates, key=place)[:trials]
    return [candidate for candidate in candidates if candidate in drawn]


def load(path: str | Path) -> Study:
    """Reads a study file.

    Args:
        path: A TOML file, which `docs/studies.md` describes.

    Returns:
        A `Study`.

    Raises:
        ValueError: If the file is not TOML, or if a setting is invalid.
        OSError: If the file cannot be read.
    """
    path = Path(path)
    try:
        contents = tomllib.loads(path.read_text(encoding="utf-8-sig"))
        if not re.fullmatch(r"\w[\w.-]*", path.stem):
            raise ValueError(
                "expected a file name of letters, digits and `_`, `.`, `-`. "
                f"Received: {path.name!r}"
            )
        study = Study(path.stem, path.parent, _settings(contents))
        _ = study.config  # Fails for nesting that is too deep to be recorded.
        return study
    except (ValueError, RecursionError) as error:
        raise ValueError(f"Cannot use {path.name}: {error}") from error


_CHOICES = {
    "kind": [kind.__struct_config__.tag for kind in Noise.__subclasses__()],
    "schedule": SCHEDULES,
    "backend": BACKENDS,
}


def _settings(contents):
    for name, kind in (("model", ModelSettings), ("optimizer", OptimizerSettings)):
        if isinstance(section := contents.get(name), dict):
            contents[name] = _with_arguments(section, kind.__struct_fields__)
    try:
        return msgspec.convert(contents, Settings)
    except msgspec.ValidationError as error:
        # The cause is the error of a section's own check.
        raise error.__cause__ or _explained(str(error), contents) from error


def _with_arguments(section, fields):
    """Returns a section in which `arguments` has the keys that are not fields."""
    arguments = dict(section)
    if "learning_rate" in section and "learning_rates" in {*fields} - section.keys():
        arguments["learning_rates"] = [arguments.pop("learning_rate")]
    known = [key for key in fields if key in arguments and key != "arguments"]
    return {**{key: arguments.pop(key) for key in known}, "arguments": arguments}


def _explained(message, contents):
    """Adds the received value to an error of msgspec, which has only its place."""
    problem, _, path = message.partition(" - at `$.")
    expected = problem.partition(", got")[0]
    received, names = contents, re.findall(r"\w+", path)
    for name in names:
        received = received[int(name) if isinstance(received, list) else name]
    if expected.startswith("Invalid"):
        expected = f"Expected one of {', '.join(_CHOICES[names[-1]])}"
    place = f"`{path.strip('`')}`" if path else "the study"
    return ValueError(f"{expected} in {place}. Received: {reprlib.repr(received)}")


def _check_loss(name):
    return name if _FUNCTION.fullmatch(name) else find_name(name)


def _check_name(section, name, choices):
    if name not in choices and not _FUNCTION.fullmatch(name):
        raise ValueError(
            f"expected `name` in [{section}] to be one of {', '.join(choices)}, or a "
            f'function of yours as "module:function". Received: {name!r}'
        )


def make_optimizer(section: OptimizerSettings, rate: float):
    """Returns the optimizer of a study, or raises an error for its settings."""
    try:
        optimizer = type(keras.optimizers.get(section.name))
        return optimizer(learning_rate=rate, **section.arguments)
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"expected name and arguments of a Keras optimizer in [optimizer]. {error}"
        ) from error


def learning_rate(section: OptimizerSettings, rate: float, epoch: int, epochs: int):
    """Returns the learning rate of an epoch, the first of which is 0."""
    if section.schedule == "cosine":
        return rate * (1 + math.cos(math.pi * epoch / epochs)) / 2
    passed = sum(round(share * epochs) <= epoch for share in section.boundaries)
    return rate * section.factor**passed
