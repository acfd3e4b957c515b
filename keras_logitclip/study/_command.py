"""The command line of studies: `python -m keras_logitclip study`."""

import importlib.util
import os
import sys
from pathlib import Path

import keras

from keras_logitclip._arguments import check_count
from keras_logitclip._jobs import queue
from keras_logitclip.study import _report
from keras_logitclip.study import _run
from keras_logitclip.study._config import Study
from keras_logitclip.study._config import load


def add_command(commands) -> None:
    """Adds `study` with its own commands to a parser."""
    parser = commands.add_parser(
        "study",
        help="compare methods over noises, losses and seeds",
        description="Runs the trainings that a study file plans, and reports them.",
    )
    actions = parser.add_subparsers(metavar="action", required=True)
    run = _add_action(actions, "run", _start, "train what is not trained yet")
    run.add_argument("--data-dir", help="folder of the data sets' original files")
    run.add_argument(
        "--workers", type=int, default=1, help="processes on this machine (default: 1)"
    )
    run.add_argument(
        "--grace-period",
        type=int,
        default=60,
        help="seconds after which a silent process counts as dead (default: 60)",
    )
    run.add_argument(
        "--dry-run", action="store_true", help="only estimate how long it will take"
    )
    report = _add_action(actions, "report", _write_report, "report what is trained")
    report.add_argument(
        "--output", type=Path, help="folder to write to (default: that of the results)"
    )
    _add_action(actions, "list-cells", _list_cells, "list the trainings of the study")


def _add_action(actions, name, function, text):
    parser = actions.add_parser(name, help=text, description=f"{text.capitalize()}.")
    parser.add_argument("file", help="study file (TOML)")
    parser.add_argument(
        "--results",
        type=Path,
        help="folder of the results (default: results/NAME)",
    )
    parser.add_argument(
        "--storage",
        help="database, such as postgresql://user:password@host/database; several "
        "machines can share it (default: the file study.db in the results)",
    )
    parser.set_defaults(run=function)
    return parser


def _start(options):
    if check_count("workers", options.workers) > 1:
        _share_device()
    study = load(options.file)
    _switch_backend(study, options)
    folder = _run.results_folder(study, options.results)
    _keep_compiled(folder)
    if options.dry_run:
        return _estimate(study, options)
    records = _run.run(
        study,
        results=folder,
        storage=options.storage,
        data_dir=options.data_dir,
        workers=options.workers,
        grace_period=options.grace_period,
    )
    return _report_of(records, folder)


def _share_device():
    """Lets each process take the memory of a GPU that it needs, not most of it."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")


def _switch_backend(study, options):
    """Starts this command anew where it runs on another backend than the study's."""
    backend = study.settings["backend"]
    if backend != keras.config.backend():
        command = [sys.executable, "-m", "keras_logitclip", *options.arguments]
        os.execve(sys.executable, command, {**os.environ, "KERAS_BACKEND": backend})


def _keep_compiled(folder):
    """Lets JAX compile once what cells of other seeds and noises have in common."""
    if keras.config.backend() == "jax":
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


def _estimate(study, options):
    _run.check_cells(study, options.data_dir)
    seconds = _run.estimate(study, options.data_dir)
    hours = seconds / options.workers / 3600
    return (
        f"{len(study.cells)} cells of {study.settings['epochs']} epochs: about "
        f"{hours:.2g} hours with {options.workers} process"
        f"{'es, if each had this speed' if options.workers > 1 else ''}"
    )


def _write_report(options):
    study = load(options.file)
    folder = _run.results_folder(study, options.results)
    with queue.explained_errors():
        records = _run.records(_open(study, folder, options), study)
    return _report_of(records, options.output or folder)


def _open(study: Study, folder, options):
    if options.storage is None and not (folder / "study.db").exists():
        raise ValueError(
            f"There are no results in {folder}. Expected those of `study run`, or "
            "another folder as `--results`."
        )
    return _run.open_store(study, folder, options.storage)


def _report_of(records, folder):
    pictures = importlib.util.find_spec("matplotlib") is not None
    paths = _report.write_report(records, folder, pictures)
    names = ", ".join(path.name for path in paths)
    hint = "" if pictures else "\nPictures need Matplotlib: pip install matplotlib"
    return f"{_report.terminal_table(records)}\n\nWritten to {folder}: {names}{hint}"


def _list_cells(options):
    study = load(options.file)
    folder = _run.results_folder(study, options.results)
    states = {}
    if options.storage is not None or (folder / "study.db").exists():
        opened = _open(study, folder, options)
        for trial in queue.trials_of(opened):
            if states.get(queue.job_of(trial)) != "trained":
                states[queue.job_of(trial)] = _STATES.get(trial.state.name, "-")
    lines = [
        f"{states.get(cell, '-'):8s} {_run.cell_name(study, cell)}"
        for cell in study.cells
    ]
    trained = list(states.values()).count("trained")
    return "\n".join([*lines, f"{trained} of {len(lines)} cells are trained."])


_STATES = {"COMPLETE": "trained", "RUNNING": "running"}
