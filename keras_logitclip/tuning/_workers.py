"""Worker processes, which share nothing but the database."""

import multiprocessing
import time
from collections.abc import Callable

from keras_logitclip.tuning import _study
from keras_logitclip.tuning._plan import Stage
from keras_logitclip.tuning._training import Task

_POLL_SECONDS = 0.5


def work_in_processes(
    workers: int,
    task: Task,
    taus: list[float],
    plan: list[Stage],
    study_arguments: tuple,
    on_poll: Callable,
) -> None:
    """Starts processes, and waits until the search is complete.

    Args:
        workers: How many processes.
        task: What all trainings have in common.
        taus: The thresholds.
        plan: The stages of the search.
        study_arguments: Arguments of `_study.open_study`.
        on_poll: Called every now and then.

    Raises:
        RuntimeError: If all of them end before that.
    """
    # Forked, a process would inherit the threads and locks of the backend.
    context = multiprocessing.get_context("spawn")
    arguments = (task, taus, plan, study_arguments)
    processes = [
        context.Process(target=_work, args=arguments, daemon=True)
        for _ in range(workers)
    ]
    try:
        for process in processes:
            process.start()
        while any(process.is_alive() for process in processes):
            time.sleep(_POLL_SECONDS)
            on_poll()
    finally:
        for process in processes:
            if process.is_alive():
                process.terminate()
    codes = [process.exitcode for process in processes]
    if any(codes):
        _check_complete(taus, plan, study_arguments, codes)


def _check_complete(taus, plan, study_arguments, codes):
    study = _study.open_study(*study_arguments)
    if _study.progress_of(study, taus, plan).missing:
        raise RuntimeError(
            "All worker processes ended before the search was complete; what is done "
            "is kept, and the search can be resumed. Their errors are printed above. "
            f"Received: exit codes {codes}"
        )


def _work(task, taus, plan, study_arguments):
    study = _study.open_study(*study_arguments)
    grace_period = study_arguments[-1]
    _study.work(
        study, task, taus, plan, grace_period, _exit_with_parent, _exit_with_parent
    )


def _exit_with_parent():
    """Leaves the training to others when nobody waits for this process any more."""
    if not multiprocessing.parent_process().is_alive():
        raise SystemExit("The search was ended.")
