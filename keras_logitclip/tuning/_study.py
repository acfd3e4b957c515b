"""The database of a search, and the work on it by any number of processes."""

import contextlib
import re
import time
import warnings
from collections.abc import Callable

from keras_logitclip.tuning._plan import Progress
from keras_logitclip.tuning._plan import Stage
from keras_logitclip.tuning._plan import Training
from keras_logitclip.tuning._plan import progress
from keras_logitclip.tuning._training import Task
from keras_logitclip.tuning._training import train

_POSTGRESQL = re.compile(r"postgres(ql)?(\+psycopg)?://")
_POLL_SECONDS = 0.5
_BEGUN = "begun"


def import_optuna():
    """Imports Optuna, or explains how to install it."""
    try:
        import optuna
    except ModuleNotFoundError as error:
        raise ImportError(
            f"`search_tau` needs {error.name}, which is not installed. "
            'Install it with: pip install "keras-logitclip[tuning]"'
        ) from error
    return optuna


def check_storage(storage: str | None, study_name: str) -> str:
    """Returns the URL of the database.

    Raises:
        ValueError: If it is neither SQLite nor PostgreSQL.
    """
    if storage is None:
        if not re.fullmatch(r"[\w.-]+", study_name):
            raise ValueError(
                "Invalid value for argument `study_name`: expected letters, digits and "
                "any of `_.-`, because without `storage` it names a file. "
                f"Received: study_name={study_name!r}"
            )
        return f"sqlite:///{study_name}.db"
    if isinstance(storage, str) and storage.startswith("sqlite:///"):
        return storage
    if isinstance(storage, str) and _POSTGRESQL.match(storage):
        # Whatever driver SQLAlchemy would choose, it is this one that is installed.
        return _POSTGRESQL.sub("postgresql+psycopg://", storage, count=1)
    # The value is not shown: it may hold a password.
    raise ValueError(
        "Invalid value for argument `storage`: expected `None`, or a URL such as "
        '"sqlite:///search.db" or "postgresql://user:password@host/database". '
        f"Received: {'another URL' if isinstance(storage, str) else type(storage)}"
    )


def open_study(url: str, study_name: str, settings: dict, grace_period: int):
    """Opens a study, or makes it if there is none of that name.

    Raises:
        ValueError: If there is one with other settings.
        ImportError: If the driver of the database is not installed.
    """
    optuna = import_optuna()
    is_file = url.startswith("sqlite")
    with _quiet():
        try:
            storage = optuna.storages.RDBStorage(
                url,
                # A file has one writer at a time; others wait.
                engine_kwargs={"connect_args": {"timeout": 100}} if is_file else None,
                heartbeat_interval=max(1, grace_period // 4),
                grace_period=grace_period,
            )
        except ImportError as error:
            raise ImportError(
                "PostgreSQL needs the package psycopg, which is not installed. "
                'Install it with: pip install "psycopg[binary]"'
            ) from error
        if is_file:
            _lock_transactions(storage.engine)
        study = optuna.create_study(
            storage=storage,
            study_name=study_name,
            direction="maximize",
            sampler=optuna.samplers.RandomSampler(),
            pruner=optuna.pruners.NopPruner(),
            load_if_exists=True,
        )
        stored = study.user_attrs.get("settings")
        if stored is None:
            study.set_user_attr("settings", settings)
        else:
            _check_settings(stored, settings, study_name)
    return study


def _lock_transactions(engine):
    """Makes SQLite lock the file when a transaction begins.

    Optuna reads the state of a queued trial, and then sets it. SQLite locks for the
    second only, so two processes could take the same trial.
    """
    import sqlalchemy

    @sqlalchemy.event.listens_for(engine, "begin")
    def begin(connection):
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def _check_settings(stored, settings, study_name):
    different = [
        f"{name}: {stored.get(name)!r} there, {value!r} here"
        for name, value in settings.items()
        if stored.get(name) != value
    ]
    if different:
        raise ValueError(
            f"There is a study named {study_name!r} in this storage, and it was made "
            "with other settings. Expected the same ones, so that it can be resumed, "
            "or another `study_name`. Received: " + "; ".join(different)
        )


def training_of(trial) -> Training | None:
    """Returns what a trial trains, `None` for one that nobody planned."""
    params = trial.user_attrs.get("training")
    return Training(**params) if params else None


def _complete_trials(study) -> dict:
    """Returns the trials that are complete, by what they trained."""
    complete = import_optuna().trial.TrialState.COMPLETE
    trials = study.get_trials(deepcopy=False, states=(complete,))
    return {training_of(trial): trial for trial in trials}


def rows_of(study) -> list[dict]:
    """Returns the means over the seeds of each threshold and number of epochs."""
    groups = {}
    for training, trial in sorted(_complete_trials(study).items()):
        groups.setdefault((training.tau, training.epochs), []).append(trial)
    return [
        {
            "tau": tau,
            "epochs": epochs,
            "seeds": len(trials),
            "accuracy": _mean([trial.value for trial in trials]),
            "clean_accuracy": _mean(
                [trial.user_attrs["clean_accuracy"] for trial in trials]
            ),
        }
        for (tau, epochs), trials in groups.items()
    ]


def _mean(values):
    return None if None in values else sum(values) / len(values)


def epochs_spent(study) -> int:
    """Returns the epochs of all trainings, those that crashed among them."""
    return sum(len(t.intermediate_values) for t in study.get_trials(deepcopy=False))


def progress_of(study, taus: list[float], plan: list[Stage]) -> Progress:
    """Returns what is to be done next, and the ranking of the thresholds so far."""
    trials = _complete_trials(study)
    scores = {training: trial.value for training, trial in trials.items()}
    return progress(taus, plan, scores)


def work(
    study,
    task: Task,
    taus: list[float],
    plan: list[Stage],
    grace_period: int,
    on_epoch_end: Callable,
    on_training_end: Callable,
) -> None:
    """Trains whatever is to be trained next until the search is complete.

    Other processes may do the same. What is missing is queued for all of them; a
    training whose process gives no sign of life for the grace period fails, and so is
    missing again.
    """
    optuna = import_optuna()
    states = optuna.trial.TrialState
    silent_since = {}

    def objective(trial):
        _give_sign_of_life(trial)
        training = training_of(trial)
        if training is None or _is_duplicate(study, trial, training):
            raise optuna.TrialPruned
        for name, choices in _choices(taus, plan).items():
            trial.suggest_categorical(name, choices)

        def report(epoch, accuracy):
            trial.report(accuracy, epoch)
            on_epoch_end()

        accuracy, clean_accuracy = train(task, training, report)
        trial.set_user_attr("clean_accuracy", clean_accuracy)
        return accuracy

    with _quiet():
        while missing := progress_of(study, taus, plan).missing:
            trials = study.get_trials(
                deepcopy=False, states=(states.WAITING, states.RUNNING)
            )
            taken = {training_of(trial) for trial in trials}
            for training in missing:
                if training not in taken:
                    params = training._asdict()
                    study.enqueue_trial(params, user_attrs={"training": params})
            if taken.issuperset(missing) and not any(
                trial.state == states.WAITING for trial in trials
            ):
                _fail_dead_trials(study, silent_since, grace_period)
                time.sleep(_POLL_SECONDS)
            else:
                _run_one_trial(study, objective)
            on_training_end()


def _give_sign_of_life(trial):
    """Records the first heartbeat before a trial counts as begun.

    Optuna does so in a thread, and never takes a trial without any for dead.
    """
    trial.study._storage.record_heartbeat(trial._trial_id)
    trial.set_user_attr(_BEGUN, True)


def _fail_dead_trials(study, silent_since, grace_period):
    """Fails the trials whose process died, so that what they trained is missing.

    Args:
        study: The study.
        silent_since: When this process first met a trial that had not begun, by its
            number. Clocks of different machines are not compared.
        grace_period: Seconds without sign of life.
    """
    optuna = import_optuna()
    optuna.storages.fail_stale_trials(study)
    states = optuna.trial.TrialState
    now = time.monotonic()
    for trial in study.get_trials(deepcopy=False, states=(states.RUNNING,)):
        met = silent_since.setdefault(trial.number, now)
        if _BEGUN not in trial.user_attrs and now - met > grace_period:
            study.tell(trial.number, state=states.FAIL, skip_if_finished=True)


def _run_one_trial(study, objective):
    """Runs a trial; one that others took for dead ends without effect."""
    optuna = import_optuna()
    ended = []

    def recorded(trial):
        try:
            value = objective(trial)
        except optuna.exceptions.UpdateFinishedTrialError:
            value = None
        ended.append(trial.number)
        return value

    try:
        study.optimize(recorded, n_trials=1)
    except Exception:
        # What Optuna raises for a trial that was ended differs between versions.
        failed = study.get_trials(
            deepcopy=False, states=(optuna.trial.TrialState.FAIL,)
        )
        if not {trial.number for trial in failed}.intersection(ended):
            raise


def _is_duplicate(study, trial, training):
    """Whether another process queued or trains the same, and did so before."""
    optuna = import_optuna()
    failed = (optuna.trial.TrialState.FAIL, optuna.trial.TrialState.PRUNED)
    return any(
        training_of(other) == training
        and other.number < trial.number
        and other.state not in failed
        for other in study.get_trials(deepcopy=False)
    )


def _choices(taus, plan):
    return {
        "tau": taus,
        "epochs": sorted({stage.epochs for stage in plan}),
        "seed": list(range(plan[-1].seeds)),
    }


@contextlib.contextmanager
def _quiet():
    """Silences what Optuna says about each trial, and about its heartbeats."""
    optuna = import_optuna()
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(verbosity)
