"""The training of cells, which can be killed and resumed from the last backup."""

import contextlib
import datetime
import gc
import importlib
import json
import logging
import math
import subprocess
import time
from collections.abc import Callable
from functools import cache
from functools import partial
from pathlib import Path

import keras
import numpy as np
from keras.ops import convert_to_numpy

import keras_logitclip
from keras_logitclip import losses
from keras_logitclip._jobs import arrays
from keras_logitclip._jobs import description
from keras_logitclip._jobs import files
from keras_logitclip.callbacks import MemorizationMonitor
from keras_logitclip.losses.presets import PRESETS
from keras_logitclip.losses.presets import has_few_classes
from keras_logitclip.noise import NoisyLabels
from keras_logitclip.study import _config
from keras_logitclip.study import _data
from keras_logitclip.study._functions import import_function
from keras_logitclip.study._plan import Cell

# Number of training samples to measure, half of them with a wrong label.
_MEASURED = 2000
_PREDICT_BATCH = 1000
# The next backup is after this many times the duration of the last one. So backups take
# 2% of a training, and a kill loses an epoch or 50 backups (of banking77: 0.2 s).
_BACKUP_INTERVAL = 50


class Trainer:
    """Trains cells of a study, one after the other.

    A cell with the same loss, method and value as the one before uses its compiled
    model. Everything else is in the variables, and compiling can take longer than a
    training.
    """

    def __init__(self, study: _config.Study, data: _data.Data):
        self.study = study
        self.data = data
        self.samples = data.inputs(np.concatenate([data.x_train, data.x_test]))
        self.compiled_for = self.model = self.optimizer_state = None

    def train(
        self, cell: Cell, noisy: NoisyLabels, backup: Path, on_epoch_end: Callable
    ) -> dict:
        """Trains a cell on noisy labels, and returns its record.

        It calls `on_epoch_end` with the number of epochs and the measurements before
        the backup. If others took over the training, it raises an error, and their
        backup is kept.
        """
        started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        start = time.perf_counter()
        epochs, earlier_seconds = self._fit(cell, noisy, backup, on_epoch_end)
        return {
            "format": _config.FORMAT,
            "study": self.study.name,
            **_as_json(cell),
            "noise_rate": noisy.rate,
            "labels": description.fingerprint(noisy.labels),
            "epochs": epochs,
            "seconds": earlier_seconds + time.perf_counter() - start,
            "config": self.study.config,
            **_versions(),
            "started": started,
        }

    def _fit(self, cell, noisy, backup, on_epoch_end):
        """Returns the measurements, and the seconds of epochs before a kill."""
        settings = self.study.settings
        share = settings.validation_split
        rows, held_out = arrays.split(noisy.labels, share, cell.seed)
        # A smaller last batch would be compiled again for each seed.
        seen = len(rows) - len(rows) % min(settings.batch_size, len(rows))
        measure = self._measurements(noisy, rows, held_out, cell.seed)
        model = self._fresh_model(cell)
        variables = [*model.weights, *model.optimizer.variables]
        epochs = _restore(backup, variables)
        earlier_seconds, next_backup = sum(epochs.get("seconds", [])), 0.0
        # Not before `fit`, which draws random numbers in its first call.
        seed_layers = keras.callbacks.LambdaCallback(
            on_epoch_begin=lambda epoch, logs: _seed_layers(model, cell.seed, epoch)
        )
        for epoch in range(len(epochs.get("loss", [])), settings.epochs):
            start = time.perf_counter()
            model.optimizer.learning_rate = _config.learning_rate(
                settings.optimizer, cell.learning_rate, epoch, settings.epochs
            )
            order = rows[arrays.epoch_order(cell.seed, epoch, len(rows))[:seen]]
            fitted = model.fit(
                self.samples[order],
                noisy.labels[order],
                batch_size=settings.batch_size,
                shuffle=False,
                initial_epoch=epoch,
                epochs=epoch + 1,
                callbacks=[seed_layers],
                verbose=0,
            )
            measured = {"loss": fitted.history["loss"][0], **measure(model)}
            measured["seconds"] = time.perf_counter() - start
            for name, value in measured.items():
                number = float(value) if math.isfinite(value) else None
                epochs.setdefault(name, []).append(number)
            on_epoch_end(epoch + 1, epochs)
            if (start := time.perf_counter()) >= next_backup:
                _save(backup, variables, epochs)
                seconds = time.perf_counter() - start
                next_backup = start + _BACKUP_INTERVAL * seconds
        return epochs, earlier_seconds

    def _measurements(self, noisy, rows, held_out, seed):
        """Returns a function that measures a model for the report."""
        monitor = MemorizationMonitor(
            self.samples[rows],
            NoisyLabels(noisy.labels[rows], noisy.clean[rows], noisy.num_classes),
            sample_size=_MEASURED,
            batch_size=_PREDICT_BATCH,
            seed=seed,
        )
        test = np.arange(len(self.data.x_train), len(self.samples))
        expected = np.concatenate([self.data.y_test, noisy.labels[held_out]])
        # The batches have the size of the monitor's, so that only one size is compiled.
        size = len(monitor.batches[0])
        shape = (-(-len(expected) // size), size)
        batches = np.resize(np.concatenate([test, held_out]), shape)

        def measure(model):
            outputs = [model.predict_on_batch(self.samples[batch]) for batch in batches]
            logits = np.concatenate(outputs)[: len(expected)]
            correct = np.argmax(logits, axis=-1) == expected
            norms = np.linalg.norm(logits[: len(test)].astype("float64"), axis=-1)
            return {
                "accuracy": correct[: len(test)].mean(),
                "noisy_accuracy": correct[len(test) :].mean(),
                **monitor.measure(model),
                "logit_norm": norms.mean(),
            }

        return measure

    def _fresh_model(self, cell):
        """Returns the compiled model, with all variables reset for a new training."""
        keras.utils.set_random_seed(cell.seed)
        model = build_core(self.study, self.data)
        compiled_for = (cell.loss, cell.method, cell.value)
        if self.compiled_for != compiled_for:
            self.model = None
            gc.collect()  # Compiled functions refer to the model, and it to them.
            self._compile(model, cell)
            self.compiled_for, self.model = compiled_for, model
            state = model.optimizer.variables
            self.optimizer_state = [convert_to_numpy(variable) for variable in state]
        self.model.set_weights(model.get_weights())
        _assign(self.model.optimizer.variables, self.optimizer_state)
        return self.model

    def _compile(self, model, cell):
        settings, classes = self.study.settings.optimizer, self.data.num_classes
        optimizer = _config.make_optimizer(settings, cell.learning_rate)
        preset = PRESETS.get(cell.loss)
        if weight := preset and preset.l1[not has_few_classes(classes)]:
            # As in the paper, the penalty replaces weight decay.
            optimizer.weight_decay = None
            for variable in model.trainable_variables:
                variable.regularizer = keras.regularizers.L1(weight)
        model.compile(optimizer, make_loss(self.study, cell, classes))
        model.optimizer.build(model.trainable_variables)


def is_record_of(cell: Cell, record: dict) -> bool:
    """Returns whether a record is of this cell, not only its file name."""
    return record == {**record, **_as_json(cell)}


def _as_json(cell):
    value = "inf" if cell.value == math.inf else cell.value
    return {**cell._asdict(), "value": value}


def _seed_layers(model, seed, epoch):
    """Seeds dropout and augmentation by the epoch.

    So a resumed training draws the same numbers. A backup could not hold all random
    states.
    """
    rng = np.random.default_rng((seed, epoch, 1))
    if keras.config.backend() == "torch":  # Its dropout has a global state.
        keras.utils.set_random_seed(int(rng.integers(2**31)))
    weights = {id(variable) for variable in model.weights}
    for variable in model.variables:
        if id(variable) not in weights:
            state = rng.integers(2**31, size=variable.shape)
            variable.assign(state.astype(variable.dtype))


def _save(path, variables, epochs):
    """Saves everything in one file, so that a kill cannot separate the parts.

    Not in HDF5, whose library can crash if the disk is full.
    """
    values = {f"variable {i}": convert_to_numpy(v) for i, v in enumerate(variables)}
    with files.replacing(path) as unfinished, unfinished.open("wb") as file:
        np.savez(file, epochs=json.dumps(epochs), **values)


def _restore(path, variables):
    """Restores the variables, and returns the measurements of the epochs before."""
    try:
        # NumPy would leave an unreadable file open.
        with path.open("rb") as file, np.load(file) as saved:
            if any(member.compress_type for member in saved.zip.infolist()):
                raise ValueError("It is compressed, and could have any size.")
            epochs = json.loads(str(saved["epochs"]))
            values = [saved[f"variable {i}"] for i in range(len(variables))]
        shapes = [tuple(variable.shape) for variable in variables]
        if not len(epochs["loss"]) or [value.shape for value in values] != shapes:
            raise ValueError("It belongs to another training.")
    except FileNotFoundError:
        return {}
    except Exception as error:  # A damaged file can cause any error.
        logging.getLogger(__name__).warning(
            "The backup %s cannot be used; the cell is trained from the start. %s",
            path,
            error,
        )
        return {}
    _assign(variables, values)
    return epochs


def _assign(variables, values):
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def make_loss(study: _config.Study, cell: Cell, classes: int) -> keras.losses.Loss:
    """Returns the loss of a cell with its method."""
    wrap = {
        "plain": lambda loss, value: loss,
        "tau": losses.LogitClipLoss,
        "normalized_tau": partial(losses.LogitClipLoss, normalize_gradient=True),
        "value_limit": losses.LogitValueClip,
        "norm_penalty": losses.NormPenalty,
    }
    return wrap[cell.method](build_loss(study, cell.loss, classes), cell.value)


def build_loss(study: _config.Study, name: str, classes: int) -> keras.losses.Loss:
    """Builds a loss with its paper's values, or a loss of the user."""
    if ":" not in name:
        return losses.preset(name, classes)
    loss = import_function(study, name)(classes)
    if not isinstance(loss, keras.losses.Loss):
        raise ValueError(
            f"Expected {name!r} to return a `keras.losses.Loss`. Received: {loss!r}"
        )
    return loss


def build_core(study: _config.Study, data: _data.Data) -> keras.Model:
    """Builds the model of a study."""
    name, arguments = study.settings.model.name, study.settings.model.arguments
    shape = data.x_train.shape[1:]
    model = import_function(study, name)(shape, data.num_classes, **arguments)
    if not isinstance(model, keras.Model) or model.compiled:
        raise ValueError(
            f"Expected {name!r} to return a model that is not compiled. Received: "
            f"{'a compiled one' if hasattr(model, 'compiled') else type(model)}"
        )
    outputs = getattr(model(keras.Input(shape)), "shape", None)
    if outputs != (None, data.num_classes):
        raise ValueError(
            f"Expected {name!r} to return a model with one output of shape "
            f"{(None, data.num_classes)}, a logit for each class. Received: {outputs}"
        )
    return model


@cache
def _versions():
    """Returns the versions that results depend on, and the Git commit."""
    backend = importlib.import_module(keras.config.backend())
    modules = (keras_logitclip, keras, np, backend)
    found = {"versions": {m.__name__: m.__version__ for m in modules}, "commit": None}
    folder = Path(__file__).parents[2]
    if (folder / ".git").exists():
        command = ["git", "-C", folder, "rev-parse", "--short", "HEAD"]
        with contextlib.suppress(OSError):  # Git is not installed.
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            found["commit"] = done.stdout.strip() or None
    return found
