"""The work on a study, by any number of processes and machines."""

import hashlib
import json
import re
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np

from keras_logitclip._arguments import check_count
from keras_logitclip._jobs import queue
from keras_logitclip._jobs.processes import exit_with_parent
from keras_logitclip._jobs.processes import work_in_processes
from keras_logitclip.study._config import FORMAT
from keras_logitclip.study._config import Cell
from keras_logitclip.study._config import Study
from keras_logitclip.study._data import load_data
from keras_logitclip.study._data import make_noise
from keras_logitclip.study._progress_bar import ProgressBar
from keras_logitclip.study._training import build_core
from keras_logitclip.study._training import train
from keras_logitclip.study._training import write_json
from keras_logitclip.tuning._checks import split

_REPORT_SECONDS = 1.0
_RECORD = "record"
_DIGEST = "sha256"


def run(
    study: Study,
    *,
    results: str | Path | None = None,
    storage: str | None = None,
    data_dir: str | Path | None = None,
    workers: int = 1,
    grace_period: int = 60,
    verbose: bool = True,
) -> list[dict]:
    """Trains all cells of a study that are not trained yet.

    It can be killed at any moment. Called again with the same study, it goes on, a
    cell in training from its last backup. Calls at the same time share the work.

    Args:
        study: What `study.load` returned.
        results: Folder for the database, backups and reports. Defaults to `None`,
            which means `results/<name of the study>` in the working directory.
        storage: URL of the database, `"sqlite:///..."` or `"postgresql://..."`.
            Defaults to `None`, which means the file `study.db` in `results`.
        data_dir: Folder of the data sets' original files, as in `datasets.load`.
            Defaults to `None`, which means that Keras downloads them.
        workers: Number of processes to start on this machine. Defaults to `1`: none
            but the calling one.
        grace_period: Seconds without sign of life after which a process counts as
            dead, and its cell is given to another one. Defaults to `60`.
        verbose: Whether to show a progress bar. Defaults to `True`.

    Returns:
        The records of all cells, in the order of the study.

    Raises:
        ValueError: Before any training starts: if the study is for another backend
            than that of Keras, if its data or files cannot be used, or if there are
            results of a study of that name with other settings.
        RuntimeError: If all worker processes died.
        ConnectionError: If the database cannot be reached, or fails.
        OSError: If the disk is full. All of these lose nothing that is done.
    """
    workers = check_count("workers", workers)
    grace_period = check_count("grace_period", grace_period)
    _check_backend(study)
    queue.import_optuna("A study")
    folder = results_folder(study, results)
    check_cells(study, data_dir)
    arguments = (study, folder, storage, data_dir, grace_period)
    opened = open_store(study, folder, storage, grace_period)
    with (
        queue.explained_errors(),
        ProgressBar(opened, study, verbose) as bar,
    ):
        if workers == 1:
            _work(opened, *arguments, bar.refresh)
        else:
            work_in_processes(
                workers,
                _work_in_process,
                arguments,
                is_complete=lambda: not _missing(opened, study),
                on_poll=bar.refresh,
            )
        return records(opened, study)


def results_folder(study: Study, results: str | Path | None) -> Path:
    """Returns the folder of the results of a study."""
    return Path("results") / study.name if results is None else Path(results)


def _check_backend(study):
    asked = study.settings["backend"]
    if asked != keras.config.backend():
        raise ValueError(
            f"The study {study.name!r} is for the backend {asked!r}, and Keras runs on "
            f"{keras.config.backend()!r}. Set the environment variable "
            f"KERAS_BACKEND={asked} before Keras is imported, or start it with "
            "`python -m keras_logitclip study run`, which does so."
        )


def check_cells(study: Study, data_dir: str | Path | None) -> None:
    """Does all but the training for one seed, so that errors come early."""
    data = load_data(study, data_dir)
    for name in study.noises:
        noisy = make_noise(study, data, name, 0, data_dir)
        split(noisy.labels, study.settings["validation_split"], 0)
    build_core(study, data)


def open_store(study: Study, folder: Path, storage: str | None, grace_period: int = 60):
    """Opens the results of a study.

    Raises:
        ValueError: If they are those of other settings, or of a newer version.
    """
    if storage is None:
        folder.mkdir(parents=True, exist_ok=True)
        storage = f"sqlite:///{folder / 'study.db'}"
    settings = {"format": FORMAT, **study.settings}
    return queue.open_study(
        queue.check_storage(storage), study.name, settings, grace_period
    )


def records(opened, study: Study) -> list[dict]:
    """Returns the records of the cells that are trained, in the order of the study."""
    trials = queue.complete_trials(opened)
    return [trials[cell].user_attrs[_RECORD] for cell in study.cells if cell in trials]


def _missing(opened, study):
    trained = queue.complete_trials(opened)
    return [cell for cell in study.cells if cell not in trained]


def _work_in_process(study, folder, storage, data_dir, grace_period):
    opened = open_store(study, folder, storage, grace_period)
    _work(opened, study, folder, storage, data_dir, grace_period, exit_with_parent)


def _work(opened, study, folder, storage, data_dir, grace_period, on_progress):
    data = load_data(study, data_dir)
    cells = study.cells
    choices = {
        field: list(dict.fromkeys(getattr(cell, field) for cell in cells))
        for field in Cell._fields
    }

    def run_cell(trial, job):
        cell = Cell(*job)
        noisy = make_noise(study, data, cell.noise, cell.seed, data_dir)
        name = cell_name(study, cell)
        finished, backup = folder / "cells" / f"{name}.json", folder / "backups" / name
        record = _finished_record(finished)
        if record is None:
            reporter = _Reporter(trial, on_progress)
            record = train(study, cell, data, noisy, backup, reporter)
            # Kept on disk as well, should the database be away at this moment.
            write_json(finished, {**record, _DIGEST: _digest(record)})
        trial.set_user_attr(_RECORD, record)
        # Not before: until then a kill would cost the whole training.
        shutil.rmtree(backup, ignore_errors=True)
        last = record["epochs"]["noisy_accuracy"][-10:]
        return float(np.mean(last))

    queue.work(
        opened,
        choices,
        lambda: _missing(opened, study),
        run_cell,
        grace_period,
        on_progress,
    )


def _finished_record(path):
    """Returns the record that a file holds, `None` if it is damaged."""
    try:
        record = json.loads(path.read_text())
        digest = record.pop(_DIGEST)
        return record if digest == _digest(record) else None
    except Exception:  # Anything can come of a damaged file.
        return None


def _digest(contents):
    encoded = json.dumps(contents, sort_keys=True).encode()
    return hashlib.sha256(encoded).hexdigest()


class _Reporter:
    """Tells the database how far a training is, but not at each short epoch."""

    def __init__(self, trial, on_progress: Callable):
        self.trial = trial
        self.on_progress = on_progress
        self.reported = -np.inf

    def __call__(self, epoch, epochs):
        now = time.monotonic()
        if now > self.reported + _REPORT_SECONDS:
            self.reported = now
            self.trial.report(epochs["noisy_accuracy"][-1], epoch)
            self.on_progress()


def cell_name(study: Study, cell: Cell) -> str:
    """Returns a name for files: readable, and another one for each cell.

    Another one for other settings, too: no backup of theirs is taken up.
    """
    value = "" if cell.value is None else f"-{cell.value:g}"
    name = f"{cell.noise}-{cell.loss}-{cell.method}{value}-{cell.seed}"
    digest = _digest([FORMAT, study.name, study.settings, cell])[:8]
    return f"{re.sub(r'[^A-Za-z0-9.-]+', '-', name)}-{digest}"


def estimate(study: Study, data_dir: str | Path | None) -> float:
    """Returns the seconds that one process needs for a study, from two short epochs.

    The first epoch has the compilation in it, and that is needed for each cell.
    """
    _check_backend(study)
    short = Study(study.name, study.folder, {**study.settings, "epochs": 2})
    data = load_data(study, data_dir)
    cell = short.cells[0]
    noisy = make_noise(short, data, cell.noise, cell.seed, data_dir)
    with tempfile.TemporaryDirectory() as folder:
        backups = Path(folder) / "backups"
        record = train(short, cell, data, noisy, backups, lambda *_: None)
    second = record["epochs"]["seconds"][1]
    start_up = record["seconds"] - second
    seconds = start_up + (study.settings["epochs"] - 1) * second
    return len(study.cells) * seconds
