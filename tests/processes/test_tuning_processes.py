"""Searches by several processes, some of which are killed. All run on JAX."""

import contextlib
import json
import subprocess
import sys

import pytest

optuna = pytest.importorskip("optuna")

from tests.processes.storages import trials_of  # noqa: E402
from tests.processes.tuning_worker import NAME  # noqa: E402
from tests.processes.tuning_worker import wait_until_running  # noqa: E402
from tests.subprocesses import environment  # noqa: E402
from tests.subprocesses import finish_well  # noqa: E402
from tests.subprocesses import run_well  # noqa: E402
from tests.subprocesses import started  # noqa: E402

pytestmark = pytest.mark.timeout(600)

STATES = optuna.trial.TrialState
TRAININGS = 3


def searching(url, workers, hold, *arguments):
    """Starts a search, which ends with the block."""
    command = [sys.executable, "-m", "tests.processes.tuning_worker"]
    return started(
        [*command, url, workers, hold, *arguments],
        env=environment("jax"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def result(process):
    return json.loads(finish_well(process)[0])


def trainings(url, state):
    return [
        tuple(trial.user_attrs["job"])
        for trial in trials_of(url, NAME)
        if trial.state == state
    ]


def assert_each_trained_once(url):
    complete = trainings(url, STATES.COMPLETE)
    assert len(complete) == len(set(complete)) == TRAININGS
    assert not trainings(url, STATES.RUNNING)


def assert_what_failed_was_repeated(url):
    """What was killed, and on a busy machine also what was taken for dead."""
    failed = trainings(url, STATES.FAIL)
    assert failed
    assert {*failed} <= {*trainings(url, STATES.COMPLETE)}
    assert_each_trained_once(url)


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path}/search.db"


@pytest.fixture
def hold(tmp_path):
    """A file; no training begins while it exists."""
    path = tmp_path / "hold"
    path.touch()
    return path


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """What a search finds that nothing disturbs."""
    folder = tmp_path_factory.mktemp("expected")
    url = f"sqlite:///{folder}/search.db"
    with searching(url, 1, folder / "no-hold") as process:
        found = result(process)
    assert_each_trained_once(url)
    return found


def test_a_killed_search_is_resumed(url, hold, expected):
    with searching(url, 1, hold) as process:
        wait_until_running(url, 1)
        process.kill()
    (unfinished,) = trainings(url, STATES.RUNNING)
    hold.unlink()
    with searching(url, 1, hold) as process:
        assert result(process) == expected
    assert trainings(url, STATES.FAIL) == [unfinished]
    assert_each_trained_once(url)


def check_that_one_of_two_finishes(url, own_url, hold, expected):
    """Kills one of two processes in the middle of its training.

    Args:
        url: That of the storage, for the processes.
        own_url: The same, with the driver to use here.
        hold: The file that holds the trainings.
        expected: What a search finds that nothing disturbs.
    """
    with contextlib.ExitStack() as stack:
        one, other = (stack.enter_context(searching(url, 1, hold)) for _ in range(2))
        wait_until_running(own_url, 2)
        one.kill()
        hold.unlink()
        assert result(other) == expected
    assert_what_failed_was_repeated(own_url)


def test_two_processes_and_one_is_killed(url, hold, expected):
    check_that_one_of_two_finishes(url, url, hold, expected)


def test_worker_processes_and_one_is_killed(url, hold, expected):
    with searching(url, 2, hold, "kill") as process:
        assert result(process) == expected
    assert_what_failed_was_repeated(url)


TEXTS = """
import sys
import keras
import numpy as np
from keras_logitclip import tuning

texts = np.array(["a good film", "a bad film", "good", "bad"] * 20)
vectorization = keras.layers.TextVectorization(output_mode="multi_hot")
vectorization.adapt(texts)
found = tuning.search_tau(
    lambda: keras.Sequential(
        [keras.Input((), dtype="string"), vectorization, keras.layers.Dense(2)]
    ),
    texts,
    np.arange(80) % 2,
    taus=[1.0],
    epochs=2,
    storage=sys.argv[1],
    verbose=False,
)
print(found)
"""


def test_texts_are_the_same_in_another_process(url):
    def search():
        command = [sys.executable, "-c", TEXTS, url]
        return run_well(command, env=environment("tensorflow"))

    assert search() == search()
    (trial,) = trials_of(url, "search_tau")
    assert trial.state == STATES.COMPLETE


def test_one_postgresql_server_for_two_processes(server, hold, expected):
    check_that_one_of_two_finishes(server.url, server.driver_url, hold, expected)
