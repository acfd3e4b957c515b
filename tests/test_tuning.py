"""The plan of a search, and searches whose trainings are pretended."""

import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest

from keras_logitclip import losses
from keras_logitclip import noise
from keras_logitclip._jobs import queue

optuna = pytest.importorskip("optuna")

from keras_logitclip import tuning  # noqa: E402
from keras_logitclip.tuning import _study  # noqa: E402
from keras_logitclip.tuning._plan import Training  # noqa: E402
from keras_logitclip.tuning._plan import planned_trainings  # noqa: E402
from keras_logitclip.tuning._plan import progress  # noqa: E402

pytestmark = pytest.mark.once

rng = np.random.default_rng(0)
LABELS = np.arange(240) % 4
X = (np.eye(4)[LABELS] + rng.normal(size=(240, 4)) / 5).astype("float32")
NOISY = noise.symmetric(LABELS, 0.3, 4, exact=True, seed=0)
PAPER = [1 / inverse for inverse in (0.1, 0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4, 4.5, 5)]


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


def searched(taus, seeds, score):
    """Returns what is trained, in this order, and the ranking."""
    scores = {}
    while missing := progress(taus, seeds, scores).missing:
        assert missing[0] not in scores
        scores[missing[0]] = score(missing[0])
    return list(scores), progress(taus, seeds, scores).ranking


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize("num_values", [1, 2, 3, 4, 5, 11, 40])
@pytest.mark.parametrize("best", [0, 0.3, 0.5, 1])
def test_no_plan_costs_more_than_four_trainings(num_values, seeds, best):
    taus = [1.0 + i for i in range(num_values)]
    target = 1 + best * (num_values - 1)
    trained, ranking = searched(taus, seeds, lambda t: -abs(t.tau - target))
    assert len(trained) == planned_trainings(num_values, seeds)
    assert len(trained) <= 4 + min(num_values, 2) * (seeds - 1)
    assert sorted(ranking) == sorted({training.tau for training in trained})
    assert abs(ranking[0] - target) == min(abs(tau - target) for tau in ranking)


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


@pytest.mark.parametrize("name", FOURTH_TRAINING)
def test_the_plan_for_the_paper(name):
    scores, fourth = FOURTH_TRAINING[name]
    scores = dict(zip([0.4, 2.0, 10.0], scores, strict=True))
    trained, _ = searched(PAPER, 1, lambda t: scores.get(t.tau, 0.0))
    assert sorted(t.tau for t in trained[:3]) == [0.4, 2.0, 10.0]
    assert trained[3].tau == pytest.approx(fourth, abs=1e-4)


def test_the_mean_over_seeds_decides():
    scores = {(1.0, 0): 0.9, (1.0, 1): 0.1, (1.0, 2): 0.1, (2.0, 0): 0.5}
    scores |= {(2.0, 1): 0.5, (2.0, 2): 0.5}
    assert searched([1.0, 2.0], 3, scores.get)[1] == [2.0, 1.0]


def test_of_equal_values_the_larger_one_is_best():
    assert searched([1.0, 2.0, 0.5], 1, lambda t: 0.5)[1][0] == 2.0


# A search whose trainings are pretended.


class Pretended:
    """Trainings that take no time; the best threshold is 2/3 or near it."""

    def __init__(self, fail_at=None):
        self.trained = []
        self.fail_at = fail_at

    def __call__(self, task, training, on_epoch_end):
        if len(self.trained) == self.fail_at:
            raise KeyboardInterrupt
        self.trained.append(training)
        score = 0.6 - 0.02 * np.log(training.tau * 1.4) ** 2
        for epoch in range(task.epochs):
            on_epoch_end(epoch + 1, score)
        return score, 2 * score if task.clean_data else None


@pytest.fixture
def pretended(monkeypatch):
    pretended = Pretended()
    monkeypatch.setattr(_study, "train", pretended)
    return pretended


@pytest.mark.parametrize("seeds", [1, 2])
def test_search_of_the_whole_grid(pretended, seeds):
    found = search(epochs=5, seeds=seeds, clean_data=(X, LABELS))
    assert found.best_tau == pytest.approx(2 / 3)
    assert found.epochs_spent == 5 * len(pretended.trained)
    assert found.cost == found.epochs_spent / 5 == 2 + 2 * seeds
    assert [row["tau"] for row in found.rows] == sorted(r["tau"] for r in found.rows)
    assert sorted(row["seeds"] for row in found.rows) == [1, 1, seeds, seeds]
    assert all(r["clean_accuracy"] == 2 * r["accuracy"] for r in found.rows)
    assert len(str(found).splitlines()) == 2 + len(found.rows)
    assert "best tau: 0.6667" in str(found)


def test_a_complete_search_trains_nothing(pretended):
    found = search()
    pretended.trained.clear()
    assert search() == found
    assert not pretended.trained


def test_an_interrupted_search_goes_on(monkeypatch, tmp_path):
    whole, first = Pretended(), Pretended(fail_at=2)
    monkeypatch.setattr(_study, "train", whole)
    expected = search(study_name="whole")
    monkeypatch.setattr(_study, "train", first)
    with pytest.raises(KeyboardInterrupt):
        search(study_name="parts")
    second = Pretended()
    monkeypatch.setattr(_study, "train", second)
    found = search(study_name="parts", grace_period=1)
    assert (found.best_tau, found.rows) == (expected.best_tau, expected.rows)
    assert set(first.trained).isdisjoint(second.trained)
    assert set(first.trained) | set(second.trained) == set(whole.trained)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["parts.db", "whole.db"]


def test_an_error_in_a_training_is_raised(monkeypatch):
    def fail(task, training, on_epoch_end):
        raise MemoryError("too large")

    monkeypatch.setattr(_study, "train", fail)
    with pytest.raises(MemoryError, match="too large"):
        search()
    monkeypatch.setattr(_study, "train", Pretended())
    assert search().best_tau == pytest.approx(2 / 3)


def test_what_two_processes_queued_is_trained_once(pretended, monkeypatch):
    enqueue = optuna.Study.enqueue_trial

    def enqueue_twice(study, *args, **kwargs):
        enqueue(study, *args, **kwargs)
        enqueue(study, *args, **kwargs)

    monkeypatch.setattr(optuna.Study, "enqueue_trial", enqueue_twice)
    search()
    assert max(Counter(pretended.trained).values()) == 1


def test_a_queue_that_another_process_emptied(pretended, monkeypatch):
    optimize, wait, others = optuna.Study.optimize, queue.time.sleep, []

    def optimize_too_late(study, objective, n_trials):
        if not others:
            with pytest.warns(UserWarning, match="Heartbeat"):
                others.append(study.ask())
        # More often than there is something in the queue.
        optimize(study, objective, n_trials=20)

    def sleep(seconds):
        if others[0] is not None:
            study = others[0].study
            study.tell(others[0], state=optuna.trial.TrialState.FAIL)
            others[0] = None
        wait(0)

    monkeypatch.setattr(optuna.Study, "optimize", optimize_too_late)
    monkeypatch.setattr(queue.time, "sleep", sleep)
    assert search().best_tau == pytest.approx(2 / 3)
    assert others == [None]
    assert max(Counter(pretended.trained).values()) == 1


def test_a_process_that_died_between_taking_a_trial_and_beginning(pretended):
    taken = []

    def die(study, objective):
        with pytest.warns(UserWarning, match="Heartbeat"):
            taken.append(Training(*queue.job_of(study.ask())))
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(queue, "_run_one_trial", die)
        with pytest.raises(KeyboardInterrupt):
            search()
    assert search(grace_period=1).best_tau == pytest.approx(2 / 3)
    assert Counter(pretended.trained)[taken[0]] == 1


def test_no_two_processes_take_the_same_trial(tmp_path):
    url, trials = f"sqlite:///{tmp_path}/queue.db", 60
    # A study has a connection of its own, as another process would.
    studies = [queue.open_study(url, "queue", {}, 60) for _ in range(4)]
    for number in range(trials):
        studies[0].enqueue_trial({"number": number})
    start = threading.Barrier(len(studies))

    def take(study):
        start.wait()
        return [study.ask().number for _ in range(trials // len(studies))]

    with (
        ThreadPoolExecutor(len(studies)) as pool,
        pytest.warns(UserWarning, match="Heartbeat"),
    ):
        taken = list(pool.map(take, studies))
    assert sorted(number for part in taken for number in part) == list(range(trials))


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

    monkeypatch.setattr(_study, "train", train)
    assert search().best_tau == pytest.approx(2 / 3)
    counts = Counter(pretended.trained)
    again = Training(*queue.job_of(killed[0]))
    assert counts.pop(again) == 2
    assert set(counts.values()) == {1}


OTHER_SETTINGS = {
    "epochs": {"epochs": 3},
    "taus": {"taus": [1.0, 2.0]},
    "loss": {"loss": losses.GeneralizedCrossEntropy()},
    "optimizer": {"optimizer": keras.optimizers.Adam(0.1)},
    "data": {"x": X + 1},
    "model": {"build_model": lambda: build_model()},
    "seed": {"seed": 1},
}


@pytest.mark.parametrize("name", OTHER_SETTINGS)
def test_a_study_with_other_settings_is_refused(name, pretended):
    search(study_name="mine")
    pretended.trained.clear()
    with pytest.raises(ValueError, match=f"'mine'.*Received: .*{name}: .* there, "):
        search(study_name="mine", **OTHER_SETTINGS[name])
    assert not pretended.trained


def test_losses_and_optimizers_are_told_apart_by_their_arguments(pretended):
    search(loss=losses.GeneralizedCrossEntropy(q=0.7))
    with pytest.raises(ValueError, match=r"loss: .*0\.7.* there, .*0\.5.* here"):
        search(loss=losses.GeneralizedCrossEntropy(q=0.5))
    search(study_name="other", optimizer=keras.optimizers.SGD(0.1))
    with pytest.raises(ValueError, match=r"optimizer: .*0\.1.* there, .*0\.2.* here"):
        search(study_name="other", optimizer=keras.optimizers.SGD(0.2))


def test_storage_by_url(pretended, tmp_path):
    search(storage="sqlite:///elsewhere.db", study_name="any name/at all")
    search(storage="sqlite:///elsewhere.db", study_name="another", epochs=3)
    names = optuna.get_all_study_names("sqlite:///elsewhere.db")
    assert sorted(names) == ["another", "any name/at all"]


@pytest.mark.parametrize("verbose", [False, True])
def test_progress_bar(verbose, pretended, capsys):
    search(verbose=verbose)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert ("8/8" in printed.err) == verbose
    assert verbose or not printed.err


def test_plot(pretended):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    ax = search(clean_data=(X, LABELS)).plot()
    assert ax.get_xscale() == "log"
    labels = ax.get_legend_handles_labels()[1]
    assert labels == ["noisy labels", "clean labels"]
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


def compiled():
    model = build_model()
    model.compile("sgd", "mse")
    return model


def bad_model(build_model, message):
    return {"build_model": build_model}, message


RARE = np.append(LABELS[:-1], 7)
BAD_ARGUMENTS = {
    "no-tau": ({"taus": []}, r"`taus`: expected at least one.*taus=\[\]"),
    "tau-0": ({"taus": [1, 0]}, "`tau`: expected a number greater than 0"),
    "tau-inf": ({"taus": [1, np.inf]}, "`taus`.*finite"),
    "epochs": ({"epochs": 0, "taus": [1]}, "`epochs`.*at least 1"),
    "seeds": ({"seeds": 0}, "`seeds`: expected an integer of at least 1"),
    "workers": ({"workers": 0.5}, "`workers`: expected an integer"),
    "one-hot": ({"y": np.eye(4)[LABELS]}, r"`y`.*`y.argmax\(-1\)`.*\(240, 4\)"),
    "column": ({"y": LABELS[:, None]}, r"`y`.*`y.ravel\(\)`.*\(240, 1\)"),
    "float": ({"y": LABELS / 1}, "`y`.*integers.*float64"),
    "negative": ({"y": LABELS - 1}, "`y`.*Received: -1 at position 0"),
    "one-class": ({"y": LABELS * 0}, "`y`.*at least two classes"),
    "lengths": ({"x": X[:-1]}, r"`x`.*\(239, 4\)., 240 labels"),
    "rare": ({"y": RARE}, "holds out 0 of the 1 samples with label 7"),
    "split": ({"validation_split": 0.999}, "holds out 60 of the 60 samples"),
    "split-1": ({"validation_split": 1}, "between 0 and 1. Received:.*=1"),
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
    "few-classes": bad_model(
        lambda: build_model(outputs=3), r"4 classes.*Received: outputs of .*, 3\)"
    ),
    "optimizer": ({"optimizer": 0.1}, "`optimizer`.*Received: optimizer=0.1"),
    "no-optimizer": ({"optimizer": lambda steps: steps}, "object of type int"),
    "unknown-optimizer": ({"optimizer": "sdg"}, "sdg"),
    "loss": ({"loss": "sparse"}, "`loss`.*Received: loss='sparse'"),
    "one-hot-loss": ({"loss": "categorical_crossentropy"}, "shape"),
    "storage": ({"storage": "redis://user:secret@host"}, "`storage`.*another URL"),
    "storage-type": ({"storage": 1}, "`storage`.*<class 'int'>"),
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
