"""Runs a study with any number of processes and machines."""

import functools
import itertools
import re
import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import keras
import msgspec

from keras_logitclip._arguments import check_count
from keras_logitclip._backend import check_installed
from keras_logitclip._check.model import check_model
from keras_logitclip._jobs import arrays
from keras_logitclip._jobs import description
from keras_logitclip._jobs import files
from keras_logitclip._jobs import processes
from keras_logitclip._jobs import queue
from keras_logitclip._jobs import storage as storages
from keras_logitclip._jobs.progress import progress_bar
from keras_logitclip.study import _config
from keras_logitclip.study import _data
from keras_logitclip.study import _plan
from keras_logitclip.study import _training

# Number of samples that check the model before the trainings.
_CHECKED = 128
_REPORT_SECONDS = 1.0
_RECORD = "record"


def run(
    study: _config.Study,
    *,
    results: str | Path | None = None,
    storage: str | None = None,
    data_dir: str | Path | None = None,
    workers: int = 1,
    grace_period: int = 60,
    verbose: bool = True,
) -> list[dict]:
    """Trains all cells of a study that are not trained yet.

    It can be killed at any time. Another call with the same study, or with more cells
    in it, resumes the work from the last backup. Several calls at the same time share
    the work.

    Args:
        study: The study that `study.load` returned.
        results: Folder for the database, backups and reports. Defaults to `None`,
            which means `results/<name of the study>` in the working directory.
        storage: URL of the database, `"sqlite:///..."` or `"postgresql://..."`.
            Defaults to `None`, which means the file `study.db` in `results`.
        data_dir: Folder of the original files of data sets, as in `datasets.load`, and
            of the files that the study names. Defaults to `None`, which means that
            Keras downloads data sets, and that named files are beside the study file.
        workers: Number of processes on this machine. Defaults to `1`, which means only
            the calling process.
        grace_period: Seconds without a sign of life after which a process on another
            machine counts as dead, and another process takes its cell. Defaults to
            `60`.
        verbose: Whether to show a progress bar. Defaults to `True`.

    Returns:
        The records of all cells, in the order of the study.

    Raises:
        ValueError: Before any training starts, if the study is for another backend than
            Keras's, if its data or files cannot be used, or if the results are from a
            study with other settings.
        RuntimeError: If all worker processes died.
        ConnectionError: If the database is unreachable or fails.
        OSError: If the disk is full. None of these errors loses finished work.
    """
    workers = check_count("workers", workers)
    grace_period = check_count("grace_period", grace_period)
    _check_keras(study)
    storages.import_optuna("A study")
    folder = results_folder(study, results)
    data, fingerprints = _prepare(study, data_dir)
    opened = open_store(study, folder, storage, fingerprints)
    epochs = _plan.count(study) * study.settings.epochs
    with (
        storages.explained_errors(),
        progress_bar(study.name, epochs, lambda: _done(opened, study), verbose) as show,
    ):
        processes.work(
            workers,
            _work,
            (study, folder, storage, data, data_dir, grace_period),
            is_complete=lambda: not _missing(opened, study),
            on_progress=show,
        )
        return records(opened, study)


def results_folder(study: _config.Study, results: str | Path | None) -> Path:
    return Path("results") / study.name if results is None else Path(results)


def _check_keras(study):
    asked, backend = study.settings.backend, keras.config.backend()
    if asked:
        check_installed(asked)
    accepted = [asked] if asked else _config.BACKENDS
    if backend not in accepted:
        raise ValueError(
            f"The study {study.name!r} is for the backend {' or '.join(accepted)}, but "
            f"Keras runs on {backend}. Set the environment variable "
            f"KERAS_BACKEND={accepted[0]} before the import of Keras, or use "
            "`python -m keras_logitclip study run`, which sets it."
        )
    if keras.config.image_data_format() != "channels_last":
        raise ValueError(
            "Expected Keras to be set to `channels_last`, because studies have such "
            "images. Received: `channels_first` in `keras.config.image_data_format()`"
        )


def _prepare(study, data_dir):
    """Does everything except the training for one seed, so that errors occur early.

    It returns the data, and hashes of everything that the settings name.
    """
    data = _data.load_data(study, data_dir)
    found = {
        **description.keras_settings(),
        "contents of the data": data.fingerprint,
    }
    if study.settings.data.name in _config.CONFUSIONS:
        del found["image_data_format"]  # Existing studies do not have it.
    for name, noise in study.noises.items():
        labels = _data.make_noise(study, data, name, 0, data_dir).labels
        arrays.split(labels, study.settings.validation_split, 0)
        found[f"noise {name}"] = msgspec.to_builtins(noise)
        if noise.kind == "human":
            found[f"noise {name}"]["contents"] = description.fingerprint(labels)
    model = _training.build_core(study, data)
    inputs, labels = data.x_train[:_CHECKED], data.y_train[:_CHECKED]
    check_model(model, data.inputs(inputs), labels).raise_if_wrong()
    if ":" in study.settings.model.name:
        model = description.describe_model(lambda: _training.build_core(study, data))
        found["code of the model"] = model
    for loss in {loss for loss, _ in study.candidates if ":" in loss}:
        built = _training.build_loss(study, loss, data.num_classes)
        found[f"loss {loss}"] = description.describe(built)
    return data, found


def open_store(
    study: _config.Study,
    folder: Path,
    storage: str | None,
    fingerprints: dict | None = None,
):
    """Opens the results of a study, or raises an error if the settings differ."""
    if storage is None:
        folder.mkdir(parents=True, exist_ok=True)
        url = storages.file_url(folder / "study.db")
    else:
        url = storages.check_storage(storage)
    # The settings of all cells, which stay the same while a study grows.
    names = ("epochs", "batch_size", "validation_split", "data", "model", "optimizer")
    shared = {"format": _config.FORMAT, **{name: study.config[name] for name in names}}
    del shared["optimizer"]["learning_rates"]
    return storages.open_study(url, study.name, shared, fingerprints)


def trained_cells(opened, study: _config.Study) -> dict:
    """Returns the known cells, each with its trial if it is trained."""
    trained = queue.complete_trials(opened)
    accuracies = {cell: trial.value for cell, trial in trained.items()}
    return {cell: trained.get(cell) for cell in _plan.cells(study, accuracies)}


def records(opened, study: _config.Study) -> list[dict]:
    """Returns the records of the trained cells, in the order of the study.

    The configuration and the number of planned cells are those of the current study,
    which may have grown or lost parts.
    """
    trials = filter(None, trained_cells(opened, study).values())
    as_now = {"config": study.config, "planned": _plan.count(study)}
    return [{**trial.user_attrs[_RECORD], **as_now} for trial in trials]


def _missing(opened, study):
    cells = trained_cells(opened, study)
    return [cell for cell, trial in cells.items() if trial is None]


def _done(opened, study):
    """Returns the number of finished epochs, and the number of cells as text."""
    trained = sum(t is not None for t in trained_cells(opened, study).values())
    steps = sum(t.last_step or 0 for t in queue.trials_of(opened, "RUNNING"))
    done = trained * study.settings.epochs + steps
    return done, f"{trained}/{_plan.count(study)} cells"


def _work(study, folder, storage, data, data_dir, grace_period, on_progress):
    opened = open_store(study, folder, storage)
    trainer = _training.Trainer(study, data)

    @functools.lru_cache(len(study.noises))
    def noise_of(name, seed):
        return _data.make_noise(study, data, name, seed, data_dir)

    def run_cell(trial, job):
        cell = _plan.Cell(*job)
        name = _file_name(opened, study, cell)
        finished, backups = folder / "cells" / f"{name}.json", folder / "backups" / name
        files.remove_unfinished(finished)
        record = files.read_json(finished)
        if not record or not _training.is_record_of(cell, record):
            noisy = noise_of(cell.noise, cell.seed)
            report = _reporter(trial, on_progress)
            record = trainer.train(cell, noisy, backups / "backup.npz", report)
            # Also on disk, because the database may be unreachable at this moment.
            files.write_json(finished, record)
        trial.set_user_attr(_RECORD, record)
        # Not earlier, because a kill would then cost the whole training.
        shutil.rmtree(backups, ignore_errors=True)
        return arrays.mean_of_last_epochs(record["epochs"]["noisy_accuracy"])

    missing = functools.partial(_missing, opened, study)
    queue.work(opened, missing, run_cell, grace_period, on_progress)


def _file_name(opened, study, cell):
    """Returns a file name that is readable and unique to a cell.

    It is also unique to the settings, so that no file of other settings is used.
    """
    settings = storages.stored_settings(opened)
    own = (f"noise {cell.noise}", f"loss {cell.loss}")
    deciding = {
        name: value
        for name, value in settings.items()
        if name in own or not name.startswith(("noise ", "loss "))
    }
    digest = files.digest([study.name, deciding, cell])
    return f"{re.sub(r'[^A-Za-z0-9.-]+', '-', queue.name_of(cell))}-{digest[:8]}"


def _reporter(trial, on_progress):
    """Returns a function that reports the progress of a training, but not too often."""
    reported = 0.0

    def report(epoch, epochs):
        nonlocal reported
        if time.monotonic() > reported + _REPORT_SECONDS:
            reported = time.monotonic()
            trial.report(epochs["noisy_accuracy"][-1], epoch)
            on_progress("")

    return report


def estimate(study: _config.Study, data_dir: str | Path | None) -> float:
    """Returns the estimated seconds of a study in one process, from two epochs.

    The first epoch includes compiling, which is needed once for consecutive cells with
    the same loss, method and value.
    """
    _check_keras(study)
    short = replace(study, settings=msgspec.structs.replace(study.settings, epochs=2))
    data, _ = _prepare(study, data_dir)
    cells = _plan.cells(study, {})
    noisy = _data.make_noise(short, data, cells[0].noise, 0, data_dir)
    with tempfile.TemporaryDirectory() as folder:
        backup = Path(folder) / "backup.npz"
        record = _training.Trainer(short, data).train(
            cells[0], noisy, backup, lambda *_: None
        )
    second = record["epochs"]["seconds"][1]
    compiled = len([*itertools.groupby(cells, lambda c: (c.loss, c.method, c.value))])
    start_up = (record["seconds"] - 2 * second) * compiled / len(cells)
    return _plan.count(study) * (start_up + study.settings.epochs * second)
