"""Prints the table of the robust losses, with their bounds, for docs/losses.md.

python examples/loss_table.py --tau 1 --classes 10
"""

import argparse
import os
from typing import NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from keras_logitclip import bounds
from keras_logitclip import losses

# Logits of this norm are as good as any: what is unbounded grows beyond `ENOUGH`.
LONG, ENOUGH = 1e6, 1e4


class Row(NamedTuple):
    """What no code can tell about a preset."""

    formula: str
    symmetric: bool = False


ROWS = {
    "CE": Row("-log p_y"),
    "Focal": Row("-(1 - p_y)^gamma log p_y"),
    "MAE": Row("2 (1 - p_y)", symmetric=True),
    "GCE": Row("(1 - p_y^q) / q"),
    "RCE": Row("-log(1e-4) (1 - p_y)", symmetric=True),
    "SCE": Row("alpha CE + beta RCE"),
    "PHuber-CE": Row("CE, and below p_y = 1/t its tangent 1 + log t - t p_y"),
    "PHuber-GCE": Row("GCE, and below p_y = t^(1/(q-1)) its tangent"),
    "Taylor-CE": Row("sum_i (1 - p_y)^i / i, i = 1 to order"),
    "NCE": Row("log p_y / sum_k log p_k", symmetric=True),
    "NFL": Row("Focal_y / sum_k Focal_k", symmetric=True),
    "NGCE": Row("GCE_y / sum_k GCE_k", symmetric=True),
    "NCE+RCE": Row("alpha NCE + beta RCE", symmetric=True),
    "NCE+MAE": Row("alpha NCE + beta MAE", symmetric=True),
    "NFL+RCE": Row("alpha NFL + beta RCE", symmetric=True),
    "NFL+MAE": Row("alpha NFL + beta MAE", symmetric=True),
    "AGCE": Row("((a + 1)^q - (a + p_y)^q) / q"),
    "AUL": Row("((a - p_y)^q - (a - 1)^q) / q"),
    "AEL": Row("exp(-p_y / a)"),
    "NCE+AGCE": Row("alpha NCE + beta AGCE"),
    "NCE+AUL": Row("alpha NCE + beta AUL"),
    "NCE+AEL": Row("alpha NCE + beta AEL"),
    "ANL-CE": Row(
        "alpha NCE + beta (1 - (A - CE_y) / sum_k (A - CE_k)), A = -log(1e-7)",
        symmetric=True,
    ),
    "ANL-FL": Row("the same with Focal", symmetric=True),
    "JS": Row("(w KL(y, m) + (1-w) KL(p, m)) / (-(1-w) log(1-w)), m = w y + (1-w) p"),
    "CORES": Row("CE_y - beta mean_k CE_k"),
    "Bootstrap-soft": Row("-sum_k (beta y_k + (1 - beta) p_k) log p_k"),
    "Bootstrap-hard": Row("beta CE_y + (1 - beta) min_k CE_k"),
    "Bi-tempered": Row("tempered logarithm (t1) of the tempered softmax (t2)"),
    "LogitNorm": Row("CE of z / (temperature norm(z))"),
}


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


def class_names(loss):
    classes = loss if isinstance(loss, tuple) else (loss,)
    return " + ".join(f"`{cls.__name__}`" for cls in classes)


def format_bound(bound):
    return "none" if bound > ENOUGH else f"{bound:.3g}"


def make_row(name, tau, classes):
    preset, row = losses.PRESETS[name], ROWS[name]
    loss = losses.preset(name, classes)
    plain, clipped = (
        bounds.loss_bounds(loss, threshold, classes).upper for threshold in (LONG, tau)
    )
    cells = (
        f"[{name}]({preset.reference})",
        class_names(preset.loss),
        f"`{row.formula}`",
        format_values(preset.cifar10),
        format_values(preset.cifar100),
        "yes" if row.symmetric else "",
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
    return "\n".join([*lines, *(make_row(name, tau, classes) for name in ROWS)])


if __name__ == "__main__":
    arguments = parse_arguments()
    print(make_table(arguments.tau, arguments.classes))
