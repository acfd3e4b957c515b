"""The training of a cell, and its interruption on each backend."""

import datetime
import gc
import io
import json
import os
import pickle
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from hypothesis import given

from keras_logitclip import losses
from keras_logitclip.losses.presets import PRESETS
from keras_logitclip.noise import NoisyLabels
from keras_logitclip.study import _plan
from keras_logitclip.study import _training
from keras_logitclip.study._data import load_data
from keras_logitclip.study._data import make_noise
from keras_logitclip.study._plan import Cell
from keras_logitclip.study._training import Trainer
from keras_logitclip.study._training import make_loss
from tests.damages import damages
from tests.damages import little
from tests.damages import reproducibly
from tests.study_files import TRAINED_ON
from tests.study_files import load
from tests.study_files import own_directory  # noqa: F401
from tests.study_files import own_model
from tests.study_files import without_times
from tests.subprocesses import environment
from tests.subprocesses import run_well

pytestmark = pytest.mark.gradients

BACKUP = Path("backup.npz")


def and_once(name, cases):
    """The names of the cases, of which only this one depends on the backend."""
    return [
        pytest.param(case, marks=() if case == name else pytest.mark.once)
        for case in cases
    ]


def cells_of(loaded):
    return _plan.cells(loaded, {})


def trainer_of(loaded):
    return Trainer(loaded, load_data(loaded, None))


def train(trainer, cell=None, backup=BACKUP, on_epoch_end=lambda *_: None):
    cell = cell or cells_of(trainer.study)[0]
    noisy = make_noise(trainer.study, trainer.data, cell.noise, cell.seed, None)
    return trainer.train(cell, noisy, backup, on_epoch_end)


@pytest.fixture
def fitted(monkeypatch):
    """The samples, labels and options of each call of `fit`."""
    fit, calls = keras.Model.fit, []

    def recorded(model, x, y, **options):
        calls.append((x, y, options))
        return fit(model, x, y, **options)

    monkeypatch.setattr(keras.Model, "fit", recorded)
    return calls


@pytest.mark.once
def test_record():
    kind = {"kind": "symmetric", "rate": 0.3, "exact": True}
    loaded = load(epochs=8, noise=[kind], model={"width": 32})
    record = train(trainer_of(loaded))
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    (cell,) = cells_of(loaded)
    assert {name: record[name] for name in Cell._fields} == cell._asdict()
    assert (record["format"], record["study"]) == (2, "small")
    assert record["noise_rate"] == pytest.approx(0.3, abs=0.005)
    assert record["config"] == loaded.config
    assert record["versions"]["keras"] == keras.__version__
    assert datetime.datetime.fromisoformat(record["started"]).tzinfo
    epochs = record["epochs"]
    assert {len(values) for values in epochs.values()} == {8}
    assert 0 < sum(epochs["seconds"]) < record["seconds"]
    assert epochs["loss"][-1] < epochs["loss"][0]
    assert epochs["accuracy"][-1] > 0.5
    assert epochs["clean_accuracy"][-1] > 0.5
    for memorized, recovered in zip(
        epochs["memorized"], epochs["recovered"], strict=True
    ):
        assert 0 <= memorized <= memorized + recovered <= 1
    assert all(norm > 0 for norm in epochs["logit_norm"])


@pytest.mark.once
def test_infinity_is_a_text_in_records():
    loaded = load(epochs=1, methods=[{"losses": ["CE"], "taus": [np.inf]}])
    trainer = trainer_of(loaded)
    plain, infinite = (train(trainer, cell, Path("none")) for cell in cells_of(loaded))
    assert infinite["value"] == "inf"
    assert json.loads(json.dumps(infinite, allow_nan=False)) == infinite
    assert infinite["epochs"]["accuracy"] == plain["epochs"]["accuracy"]


@pytest.mark.once
def test_each_seed_has_weights_and_batches_of_its_own(fitted):
    """Without noise, nothing else tells two cells apart."""
    loaded = load(epochs=1, batch_size=1000, seeds=2, noise=[{"kind": "clean"}])
    trainer = trainer_of(loaded)
    one, other = (trainer._fresh_model(cell).get_weights() for cell in cells_of(loaded))
    assert any((a != b).any() for a, b in zip(one, other, strict=True))
    for cell in cells_of(loaded):
        train(trainer, cell, Path(str(cell.seed)))
    first, last = (x.tolist() for x, _, _ in fitted)
    assert sorted(first) != sorted(last)  # Others are held out.
    assert first != last


@pytest.mark.once
def test_each_epoch_has_whole_batches_in_an_order_of_its_own(fitted):
    loaded = load(epochs=2, batch_size=100)
    trainer = trainer_of(loaded)
    (cell,) = cells_of(loaded)
    noisy = make_noise(loaded, trainer.data, cell.noise, cell.seed, None)
    trainer.train(cell, noisy, BACKUP, lambda *_: None)
    labels = {
        sample.tobytes(): label
        for sample, label in zip(trainer.samples, noisy.labels, strict=False)
    }
    for x, y, options in fitted:
        assert len({sample.tobytes() for sample in x}) == len(x) == 200
        assert [labels[sample.tobytes()] for sample in x] == y.tolist()
        assert (options["batch_size"], options["shuffle"]) == (100, False)
    assert not np.array_equal(fitted[0][0], fitted[1][0])


@pytest.mark.once
def test_fewer_samples_than_a_batch_are_one(fitted):
    train(trainer_of(load(epochs=1, batch_size=1000)))
    ((x, _, _),) = fitted
    assert len(x) == 216


@pytest.mark.once
def test_the_epoch_decides_the_learning_rate(monkeypatch):
    schedule = {"schedule": "steps", "boundaries": [0.5], "factor": 0.5}
    trainer, rates = trainer_of(load(epochs=4, optimizer=schedule)), []

    def record(epoch, epochs):
        rate = trainer.model.optimizer.learning_rate
        rates.append(float(keras.ops.convert_to_numpy(rate)))

    train(trainer, on_epoch_end=record)
    assert rates == pytest.approx([0.1, 0.1, 0.05, 0.05])


@pytest.mark.once
def test_without_wrong_labels_nothing_is_memorized():
    record = train(trainer_of(load(epochs=1, noise=[{"kind": "clean"}])))
    assert record["noise_rate"] == 0
    assert record["epochs"]["memorized"] == record["epochs"]["recovered"] == [None]


@pytest.mark.once
@pytest.mark.parametrize("batch_size", [3, 1000])
def test_what_is_measured(batch_size, monkeypatch):
    monkeypatch.setattr(_training, "_PREDICT_BATCH", batch_size)
    logits = np.random.default_rng(0).normal(size=(20, 4)).astype("float32")
    labels, clean = np.random.default_rng(1).integers(0, 4, (2, 20))
    data = SimpleNamespace(
        x_train=np.arange(13),
        x_test=np.arange(13, 20),
        y_test=labels[13:],
        inputs=lambda positions: positions,
    )

    class Model:
        compiled = False

        def predict_on_batch(self, positions):
            assert len(positions) in (3, 9)
            return logits[positions]

    held_out, rows = np.arange(4), np.arange(4, 13)
    noisy = NoisyLabels(labels[:13], clean[:13], 4)
    trainer = Trainer(load(), data)
    measured = trainer._measurements(noisy, rows, held_out, 0)(Model())
    predicted, wrong = logits.argmax(-1), np.zeros(20, bool)
    wrong[rows] = noisy.flipped[rows]
    right = np.setdiff1d(rows, np.flatnonzero(wrong))
    norms = np.sqrt(np.square(logits[13:], dtype="float64").sum(-1))
    assert measured == {
        "accuracy": (predicted == labels)[13:].mean(),
        "noisy_accuracy": (predicted == labels)[held_out].mean(),
        "memorized": (predicted == labels)[wrong].mean(),
        "recovered": (predicted == clean)[wrong].mean(),
        "clean_accuracy": (predicted == clean)[right].mean(),
        "logit_norm": pytest.approx(norms.mean(), rel=1e-6),
    }


def test_a_model_of_probabilities_is_noticed():
    trainer = trainer_of(load(epochs=1, **own_model("probabilities")))
    with pytest.raises(ValueError, match="probabilities.* Remove "):
        train(trainer)


class Interrupted(Exception):
    pass


RANDOM_MODEL = own_model("random_model", width=8)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    loaded = load(folder, epochs=4, **RANDOM_MODEL)
    return without_times(train(trainer_of(loaded), backup=folder / BACKUP))


def test_a_training_learns_and_names_its_backend(undisturbed):
    assert TRAINED_ON in undisturbed["versions"]
    losses_of_epochs = undisturbed["epochs"]["loss"]
    assert len(losses_of_epochs) == 4
    assert losses_of_epochs[-1] < losses_of_epochs[0]


def interrupt(trainer, at, backup=BACKUP):
    def on_epoch_end(epoch, epochs):
        if epoch == at:
            raise Interrupted

    with pytest.raises(Interrupted):
        train(trainer, backup=backup, on_epoch_end=on_epoch_end)


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
    interrupt(trainer_of(loaded), interrupted_at)
    record = train(
        trainer_of(loaded), on_epoch_end=lambda epoch, _: trained.append(epoch)
    )
    assert trained == list(range(resumed_after + 1, 5))
    assert without_times(record) == undisturbed
    assert record["seconds"] > sum(record["epochs"]["seconds"])


@pytest.mark.once
def test_a_training_that_was_killed_after_its_last_epoch(undisturbed, monkeypatch):
    monkeypatch.setattr(_training, "_BACKUP_INTERVAL", 0)
    trainer, trained = trainer_of(load(epochs=4, **RANDOM_MODEL)), []
    train(trainer)
    record = train(trainer, on_epoch_end=lambda epoch, _: trained.append(epoch))
    assert not trained
    assert without_times(record) == undisturbed


# The kept model.

KEPT = {
    "epochs": 3,
    "seeds": 2,
    "optimizer": {"name": "adam", "momentum": None, "learning_rate": 0.01},
    "noise": [{"kind": "clean"}, {"kind": "symmetric", "rate": 0.4}],
    "methods": [{"losses": ["CE"], "taus": [1.0], "plain": False}],
    **RANDOM_MODEL,
}
# Trains the last cell alone, in the folder in which it is started.
ALONE = """
import json
from tests import test_study_training as tests
tests._training._BACKUP_INTERVAL = 0
trainer = tests.trainer_of(tests.load(**tests.KEPT))
print(json.dumps(tests.train_last(trainer, "alone.npz")))
"""


def train_last(trainer, backup):
    return without_times(train(trainer, cells_of(trainer.study)[-1], Path(backup)))


def test_a_cell_on_a_kept_model_is_that_of_a_fresh_process(monkeypatch):
    """Weights, moments and averages to the last bit, after cells of other seeds."""
    monkeypatch.setattr(_training, "_BACKUP_INTERVAL", 0)
    trainer = trainer_of(load(**KEPT))
    interrupt(trainer, at=2)
    compiled = trainer.model
    train(trainer)
    kept = train_last(trainer, "kept.npz")
    assert trainer.model is compiled
    printed = run_well([sys.executable, "-c", ALONE], env=environment(TRAINED_ON))
    assert json.loads(printed.splitlines()[-1]) == kept
    with np.load("kept.npz") as ours, np.load("alone.npz") as theirs:
        assert ours.files == theirs.files
        # Two dense layers, the averages of one normalization, and moments of Adam.
        assert len(ours.files) > 20
        for name in {*ours.files} - {"epochs"}:
            np.testing.assert_array_equal(ours[name], theirs[name])


@pytest.mark.once
def test_a_model_is_kept_for_its_loss_method_and_value():
    methods = [{"losses": ["CE", "GCE"], "taus": [1.0, 2.0]}]
    rates = {"learning_rate": None, "learning_rates": [0.1, 0.01]}
    loaded = load(methods=methods, optimizer=rates)
    trainer, used = trainer_of(loaded), {}
    for cell in cells_of(loaded):
        used.setdefault(id(trainer._fresh_model(cell)), []).append(cell)
    assert len(used) == 6
    assert {len(cells) for cells in used.values()} == {2}


# Backups that were damaged.


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
    trainer = trainer_of(load(folder, epochs=4, **RANDOM_MODEL))
    interrupt(trainer, 2, folder / BACKUP)
    return folder / BACKUP


@pytest.mark.once
@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_backup_is_not_used(name, undisturbed, backup, caplog):
    trainer, trained = trainer_of(load(epochs=4, **RANDOM_MODEL)), []
    shutil.copy(backup, BACKUP)
    DAMAGES[name](BACKUP)
    record = train(trainer, on_epoch_end=lambda epoch, _: trained.append(epoch))
    assert "cannot be used; the cell is trained from the start" in caplog.text
    assert trained == [1, 2, 3, 4]
    assert without_times(record) == undisturbed
    caplog.clear()  # Its error refers to the file,
    gc.collect()  # which would be warned of if it were still open.


class Calling:
    def __reduce__(self):
        return os.mkdir, ("executed",)


@pytest.fixture(scope="module")
def restore(backup):
    """Restores a backup from bytes; returns the measurements and the state."""
    trainer = trainer_of(load(backup.parent, epochs=4, **RANDOM_MODEL))

    def restore(contents):
        model = trainer._fresh_model(cells_of(trainer.study)[0])
        variables = [*model.weights, *model.optimizer.variables]
        BACKUP.write_bytes(contents)
        epochs = _training._restore(BACKUP, variables)
        return epochs, [keras.ops.convert_to_numpy(v) for v in variables]

    restore.valid = backup.read_bytes()
    return restore


@pytest.mark.once
@given(damaged=damages())
@reproducibly
def test_a_backup_with_other_bytes(restore, damaged):
    """It is not restored, or unchanged, because not all bytes of a file are read."""
    outcomes = [restore(b""), restore(restore.valid)]
    contents = damaged(restore.valid)
    with little():
        epochs, state = restore(contents)
    (expected,) = (state for known, state in outcomes if known == epochs)
    for value, other in zip(state, expected, strict=True):
        np.testing.assert_array_equal(value, other)


def saved(save=np.savez, **others):
    """A backup with wrong arrays."""

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
    _, untouched = restore(b"")
    with little():
        epochs, state = restore(contents)
    assert epochs == {}
    for value, other in zip(state, untouched, strict=True):
        np.testing.assert_array_equal(value, other)
    assert not Path("executed").exists()


# Losses.


def loss_of(name, method, value):
    return make_loss(load(), Cell("", name, method, value, 0.1, 0), 4)


@pytest.mark.once
def test_losses_of_the_methods():
    plain = loss_of("GCE", "plain", None)
    assert isinstance(plain, losses.GeneralizedCrossEntropy)
    assert plain.q == 0.7
    clipped = loss_of("CE", "tau", 0.5)
    assert isinstance(clipped, losses.LogitClipLoss)
    assert (clipped.tau, clipped.normalize_gradient) == (0.5, False)
    normalized = loss_of("CE", "normalized_tau", 0.5)
    assert (normalized.tau, normalized.normalize_gradient) == (0.5, True)
    by_value = loss_of("CE", "value_limit", 2.0)
    assert isinstance(by_value, losses.LogitValueClip)
    assert by_value.limit == 2.0
    penalized = loss_of("CE", "norm_penalty", 0.1)
    assert isinstance(penalized, losses.NormPenalty)
    assert penalized.weight == 0.1
    own = loss_of("study_samples:smoothed", "tau", 0.5)
    assert type(own.loss).__name__ == "Smoothed"
    with pytest.raises(ValueError, match="no_loss' to return a `keras.losses.Loss`. R"):
        loss_of("study_samples:no_loss", "plain", None)


@pytest.mark.once
def test_l1_norm_instead_of_weight_decay():
    loaded = load(
        optimizer={"weight_decay": 0.01}, methods=[{"losses": ["ANL-CE", "CE"]}]
    )
    trainer = trainer_of(loaded)
    l1, plain_cell = cells_of(loaded)
    penalized = trainer._fresh_model(l1)
    norm = sum(
        np.abs(keras.ops.convert_to_numpy(variable)).sum()
        for variable in penalized.trainable_variables
    )
    penalty = keras.ops.convert_to_numpy(sum(penalized.losses))
    assert penalty == pytest.approx(PRESETS["ANL-CE"].l1[0] * norm, rel=1e-5)
    assert penalized.optimizer.weight_decay is None
    plain = trainer._fresh_model(plain_cell)
    assert not plain.losses
    assert plain.optimizer.weight_decay == 0.01
    assert train(trainer, l1)["epochs"]["loss"][-1] is not None


@pytest.mark.once
def test_the_l1_norm_of_many_classes_is_smaller():
    cell = Cell("", "ANL-CE", "plain", None, 0.1, 0)
    data = SimpleNamespace(num_classes=100, x_train=np.zeros((1, 2)))
    trainer = Trainer.__new__(Trainer)
    trainer.study, trainer.data = load(), data
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(100)])
    trainer._compile(model, cell)
    (weight,) = {float(v.regularizer.l1) for v in model.trainable_variables}
    assert weight == pytest.approx(PRESETS["ANL-CE"].l1[1])
