"""A queue of jobs, which are trials of an Optuna study, for any number of processes.

A job is a tuple of numbers and strings. A process takes a job by storing a running
trial of it. If there are several such trials, the one with the lowest number is valid.
So each job is done once, which Optuna's samplers do not guarantee for several
processes. A running trial fails if its process died or gave no sign of life for the
grace period. Its job is then missing again.
"""

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from keras_logitclip._jobs.storage import explained_damages
from keras_logitclip._jobs.storage import explained_errors
from keras_logitclip._jobs.storage import import_optuna

_POLL_SECONDS = 0.5
_JOB = "job"
_PROCESS = "process"
_SIGN_OF_LIFE = "sign of life"

Job = tuple


def job_of(trial) -> Job | None:
    """Returns the job of a trial, `None` if the trial is not from this module."""
    attributes = trial.user_attrs
    is_own = isinstance(attributes.get(_JOB), list | tuple) and _PROCESS in attributes
    return tuple(attributes[_JOB]) if is_own else None


def trials_of(study, *states: str) -> list:
    """Returns the trials of jobs that are in one of the states, such as "RUNNING"."""
    with explained_damages():
        trials = study.get_trials(deepcopy=False)
    return [trial for trial in trials if job_of(trial) and trial.state.name in states]


def complete_trials(study) -> dict[Job, Any]:
    """Returns the complete trials by their jobs."""
    return {job_of(trial): trial for trial in trials_of(study, "COMPLETE")}


def work(
    study,
    missing_jobs: Callable[[], list[Job]],
    run: Callable[[Any, Job], float],
    grace_period: float,
    on_progress: Callable[[str], None],
) -> None:
    """Runs jobs until none is missing. Other processes can do the same.

    `missing_jobs` returns the next jobs as far as they are known. `run` returns the
    value to record. A process counts as dead if it has ended on this machine, or gives
    no sign of life for the grace period. `on_progress` is called with `""` after each
    trial, and with a message while this process waits for jobs of others.

    Raises:
        ConnectionError: If the database fails or is unreachable.
    """
    silent_since, waiting_since = {}, {}
    with explained_errors():
        while missing := missing_jobs():
            taken = _running_jobs(study, silent_since, grace_period)
            free = [job for job in missing if job not in taken]
            if free:
                _take_and_run(study, free[0], run, grace_period)
                on_progress("")
            else:
                now = time.monotonic()
                seconds = now - waiting_since.setdefault(missing[0], now)
                on_progress(f"waiting for {name_of(missing[0])}, {seconds:.0f} s")
                time.sleep(_POLL_SECONDS)
        # Fails trials of dead processes whose jobs were already done.
        _running_jobs(study, silent_since, grace_period)


def name_of(job: Job) -> str:
    """Returns a job as text."""
    parts = [part for part in job if part is not None]
    return " ".join(f"{p:g}" if isinstance(p, float) else str(p) for p in parts)


def _take_and_run(study, job, run, grace_period):
    """Runs a job, unless another process took it before."""
    optuna = import_optuna()
    template = optuna.trial.create_trial(
        state=optuna.trial.TrialState.RUNNING,
        user_attrs={_JOB: job, _PROCESS: _this_process()},
    )
    trial_id = study._storage.create_new_trial(study._study_id, template)
    trial = optuna.trial.Trial(study, trial_id)
    value = None
    try:
        others = trials_of(study, "RUNNING", "COMPLETE")
        if not any(job_of(t) == job and t.number < trial.number for t in others):
            with _signs_of_life(trial, grace_period):
                value = run(trial, job)
    except optuna.exceptions.UpdateFinishedTrialError:
        pass  # Another process considered this one dead, and does the job.
    finally:
        _end(study, trial, value)


def _end(study, trial, value=None):
    """Ends a trial, as failed without a value, unless another process has ended it."""
    optuna = import_optuna()
    states = optuna.trial.TrialState
    state = states.FAIL if value is None else states.COMPLETE
    # Optuna's `skip_if_finished` fails if the trial ends after its check.
    with contextlib.suppress(optuna.exceptions.UpdateFinishedTrialError):
        study.tell(trial.number, value, state=state, skip_if_finished=True)


@contextlib.contextmanager
def _signs_of_life(trial, grace_period):
    """Updates an attribute of the trial regularly, in a thread."""
    ended = threading.Event()

    def change():
        while not ended.wait(grace_period / 4):
            # An error here also occurs where the job reports, and is explained there.
            with contextlib.suppress(Exception):
                trial.set_user_attr(_SIGN_OF_LIFE, time.time())

    thread = threading.Thread(target=change, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _running_jobs(study, silent_since, grace_period):
    """Returns the jobs of running trials, and fails trials whose process died.

    `silent_since` has the local time at which each sign of life was first seen, so that
    clocks of different machines are not compared.
    """
    now = time.monotonic()
    jobs = set()
    for trial in trials_of(study, "RUNNING"):
        sign = trial.user_attrs.get(_SIGN_OF_LIFE)
        silent = now - silent_since.setdefault((trial.number, sign), now)
        if silent > grace_period or _has_ended(*trial.user_attrs[_PROCESS]):
            _end(study, trial)
        else:
            jobs.add(job_of(trial))
    return jobs


def _this_process():
    """Returns the identity of this machine and container, and the process number.

    A process number is valid in one container of a machine, until it restarts.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        container = os.readlink("/proc/self/ns/pid")
    except OSError:
        return None, os.getpid()
    return f"{socket.gethostname()} {boot} {container}", os.getpid()


def _has_ended(machine, process):
    """Returns whether a process of this machine has ended, `False` for others."""
    if machine is None or machine != _this_process()[0]:
        return False
    try:
        os.kill(process, 0)
        # State Z: it ended, but its parent has not noticed. Its name can contain
        # anything.
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2][1] == "Z"
    except (ProcessLookupError, FileNotFoundError):
        return True
    except PermissionError:
        return False  # It is another user's.
