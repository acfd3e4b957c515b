"""Prints the table of the robust losses and their bounds of docs/losses.md.

python examples/loss_table.py --tau 1 --classes 10
"""

import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from keras_logitclip import bounds
from keras_logitclip import losses

# With logits of the norm `LONG`, an unbounded loss exceeds `ENOUGH`.
LONG, ENOUGH = 1e6, 1e4


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tau", type=float, default=1.0, help="clipping threshold")
    parser.add_argument("--classes", type=int, default=10, help="number of classes")
    return parser.parse_args()


def format_values(arguments):
    if not arguments:
        return ""
    return ", ".join(
        f"{name} ({format_values(value)})" if isinstance(value, dict) else
        f"{name}={value:g}"
        for name, value in arguments.items()
        if value != {}
    )  # fmt: skip


def classes_of(loss):
    return loss if isinstance(loss, tuple) else (loss,)


def class_names(loss):
    return " + ".join(f"`{cls.__name__}`" for cls in classes_of(loss))


def is_symmetric(loss):
    return all(cls.is_symmetric for cls in classes_of(loss))


def format_bound(bound):
    return "none" if bound > ENOUGH else f"{bound:.3g}"


def make_row(name, tau, classes):
    preset = losses.PRESETS[name]
    loss = losses.preset(name, classes)
    plain, clipped = (
        bounds.loss_bounds(loss, threshold, classes).upper for threshold in (LONG, tau)
    )
    cells = (
        f"[{name}]({preset.reference})",
        class_names(preset.loss),
        f"`{preset.formula}`",
        format_values(preset.cifar10),
        format_values(preset.cifar100),
        "yes" if is_symmetric(preset.loss) else "",
        format_bound(plain),
        format_bound(clipped),
    )
    return f"| {' | '.join(cells)} |"


def make_table(tau, classes):
    header = (
        "name, paper",
        "class",
        "formula",
        "CIFAR-10",
        "CIFAR-100",
        "symmetric",
        "plain",
        "clipped",
    )
    lines = [f"| {' | '.join(header)} |", "|---|---|---|---|---|---|---|---|"]
    return "\n".join(
        [*lines, *(make_row(name, tau, classes) for name in losses.PRESETS)]
    )


if __name__ == "__main__":
    arguments = parse_arguments()
    print(make_table(arguments.tau, arguments.classes))
