"""What the command line does with studies: `python -m keras_logitclip study`."""

import importlib.util
import os
import sys

import keras

from keras_logitclip._arguments import check_count
from keras_logitclip._backend import check_installed
from keras_logitclip._jobs import queue
from keras_logitclip._jobs.storage import explained_errors
from keras_logitclip.study import _config
from keras_logitclip.study import _plan
from keras_logitclip.study import _report
from keras_logitclip.study import _run


def run(options) -> str:
    """Trains what is not trained yet, and reports it."""
    if check_count("workers", options.workers) > 1:
        # Each process takes the memory of a GPU that it needs, not most of it.
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    study = _config.load(options.file)
    _switch_backend(study, options)
    folder = _run.results_folder(study, options.results)
    _keep_compiled(folder)
    if options.dry_run:
        hours = _run.estimate(study, options.data_dir) / options.workers / 3600
        return (
            f"{_plan.count(study)} cells of {study.settings.epochs} epochs: about "
            f"{hours:.2g} hours with {options.workers} process"
            f"{'es, if each had this speed' if options.workers > 1 else ''}"
        )
    records = _run.run(
        study,
        results=folder,
        storage=options.storage,
        data_dir=options.data_dir,
        workers=options.workers,
        grace_period=options.grace_period,
    )
    return _report_of(records, folder)


def report(options) -> str:
    """Reports what is trained."""
    study = _config.load(options.file)
    folder = _run.results_folder(study, options.results)
    if options.storage is None and not (folder / "study.db").exists():
        raise ValueError(
            f"There are no results in {folder}. Expected those of `study run`, or "
            "another folder as `--results`."
        )
    with explained_errors():
        opened = _run.open_store(study, folder, options.storage)
        records = _run.records(opened, study)
    return _report_of(records, options.output or folder)


def list_cells(options) -> str:
    """Lists the trainings, as far as it is known which ones there will be."""
    study = _config.load(options.file)
    folder = _run.results_folder(study, options.results)
    trained, running = dict.fromkeys(_plan.cells(study, {})), set()
    if options.storage is not None or (folder / "study.db").exists():
        with explained_errors():
            opened = _run.open_store(study, folder, options.storage)
            trained = _run.trained_cells(opened, study)
            running = {*map(queue.job_of, queue.trials_of(opened, "RUNNING"))}
    states = {
        cell: "trained" if trial else "running" if cell in running else "-"
        for cell, trial in trained.items()
    }
    lines = [f"{state:8s} {queue.name_of(cell)}" for cell, state in states.items()]
    total = (
        f"{sum(map(bool, trained.values()))} of {_plan.count(study)} cells are trained."
    )
    return "\n".join([*lines, total])


def _switch_backend(study, options):
    """Starts this command anew where it runs on another backend than the study's."""
    backend = study.settings.backend
    if backend not in (None, keras.config.backend()):
        check_installed(backend)
        command = [sys.executable, "-m", "keras_logitclip", *options.arguments]
        os.execve(sys.executable, command, {**os.environ, "KERAS_BACKEND": backend})


def _keep_compiled(folder):
    """Lets JAX compile once what several processes have in common."""
    if keras.config.backend() != "jax":
        return
    import jax

    # Before, on CPUs, what is loaded from there trains differently.
    if tuple(map(int, jax.__version__.split(".")[:2])) < (0, 6):
        return
    settings = {
        "jax_compilation_cache_dir": str(folder / "compiled"),
        "jax_persistent_cache_min_compile_time_secs": 0,
    }
    for name, value in settings.items():
        if name.upper() not in os.environ:
            # The variable is for worker processes.
            os.environ[name.upper()] = str(value)
            jax.config.update(name, value)


def _report_of(records, folder):
    pictures = importlib.util.find_spec("matplotlib") is not None
    paths = _report.write_report(records, folder, pictures)
    names = ", ".join(path.name for path in paths)
    hint = "" if pictures else "\nPictures need Matplotlib: pip install matplotlib"
    return f"{_report.report_of(records)}\nWritten to {folder}: {names}{hint}"
