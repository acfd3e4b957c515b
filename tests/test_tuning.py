"""The plan of a search, and searches with simulated trainings."""

import functools
import itertools
import math
import sqlite3
import sys
from collections import Counter

import keras
import numpy as np
import pytest

from keras_logitclip import losses
from keras_logitclip import noise
from keras_logitclip._jobs import queue
from keras_logitclip._jobs import storage
from keras_logitclip._jobs.arrays import ShuffledBatches

optuna = pytest.importorskip("optuna")
sqlalchemy = pytest.importorskip("sqlalchemy")

from keras_logitclip import tuning  # noqa: E402
from keras_logitclip.tuning import _search  # noqa: E402
from keras_logitclip.tuning._plan import Plan  # noqa: E402
from keras_logitclip.tuning._plan import Training  # noqa: E402

pytestmark = pytest.mark.once

rng = np.random.default_rng(0)
LABELS = np.arange(240) % 4
X = (np.eye(4)[LABELS] + rng.normal(size=(240, 4)) / 5).astype("float32")
NOISY = noise.symmetric(LABELS, 0.3, 4, exact=True, seed=0)
PAPER = sorted(1 / inverse for inverse in (0.1, *np.arange(0.5, 5.5, 0.5)))
INF = math.inf


@pytest.fixture(autouse=True)
def own_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def build_model(*layers, inputs=4, outputs=4):
    return keras.Sequential(
        [keras.Input((inputs,)), keras.layers.Dense(outputs), *layers]
    )


def search(x=X, y=NOISY.labels, **arguments):
    # Few epochs: each of them is written to the database.
    arguments = {"build_model": build_model, "epochs": 2, "verbose": False} | arguments
    return tuning.search_tau(x=x, y=y, **arguments)


# The plan.


def searched(plan, score):
    """Returns what is trained, in this order, and the ranking."""
    scores = {}
    while missing := plan.progress(scores)[0]:
        assert missing[0] not in scores
        scores[missing[0]] = score(missing[0])
    return list(scores), plan.progress(scores)[1]


@pytest.mark.parametrize("rates", [[None], [0.1], [0.01, 0.1, 1]], ids=str)
@pytest.mark.parametrize("plain", [[], [INF]], ids=("clipped", "with-plain"))
@pytest.mark.parametrize("num_values", [0, 1, 2, 3, 4, 5, 11, 40])
def test_what_a_plan_costs(num_values, plain, rates):
    taus = [0.3 + i for i in range(num_values)] + plain
    clipped = min(num_values, 4) + len(rates) - 1 if num_values else 0
    first = clipped + len(rates) * len(plain)
    for seeds, best in itertools.product((1, 3), (0, 0.3, 0.5, 1) if taus else ()):
        errors = {tau: abs(min(tau, 99) - best * num_values) for tau in taus}
        plan = Plan(taus, rates, seeds)
        trained, ranking = searched(plan, lambda t, errors=errors: -errors[t.tau])
        assert len(trained) == first + min(first, 2) * (seeds - 1) == plan.count()
        assert sorted(ranking) == sorted(t for t in trained if t.seed == 0)
        assert {t.tau for t in trained} >= {*plain}
        assert errors[ranking[0].tau] == min(errors[t.tau] for t in ranking)


# Of the paper's grid 0.4, 2 and 10 are in the middles of the parts of its range.
FOURTH_TRAINING = {
    "top-beyond-the-smallest": ([0.9, 0.5, 0.0], 0.2),
    "top-between": ([0.8, 0.7, 0.3], 0.5),
    "top-near-the-middle": ([0.5, 0.9, 0.1], 1),
    "no-top": ([0.9, 0.1, 0.5], 0.3333),
    "a-line": ([0.9, 0.5, 0.1], 0.3333),
    "the-largest-is-best": ([0.1, 0.5, 0.9], 1),
    "all-equal": ([0.5, 0.5, 0.5], 1),
}


@pytest.mark.parametrize("rates", [[None], [0.1, 1.0]], ids=("one-rate", "two-rates"))
@pytest.mark.parametrize("name", FOURTH_TRAINING)
def test_the_plan_for_the_paper(name, rates):
    scores, fourth = FOURTH_TRAINING[name]
    scores = dict(zip([0.4, 2.0, 10.0], scores, strict=True))
    trained, _ = searched(Plan(PAPER, rates, 1), lambda t: scores.get(t.tau, 0.0))
    trained = [t.tau for t in trained if t.learning_rate == rates[0]]
    assert sorted(trained[:3]) == [0.4, 2.0, 10.0]
    assert trained[3] == pytest.approx(fourth, abs=1e-4)


RATES = [0.01, 0.1, 1.0]


def test_rates_are_compared_at_one_threshold_and_the_others_get_the_best():
    trained, ranking = searched(
        Plan([*PAPER, INF], RATES, 1),
        lambda t: t.learning_rate == (1.0 if t.tau == INF else 0.1),
    )
    assert set(trained[:6]) == {Training(tau, r) for tau in (2.0, INF) for r in RATES}
    assert {t.learning_rate for t in trained[6:]} == {0.1}
    assert {t.tau for t in trained[6:]} == {0.4, 1.0, 10.0}
    assert ranking[:2] == [Training(INF, 1.0), Training(10.0, 0.1)]


def test_what_is_compared_takes_the_place_of_a_neighbour():
    taus = [1.5, *np.geomspace(3, 200, 9).round(3)]
    trained, _ = searched(Plan(taus, RATES, 1), lambda t: 0.5)
    assert [t.tau for t in trained[:3]] == 3 * [1.5]
    assert len({t.tau for t in trained[:5]}) == 3


def test_the_mean_over_seeds_decides():
    scores = {(1.0, None, 0): 0.9, (1.0, None, 1): 0.1, (1.0, None, 2): 0.1}
    scores |= {(2.0, None, seed): 0.5 for seed in range(3)}
    _, ranking = searched(Plan([1.0, 2.0], [None], 3), scores.get)
    assert [training.tau for training in ranking] == [2.0, 1.0]


def test_of_equal_ones_the_larger_threshold_and_the_smaller_rate_are_best():
    _, ranking = searched(Plan([0.5, 1.0, 2.0], RATES, 1), lambda t: 0.5)
    assert ranking[0] == Training(2.0, 0.01)


# A search with simulated trainings.


class Pretended:
    """Simulates trainings; tau near 2/3 and a rate of 0.1 are best."""

    def __init__(self, fail_at=None):
        self.trained = []
        self.fail_at = fail_at

    def __call__(self, task, training, on_epoch_end):
        if len(self.trained) == self.fail_at:
            raise KeyboardInterrupt
        self.trained.append(training)
        score = 0.6 - 0.02 * np.log(min(training.tau, 50) * 1.4) ** 2
        score -= 0.01 * abs(np.log10(10 * (training.learning_rate or 0.1)))
        for epoch in range(task.epochs):
            on_epoch_end(epoch + 1, score)
        return score, 2 * score if task.clean_data else None


@pytest.fixture
def pretended(monkeypatch):
    pretended = Pretended()
    monkeypatch.setattr(_search, "train", pretended)
    return pretended


@pytest.mark.parametrize("seeds", [1, 2])
def test_search_of_the_whole_grid(pretended, seeds):
    found = search(epochs=5, seeds=seeds, clean_data=(X, LABELS))
    assert found.best_tau == pytest.approx(2 / 3)
    assert found.best_learning_rate is None
    assert found.epochs_spent == 5 * len(pretended.trained)
    assert found.cost == found.epochs_spent / 5 == 2 + 2 * seeds
    assert [row["tau"] for row in found.rows] == sorted(r["tau"] for r in found.rows)
    assert sorted(row["seeds"] for row in found.rows) == [1, 1, seeds, seeds]
    assert all(r["clean_accuracy"] == 2 * r["accuracy"] for r in found.rows)
    assert len(str(found).splitlines()) == 2 + len(found.rows)
    assert "best tau: 0.6667 (study" in str(found)


def test_search_of_thresholds_and_rates(pretended):
    rates = [1, 0.01, 0.1]
    found = search(taus=[*PAPER, INF], learning_rates=rates, seeds=2)
    assert found.best_tau == pytest.approx(2 / 3)
    assert found.best_learning_rate == 0.1
    assert found.cost == (3 + 3) + 3 + 2
    assert "best tau: 0.6667, learning rate: 0.1 (study" in str(found)
    assert "try" not in str(found)
    plain = [row for row in found.rows if row["tau"] == INF]
    assert [row["learning_rate"] for row in plain] == sorted(rates)
    assert [row["clean_accuracy"] for row in plain] == 3 * [None]
    line = "    inf       0    0.01      1      0.2290"
    assert line in str(found).splitlines()


@pytest.mark.parametrize(
    ("rates", "advice"),
    [
        ([0.1, 1.0], "smallest learning rate: try smaller ones"),
        ([0.001, 0.01], "largest learning rate: try larger ones"),
    ],
)
def test_a_rate_at_the_edge_says_what_to_do(rates, advice, pretended):
    found = search(learning_rates=rates)
    assert f"This is the {advice}, too." in str(found).splitlines()


def test_no_clipping_can_be_best(pretended):
    found = search(taus=[0.001, INF])
    assert found.best_tau == INF
    assert "best tau: inf" in str(found)


def test_a_complete_search_trains_nothing(pretended):
    found = search()
    pretended.trained.clear()
    assert search() == found
    assert not pretended.trained


def test_an_interrupted_search_goes_on(monkeypatch, tmp_path):
    whole, first = Pretended(), Pretended(fail_at=2)
    monkeypatch.setattr(_search, "train", whole)
    expected = search(study_name="whole")
    monkeypatch.setattr(_search, "train", first)
    with pytest.raises(KeyboardInterrupt):
        search(study_name="parts")
    second = Pretended()
    monkeypatch.setattr(_search, "train", second)
    found = search(study_name="parts", grace_period=1)
    assert (found.best_tau, found.rows) == (expected.best_tau, expected.rows)
    assert set(first.trained).isdisjoint(second.trained)
    assert set(first.trained) | set(second.trained) == set(whole.trained)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["parts.db", "whole.db"]


def test_an_error_in_a_training_is_raised(monkeypatch):
    def fail(task, training, on_epoch_end):
        raise MemoryError("too large")

    monkeypatch.setattr(_search, "train", fail)
    with pytest.raises(MemoryError, match="too large"):
        search()
    monkeypatch.setattr(_search, "train", Pretended())
    assert search().best_tau == pytest.approx(2 / 3)


@pytest.mark.parametrize("epoch", [1, 2], ids=("while-training", "at-the-end"))
def test_a_training_that_was_taken_for_dead(epoch, monkeypatch):
    pretended, killed = Pretended(), []

    def train(task, training, on_epoch_end):
        def note(done, accuracy):
            on_epoch_end(done, accuracy)
            if done == epoch and not killed:
                study = optuna.load_study(
                    study_name="search_tau", storage="sqlite:///search_tau.db"
                )
                running = study.get_trials(states=(optuna.trial.TrialState.RUNNING,))
                killed.extend(running)
                study.tell(running[0].number, state=optuna.trial.TrialState.FAIL)

        return pretended(task, training, note)

    monkeypatch.setattr(_search, "train", train)
    assert search().best_tau == pytest.approx(2 / 3)
    counts = Counter(pretended.trained)
    again = Training(*queue.job_of(killed[0]))
    assert counts.pop(again) == 2
    assert set(counts.values()) == {1}


# A study belongs to everything that determines its results.


def doubled(loss, factor):
    return lambda y_true, y_pred: factor * loss(y_true, y_pred)


CROSS_ENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
Stopping = functools.partial(keras.callbacks.EarlyStopping, "val_accuracy")
WITH_DROPOUT = {"build_model": lambda: build_model(keras.layers.Dropout(0.0))}
WITH_RELU = {"build_model": lambda: build_model(keras.layers.Activation("relu"))}
FUNCTION = {"optimizer": lambda steps: keras.optimizers.Adam(1e-3)}

# Arguments of a search, arguments of the next call, and the reported difference.
OTHER_SETTINGS = {
    "epochs": ({}, {"epochs": 3}, "epochs: 2 there, 3 here"),
    "batch-size": ({}, {"batch_size": 64}, "batch_size: 128 there, 64 here"),
    "p": ({}, {"p": 1}, "p: 2.0 there, 1.0 here"),
    "seed": ({}, {"seed": 1}, "seed: 0 there, 1 here"),
    "seeds": ({}, {"seeds": 2}, "seeds: 1 there, 2 here"),
    "taus": (
        {},
        {"taus": [1.0, INF]},
        r"taus: \[0.2, .*10.0\] there, \[1.0, inf\] here",
    ),
    "rates": (
        {"learning_rates": [0.1]},
        {"learning_rates": [0.1, 1]},
        r"learning_rates: \[0.1\] there, \[0.1, 1.0\] here",
    ),
    "inputs": ({}, {"x": np.where(np.arange(4) == 3, X + 1e-6, X)}, "data: "),
    "labels": ({}, {"y": np.roll(NOISY.labels, 4)}, "data: "),
    "split": (
        {},
        {"validation_split": 0.2},
        "validation_split: 0.1 there, 0.2 here",
    ),
    "validation": (
        {"validation_data": (X, LABELS)},
        {"validation_data": (X + 1, LABELS)},
        "validation_data: ",
    ),
    "clean": ({}, {"clean_data": (X, LABELS)}, "clean_data: None there, '"),
    "dropout": (
        WITH_DROPOUT,
        {"build_model": lambda: build_model(keras.layers.Dropout(0.9))},
        "model: ",
    ),
    "activation": (
        WITH_RELU,
        {"build_model": lambda: build_model(keras.layers.Activation("tanh"))},
        "model: ",
    ),
    "loss": (
        {"loss": losses.GeneralizedCrossEntropy(q=0.7)},
        {"loss": losses.GeneralizedCrossEntropy(q=0.5)},
        r"loss: .*0\.7.* there, .*0\.5.* here",
    ),
    "closure": (
        {"loss": doubled(CROSS_ENTROPY, 1.0)},
        {"loss": doubled(CROSS_ENTROPY, 2.0)},
        "loss: ",
    ),
    "optimizer": (
        {"optimizer": keras.optimizers.SGD(0.1)},
        {"optimizer": keras.optimizers.SGD(0.2)},
        r"optimizer: .*0\.1.* there, .*0\.2.* here",
    ),
    "optimizer-function": (
        FUNCTION,
        {"optimizer": lambda steps: keras.optimizers.Adam(1.0)},
        "optimizer: .*0.001.* there, .*1.0.* here",
    ),
    "callbacks": (
        {"callbacks": [Stopping(patience=1)]},
        {"callbacks": [Stopping(patience=2)]},
        "callbacks: ",
    ),
}


@pytest.mark.parametrize("name", OTHER_SETTINGS)
def test_a_study_with_other_settings_is_refused(name, pretended):
    before, after, difference = OTHER_SETTINGS[name]
    found = search(study_name="mine", **before)
    assert search(study_name="mine", **before) == found
    pretended.trained.clear()
    with pytest.raises(ValueError, match=f"'mine'.*Received: .*{difference}") as error:
        search(study_name="mine", **after)
    assert not pretended.trained
    # Nothing else is reported, except for the optimizers of the rates.
    differences = str(error.value).partition("Received: ")[2].split("; ")
    assert len(differences) == 1 + (name == "rates")


@pytest.mark.parametrize("dtype", ["dtype_policy", "floatx"])
def test_other_numbers_of_keras_are_refused(dtype, pretended):
    search()
    setter = getattr(keras.config, f"set_{dtype}")
    setter("float16")
    try:
        with pytest.raises(
            ValueError, match=f"{dtype}: 'float32' there, 'float16' here"
        ):
            search()
    finally:
        setter("float32")


def test_functions_that_make_the_same_are_the_same(pretended):
    search(build_model=lambda: build_model(), optimizer="adam")
    pretended.trained.clear()

    def build():
        return build_model(outputs=2 + 2)

    search(build_model=build, optimizer=lambda steps: keras.optimizers.Adam())
    assert not pretended.trained


# Databases.


def test_storage_by_url(pretended, tmp_path):
    search(storage="sqlite:///elsewhere.db", study_name="any name/at all")
    search(storage="sqlite:///elsewhere.db", study_name="another", epochs=3)
    names = optuna.get_all_study_names("sqlite:///elsewhere.db")
    assert sorted(names) == ["another", "any name/at all"]


def test_any_name_names_a_file(pretended, tmp_path):
    names = ["what?one", "what?two", "100%", "a#b", "a b"]
    for count, name in enumerate(names, 1):
        search(study_name=name)
        assert len(pretended.trained) == 4 * count
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == sorted(f"{name}.db" for name in names)


def test_trials_of_others_are_ignored(pretended):
    found = search()
    study = optuna.load_study(
        study_name="search_tau", storage="sqlite:///search_tau.db"
    )
    study.add_trial(optuna.trial.create_trial(value=1.0))
    study.enqueue_trial({"tau": 1.0})
    assert search() == found


def test_a_study_of_somebody_else_is_refused(pretended):
    study = optuna.create_study(
        study_name="search_tau", storage="sqlite:///search_tau.db"
    )
    study.add_trial(optuna.trial.create_trial(value=1.0))
    with pytest.raises(ValueError, match="'search_tau'.*not made by keras-logitclip"):
        search()
    assert not pretended.trained


def lock():
    connection = sqlite3.connect("search_tau.db")
    connection.execute("BEGIN EXCLUSIVE")
    return connection


def damage():
    with open("search_tau.db", "r+b") as file:
        file.truncate(20_000)


@pytest.mark.parametrize(
    ("happen", "message"), [(lock, "is locked"), (damage, "search_tau.db is damaged")]
)
def test_a_file_that_is_locked_or_damaged(happen, message, pretended, monkeypatch):
    monkeypatch.setattr(storage, "_FILE_TIMEOUT", 0.1)
    search()
    pretended.trained.clear()
    connection = happen()
    with pytest.raises(ConnectionError, match=message):
        search()
    if connection:
        connection.close()
    assert not pretended.trained


def test_a_database_that_fails_where_the_result_is_read(pretended, monkeypatch):
    def fail(study):
        raise sqlalchemy.exc.OperationalError("SELECT", {}, OSError("It is gone."))

    monkeypatch.setattr(_search, "rows_of", fail)
    with pytest.raises(ConnectionError, match="call resumes it. It is gone."):
        search()


def test_a_folder_that_is_missing(pretended):
    with pytest.raises(ConnectionError, match="Create the folder missing"):
        search(storage="sqlite:///missing/search.db")


# What is shown.


@pytest.mark.parametrize("verbose", [False, True])
def test_progress_bar(verbose, pretended, capsys):
    search(verbose=verbose)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert ("8/8" in printed.err) == verbose
    assert verbose or not printed.err


KINDS = ("noisy", "clean")
PLOTS = {
    "taus": ({}, ["noisy labels", "clean labels"]),
    "plain": ({"taus": [1, INF]}, ["noisy labels", "clean labels"]),
    "taus-and-rates": (
        {"learning_rates": [0.1, 1], "taus": [1, 2, INF]},
        [f"{kind} labels, learning rate {r}" for r in (0.1, 1) for kind in KINDS],
    ),
}


@pytest.mark.parametrize("name", PLOTS)
def test_plot(name, pretended):
    arguments, labels = PLOTS[name]
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    found = search(clean_data=(X, LABELS), **arguments)
    ax = found.plot()
    assert (ax.get_xscale(), ax.get_xlabel()) == ("log", "tau")
    assert ax.get_legend_handles_labels()[1] == labels
    points = [len(line.get_xdata()) for line in ax.lines[:-1]]
    assert sum(points) == 2 * len(found.rows)
    ax.figure.canvas.draw()
    assert search(study_name="other").plot(ax) is ax
    matplotlib.pyplot.close(ax.figure)


def test_optuna_is_optional(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ImportError, match=r'pip install "keras-logitclip\[tuning\]"'):
        search()


# Bad input, before any training starts.


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(4)

    def call(self, inputs):
        return keras.ops.softmax(self.dense(inputs))


def two_heads():
    inputs = keras.Input((4,))
    return keras.Model(inputs, [keras.layers.Dense(4)(inputs) for _ in range(2)])


def compiled():
    model = build_model()
    model.compile("sgd", "mse")
    return model


def bad_model(build_model, message):
    return {"build_model": build_model}, message


scheduled = keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(0.1, 10))
BAD_ARGUMENTS = {
    "no-tau": ({"taus": []}, r"`taus`: expected a list of at least one.*taus=\[\]"),
    "one-tau": ({"taus": 1.0}, "`taus`: expected a list.*Received: taus=1.0"),
    "tau-0": ({"taus": [1, 0]}, "`taus`: expected a number greater than 0"),
    "no-rate": (
        {"learning_rates": []},
        "`learning_rates`: expected a list of at least one",
    ),
    "rate-inf": ({"learning_rates": [0.1, INF]}, "`learning_rates`.*a finite number"),
    "epochs": ({"epochs": 0, "taus": [1]}, "`epochs`.*at least 1"),
    "seeds": ({"seeds": 0}, "`seeds`: expected an integer of at least 1"),
    "workers": ({"workers": 0.5}, "`workers`: expected an integer"),
    "batches": (
        {"x": ShuffledBatches(X, LABELS, 32, seed=0), "y": None},
        "`x`: expected arrays.*`x, y = .*ShuffledBatches",
    ),
    "one-hot": ({"y": np.eye(4)[LABELS]}, r"`y`.*`np.argmax\(y, -1\)`.*\(240, 4\)"),
    "column": ({"y": LABELS[:, None]}, r"`y`.*`np.ravel\(y\)`.*\(240, 1\)"),
    "several-labels": (
        {"y": (X > 0.5) | (X < 0)},
        "`y`: expected one label per sample.*Received: 4 labels per sample",
    ),
    "float": ({"y": LABELS / 1}, "`y`.*integers.*float64"),
    "negative": ({"y": LABELS - 1}, "`y`.*Received: -1 at position 0"),
    "one-logit": (
        {
            "build_model": lambda: build_model(outputs=1),
            "loss": "binary_crossentropy",
            "y": LABELS % 2,
        },
        r"an output for each class. Received: one logit. .*`keras.layers.Dense\(2\)`",
    ),
    "one-class": ({"y": LABELS * 0}, "`y`.*at least two classes"),
    "no-labels": ({"x": X[:0], "y": LABELS[:0]}, r"`y`.*shape \(0,\)"),
    "lengths": ({"x": X[:-1]}, r"`x`.*\(239, 4\)., 240 labels"),
    "nan": ({"x": X * np.nan}, "finite inputs. Received: NaN or infinity"),
    "split": ({"validation_split": 0.001}, "validation_split=0.001, 240 samples"),
    "split-1": ({"validation_split": 1}, "between 0 and 1.*Received:.*=1"),
    "validation": ({"validation_data": X}, "`validation_data`: expected a pair"),
    "clean-lengths": ({"clean_data": (X[1:], LABELS)}, "`clean_data.0.`.*240 labels"),
    "validation-labels": (
        {"validation_data": (X, LABELS / 1)},
        "`validation_data.1.`: expected class ids.*float64",
    ),
    "validation-classes": ({"validation_data": (X, LABELS + 1)}, "at least 5 classes"),
    "callbacks": ({"callbacks": [print]}, "`callbacks`.*Received:.*print"),
    "one-callback": (
        {"callbacks": keras.callbacks.TerminateOnNaN()},
        "`callbacks`: expected a list",
    ),
    "study-name-type": ({"study_name": 3}, "`study_name`: expected a name.*=3"),
    "compiled": bad_model(compiled, "Received: a compiled model"),
    "no-model": bad_model(lambda: None, "Received: an object of type NoneType"),
    "softmax": bad_model(
        lambda: build_model(keras.layers.Softmax()), "returns probabilities"
    ),
    "activation": bad_model(
        lambda: build_model(keras.layers.Activation("sigmoid")), "returns probabilities"
    ),
    "dense-softmax": bad_model(
        lambda: build_model(keras.layers.Dense(4, "softmax")), "returns probabilities"
    ),
    "nested": bad_model(
        lambda: keras.Sequential([build_model(keras.layers.Softmax())]),
        "returns probabilities",
    ),
    "subclassed": bad_model(Subclassed, "returns probabilities"),
    "two-heads": bad_model(two_heads, r"a model with one output.*\(1, 4\), \(1, 4\)"),
    "few-classes": bad_model(
        lambda: build_model(outputs=3), "at least 4 classes. Received: ids from 0 to 3"
    ),
    "optimizer": ({"optimizer": 0.1}, "`optimizer`.*Received: optimizer=0.1"),
    "no-optimizer": (
        {"optimizer": lambda steps: steps},
        "`optimizer`.*is no optimizer",
    ),
    "unknown-optimizer": ({"optimizer": "sdg"}, "sdg"),
    "optimizer-class": ({"optimizer": keras.optimizers.SGD}, "`optimizer`.*SGD"),
    "schedule": (
        {"optimizer": scheduled, "learning_rates": [0.1]},
        r"no schedule.*function `\(steps, learning_rate\)`.*LearningRateSchedule",
    ),
    "one-argument": (
        {"optimizer": lambda steps: keras.optimizers.SGD(), "learning_rates": [0.1]},
        r"`\(steps, learning_rate\)`.*takes 1 positional argument",
    ),
    "loss": ({"loss": "sparse"}, "`loss`.*Received: loss='sparse'"),
    "one-hot-loss": (
        {"loss": "categorical_crossentropy"},
        "one-hot or soft labels.*Received: class ids. .*`sparse_categorical_cross",
    ),
    "storage": ({"storage": "redis://user:secret@host"}, "`storage`.*another URL"),
    "storage-memory": ({"storage": "sqlite:///:memory:"}, "`storage`.*another URL"),
    "storage-type": ({"storage": 1}, "`storage`.*<class 'int'>"),
    "no-study-name": ({"study_name": ""}, "`study_name`.*Received: study_name=''"),
    "study-name": ({"study_name": "a/b"}, "`study_name`.*Received: study_name='a/b'"),
    "clean-data": ({"clean_data": X}, "`clean_data`.*type ndarray"),
    "lambda": (
        {"workers": 2, "build_model": lambda: build_model()},
        "`build_model`: expected something that worker processes can import",
    ),
}


@pytest.mark.parametrize(
    ("arguments", "message"), BAD_ARGUMENTS.values(), ids=BAD_ARGUMENTS
)
def test_bad_arguments(arguments, message, pretended, tmp_path):
    with pytest.raises(ValueError, match=message) as error:
        search(**arguments)
    assert "secret" not in str(error.value)
    assert not pretended.trained
    assert not list(tmp_path.iterdir())


def test_postgresql_without_its_driver(monkeypatch, pretended):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ImportError, match=r'pip install "psycopg\[binary\]"'):
        search(storage="postgresql://localhost/none")
