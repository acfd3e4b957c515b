"""Databases of Optuna studies: files, and PostgreSQL servers."""

import contextlib
import json
import os
import re
import time
from pathlib import Path

_POSTGRESQL = re.compile(r"postgres(ql)?(\+psycopg)?://")
# Worker processes and later calls would each find another database.
_IN_MEMORY = ("sqlite:///", "sqlite:///:memory:")
_RETRY_SECONDS = 0.5
# What is wrong when two processes make tables, and their first rows, at once.
_MADE_JUST_NOW = ("already exists", "UNIQUE constraint", "unique constraint")
# How long to wait for a file, which has one writer at a time.
_FILE_TIMEOUT = 100
_ADDED = "added: "


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


def file_url(path: str | os.PathLike) -> str:
    """Returns the URL of an SQLite file, whatever characters its name has."""
    import_optuna()
    import sqlalchemy

    url = sqlalchemy.URL.create("sqlite", database=str(path))
    return url.render_as_string(hide_password=False)


def check_storage(storage: str) -> str:
    """Returns the URL of the database, if it is SQLite or PostgreSQL."""
    is_text = isinstance(storage, str)
    if is_text and storage.startswith("sqlite:///") and storage not in _IN_MEMORY:
        return storage
    if is_text and _POSTGRESQL.match(storage):
        # Whatever driver SQLAlchemy would choose, it is this one that is installed.
        return _POSTGRESQL.sub("postgresql+psycopg://", storage, count=1)
    # The value is not shown: it may hold a password.
    raise ValueError(
        "Invalid value for argument `storage`: expected `None`, or a URL such as "
        '"sqlite:///search.db" or "postgresql://user:password@host/database". '
        f"Received: {'another URL' if is_text else type(storage)}"
    )


def open_study(url: str, study_name: str, settings: dict, growing: dict | None = None):
    """Opens a study, or makes it if there is none of that name.

    `settings` decide all results: JSON-able values by names, which are equal as long
    as the study lasts. `growing` are the same of parts that can be added to it.

    Raises:
        ValueError: If there is one with other settings, or of somebody else.
        ImportError: If the driver of the database is not installed.
        ConnectionError: If the database cannot be reached, is damaged or locked.
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
        # First the trials: another process may store its settings and one just now.
        has_trials = bool(study.get_trials(deepcopy=False))
        stored = study.user_attrs.get("settings")
        is_new = not (stored or has_trials) and len(study.directions) == 1
        if not is_new and not isinstance(stored, dict):
            raise ValueError(
                f"There is a study named {study_name!r} in this storage that was not "
                "made by keras-logitclip. Expected another name of the study, or "
                "another storage."
            )
        growing = growing or {}
        _check_settings(stored_settings(study), settings, growing, study_name)
        if stored is None:
            study.set_user_attr("settings", settings)
        for name, value in growing.items():
            # One by one: other processes may add others just now.
            study.set_user_attr(_ADDED + name, value)
    return study


def stored_settings(study) -> dict:
    """Returns all settings of a study, what was added to it among them."""
    attributes = study.user_attrs
    added = {
        name.removeprefix(_ADDED): value
        for name, value in attributes.items()
        if name.startswith(_ADDED)
    }
    return {**attributes.get("settings", {}), **added}


def _check_settings(stored, settings, growing, study_name):
    """Refuses settings that differ from what is stored."""
    compared = {**settings, **{k: v for k, v in growing.items() if k in stored}}
    different = [
        f"{name}: {stored.get(name)!r} there, {value!r} here"
        for name, value in compared.items()
        if stored and stored.get(name) != value
    ]
    if different:
        raise ValueError(
            f"There is a study named {study_name!r} in this storage, and it was made "
            "with other settings. Expected the same ones, so that it can be resumed, "
            "or another name of the study. Received: " + "; ".join(different)
        )


def _check_file(url):
    """Raises an error for a file that is locked, damaged or none of Optuna's.

    A damaged one could be read for a while, and then not any more.
    """
    import sqlalchemy

    path = Path(sqlalchemy.make_url(url).database)
    if not path.parent.is_dir():
        raise ConnectionError(
            f"The database {path} cannot be opened: there is no folder {path.parent}. "
            "Create it first"
        )
    engine = sqlalchemy.create_engine(url, connect_args={"timeout": _FILE_TIMEOUT})
    try:
        with engine.connect() as connection:
            found = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar()
            tables = sqlalchemy.inspect(connection).get_table_names()
        if tables and "studies" not in tables:
            found = f"the tables {', '.join(tables)}"
    except sqlalchemy.exc.OperationalError:  # It is locked, or may not be read.
        raise
    except sqlalchemy.exc.DatabaseError as error:
        found = error.orig
    finally:
        engine.dispose()
    if str(found) != "ok":
        raise ConnectionError(
            f"The database {path} is damaged, or not one of Optuna's. Move it "
            "elsewhere, and the same call makes a new one; cells that are trained are "
            f"taken from the folder `cells` of the results. Received: {found}"
        )


def _open_storage(url):
    """Opens the database, also if another process makes its tables just now."""
    optuna = import_optuna()
    is_file = url.startswith("sqlite")
    options = {"timeout": _FILE_TIMEOUT} if is_file else {"connect_timeout": 10}
    options = {"connect_args": options, "pool_pre_ping": not is_file}
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
            if not attempts_left or not any(t in message for t in _MADE_JUST_NOW):
                raise
            time.sleep(_RETRY_SECONDS)
    if is_file:
        _lock_transactions(storage.engine)
    return storage


def _lock_transactions(engine):
    """Makes SQLite lock the file when a transaction begins.

    Optuna counts the trials, and then stores one of the next number. SQLite locks for
    the second only, so two trials could get the same number.
    """
    import sqlalchemy

    @sqlalchemy.event.listens_for(engine, "begin")
    def begin(connection):
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def _cause(error) -> Exception | None:
    """Returns the error of the database that led to this one, if one did.

    What Optuna makes of it may be an `AssertionError`, and Keras removes the cause of
    what a callback raises, but not the context.
    """
    import sqlalchemy

    while error and not isinstance(error, sqlalchemy.exc.DBAPIError):
        error = error.__context__
    return error


@contextlib.contextmanager
def explained_errors(
    what_happened: str = (
        "failed. What is done is kept, and the same call goes on with it."
    ),
):
    """Says in one line that the database failed: it is full, locked or away."""
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
    """Says that texts in the database, or in its errors, are damaged."""
    try:
        yield
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ConnectionError(
            f"The database of the study is damaged. Move it elsewhere. {error}"
        ) from error
