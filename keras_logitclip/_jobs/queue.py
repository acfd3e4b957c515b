"""Jobs that any number of processes share, each of them one trial of an Optuna study.

A job is a choice for each parameter of the study, as a tuple. What is missing is queued
for all processes; a job whose process gives no sign of life for the grace period is
missing again.
"""

import contextlib
import logging
import re
import time
import warnings
from collections.abc import Callable
from typing import Any

_POSTGRESQL = re.compile(r"postgres(ql)?(\+psycopg)?://")
_POLL_SECONDS = 0.5
_BEGUN = "begun"
_JOB = "job"
# How long to wait for a database server that was reached before.
_PATIENCE_SECONDS = 300
# How long to wait for a file, which has one writer at a time.
_FILE_TIMEOUT = 100

Job = tuple


def import_optuna(caller: str = "This"):
    """Imports Optuna, or explains how to install it."""
    try:
        import optuna
    except ModuleNotFoundError as error:
        raise ImportError(
            f"{caller} needs {error.name}, which is not installed. "
            'Install it with: pip install "keras-logitclip[tuning]"'
        ) from error
    return optuna


def check_storage(storage: str) -> str:
    """Returns the URL of the database.

    Raises:
        ValueError: If it is neither SQLite nor PostgreSQL.
    """
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
        ValueError: If there is one with other settings, or of a newer version.
        ImportError: If the driver of the database is not installed.
        ConnectionError: If the database cannot be reached, or is damaged.
    """
    optuna = import_optuna()
    with quiet(), explained_errors():
        if url.startswith("sqlite"):
            _check_file(url)
        storage = _open_or_create_storage(url, grace_period)
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


def _check_file(url):
    """Raises an error for a database that parts are missing from.

    It could be read for a while, and then not any more.
    """
    import sqlalchemy

    engine = sqlalchemy.create_engine(url, connect_args={"timeout": _FILE_TIMEOUT})
    try:
        with engine.connect() as connection:
            found = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar()
    except sqlalchemy.exc.OperationalError:
        return  # Who opens it next will say why it cannot be opened.
    except sqlalchemy.exc.DatabaseError as error:
        found = error.orig
    finally:
        engine.dispose()
    if str(found) != "ok":
        raise ConnectionError(
            f"The database {engine.url.database} is damaged. Move it elsewhere, and "
            "the same call makes a new one; the cells that a study has trained are "
            f"taken from the folder `cells` in its results. Received: {found}"
        )


def _open_or_create_storage(url, grace_period):
    """Opens the database, also if another process makes its tables just now."""
    attempts = 5
    while True:
        try:
            return _open_storage(url, grace_period)
        except Exception as error:
            attempts -= 1
            if not attempts or "already exists" not in str(_cause(error)):
                raise
            time.sleep(_POLL_SECONDS)


def _open_storage(url, grace_period):
    optuna = import_optuna()
    import sqlalchemy

    class PatientStorage(optuna.storages.RDBStorage):
        def record_heartbeat(self, trial_id):
            # In a thread of Optuna's, which an error would end without a word.
            patiently(super().record_heartbeat, trial_id)

    is_file = url.startswith("sqlite")
    options = {"timeout": _FILE_TIMEOUT} if is_file else {"connect_timeout": 10}
    try:
        storage = PatientStorage(
            url,
            engine_kwargs={"connect_args": options, "pool_pre_ping": not is_file},
            heartbeat_interval=max(1, grace_period // 4),
            grace_period=grace_period,
        )
    except ImportError as error:
        raise ImportError(
            "PostgreSQL needs the package psycopg, which is not installed. "
            'Install it with: pip install "psycopg[binary]"'
        ) from error
    except sqlalchemy.exc.OperationalError as error:
        raise ConnectionError(
            f"The database of the study cannot be opened: {error.orig}"
        ) from error
    if is_file:
        _lock_transactions(storage.engine)
    else:
        _wait_for_server(storage.engine)
    return storage


def _lock_transactions(engine):
    """Makes SQLite lock the file when a transaction begins.

    Optuna reads the state of a queued trial, and then sets it. SQLite locks for the
    second only, so two processes could take the same trial.
    """
    import sqlalchemy

    @sqlalchemy.event.listens_for(engine, "begin")
    def begin(connection):
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def _wait_for_server(engine):
    """Makes new connections wait for a server that is away, and say so."""
    import sqlalchemy

    @sqlalchemy.event.listens_for(engine, "do_connect")
    def connect(dialect, record, arguments, options):
        deadline = time.monotonic() + _PATIENCE_SECONDS
        wait = 1
        while True:
            try:
                return dialect.connect(*arguments, **options)
            except dialect.loaded_dbapi.OperationalError as error:
                if time.monotonic() + wait > deadline:
                    raise
                logging.getLogger(__name__).warning(
                    "The database cannot be reached; next attempt in %d s. %s",
                    wait,
                    error,
                )
                time.sleep(wait)
                wait = min(2 * wait, 30)


def patiently(function: Callable, *arguments):
    """Calls a function again if the server goes away in the middle of it."""
    while True:
        try:
            return function(*arguments)
        except Exception as error:
            if not getattr(_cause(error), "connection_invalidated", False):
                raise
            logging.getLogger(__name__).warning(
                "The database went away, and is asked again. %s", error
            )
            time.sleep(_POLL_SECONDS)


def _cause(error) -> Exception | None:
    """Returns the error of the database that led to this one, if one did.

    What Optuna makes of it may be an `AssertionError`, and Keras removes the cause of
    what a callback raises, but not the context.
    """
    import sqlalchemy

    while error and not isinstance(error, sqlalchemy.exc.DBAPIError):
        error = error.__context__
    return error


def _check_settings(stored, settings, study_name):
    formats = stored.get("format", 0), settings.get("format", 0)
    if formats[0] > formats[1]:
        raise ValueError(
            f"The study {study_name!r} in this storage was made by a newer version of "
            f"keras-logitclip. Expected format {formats[1]} or older. Received: format "
            f"{formats[0]}. Update with: pip install --upgrade keras-logitclip"
        )
    different = [
        f"{name}: {stored.get(name)!r} there, {value!r} here"
        for name, value in settings.items()
        if stored.get(name) != value
    ]
    if different:
        raise ValueError(
            f"There is a study named {study_name!r} in this storage, and it was made "
            "with other settings. Expected the same ones, so that it can be resumed, "
            "or another name of the study. Received: " + "; ".join(different)
        )


def job_of(trial) -> Job | None:
    """Returns the job of a trial, `None` for a trial that nobody planned."""
    job = trial.user_attrs.get(_JOB)
    return tuple(job) if job else None


def trials_of(study, *states) -> list:
    """Returns the trials that are in one of these states; all of them for none."""
    return patiently(lambda: study.get_trials(deepcopy=False, states=states or None))


def complete_trials(study) -> dict[Job, Any]:
    """Returns the trials that are complete, by their jobs."""
    complete = import_optuna().trial.TrialState.COMPLETE
    trials = trials_of(study, complete)
    return {job_of(trial): trial for trial in trials}


def work(
    study,
    choices: dict[str, list],
    missing_jobs: Callable[[], list[Job]],
    run: Callable[[Any, Job], float],
    grace_period: int,
    on_trial_end: Callable[[], None],
) -> None:
    """Runs jobs until none is missing. Other processes may do the same.

    Args:
        study: What `open_study` returned.
        choices: The parameters, with all the values that jobs have.
        missing_jobs: Returns the jobs to do next, as far as they are known.
        run: Does the job of a trial, and returns the value to record.
        grace_period: Seconds without sign of life after which a process counts as
            dead.
        on_trial_end: Called after each trial, and now and then while waiting.

    Raises:
        ConnectionError: If the database fails or cannot be reached any more.
    """
    optuna = import_optuna()
    states = optuna.trial.TrialState
    silent_since = {}

    def objective(trial):
        _give_sign_of_life(trial)
        job = job_of(trial)
        if job is None or _is_duplicate(study, trial, job):
            raise optuna.TrialPruned
        for name, values in choices.items():
            trial.suggest_categorical(name, values)
        return run(trial, job)

    def step():
        missing = missing_jobs()
        if not missing:
            return False
        trials = trials_of(study, states.WAITING, states.RUNNING)
        taken = {job_of(trial) for trial in trials}
        for job in missing:
            if job not in taken:
                params = dict(zip(choices, job, strict=True))
                study.enqueue_trial(params, user_attrs={_JOB: job})
        if taken.issuperset(missing) and not any(
            trial.state == states.WAITING for trial in trials
        ):
            _fail_dead_trials(study, silent_since, grace_period)
            time.sleep(_POLL_SECONDS)
        else:
            _run_one_trial(study, objective)
        on_trial_end()
        return True

    with quiet(), explained_errors():
        # A trial in which the server goes away fails, and its job is missing again.
        while patiently(step):
            pass


def _give_sign_of_life(trial):
    """Records the first heartbeat before a trial counts as begun.

    Optuna does so in a thread, and never takes a trial without any for dead.
    """
    trial.study._storage.record_heartbeat(trial._trial_id)
    trial.set_user_attr(_BEGUN, True)


def _fail_dead_trials(study, silent_since, grace_period):
    """Fails the trials whose process died, so that their jobs are missing.

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
    for trial in trials_of(study, states.RUNNING):
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
        failed = trials_of(study, optuna.trial.TrialState.FAIL)
        if not {trial.number for trial in failed}.intersection(ended):
            raise


def _is_duplicate(study, trial, job):
    """Whether another process queued or runs the same, and did so before."""
    optuna = import_optuna()
    failed = (optuna.trial.TrialState.FAIL, optuna.trial.TrialState.PRUNED)
    return any(
        job_of(other) == job
        and other.number < trial.number
        and other.state not in failed
        for other in trials_of(study)
    )


@contextlib.contextmanager
def explained_errors():
    """Says in one line that the database failed: it is full, or away for too long."""
    import_optuna()
    try:
        yield
    except Exception as error:
        cause = _cause(error)
        if cause is None:
            raise
        raise ConnectionError(
            "The database of the study failed. What is done is kept, and the same "
            f"call goes on with it. {cause.orig}"
        ) from error


@contextlib.contextmanager
def quiet():
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
