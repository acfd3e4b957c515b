"""Held-out logits: of the right folds, resumed, refused."""

import io
import sqlite3
import sys

import keras
import numpy as np
import pytest

from keras_logitclip import losses
from keras_logitclip import noise
from keras_logitclip._jobs import arrays

optuna = pytest.importorskip("optuna")

from keras_logitclip import cleaning  # noqa: E402
from keras_logitclip.cleaning import _held_out  # noqa: E402

RNG = np.random.default_rng(0)
LABELS = np.arange(240) % 4
X = (np.eye(4)[LABELS] + RNG.normal(size=(240, 4)) / 5).astype("float32")
NOISY = noise.symmetric(LABELS, 0.3, 4, exact=True, seed=0)


@pytest.fixture(autouse=True)
def own_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def build_model(*layers, outputs=4):
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(outputs), *layers])


def held_out(x=X, y=NOISY.labels, **arguments):
    arguments = {"build_model": build_model, "epochs": 2, "verbose": False} | arguments
    return cleaning.held_out_logits(x=x, y=y, **arguments)


# What a training sees.


class Fitted:
    """A model that predicts ten times its inputs."""

    def predict(self, inputs, batch_size, verbose):
        return 10 * inputs


@pytest.mark.once
def test_each_sample_is_predicted_by_a_model_that_has_not_seen_it(monkeypatch):
    seen = []

    def fit(task, data, optimizer, loss, seed, on_epoch_end):
        seen.append(data)
        return Fitted(), None

    monkeypatch.setattr(_held_out, "fit", fit)
    logits = held_out(folds=4)
    np.testing.assert_array_equal(logits, 10 * X)
    assert logits.dtype == "float32"
    rows = {row.tobytes(): position for position, row in enumerate(X)}
    held = []
    for inputs, labels in seen:
        positions = [rows[row.tobytes()] for row in inputs]
        np.testing.assert_array_equal(labels, NOISY.labels[positions])
        held.append(np.setdiff1d(np.arange(240), positions))
    np.testing.assert_array_equal(np.sort(np.concatenate(held)), np.arange(240))
    counts = [np.bincount(NOISY.labels[part], minlength=4) for part in held]
    assert np.ptp(counts, axis=0).max() <= 1


@pytest.mark.once
@pytest.mark.parametrize("folds", [2, 3, 7, 12])
def test_folds_have_their_share_of_each_class(folds):
    labels = np.repeat([0, 1, 2, 5], [2, 40, 1, 13])
    found = arrays.folds_of(labels, folds, 0)
    assert np.ptp(np.bincount(found, minlength=folds)) <= 1
    for label in (0, 1, 2, 5):
        assert np.ptp(np.bincount(found[labels == label], minlength=folds)) <= 1
    assert (arrays.folds_of(labels, folds, 1) != found).any()


@pytest.mark.once
def test_a_class_of_one_sample_is_named(pretended):
    labels = np.where(np.arange(240) == 7, 9, LABELS)
    with pytest.warns(UserWarning, match=r"1 of 5 classes have only one sample: \[9\]"):
        held_out(y=labels, build_model=lambda: build_model(outputs=10))


# Simulated trainings.


class Pretended:
    """Simulates trainings, which can be interrupted."""

    def __init__(self):
        self.trained = []
        self.fail_at = None

    def __call__(self, task, fold, on_epoch_end):
        if len(self.trained) == self.fail_at:
            raise KeyboardInterrupt
        self.trained.append(fold)
        for epoch in range(task.epochs):
            on_epoch_end(epoch + 1, {"accuracy": 0.5})
        return task.data[0][task.fold_of == fold], 0.5


@pytest.fixture
def pretended(monkeypatch):
    pretended = Pretended()
    monkeypatch.setattr(_held_out, "train", pretended)
    return pretended


@pytest.mark.once
def test_what_is_done_is_not_done_again(pretended):
    logits = held_out()
    assert pretended.trained == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(held_out(), logits)
    assert len(pretended.trained) == 5


@pytest.mark.once
def test_an_interrupted_call_goes_on(pretended):
    pretended.fail_at = 3
    with pytest.raises(KeyboardInterrupt):
        held_out()
    pretended.fail_at = None
    np.testing.assert_array_equal(held_out(), X)
    assert pretended.trained == [0, 1, 2, 3, 4]


def pickled():
    file = io.BytesIO()
    np.save(file, np.array([print], object))
    return file.getvalue()


DAMAGES = {
    "missing": lambda path: path.unlink(),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "empty": lambda path: path.write_bytes(b""),
    "other-fold": lambda path: path.write_bytes(
        path.with_name("fold-1.npy").read_bytes()
    ),
    "pickle": lambda path: path.write_bytes(pickled()),
}


@pytest.mark.once
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_file_costs_its_fold(damage, pretended, tmp_path):
    held_out()
    for times in (1, 2):
        damage(tmp_path / "held_out_logits" / "fold-3.npy")
        np.testing.assert_array_equal(held_out(), X)
        assert pretended.trained == [0, 1, 2, 3, 4] + times * [3]


@pytest.mark.once
def test_a_file_that_is_damaged_meanwhile(pretended, monkeypatch, tmp_path):
    def work(*arguments, **options):
        done(*arguments, **options)
        (tmp_path / "held_out_logits" / "fold-0.npy").unlink()

    done = _held_out.processes.work
    monkeypatch.setattr(_held_out.processes, "work", work)
    with pytest.raises(OSError, match="fold 0 .*are damaged.*trains this fold again"):
        held_out()


@pytest.mark.once
def test_what_a_killed_process_left_is_removed(pretended, tmp_path):
    folder = tmp_path / "held_out_logits"
    folder.mkdir()
    (folder / "4711-fold-2.npy").touch()
    held_out()
    files = {path.name for path in folder.iterdir()}
    assert files == {"held_out_logits.db", *(f"fold-{fold}.npy" for fold in range(5))}


@pytest.mark.once
def test_folders_are_apart(pretended, tmp_path):
    held_out(folder="one/two")
    held_out(folder=tmp_path / "other", folds=2)
    assert pretended.trained == [0, 1, 2, 3, 4, 0, 1]


@pytest.mark.once
@pytest.mark.parametrize("verbose", [False, True])
def test_progress_bar(verbose, pretended, capsys):
    held_out(verbose=verbose, folder="mine")
    printed = capsys.readouterr()
    assert ("10/10" in printed.err) == ("mine" in printed.err) == verbose
    assert printed.out == ""


CROSS_ENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
OTHER_SETTINGS = {
    "folds": ({}, {"folds": 4}, "folds: 5 there, 4 here"),
    "epochs": ({}, {"epochs": 3}, "epochs: 2 there, 3 here"),
    "tau": ({}, {"tau": 1.0}, "tau: 1.5 there, 1.0 here"),
    "normalized": (
        {},
        {"normalize_gradient": True},
        "normalize_gradient: False there, True here",
    ),
    "batch-size": ({}, {"batch_size": 64}, "batch_size: 128 there, 64 here"),
    "seed": ({}, {"seed": 1}, "seed: 0 there, 1 here"),
    "inputs": ({}, {"x": np.where(np.arange(4) == 3, X + 1e-6, X)}, "data: "),
    "labels": ({}, {"y": LABELS}, "data: "),
    "model": (
        {"build_model": lambda: build_model(keras.layers.Activation("relu"))},
        {"build_model": lambda: build_model(keras.layers.Activation("tanh"))},
        "model: ",
    ),
    "loss": (
        {"loss": losses.GeneralizedCrossEntropy(q=0.7)},
        {"loss": losses.GeneralizedCrossEntropy(q=0.5)},
        r"loss: .*0\.7.* there, .*0\.5.* here",
    ),
    "optimizer": (
        {"optimizer": lambda steps: keras.optimizers.SGD(0.1)},
        {"optimizer": lambda steps: keras.optimizers.SGD(0.2)},
        r"optimizer: .*0\.1.* there, .*0\.2.* here",
    ),
    "callbacks": (
        {},
        {"callbacks": [keras.callbacks.TerminateOnNaN()]},
        "callbacks: ",
    ),
}


@pytest.mark.once
@pytest.mark.parametrize("name", OTHER_SETTINGS)
def test_other_settings_are_refused(name, pretended):
    before, after, difference = OTHER_SETTINGS[name]
    held_out(**before)
    held_out(**before)
    with pytest.raises(ValueError, match=f"another folder than .*: {difference}") as e:
        held_out(**after)
    assert len(pretended.trained) == 5
    assert "; " not in str(e.value)


@pytest.mark.once
def test_a_damaged_database(pretended, tmp_path):
    held_out()
    (tmp_path / "held_out_logits" / "held_out_logits.db").write_bytes(b"SQLite no")
    with pytest.raises(ConnectionError, match="held_out_logits.db is damaged"):
        held_out()


@pytest.mark.once
def test_a_database_without_checksums(pretended, tmp_path):
    """As from other software that made similar trials."""
    held_out()
    path = tmp_path / "held_out_logits" / "held_out_logits.db"
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("DELETE FROM trial_user_attributes WHERE key = 'sha256'")
    connection.close()
    np.testing.assert_array_equal(held_out(), X)
    assert len(pretended.trained) == 10


@pytest.mark.once
def test_integers_of_numpy(pretended):
    names = ("folds", "epochs", "batch_size", "seed", "grace_period")
    np.testing.assert_array_equal(held_out(**dict.fromkeys(names, np.int64(3))), X)
    held_out(**dict.fromkeys(names, 3))
    assert pretended.trained == [0, 1, 2]


@pytest.mark.once
def test_optuna_is_optional(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ImportError, match=r'pip install "keras-logitclip\[cleaning\]"'):
        held_out()


def compiled():
    model = build_model()
    model.compile("sgd", "mse")
    return model


BAD_ARGUMENTS = {
    "one-fold": ({"folds": 1}, "`folds`: expected an integer of at least 2"),
    "many-folds": ({"folds": 241}, "at most the number of samples.*folds=241, 240"),
    "epochs": ({"epochs": 0}, "`epochs`.*at least 1"),
    "tau": ({"tau": 0}, "`tau`: expected a number greater than 0"),
    "seed": ({"seed": -1}, "`seed`.*at least 0"),
    "normalized": ({"normalize_gradient": 1}, "`normalize_gradient`"),
    "batch-size": ({"batch_size": 0}, "`batch_size`"),
    "one-hot": ({"y": np.eye(4)[LABELS]}, r"`np.argmax\(y, -1\)`"),
    "one-class": ({"y": LABELS * 0}, "`y`.*at least two classes"),
    "ragged": ({"y": [[0], [1, 2]]}, r"`y`: expected class ids.*object and shape"),
    "several": ({"y": np.eye(4)[LABELS] * 0}, "expected one label per sample"),
    "lists": ({"x": X.tolist()}, r"`np.array\(x\)`. Received: 960 of shapes"),
    "instance": (
        {"build_model": keras.Sequential()},
        "`build_model`: expected a function",
    ),
    "lengths": ({"x": X[:-1]}, r"`x`.*\(239, 4\)., 240 labels"),
    "nan": ({"x": X * np.nan}, "finite inputs. Received: NaN or infinity"),
    "optimizer": ({"optimizer": 0.1}, "`optimizer`.*Received: optimizer=0.1"),
    "class": ({"optimizer": keras.optimizers.SGD}, "`optimizer`.*It is a class"),
    "loss": ({"loss": "sparse"}, "`loss`.*Received: loss='sparse'"),
    "callbacks": ({"callbacks": [print]}, "`callbacks`.*Received:.*print"),
    "compiled": ({"build_model": compiled}, "Received: a compiled model"),
    "softmax": (
        {"build_model": lambda: build_model(keras.layers.Softmax())},
        "returns probabilities",
    ),
    "few-classes": (
        {"build_model": lambda: build_model(outputs=3)},
        "at least 4 classes. Received: ids from 0 to 3",
    ),
    "lambda": (
        {"workers": 2, "build_model": lambda: build_model()},
        "`build_model`: expected something that worker processes can import",
    ),
}


@pytest.mark.once
@pytest.mark.parametrize("name", BAD_ARGUMENTS)
def test_bad_arguments(name, pretended, tmp_path):
    arguments, message = BAD_ARGUMENTS[name]
    with pytest.raises(ValueError, match=message):
        held_out(**arguments)
    assert not pretended.trained
    assert not list(tmp_path.iterdir())


# Real trainings.


@pytest.mark.gradients
def test_the_logits_know_better_than_the_labels():
    options = {"epochs": 20, "optimizer": keras.optimizers.Adam(0.1), "folds": 3}
    logits = held_out(**options)
    assert logits.shape == (240, 4)
    assert np.mean(logits.argmax(1) == LABELS) > 0.95
    np.testing.assert_array_equal(held_out(folder="again", **options), logits)


@pytest.mark.gradients
@pytest.mark.once
def test_what_a_training_gets(monkeypatch):
    tasks = []

    def fit(task, data, optimizer, loss, *others):
        tasks.append((loss.tau, loss.normalize_gradient, optimizer))
        return real(task, data, optimizer, loss, *others)

    real = _held_out.fit
    monkeypatch.setattr(_held_out, "fit", fit)
    steps = []
    held_out(
        tau=float("inf"),
        normalize_gradient=True,
        folds=2,
        batch_size=50,
        optimizer=lambda given: steps.append(given) or keras.optimizers.SGD(0.1),
    )
    assert {case[:2] for case in tasks} == {(float("inf"), True)}
    assert tasks[0][2] is not tasks[1][2]
    assert set(steps) == {2 * 3}


def build_deep_model():
    return build_model(keras.layers.Dense(4), keras.layers.Dense(4))


@pytest.mark.gradients
@pytest.mark.once
def test_a_training_that_fails_says_so():
    options = {"tau": float("inf"), "optimizer": keras.optimizers.SGD(1e38)}
    with pytest.raises(
        ValueError, match="smaller learning rate.*NaN or infinity, for fold 0"
    ):
        held_out(build_model=build_deep_model, **options)


@pytest.mark.gradients
@pytest.mark.once
def test_inputs_in_a_dictionary():
    def build():
        inputs = {name: keras.Input((2,), name=name) for name in ("a", "b")}
        joined = keras.layers.Concatenate()([*inputs.values()])
        return keras.Model(inputs, keras.layers.Dense(4)(joined))

    x = {"a": X[:, :2], "b": X[:, 2:]}
    logits = held_out(x=x, build_model=build, folds=2)
    assert logits.shape == (240, 4)
