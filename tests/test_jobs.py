"""The queue of jobs, its databases, files and descriptions."""

import functools
import json
import math
import multiprocessing
import os
import re
import sqlite3
import subprocess
import sys
import time
import types
import warnings
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_logitclip import losses
from keras_logitclip._jobs import arrays
from keras_logitclip._jobs import files
from keras_logitclip._jobs import processes
from keras_logitclip._jobs import queue
from keras_logitclip._jobs import storage
from keras_logitclip._jobs.description import describe
from keras_logitclip._jobs.description import describe_model
from keras_logitclip._jobs.description import fingerprint
from keras_logitclip._jobs.description import keras_settings
from keras_logitclip._jobs.progress import progress_bar
from tests.subprocesses import LIMIT
from tests.subprocesses import environment

optuna = pytest.importorskip("optuna")
sqlalchemy = pytest.importorskip("sqlalchemy")

pytestmark = pytest.mark.once
STATES = optuna.trial.TrialState


# Databases.


def open_study(path="study.db", name="jobs", growing=None, **settings):
    settings = {"format": 1, **settings}
    return storage.open_study(storage.file_url(path), name, settings, growing)


@pytest.fixture(autouse=True)
def own_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", ["what?one", "a%20b", "50%", "a{b}", "a#b", "ä b"])
def test_any_folder_holds_a_database(name, tmp_path):
    for folder in (name, f"{name}2"):
        (tmp_path / folder).mkdir()
        study = open_study(tmp_path / folder / "study.db")
        assert (tmp_path / folder / "study.db").exists()
        assert not study.get_trials()
        study.add_trial(optuna.trial.create_trial(value=1.0))


def test_settings_that_differ_are_refused():
    open_study(epochs=3, loss="CE")
    open_study(epochs=3, loss="CE")
    with pytest.raises(ValueError, match=r"Received: epochs: 3 there, 4 here$"):
        open_study(epochs=4, loss="CE")
    with pytest.raises(ValueError, match="Received: taus: None there, 2 here"):
        open_study(epochs=3, loss="CE", taus=2)
    open_study(epochs=3)  # As a report, which does not load the data.
    with pytest.raises(ValueError, match="Received: format: 1 there, 0 here"):
        open_study(format=0)


def test_a_study_grows():
    open_study(growing={"noise a": 1})
    open_study(growing={"noise b": 2})
    open_study(growing={})
    study = open_study()
    assert storage.stored_settings(study) == {"format": 1, "noise a": 1, "noise b": 2}
    with pytest.raises(ValueError, match="Received: noise a: 1 there, 3 here"):
        open_study(growing={"noise a": 3, "noise b": 2})


def test_a_study_of_somebody_else_is_refused():
    url = storage.file_url("study.db")
    study = optuna.create_study(storage=url, study_name="jobs")
    study.add_trial(optuna.trial.create_trial(value=1.0))
    with pytest.raises(ValueError, match="'jobs' .* not made by keras-logitclip"):
        open_study()
    open_study(name="other")
    optuna.create_study(storage=url, study_name="two", directions=2 * ["minimize"])
    mine = optuna.create_study(storage=url, study_name="mine")
    mine.set_user_attr("settings", "mine")
    for name in ("two", "mine"):
        with pytest.raises(ValueError, match=f"'{name}' .* not made by keras-logitc"):
            open_study(name=name)


FILE = Path("study.db")


def foreign():
    connection = sqlite3.connect(FILE)
    connection.execute("CREATE TABLE customers (id INTEGER)")
    connection.close()


def text():
    FILE.write_text("no database\n" * 1000)


def truncated():
    open_study()
    contents = FILE.read_bytes()
    FILE.write_bytes(contents[: len(contents) // 2])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (foreign, "was not made by Optuna.*the tables customers"),
        (text, "is damaged or was not made by Optuna"),
        (truncated, "study.db is damaged"),
    ],
)
def test_files_that_are_no_database_of_a_study(damage, message):
    damage()
    before = FILE.read_bytes()
    with pytest.raises(ConnectionError, match=message):
        open_study()
    assert FILE.read_bytes() == before


def test_a_locked_file(monkeypatch):
    monkeypatch.setattr(storage, "_FILE_TIMEOUT", 0.1)
    open_study()
    connection = sqlite3.connect("study.db")
    connection.execute("BEGIN EXCLUSIVE")
    with pytest.raises(ConnectionError, match="cannot be opened. database is locked"):
        open_study()
    connection.close()


def test_a_transaction_keeps_others_out(monkeypatch):
    """Otherwise both would count the trials before either stores one."""
    monkeypatch.setattr(storage, "_FILE_TIMEOUT", 0.1)
    one, other = (open_study()._storage._backend.engine for _ in range(2))
    with one.begin(), pytest.raises(sqlalchemy.exc.OperationalError, match="locked"):
        other.connect().begin()
    with other.begin():
        pass


def test_a_missing_folder():
    with pytest.raises(ConnectionError, match="Create the folder missing first"):
        open_study("missing/study.db")


BAD_PORT = "postgresql://u:secret@h:port/d"


@pytest.mark.parametrize("url", ["mysql://u:secret@h/d", BAD_PORT, "study.db", 3, None])
def test_other_storages_are_refused_without_their_passwords(url):
    with pytest.raises(ValueError, match="sqlite:///search.db") as error:
        storage.check_storage(url)
    assert "secret" not in str(error.value)


# The queue.

JOBS = [("CE", tau, seed) for tau in (None, 0.5, math.inf) for seed in range(4)]


def work(study, run, jobs=JOBS, grace_period=60, on_progress=lambda message: None):
    def missing():
        done = queue.complete_trials(study)
        return [job for job in jobs if job not in done]

    queue.work(study, missing, run, grace_period, on_progress)


def test_jobs_are_done_in_their_order_and_once():
    done = []
    study = open_study()
    for _ in range(2):
        work(study, lambda trial, job: done.append(job) or 0.5)
    assert done == JOBS
    assert list(queue.complete_trials(open_study())) == JOBS


def work_in_a_process(folder, barrier, number):
    os.chdir(folder)
    study = open_study()
    barrier.wait()

    def run(trial, job):
        with open(f"done-{number}", "a") as file:
            file.write(f"{job}\n")
        time.sleep(0.01)
        return 1.0

    work(study, run)


def test_processes_share_jobs(tmp_path):
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(3)
    processes = [
        context.Process(target=work_in_a_process, args=(tmp_path, barrier, number))
        for number in range(3)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    lines = "".join(path.read_text() for path in tmp_path.glob("done-*")).splitlines()
    assert sorted(lines) == sorted(map(str, JOBS))
    states = {trial.state for trial in open_study().get_trials()}
    assert states <= {STATES.COMPLETE, STATES.FAIL}


def write_settings(folder, on_progress):
    path = folder / f"{os.getpid()}.json"
    path.write_text(json.dumps(keras_settings()))


def test_processes_have_the_settings_of_keras():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    keras.config.set_image_data_format("channels_first")
    try:
        here = keras_settings()
        ignored, done = (lambda message: None), (lambda: True)
        processes.work(2, write_settings, (Path.cwd(),), done, ignored)
    finally:
        keras.config.set_dtype_policy(before)
        keras.config.set_image_data_format("channels_last")
    there = [json.loads(path.read_text()) for path in Path(".").glob("*.json")]
    assert there == [here, here]


@pytest.mark.parametrize("error", [KeyError("broken"), json.JSONDecodeError("", "", 0)])
def test_an_error_in_a_job_ends_the_work_and_the_job_is_missing_again(error):
    def failing(trial, job):
        raise error

    study = open_study()
    with pytest.raises(type(error)):
        work(study, failing)
    assert [trial.state for trial in study.get_trials()] == [STATES.FAIL]
    assert not queue.complete_trials(study)
    work(study, lambda trial, job: 0.0)
    assert len(queue.complete_trials(study)) == len(JOBS)


def test_trials_of_somebody_else_are_ignored():
    study = open_study()
    study.add_trial(optuna.trial.create_trial(value=1.0))
    study.add_trial(optuna.trial.create_trial(value=1.0, user_attrs={"job": "mine"}))
    study.add_trial(optuna.trial.create_trial(value=1.0, user_attrs={"job": [1, "2"]}))
    study.enqueue_trial({"tau": 1.0})
    work(study, lambda trial, job: 0.0)
    assert len(queue.complete_trials(study)) == len(JOBS)


def take(study, job, process):
    """Stores a running trial, as a process does that takes a job."""
    attributes = {"job": job, "process": process}
    template = optuna.trial.create_trial(state=STATES.RUNNING, user_attrs=attributes)
    study.add_trial(template)


@pytest.mark.parametrize("is_waited_for", [True, False])
def test_a_job_whose_process_has_ended_here_is_taken_at_once(is_waited_for):
    study = open_study()
    machine, _ = queue._this_process()
    with subprocess.Popen(
        [sys.executable, "-c", ""], stdout=subprocess.PIPE
    ) as process:
        process.stdout.read()  # Until it ends.
        if is_waited_for:
            process.wait()
        take(study, JOBS[0], (machine, process.pid))
        start = time.monotonic()
        work(study, lambda trial, job: 0.0, grace_period=600)
    assert time.monotonic() - start < 60
    assert study.get_trials()[0].state == STATES.FAIL


@pytest.mark.parametrize("process", [("another machine", 1), queue._this_process()])
def test_a_silent_job_is_waited_for(process):
    study = open_study()
    take(study, JOBS[0], process)
    messages = []
    work(study, lambda trial, job: 0.0, JOBS[:2], 3, messages.append)
    waiting = [message for message in messages if message]
    assert len(waiting) > 1
    assert all(re.fullmatch(r"waiting for CE 0, \d s", text) for text in waiting)
    assert len(queue.complete_trials(study)) == 2


def test_a_job_that_gives_signs_of_life_is_not_taken(monkeypatch):
    study = open_study()
    other = open_study()
    failed = []

    def run(trial, job):
        silent = {}
        for _ in range(30):
            failed.append(queue._running_jobs(other, silent, 0.5) != {job})
            time.sleep(0.05)
        return 0.0

    monkeypatch.setattr(queue, "_has_ended", lambda *process: False)
    work(study, run, JOBS[:1], grace_period=0.5)
    assert not any(failed)


def test_a_process_that_others_took_for_dead_gives_way():
    study = open_study()
    values = iter([1.0, 2.0])

    def run(trial, job):
        value = next(values)
        if value == 1.0:
            study.tell(trial.number, state=STATES.FAIL)
        trial.report(0.5, 0)
        return value

    work(study, run, JOBS[:1])
    (trial,) = queue.complete_trials(study).values()
    assert trial.value == 2.0


def test_two_processes_that_end_a_trial_at_once(monkeypatch):
    """Both can see the trial running before the other one ends it."""
    study, other = open_study(), open_study()
    take(study, JOBS[0], queue._this_process())

    def end(ended, trial, state, values):
        other.tell(trial.number, state=STATES.FAIL)

    monkeypatch.setattr(queue, "_has_ended", lambda *process: True)
    with monkeypatch.context() as patch:
        patch.setattr(study.sampler, "after_trial", end)
        assert not queue._running_jobs(study, {}, 60)
        queue._take_and_run(study, JOBS[0], lambda trial, job: 1.0, 60)
    assert [trial.state for trial in study.get_trials()] == [STATES.FAIL] * 2
    work(study, lambda trial, job: 2.0, JOBS[:1])
    (trial,) = queue.complete_trials(study).values()
    assert trial.value == 2.0


# Files.


def test_a_file_is_there_as_a_whole_or_not_at_all(tmp_path):
    path = tmp_path / "folder" / "record.json"
    assert files.read_json(path) is None
    files.write_json(path, {"a": [1.5, None]})
    assert files.read_json(path) == {"a": [1.5, None]}
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(path, {"a": math.nan})
    assert files.read_json(path) == {"a": [1.5, None]}
    assert [file.name for file in path.parent.iterdir()] == ["record.json"]


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"null", b"\xff", b'{"a": 1}'])
def test_a_damaged_file_is_none(damage, tmp_path):
    path = tmp_path / "record.json"
    files.write_json(path, {"a": 1})
    path.write_bytes(damage)
    assert files.read_json(path) is None
    changed = {**json.loads(json.dumps({"a": 1, "sha256": files.digest({"a": 2})}))}
    path.write_text(json.dumps(changed))
    assert files.read_json(path) is None


# Samples and labels.


def test_the_split_holds_out_a_share_of_each_class():
    labels = np.repeat([0, 1, 2], [100, 50, 10])
    training, held_out = arrays.split(labels, 0.1, seed=0)
    assert sorted([*training, *held_out]) == list(range(160))
    assert np.bincount(labels[held_out]).tolist() == [10, 5, 1]
    other = arrays.split(labels, 0.1, seed=1)[1]
    assert other.tolist() != held_out.tolist()


@pytest.mark.parametrize("samples", [1, 2, 5])
def test_a_small_class_stays_in_the_training_part(samples):
    labels = np.repeat([0, 1], [100, samples])
    with pytest.warns(
        UserWarning, match=r"1 of 2 classes have too few samples .*: \[1\]"
    ):
        training, held_out = arrays.split(labels, 0.1, seed=0)
    assert np.bincount(labels[held_out]).tolist() == [10]
    assert np.bincount(labels[training]).tolist() == [90, samples]
    training, _ = arrays.split(np.repeat([0, 1], [100, 6]), 0.99, seed=0)
    assert len(training) == 2


@pytest.mark.parametrize("share", [0.0, 1.0, -0.5, 2, "0.1", None, 0.001, math.nan])
def test_a_split_that_holds_out_nothing_is_refused(share):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match="`validation_split`: expected a number"):
            arrays.split(np.repeat([0, 1], 50), share, seed=0)


@pytest.mark.parametrize(
    ("epochs", "mean"), [(1, 0.0), (9, 8.0), (10, 9.0), (19, 18.0), (20, 18.5)]
)
def test_the_last_epochs_are_a_tenth_and_at_least_one(epochs, mean):
    assert arrays.mean_of_last_epochs(list(range(epochs))) == mean


def test_batches_hold_each_sample_once_and_each_epoch_has_its_order():
    batches = arrays.ShuffledBatches([np.arange(10)], np.arange(10), 4, seed=0)
    assert len(batches) == 3
    orders = []
    for epoch in range(2):
        parts = [batches[i] for i in range(3)]
        order = np.concatenate([labels for _, labels in parts])
        inputs = np.concatenate([inputs for (inputs,), _ in parts])
        np.testing.assert_array_equal(inputs, order)
        np.testing.assert_array_equal(order, arrays.epoch_order(0, epoch, 10))
        orders.append(order.tolist())
        batches.on_epoch_end()
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == list(range(10))


# The progress bar.


def test_the_progress_bar_looks_seldom(capsys):
    looks = []

    def done():
        looks.append(1)
        time.sleep(0.01)
        return 3, "1/2 cells"

    with progress_bar("search", 7, done, verbose=True) as refresh:
        for _ in range(100):
            refresh()
    assert 2 <= len(looks) <= 4
    assert "3/7" in capsys.readouterr().err
    with progress_bar("search", 7, done, verbose=False) as refresh:
        refresh()
    assert len(looks) <= 4


# Descriptions.


def model(rate=0.0, activation="relu", weights=None):
    layers = [keras.layers.Dense(3, activation), keras.layers.Dropout(rate)]
    built = keras.Sequential([keras.Input((4,)), *layers, keras.layers.Dense(2)])
    if weights is not None:
        built.layers[-1].set_weights([np.full((3, 2), weights), np.zeros(2)])
    return built


def subclassed(activation, width=2):
    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(width)

        def call(self, x):
            return getattr(keras.ops, activation)(self.dense(x))

    return Model


class Scaled(keras.losses.Loss):
    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def call(self, y_true, y_pred):
        return self.scale * keras.ops.mean(y_pred, -1)


def closure(scale):
    def loss(y_true, y_pred):
        return scale * keras.ops.mean(y_pred, -1)

    return loss


class Step(keras.layers.Layer):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def call(self, x):
        return self.function(x)


class Private(keras.losses.Loss):
    def __init__(self, scale):
        super().__init__()
        self._scale = scale

    def call(self, y_true, y_pred):
        return self._scale * keras.ops.mean(y_pred, -1)


class Slots:
    __slots__ = ("scale",)

    def __init__(self, scale):
        self.scale = scale

    def __call__(self, y_true, y_pred):
        return self.scale * keras.ops.mean(y_pred, -1)


def with_constant(scale):
    return type("Constant", (Scaled,), {"constant": scale})(1)


def with_module(scale):
    module = types.ModuleType("helpers_of_a_user")
    module.scale = scale
    names = {"__name__": __name__, "helpers": module}
    return types.FunctionType(uses_module.__code__, names)


def uses_module(y_true, y_pred):
    return helpers.scale * y_pred  # noqa: F821


def with_own_schedule(rate):
    return keras.optimizers.Adam(OwnSchedule(rate))


class OwnSchedule(keras.optimizers.schedules.LearningRateSchedule):
    def __init__(self, rate):
        self.rate = rate

    def __call__(self, step):
        return self.rate


def adam(rate):
    return lambda steps: keras.optimizers.Adam(rate)


EQUAL_AND_OTHER = {
    "loss": (losses.Focal, {"gamma": 2.0}, {"gamma": 1.0}),
    "own loss": (Scaled, {"scale": 1}, {"scale": 2}),
    "closure": (closure, {"scale": 1}, {"scale": 2}),
    "optimizer": (keras.optimizers.SGD, {"momentum": 0.9}, {"momentum": 0.8}),
    "function": (adam, {"rate": 1e-3}, {"rate": 1.0}),
    "partial": (
        functools.partial,
        {"func": adam, "rate": 1},
        {"func": adam, "rate": 2},
    ),
    "private attribute": (Private, {"scale": 1}, {"scale": 2}),
    "slots": (Slots, {"scale": 1}, {"scale": 2}),
    "constant of a class": (with_constant, {"scale": 1}, {"scale": 2}),
    "module of a user": (with_module, {"scale": 1}, {"scale": 2}),
    "tensor": (lambda x: closure(keras.ops.ones(2) * x), {"x": 1}, {"x": 2}),
    "own schedule": (with_own_schedule, {"rate": 1.0}, {"rate": 2.0}),
    "inside of another": (
        lambda scale: losses.NormPenalty(closure(scale), 0.1),
        {"scale": 1},
        {"scale": 2},
    ),
    "callback": (keras.callbacks.EarlyStopping, {"patience": 3}, {"patience": 4}),
    "code": (
        lambda sign: (lambda x: x) if sign > 0 else (lambda x: -x),
        {"sign": 1},
        {"sign": -1},
    ),
    "bound method": (lambda scale: Scaled(scale).call, {"scale": 1}, {"scale": 2}),
    "schedule": (
        lambda steps: keras.optimizers.schedules.CosineDecay(0.1, steps),
        {"steps": 10},
        {"steps": 20},
    ),
}


@pytest.mark.parametrize("case", EQUAL_AND_OTHER.values(), ids=EQUAL_AND_OTHER)
def test_descriptions_tell_what_differs(case):
    make, arguments, others = case
    make = (
        functools.partial(make, arguments.pop("func")) if "func" in arguments else make
    )
    others = {name: value for name, value in others.items() if name != "func"}
    assert describe(make(**arguments)) == describe(make(**arguments))
    assert describe(make(**arguments)) != describe(make(**others))


def rows(batch=5):
    return np.ones((batch, 4), "float32")


def with_layer(make):
    return lambda: keras.Sequential([keras.Input((4,)), make(), keras.layers.Dense(2)])


def named(scale):
    """Another function of the same name, as after an edit."""

    def own(x):
        return scale * keras.ops.relu(x)

    return own


def own_layer(scale):
    class Own(keras.layers.Layer):
        constant = scale

        def call(self, x):
            return self.constant * x

    return Own()


def dense(**arguments):
    return with_layer(lambda: keras.layers.Dense(3, **arguments))


def lambda_layer(scale):
    return with_layer(lambda: keras.layers.Lambda(lambda x: scale * x))


def discretized(values):
    layer = keras.layers.Discretization(num_bins=3)
    layer.adapt(np.array(values, "float32"))
    return with_layer(lambda: layer)


MODELS = {
    "adapted": (discretized([1, 2, 3]), discretized([1, 5, 9]), False),
    "adapted likewise": (discretized([1, 2, 3]), discretized([1, 2, 3]), True),
    "own activation": (dense(activation=named(1)), dense(activation=named(2)), False),
    "its copy": (dense(activation=named(1)), dense(activation=named(1)), True),
    "own regularizer": (
        dense(activity_regularizer=named(1)),
        dense(activity_regularizer=named(2)),
        False,
    ),
    "own function in a layer": (
        with_layer(lambda: keras.layers.Lambda(named(1))),
        with_layer(lambda: keras.layers.Lambda(named(2))),
        False,
    ),
    "lambda": (lambda_layer(1), lambda_layer(2), False),
    "same lambda": (lambda_layer(1), lambda_layer(1), True),
    "same lambda, further down": (
        with_layer(lambda: keras.layers.Lambda(lambda x: 2 * x)),
        with_layer(lambda: keras.layers.Lambda(lambda x: 2 * x)),
        True,
    ),
    "constant of a layer": (
        with_layer(lambda: own_layer(1)),
        with_layer(lambda: own_layer(2)),
        False,
    ),
    "equal": (lambda: model(), lambda: model(), True),
    "dropout": (lambda: model(), lambda: model(0.9), False),
    "activation": (lambda: model(), lambda: model(0.0, "tanh"), False),
    "pretrained": (lambda: model(weights=1.0), lambda: model(weights=2.0), False),
    "same pretrained": (lambda: model(weights=1.0), lambda: model(weights=1.0), True),
    "subclassed": (subclassed("relu"), subclassed("relu"), True),
    "its call": (subclassed("relu"), subclassed("tanh"), False),
    "its width": (subclassed("relu"), subclassed("relu", 3), False),
    "own layer": (
        lambda: keras.Sequential([Step(keras.ops.relu), keras.layers.Dense(2)]),
        lambda: keras.Sequential([Step(keras.ops.tanh), keras.layers.Dense(2)]),
        False,
    ),
}


@pytest.mark.parametrize(("one", "other", "equal"), MODELS.values(), ids=MODELS)
def test_models_are_told_by_what_is_built(one, other, equal):
    descriptions = [describe_model(build, rows()) for build in (one, other)]
    assert (descriptions[0] == descriptions[1]) is equal


def test_models_that_share_weights_are_refused():
    whole, layer = model(), keras.layers.Dense(2)

    def with_shared_layer():
        return keras.Sequential([keras.Input((3,)), layer, keras.layers.Dense(2)])

    for build in (lambda: whole, with_shared_layer):
        with pytest.raises(ValueError, match="share . trainable weights.*kernel"):
            describe_model(build, rows())
    layer.trainable = False
    describe_model(with_shared_layer, rows())


IN_A_PROCESS = """
import keras
import numpy as np
from keras_logitclip._jobs.description import *
print(fingerprint(np.array(["one", "two"], dtype=object), [np.arange(9.0)]))
print(describe(lambda steps: keras.optimizers.Adam({1e-3, 1e-2}.pop())))
build = lambda: keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
print(describe_model(build))
"""


def test_descriptions_are_the_same_in_another_process():
    command = [sys.executable, "-c", IN_A_PROCESS]
    runs = [
        subprocess.run(
            command,
            env=environment(keras.config.backend()),
            capture_output=True,
            text=True,
            check=True,
            timeout=LIMIT,
        )
        for _ in range(2)
    ]
    assert runs[0].stdout == runs[1].stdout
    assert len(runs[0].stdout.splitlines()) == 3


@pytest.mark.skipif(
    keras.config.backend() != "tensorflow", reason="Only TensorFlow has texts."
)
def test_models_are_told_by_their_vocabulary():
    def build(words):
        layer = keras.layers.TextVectorization(output_mode="multi_hot")
        layer.adapt(words)
        inputs = keras.Input((), dtype="string")
        return keras.Sequential([inputs, layer, keras.layers.Dense(2)])

    one, same, other = (
        describe_model(functools.partial(build, words))
        for words in (["good", "day"], ["good", "day"], ["bad", "day"])
    )
    assert one == same != other


FINGERPRINTS = {
    "a value": (np.zeros(2000), np.eye(1, 2000, 1234)[0]),
    "type": (np.zeros(3), np.zeros(3, "float32")),
    "shape": (np.zeros((2, 3)), np.zeros((3, 2))),
    "text": (np.array(["a", "b"], object), np.array(["a", "c"], object)),
    "order": ([np.zeros(2), np.ones(2)], [np.ones(2), np.zeros(2)]),
}


@pytest.mark.parametrize(("one", "other"), FINGERPRINTS.values(), ids=FINGERPRINTS)
def test_fingerprints_tell_arrays_apart(one, other):
    assert fingerprint(one) != fingerprint(other)
    assert fingerprint(one) == fingerprint(keras.tree.map_structure(np.copy, one))
    assert fingerprint(np.zeros((0, 3))) != fingerprint(np.zeros((0, 4)))
    assert fingerprint(np.float64(1)) != fingerprint(np.float64(2))
