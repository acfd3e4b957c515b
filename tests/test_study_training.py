"""The training of a study's cell, and on each backend that it can be interrupted."""

import datetime
import gc
import io
import json
import os
import pickle
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
from hypothesis import given

from keras_logitclip.study import _training
from keras_logitclip.study._config import Cell
from keras_logitclip.study._config import make_optimizer
from keras_logitclip.study._data import load_data
from keras_logitclip.study._data import make_noise
from tests.damages import damages
from tests.damages import little
from tests.damages import reproducibly
from tests.study_files import TRAINED_ON
from tests.study_files import load
from tests.study_files import own_directory  # noqa: F401
from tests.study_files import own_model
from tests.study_files import without_times

pytestmark = pytest.mark.gradients

SCHEDULES = {
    "constant": ({}, {0: 0.1, 99: 0.1}),
    "steps": (
        {"schedule": "steps", "boundaries": [0.4, 0.7]},
        {0: 0.1, 40: 0.1, 41: 0.01, 70: 0.01, 71: 0.001, 99: 0.001},
    ),
    "factor": (
        {"schedule": "steps", "boundaries": [0.5], "factor": 0.5},
        {50: 0.1, 51: 0.05},
    ),
    "cosine": ({"schedule": "cosine"}, {0: 0.1, 50: 0.05, 100: 0.0}),
}


@pytest.mark.once
@pytest.mark.parametrize(("changes", "rates"), SCHEDULES.values(), ids=SCHEDULES)
def test_learning_rates(changes, rates):
    optimizer = make_optimizer(load(optimizer=changes).settings["optimizer"], 100)
    assert isinstance(optimizer, keras.optimizers.SGD)
    assert optimizer.momentum == 0.9
    found = {}
    for step in rates:
        optimizer.iterations.assign(step)
        found[step] = float(keras.ops.convert_to_numpy(optimizer.learning_rate))
    assert found == pytest.approx(rates, abs=1e-8)


def and_once(name, cases):
    """The names of the cases, of which only this one depends on the backend."""
    return [
        pytest.param(case, marks=() if case == name else pytest.mark.once)
        for case in cases
    ]


def train(loaded, folder=Path("backup"), on_epoch_end=lambda *_: None, cell=None):
    data = load_data(loaded, None)
    cell = cell or loaded.cells[0]
    noisy = make_noise(loaded, data, cell.noise, cell.seed, None)
    return _training.train(loaded, cell, data, noisy, folder, on_epoch_end)


@pytest.mark.once
def test_record():
    kind = {"kind": "symmetric", "rate": 0.3, "exact": True}
    loaded = load(epochs=4, noise=[kind], model={"width": 32})
    record = train(loaded)
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert {name: record[name] for name in Cell._fields} == loaded.cells[0]._asdict()
    assert (record["format"], record["study"]) == (1, "small")
    assert record["noise_rate"] == pytest.approx(0.3, abs=0.005)
    np.testing.assert_allclose(np.sum(record["transition"], 1), 1)
    assert record["config"] == loaded.settings
    assert record["versions"]["keras"] == keras.__version__
    assert datetime.datetime.fromisoformat(record["started"]).tzinfo
    epochs = record["epochs"]
    assert {len(values) for values in epochs.values()} == {4}
    assert 0 < sum(epochs["seconds"]) < record["seconds"]
    assert epochs["loss"][-1] < epochs["loss"][0]
    assert epochs["accuracy"][-1] > 0.5
    for memorized, recovered in zip(
        epochs["memorized"], epochs["recovered"], strict=True
    ):
        assert 0 <= memorized <= memorized + recovered <= 1
    assert all(norm > 0 for norm in epochs["logit_norm"])


@pytest.mark.once
def test_each_seed_has_weights_and_batches_of_its_own(monkeypatch):
    """Without noise, nothing else tells two cells apart."""
    loaded, orders = load(epochs=1, seeds=2, noise=[{"kind": "clean"}]), []
    data = load_data(loaded, None)
    one, other = (
        _training._compiled_model(loaded, cell, data, 4).get_weights()
        for cell in loaded.cells
    )
    assert any((a != b).any() for a, b in zip(one, other, strict=True))

    class Recorded(_training.Positions):
        def __getitem__(self, index):
            orders.append(tuple(self.positions[self.order]))
            return super().__getitem__(index)

    monkeypatch.setattr(_training, "Positions", Recorded)
    for cell in loaded.cells:
        train(loaded, Path(str(cell.seed)), cell=cell)
    first, last = orders[0], orders[-1]
    assert sorted(first) != sorted(last)  # Others are held out.
    assert first != last


@pytest.mark.once
def test_without_wrong_labels_nothing_is_memorized():
    record = train(load(epochs=1, noise=[{"kind": "clean"}]))
    assert record["noise_rate"] == 0
    assert record["epochs"]["memorized"] == record["epochs"]["recovered"] == [None]


class Interrupted(Exception):
    pass


RANDOM_MODEL = own_model("random_model", width=8)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    loaded = load(folder, epochs=4, **RANDOM_MODEL)
    return without_times(train(loaded, folder / "backup"))


def test_a_training_learns_and_names_its_backend(undisturbed):
    assert any(name.startswith(TRAINED_ON) for name in undisturbed["versions"])
    losses = undisturbed["epochs"]["loss"]
    assert len(losses) == 4
    assert losses[-1] < losses[0]


def interrupt(loaded, at, folder=Path("backup")):
    def on_epoch_end(epoch, epochs):
        if epoch == at:
            raise Interrupted

    with pytest.raises(Interrupted):
        train(loaded, folder, on_epoch_end)


# Seconds between backups, the epoch of the interruption, and the one to go on after.
INTERRUPTIONS = {
    "at-once": (0, 1, 0),
    "each-epoch": (0, 4, 3),
    "skipped-backups": (1e9, 4, 1),
}


@pytest.mark.parametrize("name", and_once("each-epoch", INTERRUPTIONS))
def test_a_resumed_training_is_the_undisturbed_one(name, undisturbed, monkeypatch):
    interval, interrupted_at, resumed_after = INTERRUPTIONS[name]
    monkeypatch.setattr(_training, "_BACKUP_INTERVAL", interval)
    loaded, trained = load(epochs=4, **RANDOM_MODEL), []
    interrupt(loaded, interrupted_at)
    if resumed_after > 0:
        with np.load("backup/backup.npz") as saved:
            # The samples, which are weights on the device, are not among them.
            assert not any(saved[name].dtype == "uint8" for name in saved)
    record = train(loaded, on_epoch_end=lambda epoch, _: trained.append(epoch))
    assert trained == list(range(resumed_after + 1, 5))
    assert without_times(record) == undisturbed
    assert record["seconds"] > sum(record["epochs"]["seconds"])


@pytest.mark.once
def test_a_training_that_was_killed_after_its_last_epoch(undisturbed, monkeypatch):
    monkeypatch.setattr(_training, "_BACKUP_INTERVAL", 0)
    loaded, trained = load(epochs=4, **RANDOM_MODEL), []
    train(loaded)
    record = train(loaded, on_epoch_end=lambda epoch, _: trained.append(epoch))
    assert not trained
    assert without_times(record) == undisturbed


def without_variable(path):
    with np.load(path) as saved:
        arrays = {name: saved[name] for name in saved if name != "variable 3"}
    np.savez(path, **arrays)


DAMAGES = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "empty": lambda path: path.write_bytes(b""),
    "of-another-model": without_variable,
}


@pytest.fixture(scope="module")
def backup(tmp_path_factory):
    folder = tmp_path_factory.mktemp("interrupted")
    interrupt(load(folder, epochs=4, **RANDOM_MODEL), 2, folder / "backup")
    return folder / "backup"


@pytest.mark.once
@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_backup_is_not_used(name, undisturbed, backup, caplog):
    loaded, trained = load(epochs=4, **RANDOM_MODEL), []
    shutil.copytree(backup, "backup")
    DAMAGES[name](Path("backup/backup.npz"))
    record = train(loaded, on_epoch_end=lambda epoch, _: trained.append(epoch))
    assert "cannot be used; the cell is trained from the start" in caplog.text
    assert trained == [1, 2, 3, 4]
    assert without_times(record) == undisturbed
    caplog.clear()  # Its error refers to the file,
    gc.collect()  # which would be warned of if it were still open.


class Calling:
    def __reduce__(self):
        return os.mkdir, ("executed",)


def state_of(model):
    return {
        name: keras.ops.convert_to_numpy(variable)
        for name, variable in _training._state(model).items()
    }


@pytest.fixture(scope="module")
def restore(backup):
    """Restores a backup from bytes; returns the measurements and the state."""
    loaded = load(backup.parent, epochs=4, **RANDOM_MODEL)
    (cell,) = loaded.cells
    model = _training._compiled_model(loaded, cell, load_data(loaded, None), 4)

    def restore(contents):
        epochs, path = {}, Path("restored/backup.npz")
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(contents)
        try:
            _training.Backup(path.parent, epochs).restore(model)
        except Exception:
            assert not epochs
            raise
        return epochs, state_of(model)

    restore.valid = (backup / "backup.npz").read_bytes()
    return restore


@pytest.mark.once
@given(damaged=damages())
@reproducibly
def test_a_backup_with_other_bytes(restore, damaged):
    """It is not restored, or as it was: not all bytes of a file are read."""
    expected_epochs, expected_state = restore(restore.valid)
    with little():
        try:
            epochs, state = restore(damaged(restore.valid))
        except Exception:
            return
    assert epochs == expected_epochs
    for name, value in state.items():
        np.testing.assert_array_equal(value, expected_state[name])


def saved(save=np.savez, **others):
    """A backup with other arrays than those that belong there."""

    def contents(valid):
        with np.load(io.BytesIO(valid)) as arrays:
            file = io.BytesIO()
            save(file, **{**arrays, **others})
        return file.getvalue()

    return contents


HOSTILE_BACKUPS = {
    "calling": saved(epochs=np.array([Calling()], object)),
    "pickle": lambda valid: pickle.dumps(Calling()),
    "array": lambda valid: b"\x93NUMPY" + valid,
    "compressed": saved(np.savez_compressed, **{"variable 0": np.zeros(2**25)}),
    "size": lambda valid: valid.replace(b"(8, 4)", b"(8e, )"),
    "shape": lambda valid: valid.replace(b"(6, 8), }   ", b"(2**40,), } "),
    "huge": lambda valid: valid.replace(b"(6, 8), }       ", b"(99999999999,), }"),
    "nested": saved(epochs=10**5 * "["),
    "list": saved(epochs="[]"),
    "numbers": saved(epochs=json.dumps({"loss": 1})),
}


@pytest.mark.once
@pytest.mark.parametrize("hostile", HOSTILE_BACKUPS.values(), ids=HOSTILE_BACKUPS)
def test_a_hostile_backup_is_not_restored(hostile, restore):
    contents = hostile(restore.valid)
    assert contents != restore.valid
    with little(), pytest.raises(Exception):  # noqa: B017, PT011
        restore(contents)
    assert not Path("executed").exists()


def test_samples_are_on_the_device():
    loaded = load()
    data = load_data(loaded, None)
    samples = np.concatenate([data.x_train, data.x_test])
    lookup = _training.Lookup(samples, data.scale, data.offset)
    assert keras.backend.standardize_dtype(lookup.samples.dtype) == "uint8"
    found = keras.ops.convert_to_numpy(lookup(np.array([3, 250], "int32")))
    expected = samples[[3, 250]] * data.scale + data.offset
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("first_epoch", and_once(2, [0, 2]))
def test_keras_trains_in_the_order_of_the_epoch(first_epoch):
    seen = []

    class Recorded(_training.Positions):
        def __getitem__(self, index):
            x, y = super().__getitem__(index)
            np.testing.assert_array_equal(10 * x, y)
            seen.append(x)
            return x[:, None].astype("float32"), y

    positions = np.arange(10)
    batches = Recorded(positions, 10 * positions, 4)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    model.fit(
        batches,
        shuffle=False,
        epochs=4,
        initial_epoch=first_epoch,
        callbacks=[_training.Randomness(batches, 5)],
        verbose=0,
    )
    # Keras may look at some batches once more to learn their shape.
    epochs = range(first_epoch, 4)
    orders = np.concatenate(seen)[-10 * len(epochs) :].reshape(-1, 10)
    expected = [np.random.default_rng((5, epoch)).permutation(10) for epoch in epochs]
    np.testing.assert_array_equal(orders, expected)


@pytest.mark.once
def test_l1_norm_instead_of_weight_decay():
    loaded = load(
        optimizer={"weight_decay": 0.01}, methods=[{"losses": ["ANL-CE", "CE"]}]
    )
    data = load_data(loaded, None)
    penalized, plain = (
        _training._compiled_model(loaded, cell, data, 4) for cell in loaded.cells
    )
    norm = sum(
        np.abs(keras.ops.convert_to_numpy(variable)).sum()
        for variable in penalized.trainable_variables
    )
    penalty = keras.ops.convert_to_numpy(sum(penalized.losses))
    assert penalty == pytest.approx(5e-5 * norm, rel=1e-5)
    assert penalized.optimizer.weight_decay is None
    assert not plain.losses
    assert plain.optimizer.weight_decay == 0.01
    record = train(loaded, cell=loaded.cells[0])
    assert record["epochs"]["loss"][-1] is not None
