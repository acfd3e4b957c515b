"""The commands of `python -m keras_logitclip study`."""

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

# What a part of a report needs: a module, which is in a package.
_PACKAGES = {
    "pictures": ("matplotlib", "matplotlib"),
    "page": ("vl_convert", "vl-convert-python"),
}


def run(options) -> str:
    """Trains the cells that are not trained yet, and reports all."""
    if check_count("workers", options.workers) > 1:
        # Each process takes only the GPU memory that it needs.
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    study = _config.load(options.file)
    _switch_backend(study, options)
    folder = _run.results_folder(study, options.results)
    _share_compiled(folder)
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
    """Reports the trained cells."""
    study = _config.load(options.file)
    folder = _run.results_folder(study, options.results)
    if options.storage is None and not (folder / "study.db").exists():
        raise ValueError(
            f"There are no results in {folder}. Run `study run` first, or pass another "
            "folder as `--results`."
        )
    with explained_errors():
        opened = _run.open_store(study, folder, options.storage)
        records = _run.records(opened, study)
    return _report_of(records, options.output or folder)


def list_cells(options) -> str:
    """Lists the cells, as far as they are known."""
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
    """Restarts this command on the backend of the study, if it differs."""
    backend = study.settings.backend
    if backend not in (None, keras.config.backend()):
        check_installed(backend)
        command = [sys.executable, "-m", "keras_logitclip", *options.arguments]
        os.execve(sys.executable, command, {**os.environ, "KERAS_BACKEND": backend})


def _share_compiled(folder):
    """Lets JAX share compiled functions between processes."""
    if keras.config.backend() != "jax":
        return
    import jax

    # Before JAX 0.6, functions that are loaded from there train differently on CPUs.
    if jax.__version_info__ < (0, 6):
        return
    settings = {
        "jax_compilation_cache_dir": str(folder / "compiled"),
        "jax_persistent_cache_min_compile_time_secs": 0,
    }
    for name, value in settings.items():
        if name.upper() not in os.environ:
            # Environment variables reach the worker processes.
            os.environ[name.upper()] = str(value)
            jax.config.update(name, value)


def _report_of(records, folder):
    installed = {
        part: importlib.util.find_spec(module) is not None
        for part, (module, _) in _PACKAGES.items()
    }
    paths = _report.write_report(records, folder, **installed)
    names = ", ".join(path.name for path in paths)
    hints = (
        f"\nThe {part} would need {package}: pip install {package}"
        for part, (_, package) in _PACKAGES.items()
        if not installed[part]
    )
    return f"{_report.report_of(records)}\nWritten to {folder}: {names}{''.join(hints)}"
