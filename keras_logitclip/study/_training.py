"""The training of one cell, which can be killed and goes on at its last backup."""

import contextlib
import datetime
import gc
import importlib.metadata
import json
import logging
import math
import os
import subprocess
import time
from collections.abc import Callable
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
from keras import ops

from keras_logitclip._labels import look_like_probabilities
from keras_logitclip.noise import NoisyLabels
from keras_logitclip.study import models
from keras_logitclip.study._config import FORMAT
from keras_logitclip.study._config import Cell
from keras_logitclip.study._config import Study
from keras_logitclip.study._config import make_optimizer
from keras_logitclip.study._data import Data
from keras_logitclip.study._data import import_function
from keras_logitclip.study._losses import l1_weight
from keras_logitclip.study._losses import make_loss
from keras_logitclip.tuning._checks import split

# How many samples with a wrong label to follow, at most.
_FOLLOWED = 2000
_PREDICT_BATCH = 1000
# A backup after so many times the time that the last one took.
_BACKUP_INTERVAL = 20


class Lookup(keras.layers.Layer):
    """Samples by their positions, so that all of them stay on the device.

    They are a weight, for only weights are handed to a compiled step without being
    copied into it.
    """

    def __init__(self, samples, scale, offset):
        super().__init__()
        self.samples = self.add_weight(
            shape=samples.shape,
            dtype=samples.dtype.name,
            initializer=lambda shape, dtype: ops.convert_to_tensor(samples),
            trainable=False,
            autocast=False,
        )
        self.scale = scale
        self.offset = offset

    def call(self, positions):
        samples = ops.take(self.samples, positions, axis=0)
        samples = ops.cast(samples, self.compute_dtype)
        scale = ops.cast(self.scale, self.compute_dtype)
        return samples * scale + ops.cast(self.offset, self.compute_dtype)

    def compute_output_shape(self, shape):
        return (*shape, *self.samples.shape[1:])


class Positions(keras.utils.PyDataset):
    """Batches of positions with labels, in an order that the epoch decides."""

    def __init__(self, positions, labels, batch_size):
        super().__init__()
        self.positions = positions
        self.labels = labels
        self.batch_size = batch_size
        self.order = np.arange(len(labels))

    def __len__(self):
        return -(-len(self.labels) // self.batch_size)

    def __getitem__(self, index):
        rows = self.order[index * self.batch_size : (index + 1) * self.batch_size]
        return self.positions[rows], self.labels[rows]


class Randomness(keras.callbacks.Callback):
    """Lets the epoch decide the order of samples, dropout and augmentation.

    Not random states that go on from epoch to epoch, some of which no backup could
    hold: a resumed training draws what it would have drawn. Not in
    `PyDataset.on_epoch_end`, which Keras also calls before the first epoch.
    """

    def __init__(self, batches: Positions, seed: int):
        super().__init__()
        self.batches = batches
        self.seed = seed

    def on_epoch_begin(self, epoch, logs=None):
        rng = np.random.default_rng((self.seed, epoch))
        self.batches.order = rng.permutation(len(self.batches.labels))
        # PyTorch's dropout draws with its global state.
        keras.utils.set_random_seed(int(rng.integers(2**31)))
        weights = {id(variable) for variable in self.model.weights}
        for variable in self.model.variables:
            if id(variable) not in weights:
                state = rng.integers(2**31, size=variable.shape)
                variable.assign(state.astype(variable.dtype))


class Recorder(keras.callbacks.Callback):
    """Measures after each epoch what a study reports.

    Args:
        positions: Positions of the samples to predict, by what they are for.
        expected: Their labels: the clean ones of `"test"` and `"recovered"`, the
            noisy ones of `"held_out"` and `"memorized"`.
        epochs: What was measured before the training was resumed.
    """

    def __init__(self, positions, expected, epochs):
        super().__init__()
        names = ("test", "held_out", "wrong")
        ends = np.cumsum([len(positions[name]) for name in names])
        self.parts = dict(
            zip(names, np.split(np.arange(ends[-1]), ends[:-1]), strict=True)
        )
        every = np.concatenate([positions[name] for name in names])
        num_batches = -(-len(every) // _PREDICT_BATCH)
        # Of one size, which is compiled once; the last one begins anew.
        self.batches = np.resize(every, (num_batches, -(-len(every) // num_batches)))
        self.expected = expected
        self.epochs = epochs

    def on_epoch_begin(self, epoch, logs=None):
        self.start = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        outputs = [self.model.predict_on_batch(batch) for batch in self.batches]
        logits = np.concatenate(outputs)
        if look_like_probabilities(logits):
            raise ValueError(
                "Expected a model that returns logits. Received: one that returns "
                "probabilities. Remove the softmax from its last layer"
            )
        predicted = np.argmax(logits, axis=-1)
        of = {name: predicted[rows] for name, rows in self.parts.items()}
        norms = np.linalg.norm(logits[self.parts["test"]].astype("float64"), axis=-1)
        measured = {
            "loss": logs["loss"],
            "accuracy": _share(of["test"] == self.expected["test"]),
            "noisy_accuracy": _share(of["held_out"] == self.expected["held_out"]),
            "memorized": _share(of["wrong"] == self.expected["memorized"]),
            "recovered": _share(of["wrong"] == self.expected["recovered"]),
            "logit_norm": norms.mean(),
            "seconds": time.perf_counter() - self.start,
        }
        for name, value in measured.items():
            self.epochs.setdefault(name, []).append(_json_number(value))


class Backup(keras.callbacks.Callback):
    """Saves weights, optimizer and measurements, so that no kill leaves them apart.

    Not `keras.callbacks.BackupAndRestore`, which writes weights and epoch to two
    files: killed between them, an epoch would be trained twice. Not in HDF5, whose
    library can crash when the disk is full.
    """

    def __init__(self, folder: Path, epochs: dict):
        super().__init__()
        self.path = folder / "backup.npz"
        self.epochs = epochs
        self.not_before = 0.0

    def restore(self, model) -> int:
        """Returns the epoch to go on with.

        Raises:
            Exception: Of many types, if the file is damaged.
        """
        if not self.path.exists():
            return 0
        model.optimizer.build(model.trainable_variables)
        # NumPy itself would leave a file open that it cannot read.
        with self.path.open("rb") as file, np.load(file) as saved:
            if any(member.compress_type for member in saved.zip.infolist()):
                raise ValueError("It is compressed, and could be of any size.")
            epochs = json.loads(str(saved["epochs"]))
            first_epoch = len(epochs["loss"])
            for name, variable in _state(model).items():
                variable.assign(saved[name])
        self.epochs.update(epochs)
        return first_epoch

    def on_epoch_end(self, epoch, logs=None):
        start = time.perf_counter()
        if start < self.not_before:
            return
        arrays = {
            name: keras.ops.convert_to_numpy(variable)
            for name, variable in _state(self.model).items()
        }
        with _replacing(self.path) as unfinished, unfinished.open("wb") as file:
            np.savez(file, epochs=json.dumps(self.epochs), **arrays)
        end = time.perf_counter()
        self.not_before = end + _BACKUP_INTERVAL * (end - start)


def _state(model):
    """Returns the variables that a training changes, by the names in a backup."""
    variables = [
        variable
        for layer in model.layers
        if not isinstance(layer, Lookup)
        for variable in layer.weights
    ]
    variables += model.optimizer.variables
    return {f"variable {i}": variable for i, variable in enumerate(variables)}


def write_json(path: Path, contents) -> None:
    """Writes a file that is there as a whole or not at all."""
    with _replacing(path) as unfinished:
        unfinished.write_text(json.dumps(contents, allow_nan=False))


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """Yields a path to write to, and then puts the file in the place of another."""
    unfinished = path.with_name(f"{os.getpid()}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield unfinished
        os.replace(unfinished, path)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise OSError(
            f"Cannot write {path}: {error}. What is done is kept, and the same call "
            "goes on with it."
        ) from error


def _share(correct):
    return np.mean(correct) if len(correct) else math.nan


def _json_number(value):
    return float(value) if math.isfinite(value) else None


def train(
    study: Study,
    cell: Cell,
    data: Data,
    noisy: NoisyLabels,
    folder: Path,
    on_epoch_end: Callable[[int, dict], None],
) -> dict:
    """Trains a cell, and returns its record.

    Args:
        study: The study.
        cell: Which cell of it.
        data: The samples.
        noisy: The labels to train on.
        folder: Where to keep what a killed training needs to go on. Who has stored
            the record can remove it.
        on_epoch_end: Called with the number of epochs so far, and what was measured,
            before the backup: what it raises for a training that others took over
            keeps their backup as it is.
    """
    started = datetime.datetime.now(datetime.UTC)
    start = time.perf_counter()
    epochs, earlier_seconds = _fit(study, cell, data, noisy, folder, on_epoch_end)
    gc.collect()  # Compiled functions refer to the model, and it to them.
    return {
        "format": FORMAT,
        "study": study.name,
        **cell._asdict(),
        "noise_rate": noisy.rate,
        "transition": noisy.transition.round(6).tolist(),
        "epochs": epochs,
        "seconds": earlier_seconds + time.perf_counter() - start,
        "config": study.settings,
        "versions": versions(),
        "commit": commit(),
        "started": started.isoformat(timespec="seconds"),
    }


def _fit(study, cell, data, noisy, folder, on_epoch_end):
    """Returns what was measured, and the seconds of epochs trained before a kill."""
    settings = study.settings
    rows, held_out = split(noisy.labels, settings["validation_split"], cell.seed)
    steps_per_epoch = -(-len(rows) // settings["batch_size"])
    epochs = {}
    backup = Backup(folder, epochs)
    model, first_epoch = _restored_model(study, cell, data, steps_per_epoch, backup)
    earlier_seconds = sum(epochs.get("seconds", []))
    if first_epoch < settings["epochs"]:
        batches = Positions(
            rows.astype("int32"), noisy.labels[rows], settings["batch_size"]
        )
        model.fit(
            batches,
            shuffle=False,  # Keras would do so with a random state of its own.
            epochs=settings["epochs"],
            initial_epoch=first_epoch,
            callbacks=[
                Randomness(batches, cell.seed),
                _recorder(data, noisy, rows, held_out, cell.seed, epochs),
                keras.callbacks.LambdaCallback(
                    on_epoch_end=lambda epoch, logs: on_epoch_end(epoch + 1, epochs)
                ),
                backup,
            ],
            verbose=0,
        )
    return epochs, earlier_seconds


def _restored_model(study, cell, data, steps_per_epoch, backup):
    model = _compiled_model(study, cell, data, steps_per_epoch)
    try:
        return model, backup.restore(model)
    except Exception as error:
        logging.getLogger(__name__).warning(
            "The backup %s cannot be used; the cell is trained from the start. %s",
            backup.path,
            error,
        )
        return _compiled_model(study, cell, data, steps_per_epoch), 0


def _compiled_model(study, cell, data, steps_per_epoch):
    settings = study.settings
    keras.utils.set_random_seed(cell.seed)
    core = build_core(study, data)
    lookup = Lookup(
        np.concatenate([data.x_train, data.x_test]), data.scale, data.offset
    )
    positions = keras.Input((), dtype="int32")
    model = keras.Model(positions, core(lookup(positions)))
    optimizer = make_optimizer(
        settings["optimizer"], settings["epochs"] * steps_per_epoch
    )
    weight = l1_weight(cell, data.num_classes)
    if weight:
        # As the paper does it: the penalty instead of weight decay.
        optimizer.weight_decay = None
        for variable in model.trainable_variables:
            variable.regularizer = keras.regularizers.L1(weight)
    model.compile(optimizer, make_loss(cell, data.num_classes))
    return model


def build_core(study: Study, data: Data) -> keras.Model:
    """Builds the model of a study, from samples to logits.

    Raises:
        ValueError: If there is none of that name, with such arguments or outputs.
    """
    arguments = dict(study.settings["model"])
    name = arguments.pop("name")
    shape = data.x_train.shape[1:]
    if name in models.MODELS:
        return models.build(name, shape, data.num_classes, **arguments)
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


def _recorder(data, noisy, rows, held_out, seed, epochs):
    wrong = rows[noisy.flipped[rows]]
    wrong = np.random.default_rng(seed).permutation(wrong)[:_FOLLOWED]
    test = np.arange(len(data.x_test)) + len(data.x_train)
    positions = {"test": test, "held_out": held_out, "wrong": wrong}
    return Recorder(
        {name: rows.astype("int32") for name, rows in positions.items()},
        {
            "test": data.y_test,
            "held_out": noisy.labels[held_out],
            "memorized": noisy.labels[wrong],
            "recovered": noisy.clean[wrong],
        },
        epochs,
    )


def versions() -> dict[str, str]:
    """Returns the versions of what the results depend on."""
    backend = {"tensorflow": ("tensorflow", "tensorflow-cpu")}.get(
        keras.config.backend(), (keras.config.backend(),)
    )
    found = {}
    for name in ("keras-logitclip", "keras", "numpy", *backend):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str | None:
    """Returns the commit of this package where it is installed from a repository."""
    folder = Path(__file__).resolve().parents[2]
    if not (folder / ".git").exists():
        return None
    command = ["git", "-C", str(folder), "rev-parse", "--short", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
