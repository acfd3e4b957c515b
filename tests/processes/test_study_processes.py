"""Studies by several processes, some of which are killed."""

import contextlib
import itertools
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

pytest.importorskip("optuna")

from keras_logitclip import study
from keras_logitclip.study import _plan
from tests.processes.studies import backups
from tests.processes.studies import check_trials
from tests.processes.studies import is_running
from tests.processes.studies import sqlite
from tests.processes.studies import workers_of
from tests.study_files import store_running_trial
from tests.study_files import write_study
from tests.subprocesses import LIMIT
from tests.subprocesses import environment
from tests.subprocesses import started
from tests.subprocesses import wait_for

pytestmark = pytest.mark.timeout(600)

# Long enough for a process to be met several times while it trains.
LONG = {
    "backend": "jax",
    "epochs": 120,
    "batch_size": 16,
    "model": {"name": "study_samples:random_model"},
    "noise": [{"kind": "symmetric", "rate": 0.4}, {"kind": "clean"}],
    "methods": [{"losses": ["CE"], "taus": [1.0, 0.5]}],
}
CELLS = 6
BACKENDS = ("tensorflow", "jax", "torch")
SHORT = {
    "epochs": 20,
    "batch_size": 32,
    "seeds": 3,
    "model": {"width": 32},
    "noise": [{"kind": "symmetric", "rate": 0.2}],
    "methods": [{"losses": ["CE"], "taus": [1.0]}],
}

_numbers = itertools.count()


@contextlib.contextmanager
def running(path, results, *arguments):
    """Runs the command, and yields its process and the file of what it writes."""
    command = [sys.executable, "-m", "keras_logitclip", "study", "run", path]
    command += ["--results", results, "--grace-period", "3", *arguments]
    log = results.with_name(f"{results.name}-{next(_numbers)}.log")
    # Where the study is for another backend than this, the command starts anew.
    options = {"env": environment("jax"), "stderr": subprocess.STDOUT}
    with log.open("w") as file, started(command, stdout=file, **options) as process:
        yield process, log


def wait_until_complete(process, log):
    """Returns the output of a command, and checks that it succeeds."""
    process.wait(LIMIT)
    assert process.returncode == 0, log.read_text()
    return log.read_text()


def complete(path, results, *arguments):
    with running(path, results, *arguments) as process_and_log:
        wait_until_complete(*process_and_log)


@pytest.fixture(scope="module")
def long_study(tmp_path_factory):
    return write_study(tmp_path_factory.mktemp("long"), LONG)


@pytest.fixture(scope="module")
def undisturbed(long_study):
    """Returns the records of an undisturbed study."""
    results = long_study.with_name("undisturbed")
    complete(long_study, results)
    records = check_trials(sqlite(results))
    assert len(records) == CELLS
    return records


def wait_for_training(results, process, log):
    """Waits for a backup that is newer than those that are there."""
    before = backups(results)

    def is_training():
        assert process.poll() is None, f"The command has ended: {log.read_text()}"
        return backups(results).items() - before.items()

    wait_for(is_training, "a training")


def wait_for_workers(count, process):
    wait_for(lambda: len(workers_of(process.pid)) == count, f"{count} workers")


# What is killed while it trains, one after the other, and how many workers there are
# then: one is missing after another one was killed.
VICTIMS = 2 * (("one worker", 2), ("the command", 1), ("all", 2))


def kill(victim, process, workers):
    """Kills one of the processes; returns whether the command goes on."""
    if victim == "one worker":
        os.kill(workers[0], signal.SIGKILL)
        return True
    if victim == "the command":
        process.kill()
    else:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(LIMIT)
    # Workers whose command was killed leave.
    wait_for(lambda: not any(map(is_running, workers)), "orphans")
    return False


def test_kills(long_study, undisturbed):
    rng, results = random.Random(0), long_study.with_name("killed")
    arguments = (long_study, results, "--workers", "2")
    with contextlib.ExitStack() as stack:
        command = None
        for victim, count in VICTIMS:
            command = command or stack.enter_context(running(*arguments))
            wait_for_training(results, *command)
            time.sleep(rng.uniform(0, 0.5))  # To meet it at any moment of an epoch.
            wait_for_workers(count, command[0])
            if not kill(victim, command[0], workers_of(command[0].pid)):
                command = None
        # While it starts, too.
        starting, _ = stack.enter_context(running(*arguments))
        time.sleep(rng.uniform(0, 2))
        kill("all", starting, [])
        complete(*arguments)
        assert check_trials(sqlite(results)) == undisturbed
        assert not list(results.glob("backups/*"))
        # No file that a killed process was writing.
        assert len(list(results.glob("cells/*"))) == CELLS


def test_damaged_files_of_the_compiler(long_study, undisturbed):
    """A kill can leave a part of what JAX compiled."""
    results = long_study.with_name("damaged")
    path = write_study(
        long_study.parent, {**LONG, "methods": [{"losses": ["CE"]}]}, "damaged.toml"
    )
    compiled = long_study.with_name("undisturbed") / "compiled"
    files = list(compiled.glob("*-cache"))
    assert files
    (results / "compiled").mkdir(parents=True)
    for file in files:
        contents = file.read_bytes()
        (results / "compiled" / file.name).write_bytes(contents[: len(contents) // 2])
    complete(path, results)
    records = check_trials(sqlite(results), "damaged")
    assert {cell: record["epochs"] for cell, record in records.items()} == {
        cell: undisturbed[cell]["epochs"] for cell in records
    }
    assert len(records) == 2


def test_a_server_that_is_stopped(long_study, undisturbed, server):
    """The commands say so, and others go on with the study."""
    results = long_study.with_name("server")
    arguments = (long_study, results, "--storage", server.url)
    with contextlib.ExitStack() as stack:
        commands = [stack.enter_context(running(*arguments)) for _ in range(2)]
        wait_for(lambda: len(backups(results)) > 1, "two trainings")
        assert [process.poll() for process, _ in commands] == [None, None]
        server.stop()
        for process, log in commands:
            process.wait(LIMIT)
            assert "error: The database of the study failed" in log.read_text()
        server.start()
        commands = [stack.enter_context(running(*arguments)) for _ in range(2)]
        for command in commands:
            wait_until_complete(*command)
        assert check_trials(server.driver_url) == undisturbed


def test_workers_say_that_they_wait(tmp_path):
    """Waits for a process of another machine without signs of life."""
    path = write_study(tmp_path, {"backend": "jax", "epochs": 1})
    loaded, results = study.load(path), tmp_path / "results"
    store_running_trial(loaded, results, _plan.cells(loaded, {})[0])
    with running(path, results, "--workers", "2") as process_and_log:
        written = wait_until_complete(*process_and_log)
    assert "waiting for symmetric 0.4 CE plain 0.1 0, " in written


def test_a_cell_of_a_killed_process_is_taken_at_once(long_study):
    """Long before it counts as silent."""
    results = long_study.with_name("at-once")
    arguments = (long_study, results, "--grace-period", "600")
    with running(*arguments) as (process, log):
        wait_for_training(results, process, log)
        process.kill()
        process.wait(LIMIT)
    (backup,) = backups(results)
    with running(*arguments) as (process, log):
        wait_for_training(results, process, log)
        assert [*backups(results)] == [backup]


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """The records of the same study under three backends."""
    folders = {name: tmp_path_factory.mktemp(name) for name in BACKENDS}
    with contextlib.ExitStack() as stack:
        commands = []
        for name, folder in folders.items():
            path = write_study(folder, {**SHORT, "backend": name})
            commands.append(stack.enter_context(running(path, folder / "results")))
        for command in commands:
            wait_until_complete(*command)
    return {
        name: check_trials(sqlite(folder / "results"))
        for name, folder in folders.items()
    }


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_three_backends_give_the_same_table(tables, backend):
    assert tables[backend].keys() == tables["tensorflow"].keys()
    means = {}
    for name in ("tensorflow", backend):
        for cell, record in tables[name].items():
            versions = record["versions"]
            assert any(known.startswith(name) for known in versions), versions
            last = record["epochs"]["accuracy"][-1]
            means.setdefault((cell[:4], name), []).append(last)
    for cell, record in tables[backend].items():
        expected = tables["tensorflow"][cell]
        assert record["noise_rate"] == expected["noise_rate"]
        assert record["labels"] == expected["labels"]
    methods = {method for method, _ in means}
    assert len(methods) == 2
    for method in methods:
        one, other = (np.mean(means[method, name]) for name in (backend, "tensorflow"))
        assert one == pytest.approx(other, abs=0.06), method
