"""Study files for the tests, a module of data and models that they name, and helpers
for both."""

import copy
import datetime
import json
from pathlib import Path

import keras
import pytest

from keras_logitclip import study
from keras_logitclip.study import _run

BACKEND = keras.config.backend()
# The backend of the study file, which has to support training.
TRAINED_ON = BACKEND if BACKEND in ("tensorflow", "jax", "torch") else "jax"

MODULE = '''
import keras
import numpy as np


def load():
    rng = np.random.default_rng(0)
    centers = rng.integers(60, 200, (4, 6))
    labels = np.arange(320) % 4
    samples = centers[labels] + rng.integers(-40, 40, (320, 6))
    samples = samples.astype("uint8")
    return samples[:240], labels[:240], samples[240:], labels[240:]


def images():
    x_train, y_train, x_test, y_test = load()
    return x_train.reshape(-1, 2, 3), y_train, x_test.reshape(-1, 2, 3), y_test


def ten():
    x_train, _, x_test, y_test = load()
    return x_train, np.arange(240) % 10, x_test, y_test


def random_model(shape, num_classes, width=8):
    """With states of all kinds: of random numbers, of averages."""
    return keras.Sequential(
        [
            keras.Input(shape),
            keras.layers.Dense(width, "relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.3),
            keras.layers.Dense(num_classes),
        ]
    )


def flat_model(shape, num_classes):
    layers = [keras.layers.Flatten(), keras.layers.Dense(num_classes)]
    return keras.Sequential([keras.Input(shape), *layers])


class Smoothed(keras.losses.Loss):
    def call(self, y_true, y_pred):
        labels = keras.ops.cast(y_true, "int32")
        targets = 0.9 * keras.ops.one_hot(labels, 4) + 0.025
        return keras.losses.categorical_crossentropy(targets, y_pred, from_logits=True)


def smoothed(num_classes):
    return Smoothed()


def no_loss(num_classes):
    return "mse"


def probabilities(shape, num_classes):
    outputs = keras.layers.Dense(num_classes, activation="softmax")
    return keras.Sequential([keras.Input(shape), outputs])


def compiled_model(shape, num_classes):
    model = random_model(shape, num_classes)
    model.compile("sgd", "mse")
    return model


def narrow_model(shape, num_classes):
    return random_model(shape, num_classes - 1)


def no_model(shape, num_classes):
    return shape


def nothing():
    return None


def other_lengths():
    x_train, y_train, x_test, y_test = load()
    return x_train[1:], y_train, x_test, y_test


def other_shapes():
    x_train, y_train, x_test, y_test = load()
    return x_train, y_train, x_test[:, 1:], y_test


def one_hot():
    x_train, y_train, x_test, y_test = load()
    return x_train, np.eye(4)[y_train], x_test, y_test


def negative():
    x_train, y_train, x_test, y_test = load()
    return x_train, y_train - 1, x_test, y_test


def mixed():
    x_train, y_train, *_ = load()
    return x_train, np.array([None, *y_train[1:]], object)


def text():
    x_train, y_train, x_test, y_test = load()
    return x_train.astype(str), y_train, x_test.astype(str), y_test
'''

SETTINGS = {
    "epochs": 3,
    "batch_size": 64,
    "seeds": 1,
    "data": {"name": "study_samples:load"},
    "model": {"name": "mlp", "width": 8},
    "optimizer": {"name": "sgd", "learning_rate": 0.1, "momentum": 0.9},
    "noise": [{"kind": "symmetric", "rate": 0.4}],
    "methods": [{"losses": ["CE"]}],
}


def changed(settings: dict, changes: dict) -> dict:
    """Returns settings with other values; `None` removes one."""
    result = dict(settings)
    for name, value in changes.items():
        if isinstance(value, dict) and isinstance(result.get(name), dict):
            value = changed(result[name], value)
        result[name] = value
    return {name: value for name, value in result.items() if value is not None}


def write_study(folder: Path, changes: dict, name: str = "small.toml") -> Path:
    """Writes a study file and the module beside it."""
    (folder / "study_samples.py").write_text(MODULE)
    path = folder / name
    path.write_text(_to_toml(changed(SETTINGS, changes)))
    return path


def _to_toml(settings):
    lines, sections = [], []
    for name, value in settings.items():
        if isinstance(value, dict):
            sections += [f"[{name}]", *_lines(value)]
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            for section in value:
                sections += [f"[[{name}]]", *_lines(section)]
        else:
            lines += _lines({name: value})
    return "\n".join([*lines, *sections])


def _lines(section):
    return [f"{name} = {_value(value)}" for name, value in section.items()]


def _value(value):
    if isinstance(value, datetime.date):
        return value.isoformat()
    return json.dumps(value).replace("Infinity", "inf")


@pytest.fixture(autouse=True)
def own_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # Otherwise the command would set them for this process and its children.
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "")
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")


def load(folder=Path("."), name="small.toml", **changes):
    return study.load(write_study(folder, {"backend": TRAINED_ON, **changes}, name))


def run(loaded, **arguments):
    pytest.importorskip("optuna")
    return study.run(loaded, **{"verbose": False, **arguments})


def store_running_trial(loaded, results, job):
    """Stores a cell that a process on another machine is training."""
    optuna = pytest.importorskip("optuna")
    opened = _run.open_store(loaded, results, None)
    attributes = {"job": job, "process": ["another machine", 1]}
    state = optuna.trial.TrialState.RUNNING
    opened.add_trial(optuna.trial.create_trial(state=state, user_attrs=attributes))


def own_data(name):
    return {"data": {"name": f"study_samples:{name}"}}


def own_model(name, **arguments):
    return {"model": {"name": f"study_samples:{name}", "width": None, **arguments}}


def without_times(record):
    record = copy.deepcopy(record)
    for name in ("seconds", "started"):
        del record[name]
    del record["epochs"]["seconds"]
    return record
