"""Databases of Optuna studies: SQLite files and PostgreSQL servers."""

import contextlib
import json
import os
import re
import time
from pathlib import Path

_POSTGRESQL = re.compile(r"postgres(ql)?(\+psycopg)?://")
# Refused, because worker processes and later calls would not see the same database.
_IN_MEMORY = ("sqlite:///", "sqlite:///:memory:")
_RETRY_SECONDS = 0.5
# Errors when two processes create tables, or their first rows, at the same time.
_CREATED_TWICE = ("already exists", "UNIQUE constraint", "unique constraint")
# Seconds to wait for a file, which has one writer at a time.
_FILE_TIMEOUT = 100
_ADDED = "added: "


def import_optuna(caller: str = "This", extra: str = "tuning"):
    """Imports Optuna, or explains how to install it."""
    try:
        import optuna
    except ModuleNotFoundError as error:
        raise ImportError(
            f"{caller} needs {error.name}, which is not installed. "
            f'Install it with: pip install "keras-logitclip[{extra}]"'
        ) from error
    return optuna


def file_url(path: str | os.PathLike) -> str:
    """Returns the URL of an SQLite file, even if its path has special characters."""
    import_optuna()
    import sqlalchemy

    url = sqlalchemy.URL.create("sqlite", database=str(path))
    return url.render_as_string(hide_password=False)


def check_storage(storage: str) -> str:
    """Returns the URL of a database if it is SQLite or PostgreSQL."""
    is_text = isinstance(storage, str)
    if is_text and storage.startswith("sqlite:///") and storage not in _IN_MEMORY:
        return storage
    if is_text and _POSTGRESQL.match(storage) and _can_be_parsed(storage):
        # SQLAlchemy's default driver need not be installed, but this one is.
        return _POSTGRESQL.sub("postgresql+psycopg://", storage, count=1)
    # The value is not shown, because it may contain a password.
    raise ValueError(
        "Invalid value for argument `storage`: expected `None`, or a URL such as "
        '"sqlite:///search.db" or "postgresql://user:password@host/database". '
        f"Received: {'another URL' if is_text else type(storage)}"
    )


def _can_be_parsed(url):
    import sqlalchemy

    try:
        sqlalchemy.make_url(url)
    except (ValueError, sqlalchemy.exc.ArgumentError):
        return False
    return True


def open_study(
    url: str,
    study_name: str,
    settings: dict,
    growing: dict | None = None,
    remedy: str = "another name of the study",
):
    """Opens a study, or creates it.

    `settings` are JSON-able values by names that determine all results, and never
    change in a study. `growing` are settings of parts that can be added later. `remedy`
    is the advice for a caller with other settings.

    Raises:
        ValueError: If a study of this name has other settings, or was made by other
            software.
        ImportError: If the driver of the database is not installed.
        ConnectionError: If the database is unreachable, damaged or locked.
    """
    optuna = import_optuna()
    with contextlib.ExitStack() as stack:
        stack.enter_context(explained_errors("cannot be opened."))
        stack.enter_context(explained_damages())
        stack.callback(optuna.logging.set_verbosity, optuna.logging.get_verbosity())
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        if url.startswith("sqlite"):
            _check_file(url)
        study = optuna.create_study(
            storage=_open_storage(url),
            study_name=study_name,
            direction="maximize",
            sampler=optuna.samplers.RandomSampler(),
            load_if_exists=True,
        )
        # Trials first, because another process may be storing its settings, then a
        # trial.
        has_trials = bool(study.get_trials(deepcopy=False))
        stored = study.user_attrs.get("settings")
        is_new = not (stored or has_trials) and len(study.directions) == 1
        if not is_new and not isinstance(stored, dict):
            raise ValueError(
                f"There is a study named {study_name!r} in this storage that was not "
                "made by keras-logitclip. Use another name of the study, or another "
                "storage."
            )
        growing = growing or {}
        _check_settings(stored_settings(study), settings, growing, study_name, remedy)
        if stored is None:
            study.set_user_attr("settings", settings)
        for name, value in growing.items():
            # One by one, because other processes may be adding others.
            study.set_user_attr(_ADDED + name, value)
    return study


def stored_settings(study) -> dict:
    """Returns all settings of a study, including those that were added."""
    attributes = study.user_attrs
    added = {
        name.removeprefix(_ADDED): value
        for name, value in attributes.items()
        if name.startswith(_ADDED)
    }
    return {**attributes.get("settings", {}), **added}


def _check_settings(stored, settings, growing, study_name, remedy):
    """Raises an error if settings differ from the stored ones."""
    compared = {**settings, **{k: v for k, v in growing.items() if k in stored}}
    different = [
        f"{name}: {stored.get(name)!r} there, {value!r} here"
        for name, value in compared.items()
        if stored and stored.get(name) != value
    ]
    if different:
        raise ValueError(
            f"There is a study named {study_name!r} in this storage that was made with "
            f"other settings. Expected the same settings to resume it, or {remedy}. "
            f"Received: {'; '.join(different)}"
        )


def _check_file(url):
    """Raises an error for a file that is locked, damaged or not made by Optuna.

    Otherwise a damaged file could fail later.
    """
    import sqlalchemy

    path = Path(sqlalchemy.make_url(url).database)
    if not path.parent.is_dir():
        raise ConnectionError(
            f"The database {path} cannot be opened. Create the folder {path.parent} "
            "first."
        )
    engine = sqlalchemy.create_engine(url, connect_args={"timeout": _FILE_TIMEOUT})
    try:
        with engine.connect() as connection:
            found = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar()
            tables = sqlalchemy.inspect(connection).get_table_names()
        if tables and "studies" not in tables:
            found = f"the tables {', '.join(tables)}"
    except sqlalchemy.exc.OperationalError:  # It is locked or not readable.
        raise
    except sqlalchemy.exc.DatabaseError as error:
        found = error.orig
    finally:
        engine.dispose()
    if str(found) != "ok":
        raise ConnectionError(
            f"The database {path} is damaged or was not made by Optuna. Move it "
            "elsewhere, and the same call makes a new one. A study takes its trained "
            f"cells from the folder `cells` of the results. Received: {found}"
        )


def _open_storage(url):
    """Opens the database, even if another process is creating its tables."""
    optuna = import_optuna()
    import sqlalchemy

    is_file = url.startswith("sqlite")
    if is_file:
        # A pool would leave the file open until the study is collected.
        options = {"poolclass": sqlalchemy.NullPool}
        options["connect_args"] = {"timeout": _FILE_TIMEOUT}
    else:
        options = {"pool_pre_ping": True, "connect_args": {"connect_timeout": 10}}
    for attempts_left in reversed(range(5)):
        try:
            storage = optuna.storages.RDBStorage(url, engine_kwargs=options)
            break
        except ImportError as error:
            raise ImportError(
                "PostgreSQL needs the package psycopg, which is not installed. "
                'Install it with: pip install "psycopg[binary]"'
            ) from error
        except Exception as error:
            message = str(_cause(error))
            if not attempts_left or not any(t in message for t in _CREATED_TWICE):
                raise
            time.sleep(_RETRY_SECONDS)
    if is_file:
        _lock_transactions(storage.engine)
    return storage


def _lock_transactions(engine):
    """Makes SQLite lock the file at the beginning of a transaction.

    Optuna counts the trials, and then stores one with the next number. SQLite would
    lock the file only for the second step, so two trials could get the same number.
    """
    import sqlalchemy

    @sqlalchemy.event.listens_for(engine, "begin")
    def begin(connection):
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def _cause(error) -> Exception | None:
    """Returns the database error that caused an error, or `None`.

    Optuna may turn it into an `AssertionError`. Keras removes the cause of an error in
    a callback, but not its context.
    """
    import sqlalchemy

    while error and not isinstance(error, sqlalchemy.exc.DBAPIError):
        error = error.__context__
    return error


@contextlib.contextmanager
def explained_errors(
    what_happened: str = (
        "failed. Finished work is kept, and the same call resumes it."
    ),
):
    """Turns errors of a full, locked or unreachable database into one line."""
    import_optuna()
    try:
        yield
    except Exception as error:
        cause = _cause(error)
        if isinstance(error, ConnectionError) or not cause:
            raise
        raise ConnectionError(
            f"The database of the study {what_happened} {cause.orig}"
        ) from error


@contextlib.contextmanager
def explained_damages():
    """Turns errors of damaged texts in the database into one line."""
    try:
        yield
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ConnectionError(
            f"The database of the study is damaged. Move it elsewhere. {error}"
        ) from error
