"""Searches by several processes, some of which are killed. All run on JAX."""

import json
import os
import signal
import subprocess
import sys

import pytest

optuna = pytest.importorskip("optuna")

from tests.across import postgresql  # noqa: E402
from tests.across.tuning_worker import NAME  # noqa: E402
from tests.across.tuning_worker import wait_until_running  # noqa: E402

STATES = optuna.trial.TrialState
TRAININGS = 3


def start(url, *arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "tests.across.tuning_worker", url, *arguments],
        env={**os.environ, "KERAS_BACKEND": "jax", "TF_CPP_MIN_LOG_LEVEL": "3"},
        stdout=subprocess.PIPE,
        text=True,
    )


def finish(process):
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 0
    return json.loads(output)


def kill(process):
    process.send_signal(signal.SIGKILL)
    process.communicate()


def trainings(url, state):
    study = optuna.load_study(study_name=NAME, storage=url)
    trials = study.get_trials(states=(state,))
    return [tuple(trial.user_attrs["job"]) for trial in trials]


def assert_each_trained_once(url):
    complete = trainings(url, STATES.COMPLETE)
    assert len(complete) == len(set(complete)) == TRAININGS
    assert not trainings(url, STATES.RUNNING)


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path}/search.db"


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """What a search finds that nothing disturbs."""
    url = f"sqlite:///{tmp_path_factory.mktemp('expected')}/search.db"
    found = finish(start(url, "1"))
    assert_each_trained_once(url)
    return found


def test_a_killed_search_is_resumed(url, expected):
    process = start(url, "1")
    wait_until_running(url, 1)
    kill(process)
    (unfinished,) = trainings(url, STATES.RUNNING)
    assert finish(start(url, "1")) == expected
    assert trainings(url, STATES.FAIL) == [unfinished]
    assert_each_trained_once(url)


def test_two_processes_and_one_is_killed(url, expected):
    processes = [start(url, "1"), start(url, "1")]
    wait_until_running(url, 2)
    kill(processes[0])
    assert finish(processes[1]) == expected
    (unfinished,) = trainings(url, STATES.FAIL)
    assert unfinished in trainings(url, STATES.COMPLETE)
    assert_each_trained_once(url)


def test_worker_processes_and_one_is_killed(url, expected):
    assert finish(start(url, "2", "kill")) == expected
    (unfinished,) = trainings(url, STATES.FAIL)
    assert unfinished in trainings(url, STATES.COMPLETE)
    assert_each_trained_once(url)


def test_one_postgresql_server_for_two_processes(expected):
    pytest.importorskip("psycopg")
    programs = postgresql.find_programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed")
    with postgresql.server(programs) as server:
        url = server.url
        driver_url = url.replace("postgresql://", "postgresql+psycopg://")
        processes = [start(url, "1"), start(url, "1")]
        wait_until_running(driver_url, 2)
        kill(processes[0])
        assert finish(processes[1]) == expected
        assert len(trainings(driver_url, STATES.FAIL)) == 1
        assert_each_trained_once(driver_url)
