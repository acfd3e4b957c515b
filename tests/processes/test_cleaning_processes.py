"""Held-out logits by several processes, some of which are killed. All run on JAX."""

import subprocess
import sys

import pytest

optuna = pytest.importorskip("optuna")

from tests.processes.storages import trials_of  # noqa: E402
from tests.processes.tuning_worker import wait_until_running  # noqa: E402
from tests.subprocesses import environment  # noqa: E402
from tests.subprocesses import finish_well  # noqa: E402
from tests.subprocesses import started  # noqa: E402

pytestmark = pytest.mark.timeout(600)


def predicting(folder, workers, hold):
    """Starts the process, which ends with the block."""
    command = [sys.executable, "-m", "tests.processes.cleaning_worker"]
    return started(
        [*command, folder, workers, hold],
        env=environment("jax"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def url_of(folder):
    return f"sqlite:///{folder}/held_out_logits.db"


def states(folder):
    """The states of the trials, by their folds."""
    found = {}
    for trial in trials_of(url_of(folder), "held_out_logits"):
        found.setdefault(trial.user_attrs["job"][1], []).append(trial.state.name)
    return found


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """Returns the logits of an undisturbed call."""
    folder = tmp_path_factory.mktemp("expected") / "logits"
    with predicting(folder, 1, folder / "no-hold") as process:
        found = finish_well(process)[0]
    assert states(folder) == {fold: ["COMPLETE"] for fold in range(3)}
    return found


def test_a_killed_call_is_resumed_by_worker_processes(tmp_path, expected):
    folder, hold = tmp_path / "logits", tmp_path / "hold"
    folder.mkdir()
    hold.touch()
    with predicting(folder, 1, hold) as process:
        wait_until_running(url_of(folder), 1)
        process.kill()
    assert states(folder) == {0: ["RUNNING"]}
    hold.unlink()
    with predicting(folder, 2, hold) as process:
        assert finish_well(process)[0] == expected
    found = states(folder)
    assert found[0][0] == "FAIL"
    for trials in found.values():
        # If both workers take a fold at once, the later trial fails.
        assert {*trials} <= {"COMPLETE", "FAIL"}
        assert trials.count("COMPLETE") == 1
    assert {path.name for path in folder.iterdir()} == {
        "held_out_logits.db",
        *(f"fold-{fold}.npy" for fold in range(3)),
    }
