"""Studies as a whole: trained, kept, refused and resumed cells."""

import contextlib
import errno
import os
import re
import shutil
import sqlite3
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from hypothesis import given

from keras_logitclip import study
from keras_logitclip._jobs import files
from keras_logitclip._jobs import storage
from keras_logitclip._jobs.description import fingerprint
from keras_logitclip.study import _plan
from keras_logitclip.study import _run
from keras_logitclip.study._data import load_data
from keras_logitclip.study._data import make_noise
from keras_logitclip.study._report import report_of
from keras_logitclip.study._training import Trainer
from tests.damages import damages
from tests.damages import reproducibly
from tests.study_files import BACKEND
from tests.study_files import MODULE
from tests.study_files import load
from tests.study_files import own_data
from tests.study_files import own_directory  # noqa: F401
from tests.study_files import own_model
from tests.study_files import run
from tests.study_files import store_running_trial
from tests.study_files import without_times

pytestmark = [pytest.mark.once, pytest.mark.gradients]

METHODS = [{"losses": ["CE"], "taus": [1.0]}]
OWN_LOSS = {"methods": [{"losses": ["study_samples:smoothed"]}]}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a study that is complete, and its records."""
    folder = tmp_path_factory.mktemp("finished")
    loaded = load(folder, epochs=2, methods=METHODS)
    return folder, run(loaded, results=folder / "results")


@pytest.fixture
def trained(monkeypatch):
    """Returns a list of the cells that are trained from now on."""
    train, cells = Trainer.train, []

    def recorded(trainer, cell, *arguments):
        cells.append(cell)
        return train(trainer, cell, *arguments)

    monkeypatch.setattr(Trainer, "train", recorded)
    return cells


def test_a_complete_study_trains_nothing(finished, trained):
    folder, records = finished
    assert [record["value"] for record in records] == [None, 1.0]
    assert [record["method"] for record in records] == ["plain", "tau"]
    results = folder / "results"
    assert not list((results / "backups").iterdir())
    loaded = study.load(folder / "small.toml")
    assert run(loaded, results=results) == records
    assert not trained


def test_each_seed_has_noise_and_a_training_of_its_own():
    loaded = load(epochs=1, seeds=2, noise=[{"kind": "symmetric", "rate": 0.4}])
    data = load_data(loaded, None)
    records = run(loaded)
    assert [record["seed"] for record in records] == [0, 1]
    for record in records:
        noisy = make_noise(loaded, data, record["noise"], record["seed"], None)
        assert record["labels"] == fingerprint(noisy.labels)
    one, other = records
    assert one["labels"] != other["labels"]
    assert one["epochs"]["loss"] != other["epochs"]["loss"]


def test_a_cell_does_not_depend_on_those_before(finished):
    """The other cells leave a compiled model and random states."""
    (alone,) = run(load(epochs=2, methods=[{**METHODS[0], "plain": False}]))
    _, (_, after_another) = finished
    for record in (alone, after_another := without_times(after_another)):
        del record["config"], record["planned"]
    assert without_times(alone) == after_another


def test_the_progress_bar_counts_epochs(finished, capsys):
    folder, _ = finished
    loaded = study.load(folder / "small.toml")
    run(loaded, results=folder / "results", verbose=True)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "small: 100%" in printed.err
    assert "4/4" in printed.err
    assert "2/2 cells" in printed.err


SELECTING = {
    "epochs": 1,
    "seeds": 3,
    "select_seeds": 1,
    "optimizer": {"learning_rate": None, "learning_rates": [0.1, 0.001]},
    "methods": METHODS,
}


def test_one_seed_selects_what_the_others_train(trained, capsys):
    records = run(load(**SELECTING), verbose=True)
    assert len(trained) == len(records) == 4 + 2 * 2
    assert "8/8 cells" in capsys.readouterr().err
    assert [cell.seed for cell in trained] == 4 * [0] + 2 * [1] + 2 * [2]
    for method in ("plain", "tau"):
        of_method = [record for record in records if record["method"] == method]
        # The smaller rate of equal ones.
        _, best = max(
            (record["epochs"]["noisy_accuracy"], -record["learning_rate"])
            for record in of_method[:2]
        )
        assert {record["learning_rate"] for record in of_method[2:]} == {-best}
    assert run(load(**SELECTING)) == records
    assert len(trained) == 8


# Studies that change.

BEFORE = {"epochs": 2, "methods": METHODS}
GROWTH = {
    "seeds": ({"seeds": 2}, 2),
    "taus": ({"methods": [{"losses": ["CE"], "taus": [2.0, 1.0, np.inf]}]}, 2),
    "rates": (
        {"optimizer": {"learning_rate": None, "learning_rates": [0.1, 0.01]}},
        2,
    ),
    "method": ({"methods": [*METHODS, {"losses": ["GCE"]}]}, 1),
    "normalized": (
        {"methods": [*METHODS, {**METHODS[0], "normalize_gradient": True}]},
        1,
    ),
    "own loss": ({"methods": [*METHODS, *OWN_LOSS["methods"]]}, 1),
    "noise": (
        {"noise": [{"kind": "clean"}, {"kind": "symmetric", "rate": 0.4}]},
        2,
    ),
    "trials": ({"trials": 1}, 0),
    "selection": ({"seeds": 2, "select_seeds": 1}, 2),
    "fewer": ({"methods": [{"losses": ["CE"]}]}, 0),
}


@pytest.mark.parametrize(("changes", "new"), GROWTH.values(), ids=GROWTH)
def test_a_study_that_grows_trains_what_is_new(changes, new, finished, trained):
    folder, records = finished
    shutil.copytree(folder / "results", "results")
    grown = load(**{**BEFORE, **changes})
    after = run(grown, results="results")
    assert len(trained) == new
    assert len(after) == _plan.count(grown)
    before = {name: records[0][name] for name in ("config", "planned")}
    kept = [record for record in after if {**record, **before} in records]
    assert len(kept) == len(after) - new
    # Removed cells are still stored.
    assert run(load(**BEFORE), results="results") == records
    assert len(trained) == new


CHANGES = {
    "epochs": ({"epochs": 3}, "epochs: 2 there, 3 here"),
    "batch-size": ({"batch_size": 32}, "batch_size: 64 there, 32 here"),
    "optimizer": ({"optimizer": {"momentum": 0.5}}, "optimizer: .*0.9.*there.*0.5"),
    "model": ({"model": {"width": 16}}, "model: .*8.* there, .*16"),
    "data": (own_data("images"), "data: .*load.* there, .*images"),
    "noise": (
        {"noise": [{"kind": "symmetric", "rate": 0.4, "exact": True}]},
        "noise symmetric 0.4: .*False.* there, .*True",
    ),
}


@pytest.mark.parametrize(("changes", "message"), CHANGES.values(), ids=CHANGES)
def test_a_changed_study_is_refused(changes, message, finished, trained):
    folder, _ = finished
    with pytest.raises(ValueError, match=f"'small'.*Received: {message}"):
        run(load(**{**BEFORE, **changes}), results=folder / "results")
    assert not trained


def test_another_precision_is_refused(finished):
    keras.config.set_dtype_policy("mixed_bfloat16")
    with pytest.raises(ValueError, match="dtype_policy: 'float32' there, 'mixed"):
        run(load(**BEFORE), results=finished[0] / "results")


EDITS = {
    "data": (
        {},
        "np.arange(320) % 4",
        "np.arange(320) // 2 % 4",
        "contents of the data",
    ),
    "model": (own_model("random_model"), "Dropout(0.3)", "Dropout(0.9)", "code of the"),
    "loss": (OWN_LOSS, "0.9 *", "0.8 *", "loss study_samples:smoothed"),
}


@pytest.mark.parametrize("name", EDITS)
def test_an_edited_function_is_refused(name, trained):
    changes, old, new, message = EDITS[name]
    loaded = load(epochs=1, **changes)
    run(loaded)
    assert MODULE.count(old) == 1
    Path("study_samples.py").write_text(MODULE.replace(old, new))
    with pytest.raises(ValueError, match=f"Received: {message}.* there, .* here"):
        run(loaded)
    assert len(trained) == 1


def test_two_folders_with_modules_of_the_same_name():
    """Each study is trained on the data beside it."""
    records = {}
    for name, shift in (("one", 0), ("two", 1)):
        Path(name).mkdir()
        loaded = load(Path(name), epochs=1)
        module = MODULE.replace("np.arange(320) % 4", f"(np.arange(320) + {shift}) % 4")
        Path(name, "study_samples.py").write_text(module)
        (records[name],) = run(loaded, results=Path(name, "results"))
    assert records["one"]["epochs"]["loss"] != records["two"]["epochs"]["loss"]


def test_what_is_reported_before_it_runs_can_be_run():
    """The data are not known in this case."""
    loaded = load(epochs=1)
    Path("results").mkdir()
    assert _run.records(_run.open_store(loaded, Path("results"), None), loaded) == []
    assert len(run(loaded, results="results")) == 1


def test_records_of_other_settings_are_not_taken_up():
    """Records on the disk are used if the database is lost."""
    run(load(epochs=1))
    Path("results/small/study.db").unlink()
    (record,) = run(load(epochs=2))
    assert len(record["epochs"]["loss"]) == 2


def test_records_of_a_grown_study_are_taken_up(finished, trained):
    folder, records = finished
    shutil.copytree(folder / "results", "results")
    noises = [{"kind": "clean"}, *records[0]["config"]["noise"]]
    methods = [*METHODS, *OWN_LOSS["methods"]]
    grown = load(**{**BEFORE, "noise": noises, "methods": methods})
    after = run(grown, results="results")
    assert len(trained) == 4
    Path("results/study.db").unlink()
    assert run(grown, results="results") == after
    assert len(trained) == 4


def test_a_study_that_has_lost_parts_is_complete(trained):
    run(load(epochs=1, seeds=2))
    records = run(load(epochs=1))
    assert "Trained cells: 1 of 1, with" in report_of(records)
    assert len(trained) == 2


def test_records_of_other_data_are_not_taken_up(trained):
    loaded = load(epochs=1)
    run(loaded)
    Path("results/small/study.db").unlink()
    path = Path("study_samples.py")
    path.write_text(path.read_text().replace("(320) % 4", "(320) // 2 % 4"))
    run(loaded)
    assert len(trained) == 2


def test_results_of_a_newer_version_are_refused(monkeypatch):
    loaded = load(epochs=1)
    with monkeypatch.context() as patch:
        patch.setattr(_run._config, "FORMAT", 3)
        run(loaded)
    with pytest.raises(ValueError, match="format: 3 there, 2 here"):
        run(loaded)


def test_two_studies_in_one_folder_share_nothing(trained):
    one, two = load(epochs=1), load(name="other.toml", epochs=1)
    for loaded in (one, two):
        (record,) = run(loaded, results="both")
        assert record["study"] == loaded.name
    assert len(trained) == 2


# Other processes.


def test_a_cell_of_a_silent_process_is_waited_for(capsys):
    loaded = load(epochs=1)
    (cell,) = _plan.cells(loaded, {})
    store_running_trial(loaded, Path("results/small"), cell)
    assert len(run(loaded, grace_period=1, verbose=True)) == 1
    printed = capsys.readouterr().err
    assert re.search(r"waiting for symmetric 0.4 CE plain 0.1 0, \d s", printed)


def test_what_a_killed_process_was_writing_is_removed():
    loaded = load(epochs=1, seeds=2)
    _, second = run(loaded)
    (path,) = Path("results/small/cells").glob("*-1-*.json")
    others = set(path.parent.iterdir())
    Path("results/small/study.db").unlink()
    path.with_name(f"4194305-{path.name}").write_text('{"format"')
    assert run(loaded)[1] == second
    assert set(path.parent.iterdir()) == others


# Errors of the disk and of the database.


def fail_once(monkeypatch, target, error, when=lambda *arguments, **others: True):
    """Makes a function fail at its first call for which `when` is true."""
    owner, name = target
    function, failed = getattr(owner, name), []

    def fails(*arguments, **others):
        if not failed and when(*arguments, **others):
            failed.append(arguments)
            raise error
        return function(*arguments, **others)

    monkeypatch.setattr(owner, name, fails)
    return failed


FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
WRITTEN = {"backup": "backups", "record": "cells"}


@pytest.mark.parametrize("file", WRITTEN)
def test_a_full_disk(file, finished, monkeypatch):
    def is_file(source, path):
        return WRITTEN[file] in Path(path).parts

    loaded = load(epochs=2)
    failed = fail_once(monkeypatch, (files.os, "replace"), FULL, is_file)
    with pytest.raises(
        OSError, match="Cannot write .*No space left on device.*resumes it"
    ):
        run(loaded)
    assert len(failed) == 1
    assert not Path(failed[0][0]).exists()
    (record,) = run(loaded)
    assert record["epochs"]["loss"] == finished[1][0]["epochs"]["loss"]


def database_error(message):
    optuna = pytest.importorskip("optuna")
    sqlalchemy = pytest.importorskip("sqlalchemy")
    error = optuna.exceptions.StorageInternalError("An exception is raised.")
    error.__context__ = sqlalchemy.exc.OperationalError(
        "INSERT", {}, sqlite3.OperationalError(message)
    )
    return error


def test_a_database_without_space(finished, trained, monkeypatch):
    database = pytest.importorskip("optuna").storages.RDBStorage
    loaded = load(epochs=2, methods=METHODS)
    with monkeypatch.context() as patch:
        fail_once(
            patch,
            (database, "set_trial_user_attr"),
            database_error("database or disk is full"),
            when=lambda database, trial, key, value: key == "record",
        )
        with pytest.raises(ConnectionError, match="is kept.*database or disk is full"):
            run(loaded)
    records = run(loaded, grace_period=1)
    # The training whose record could not be stored is not repeated.
    assert sorted(trained) == sorted(set(trained))
    assert [*map(without_times, records)] == [*map(without_times, finished[1])]


LOST = {
    "begin": "_create_new_trial",
    "report": "set_trial_intermediate_value",
    "record": "set_trial_user_attr",
    "end": "set_trial_state_values",
    "read": "_get_trials",
}


@pytest.mark.parametrize("what", LOST)
def test_a_server_that_goes_away(what, finished, monkeypatch):
    """The next start resumes the work."""
    database = pytest.importorskip("optuna").storages.RDBStorage
    loaded = load(epochs=2)
    failed = fail_once(monkeypatch, (database, LOST[what]), database_error("gone"))
    with pytest.raises(ConnectionError, match="The database of the study .*gone"):
        run(loaded)
    assert failed
    (record,) = run(loaded, grace_period=1)
    assert record["epochs"]["loss"] == finished[1][0]["epochs"]["loss"]


# Results that were damaged.

NO_RECORDS = {
    "empty": "",
    "null": "null",
    "number": "1",
    "list": "[{}]",
    "text": '"sha256"',
    "no-digest": '{"epochs": {}}',
    "wrong-digest": '{"epochs": {}, "sha256": null}',
    "deep": 10**5 * "[" + 10**5 * "]",
    "long": 10**6 * "9",
}


@pytest.mark.parametrize("contents", NO_RECORDS.values(), ids=NO_RECORDS)
def test_a_record_that_is_none_is_trained_again(contents, finished, trained):
    folder, (record, _) = finished
    shutil.copytree(folder / "results", "results")
    Path("results/study.db").unlink()
    (path,) = Path("results/cells").glob("*plain*")
    path.write_text(contents)
    again, other = run(load(**BEFORE), results="results")
    assert [cell.method for cell in trained] == ["plain"]
    assert without_times(again) == without_times(record)
    assert {**files.read_json(path), "planned": 2} == again
    assert other == finished[1][1]


def test_a_record_of_another_cell_is_not_taken_up(finished, trained):
    """A file that got the name of another one."""
    folder, records = finished
    shutil.copytree(folder / "results", "results")
    Path("results/study.db").unlink()
    (plain,) = Path("results/cells").glob("*plain*")
    (clipped,) = Path("results/cells").glob("*tau*")
    shutil.copy(clipped, plain)
    again = run(load(**BEFORE), results="results")
    assert [cell.method for cell in trained] == ["plain"]
    assert [*map(without_times, again)] == [*map(without_times, records)]


@given(damaged=damages())
@reproducibly
def test_a_damaged_database(finished, damaged):
    """The database is refused, or it can be read if SQLite notices no damage."""
    loaded = study.load(finished[0] / "small.toml")
    path = Path("study.db")
    path.write_bytes(damaged((finished[0] / "results" / "study.db").read_bytes()))
    try:
        with storage.explained_errors():
            records = _run.records(_run.open_store(loaded, Path("."), None), loaded)
    except (ValueError, ConnectionError) as error:
        message = str(error)
        assert "study.db is damaged" in message or "the database" in message.lower()
    else:
        assert len(records) <= len(finished[1])


TEXTS = {"json": "'{'", "utf-8": "CAST(x'e4e4' AS TEXT)"}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_a_database_with_damaged_texts(text, finished):
    """SQLite does not notice them."""
    folder, _ = finished
    shutil.copytree(folder / "results", "results")
    with contextlib.closing(sqlite3.connect("results/study.db")) as connection:
        connection.execute(f"UPDATE trial_user_attributes SET value_json = {text}")
        connection.commit()
    with pytest.raises(ConnectionError, match="study (is damaged|cannot be opened)"):
        run(load(**BEFORE), results="results")


@pytest.mark.parametrize("size", [20, 5000, -5000])
def test_a_database_that_is_replaced(size, finished, trained):
    """Trained cells come from the records in the same folder."""
    shutil.copytree(finished[0] / "results", "results")
    loaded = study.load(finished[0] / "small.toml")
    database = Path("results/study.db")
    database.write_bytes(database.read_bytes()[:size])
    with pytest.raises(ConnectionError, match="results/study.db is damaged.* Move it"):
        run(loaded, results="results")
    database.unlink()
    assert run(loaded, results="results") == finished[1]
    assert not trained


# Arguments and the backend.


def test_another_backend_than_that_of_the_study():
    other = next(name for name in ("jax", "torch") if name != BACKEND)
    message = f"for the backend {other}, but Keras runs on {BACKEND}. .*={other} "
    with pytest.raises(ValueError, match=message):
        run(load(backend=other))


def test_no_backend_is_that_of_keras():
    (record,) = run(load(epochs=1, backend=None))
    assert BACKEND in record["versions"]
    # It is known from then on.
    loaded, folder = load(epochs=1, backend=None), Path("results/small")
    with pytest.raises(ValueError, match=f"backend: '{BACKEND}' there, 'numpy' here"):
        _run.open_store(loaded, folder, None, {"backend": "numpy"})


def test_a_backend_that_cannot_train(monkeypatch):
    monkeypatch.setattr(keras.config, "backend", lambda: "numpy")
    with pytest.raises(
        ValueError, match="tensorflow or jax or torch, .* runs on numpy"
    ):
        run(load(backend=None))


BAD_ARGUMENTS = {
    "workers": ({"workers": 0}, "`workers`: expected an integer of at least 1"),
    "grace": ({"grace_period": 0.5}, "`grace_period`: expected an integer"),
    "storage": ({"storage": "redis://u:secret@host"}, "`storage`.*another URL"),
}


@pytest.mark.parametrize(
    ("arguments", "message"), BAD_ARGUMENTS.values(), ids=BAD_ARGUMENTS
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        run(load(), **arguments)
    assert "secret" not in str(error.value)


def test_optuna_is_optional(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ImportError, match=r'pip install "keras-logitclip\[tuning\]"'):
        study.run(load(), verbose=False)
