"""The tables of docs/cleaning.md and docs/probabilities.md, from `cleaning.csv`.

cleaning.py measures its rows. Figures are in percent: means over the seeds, with their
standard errors.
"""

from pathlib import Path

import pandas as pd

PATH = Path(__file__).with_name("cleaning.csv")
NAMES = ["data", "noise", "model", "learning_rate", "seed"]
FOUND = [
    "wrong",
    "estimated",
    "interval",
    "estimated as it is",
    "estimated clipped",
    "found",
    "found by self-confidence",
    "precision",
    "recall",
    "all labels",
    "pruned",
]
CALIBRATED = [
    "accuracy",
    "largest probability",
    "largest, clipped",
    "as it is",
    "clipped",
    "T of noisy labels",
    "T of clean labels",
]


def load() -> pd.DataFrame:
    """Returns a row for each case, model and seed."""
    return pd.read_csv(PATH)


def label_errors(rows):
    """What is found of the wrong labels, and test accuracies with and without them."""
    return _means(rows, FOUND)


def calibration_errors(rows):
    """How far probabilities are from how often a model is right."""
    return _means(rows, CALIBRATED)


def _means(rows, columns):
    rows = rows.assign(
        data=rows.data + ", " + rows.noise,
        model=rows.model + rows.learning_rate.map(" ({:g})".format),
    )
    names = [rows.data, rows.model]
    groups = (100 * rows[columns]).groupby(names, sort=False)
    means, errors = groups.mean(), groups.sem()
    return means.map("{:.1f}".format) + errors.map(" ± {:.1f}".format)
