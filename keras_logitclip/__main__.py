"""The command line: `python -m keras_logitclip` or `keras-logitclip`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from keras_logitclip import __version__
from keras_logitclip import bounds
from keras_logitclip._check import command
from keras_logitclip.tuning._search import PAPER_GRID


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command that the arguments (by default `sys.argv[1:]`) name."""
    parser = argparse.ArgumentParser(
        prog="python -m keras_logitclip",
        description="LogitClip: train classifiers on noisy labels.",
    )
    version = f"keras-logitclip {__version__}"
    parser.add_argument("--version", action="version", version=version)
    commands = parser.add_subparsers(metavar="command", required=True)
    _add_tau_command(commands)
    _add_check_command(commands)
    _add_study_command(commands)
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    options = parser.parse_args(arguments)
    options.arguments = arguments
    try:
        print(options.run(options))
    except (ValueError, OSError, RuntimeError, ImportError) as error:
        parser.exit(2, f"{parser.prog}: error: {error}\n")


def _add_tau_command(commands):
    parser = commands.add_parser(
        "tau",
        help="print what thresholds guarantee under symmetric label noise",
        description="Prints the threshold that follows from the rate of symmetric "
        "label noise, and what it and the thresholds of the paper's search guarantee.",
    )
    parser.add_argument(
        "--classes", type=int, required=True, help="number of classes, at least 2"
    )
    parser.add_argument(
        "--noise-rate",
        type=float,
        required=True,
        help="share of the labels that are wrong, below (classes - 1) / classes",
    )
    parser.add_argument(
        "--p", type=float, default=2.0, help="order of the norm (default: 2)"
    )
    parser.set_defaults(run=_tau)


def _tau(options):
    suggested = bounds.tau_for_noise_rate(
        options.noise_rate, options.classes, options.p
    )
    rows = [_guarantees(suggested, options)]
    rows += [_guarantees(1 / inverse, options) for inverse in PAPER_GRID]
    header = (
        "tau",
        "1/tau",
        "largest probability",
        "smallest loss",
        "largest loss",
        "excess risk below",
    )
    return "\n".join(
        [
            f"{options.classes} classes, {options.noise_rate:.4g} of the labels wrong "
            f"(symmetric noise), norm of order {options.p:g}",
            f"tau = {suggested:.4g} is the smallest threshold with which the model "
            "can be as certain of a label as the noise allows.",
            "Begin with 1 to 2, which were the best values in our measurements, and "
            "set the learning rate anew (README, The learning rate, and tau).",
            "",
            *_table(header, rows),
            "",
            "First row: the tau above. Others: the paper's grid. Loss: cross-entropy.",
        ]
    )


def _guarantees(tau, options):
    lower, upper = bounds.cross_entropy_bounds(tau, options.classes, options.p)
    return (
        tau,
        1 / tau,
        bounds.max_probability(tau, options.classes, options.p),
        lower,
        upper,
        bounds.excess_risk_bound(tau, options.classes, options.noise_rate, options.p),
    )


def _table(header, rows):
    cells = [header, *([f"{value:.4g}" for value in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for row in cells
    ]


def _add_check_command(commands):
    parser = commands.add_parser(
        "check",
        help="check whether a model, its loss and its data fit each other",
        description="Predicts some samples, and prints what is wrong with the model, "
        "the loss or the data and how to mend it. The exit status is 1 if anything is "
        "wrong.",
    )
    parser.add_argument("model", help="model file (.keras)")
    parser.add_argument("data", help="file of arrays (.npz)")
    parser.add_argument("--x", default="x", help="name of the inputs (default: x)")
    parser.add_argument("--y", default="y", help="name of the labels (default: y)")
    parser.add_argument(
        "--samples",
        type=int,
        default=512,
        help="number of samples to predict (default: 512)",
    )
    parser.set_defaults(run=command.run)


def _add_study_command(commands):
    parser = commands.add_parser(
        "study",
        help="compare methods over noises, losses and seeds",
        description="Runs the trainings that a study file plans, and reports them.",
    )
    actions = parser.add_subparsers(metavar="action", required=True)
    run = _add_action(actions, "run", "train the cells that are not trained yet")
    run.add_argument(
        "--data-dir", help="folder with the original or your own data files"
    )
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
        "--dry-run", action="store_true", help="only estimate the duration"
    )
    report = _add_action(actions, "report", "report the trained cells")
    report.add_argument(
        "--output", type=Path, help="folder of the report (default: the results)"
    )
    _add_action(actions, "list-cells", "list the cells of the study")


def _add_action(actions, name, text):
    parser = actions.add_parser(name, help=text, description=f"{text.capitalize()}.")
    parser.add_argument("file", help="study file (TOML)")
    parser.add_argument(
        "--results", type=Path, help="folder of the results (default: results/NAME)"
    )
    parser.add_argument(
        "--storage",
        help="URL of the database, such as postgresql://user:password@host/database, "
        "which several machines can share (default: the file study.db in the results)",
    )
    parser.set_defaults(run=_study, action=name.replace("-", "_"))
    return parser


def _study(options):
    # Only this command needs the packages of an extra.
    from keras_logitclip.study import _command

    return getattr(_command, options.action)(options)


if __name__ == "__main__":
    main()
