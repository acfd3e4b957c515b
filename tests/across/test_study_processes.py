"""Studies by several processes, some of which are killed."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

optuna = pytest.importorskip("optuna")

from tests.across import postgresql  # noqa: E402
from tests.study_files import without_times  # noqa: E402
from tests.study_files import write_study  # noqa: E402

STATES = optuna.trial.TrialState
REPOSITORY = Path(__file__).parents[2]
KILLS = 10

# Some 15 seconds of training for two processes.
LONG = {
    "backend": "jax",
    "epochs": 120,
    "batch_size": 16,
    "model": {"name": "study_samples:random_model"},
    "noise": [{"kind": "symmetric", "rate": 0.4}, {"kind": "clean"}],
    "methods": [{"losses": ["CE", "GCE"], "taus": [1.0]}],
}
SHORT = {
    "epochs": 20,
    "batch_size": 32,
    "seeds": 3,
    "model": {"width": 32},
    "noise": [{"kind": "symmetric", "rate": 0.2}],
    "methods": [{"losses": ["CE"], "taus": [1.0]}],
}


def start(path, results, *arguments):
    """Starts the command as the leader of a group of processes."""
    command = [sys.executable, "-m", "keras_logitclip", "study", "run", str(path)]
    command += ["--results", str(results), "--grace-period", "3", *arguments]
    # Not the backend of the study: the command starts itself anew where it differs.
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    environment["PYTHONPATH"] = str(REPOSITORY)
    return subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process):
    """Returns what a command that ends well writes: the report and the messages."""
    output, messages = process.communicate(timeout=300)
    assert process.returncode == 0, messages
    return output, messages


def check_trials(url, name="small"):
    """Returns the records of a study, and checks that it has each of them once."""
    trials = optuna.load_study(study_name=name, storage=url).get_trials()
    assert not [t for t in trials if t.state in (STATES.RUNNING, STATES.WAITING)]
    records = [t.user_attrs["record"] for t in trials if t.state == STATES.COMPLETE]
    records = {_cell_of(record): without_times(record) for record in records}
    assert len(records) == sum(t.state == STATES.COMPLETE for t in trials)
    return records


def _cell_of(record):
    return tuple(record[name] for name in ("noise", "loss", "method", "value", "seed"))


def sqlite(results):
    return f"sqlite:///{results}/study.db"


@pytest.fixture(scope="module")
def long_study(tmp_path_factory):
    return write_study(tmp_path_factory.mktemp("long"), LONG)


@pytest.fixture(scope="module")
def undisturbed(long_study):
    """The records of a study that nothing disturbs."""
    results = long_study.with_name("undisturbed")
    finish(start(long_study, results))
    records = check_trials(sqlite(results))
    assert len(records) == 8
    return records


def wait_for(condition, what):
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, f"Waited too long for {what}."
        time.sleep(0.05)


def backups(results):
    """Returns the times at which backups were written."""
    found = {}
    for path in results.glob("backups/*/backup.npz"):
        try:
            found[path] = path.stat().st_mtime_ns
        except FileNotFoundError:
            continue  # The training ended.
    return found


def wait_for_training(results, process):
    """Waits for a backup that is newer than those that are there."""
    before = backups(results)
    wait_for(
        lambda: backups(results).items() - before.items() or process.poll() == 0,
        "a training",
    )


def workers_of(process):
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    return [
        int(pid)
        for pid in children.split()
        if "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text()
    ]


def is_running(pid):
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    # A zombie waits for somebody to ask how it ended.
    return status.rpartition(")")[2].split()[0] != "Z"


def test_ten_kills(long_study, undisturbed):
    rng, results = random.Random(0), long_study.with_name("killed")
    killed, process, workers = [], None, set()
    while len(killed) < KILLS:
        if process is None:
            process = start(long_study, results, "--workers", "2")
        if rng.random() < 0.8:
            wait_for_training(results, process)
        time.sleep(rng.uniform(0, 1.2))
        if process.poll() is not None:
            break
        children = workers_of(process)
        workers.update(children)
        victim = rng.choice(("one worker", "the command", "all"))
        if victim == "one worker" and len(children) == 2:
            os.kill(rng.choice(children), signal.SIGKILL)
        elif victim == "the command":
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL)
        killed.append(victim)
        if victim != "one worker" or len(children) < 2:
            # Not `communicate`, which would wait for its workers to leave.
            process.wait()
            process = None
    assert len(killed) == KILLS, f"The study was complete after {killed}."
    if process is not None:
        process.communicate(timeout=300)
    finish(start(long_study, results, "--workers", "2"))
    assert check_trials(sqlite(results)) == undisturbed
    assert not list(results.glob("backups/*"))
    # Workers whose command was killed have left.
    wait_for(lambda: not any(map(is_running, workers)), "orphans")


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
    finish(start(path, results))
    records = check_trials(sqlite(results), "damaged")
    assert {cell: record["epochs"] for cell, record in records.items()} == {
        cell: undisturbed[cell]["epochs"] for cell in records
    }
    assert len(records) == 2


def test_a_server_that_is_stopped_and_started_again(long_study, undisturbed):
    pytest.importorskip("psycopg")
    programs = postgresql.find_programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed")
    results = long_study.with_name("server")
    with postgresql.server(programs) as server:
        arguments = (long_study, results, "--storage", server.url)
        processes = [start(*arguments), start(*arguments)]
        wait_for(lambda: len(backups(results)) > 1, "two trainings")
        assert [process.poll() for process in processes] == [None, None]
        server.stop()
        time.sleep(4)
        server.start()
        messages = [finish(process)[1] for process in processes]
        url = server.url.replace("postgresql://", "postgresql+psycopg://")
        assert check_trials(url) == undisturbed
    assert all("The database cannot be reached; next" in text for text in messages)


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """The records of the same study under three backends."""
    tables = {}
    for backend in ("tensorflow", "jax", "torch"):
        folder = tmp_path_factory.mktemp(backend)
        path = write_study(folder, {**SHORT, "backend": backend})
        finish(start(path, folder / "results"))
        tables[backend] = check_trials(sqlite(folder / "results"))
    return tables


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
        assert record["transition"] == expected["transition"]
    methods = {method for method, _ in means}
    assert len(methods) == 2
    for method in methods:
        one, other = (
            np.mean(means[method, backend]),
            np.mean(means[method, "tensorflow"]),
        )
        assert one == pytest.approx(other, abs=0.06), method
