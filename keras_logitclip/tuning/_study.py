"""A search as a study: which trainings are trials, and what their results say."""

import re
from collections.abc import Callable

from keras_logitclip._jobs import queue
from keras_logitclip.tuning._plan import Progress
from keras_logitclip.tuning._plan import Training
from keras_logitclip.tuning._plan import progress
from keras_logitclip.tuning._training import Task
from keras_logitclip.tuning._training import train


def check_storage(storage: str | None, study_name: str) -> str:
    """Returns the URL of the database; without `storage` the study names a file.

    Raises:
        ValueError: If it is neither SQLite nor PostgreSQL.
    """
    if storage is not None:
        return queue.check_storage(storage)
    if not re.fullmatch(r"[\w.-]+", study_name):
        raise ValueError(
            "Invalid value for argument `study_name`: expected letters, digits and "
            "any of `_.-`, because without `storage` it names a file. "
            f"Received: study_name={study_name!r}"
        )
    return f"sqlite:///{study_name}.db"


def _trainings(study) -> dict:
    """Returns the trials that are complete, by what they trained."""
    trials = queue.complete_trials(study)
    return {Training(*job): trial for job, trial in trials.items()}


def rows_of(study) -> list[dict]:
    """Returns the means over the seeds of each threshold."""
    groups = {}
    for training, trial in sorted(_trainings(study).items()):
        groups.setdefault(training.tau, []).append(trial)
    return [
        {
            "tau": tau,
            "seeds": len(trials),
            "accuracy": _mean([trial.value for trial in trials]),
            "clean_accuracy": _mean(
                [trial.user_attrs["clean_accuracy"] for trial in trials]
            ),
        }
        for tau, trials in groups.items()
    ]


def _mean(values):
    return None if None in values else sum(values) / len(values)


def epochs_spent(study) -> int:
    """Returns the epochs of all trainings, those that crashed among them."""
    return sum(len(t.intermediate_values) for t in study.get_trials(deepcopy=False))


def progress_of(study, taus: list[float], seeds: int) -> Progress:
    """Returns what is to be done next, and the ranking of the thresholds so far."""
    scores = {training: trial.value for training, trial in _trainings(study).items()}
    return progress(taus, seeds, scores)


def work(
    study,
    task: Task,
    taus: list[float],
    seeds: int,
    grace_period: int,
    on_epoch_end: Callable,
    on_trial_end: Callable,
) -> None:
    """Trains what is missing until the search is complete, as others may do."""
    choices = {"tau": taus, "seed": list(range(seeds))}

    def run(trial, job):
        def report(epoch, accuracy):
            trial.report(accuracy, epoch)
            on_epoch_end()

        accuracy, clean_accuracy = train(task, Training(*job), report)
        trial.set_user_attr("clean_accuracy", clean_accuracy)
        return accuracy

    def missing():
        return progress_of(study, taus, seeds).missing

    queue.work(study, choices, missing, run, grace_period, on_trial_end)
