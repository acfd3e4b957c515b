"""The command line: `python -m keras_logitclip`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from keras_logitclip import bounds

# The values of 1 / tau that the paper searches.
PAPER_GRID = (0.1, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command that the arguments name (those of the process by default)."""
    parser = argparse.ArgumentParser(
        prog="python -m keras_logitclip",
        description="LogitClip: train classifiers on noisy labels.",
    )
    commands = parser.add_subparsers(metavar="command", required=True)
    _add_tau_command(commands)
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
        help="what thresholds guarantee under symmetric label noise",
        description="Prints the threshold that follows from the rate of symmetric "
        "label noise, and what it and those that the paper searches guarantee.",
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
            f"tau = {suggested:.4g} is the smallest with which the model can be as "
            "sure of a label as the noise lets it be.",
            "To begin with, as measured: 1 to 2, with a learning rate of its own "
            "(README, The learning rate, and tau).",
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


def _add_study_command(commands):
    parser = commands.add_parser(
        "study",
        help="compare methods over noises, losses and seeds",
        description="Runs the trainings that a study file plans, and reports them.",
    )
    actions = parser.add_subparsers(metavar="action", required=True)
    run = _add_action(actions, "run", "train what is not trained yet")
    run.add_argument(
        "--data-dir", help="folder of the data sets' original files, or of your own"
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
        "--dry-run", action="store_true", help="only estimate how long it will take"
    )
    report = _add_action(actions, "report", "report what is trained")
    report.add_argument(
        "--output", type=Path, help="folder to write to (default: that of the results)"
    )
    _add_action(actions, "list-cells", "list the trainings of the study")


def _add_action(actions, name, text):
    parser = actions.add_parser(name, help=text, description=f"{text.capitalize()}.")
    parser.add_argument("file", help="study file (TOML)")
    parser.add_argument(
        "--results", type=Path, help="folder of the results (default: results/NAME)"
    )
    parser.add_argument(
        "--storage",
        help="database, such as postgresql://user:password@host/database; several "
        "machines can share it (default: the file study.db in the results)",
    )
    parser.set_defaults(run=_study, action=name.replace("-", "_"))
    return parser


def _study(options):
    # Only this command needs what an extra installs.
    from keras_logitclip.study import _command

    return getattr(_command, options.action)(options)


if __name__ == "__main__":
    main()
