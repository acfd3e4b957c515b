"""The processes, backups and trials of a running study."""

from pathlib import Path

import optuna

from keras_logitclip.study import Cell
from tests.processes.storages import trials_of
from tests.study_files import without_times

STATES = optuna.trial.TrialState


def check_trials(url, name="small"):
    """Returns the records of a study, and checks that it has each of them once."""
    trials = trials_of(url, name)
    assert not [t for t in trials if t.state in (STATES.RUNNING, STATES.WAITING)]
    return records_in(trials)


def records_in(trials):
    """Returns the records of complete trials, no two of the same cell, by the cells."""
    records = [t.user_attrs["record"] for t in trials if t.state == STATES.COMPLETE]
    by_cell = {_cell_of(record): without_times(record) for record in records}
    assert len(by_cell) == len(records)
    return by_cell


def _cell_of(record):
    return tuple(record[name] for name in Cell._fields)


def sqlite(results):
    return f"sqlite:///{results}/study.db"


def backups(results):
    """Returns the times at which backups were written."""
    found = {}
    for path in results.glob("backups/*/backup.npz"):
        try:
            found[path] = path.stat().st_mtime_ns
        except FileNotFoundError:
            continue  # The training ended.
    return found


def children_of(pid):
    return [int(child) for child in _about(pid, f"task/{pid}/children").split()]


def workers_of(pid):
    """Returns the worker processes of the command that this process runs."""
    return [c for c in children_of(pid) if "spawn_main" in _about(c, "cmdline")]


def is_running(pid):
    status = _about(pid, "stat")
    # A zombie waits for somebody to ask how it ended.
    return bool(status) and status.rpartition(")")[2].split()[0] != "Z"


def _about(pid, name):
    """Returns a file of /proc, empty for a process that has ended."""
    try:
        return Path(f"/proc/{pid}/{name}").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
