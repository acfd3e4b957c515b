"""Computes the numbers of a report from the records of trained cells."""

import re
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pandas as pd

from keras_logitclip._jobs.arrays import mean_of_last_epochs
from keras_logitclip.losses.presets import PRESETS
from keras_logitclip.study._config import FORMAT
from keras_logitclip.study._config import Candidate
from keras_logitclip.study._plan import METHODS
from keras_logitclip.study._plan import choose

METHOD = ["noise", "loss", "method"]
CANDIDATE = [*METHOD, "value", "learning_rate"]
_CELL = [*CANDIDATE, "seed"]
_LAST_EPOCHS = ["accuracy", "noisy_accuracy", "memorized", "recovered"]
_DIGITS = 9  # Accuracies that differ only beyond these digits count as equal.


class Results(NamedTuple):
    """Holds the numbers of a study as pandas tables, in the order of a report."""

    epochs: pd.DataFrame  # A row for each epoch of each training.
    cells: pd.DataFrame  # A row for each training.
    summary: pd.DataFrame  # A row for each candidate, over its seeds.
    comparable: pd.DataFrame  # The same over the seeds that all candidates have.
    chosen: pd.DataFrame  # The row of each method that noisy validation chooses.
    by_rate: pd.DataFrame  # The same for each rate, over the seeds that all share.
    by_value: pd.DataFrame  # The same for each value.


def evaluate(records: Iterable[dict]) -> Results:
    """Returns the numbers of a study, for records in any order."""
    records = list(records)
    formats = {record.get("format") for record in records}
    if formats != {FORMAT}:
        raise ValueError(f"Expected records of format {FORMAT}. Received: {formats}")
    _check_names(records)
    records = sorted(records, key=_order)
    cells = _table(records, _scores)
    studies = [*cells.study.unique()]
    if len(studies) > 1:
        raise ValueError(f"Expected records of one study. Received: {studies}")
    repeated = cells[cells.duplicated(_CELL)][_CELL].values.tolist()
    if repeated:
        raise ValueError(
            f"Expected one record of each cell. Received several: {repeated}"
        )
    candidates = cells.groupby(CANDIDATE, sort=False, dropna=False).ngroup()
    numbered = cells.assign(candidate=candidates)
    shared = _of_shared_seeds(numbered)
    summary, comparable = _over_seeds(numbered), _over_seeds(shared)
    choice = _best(numbered, METHOD)
    for rows in (summary, comparable):
        rows["chosen"] = rows.index.isin(choice).astype(int)
    chosen = _compared(summary.loc[choice])
    return Results(
        _epochs(records),
        cells,
        summary.assign(**chosen[["gain", "gain_error", "verdict"]]),
        comparable,
        chosen,
        comparable.loc[_best(shared, [*METHOD, "learning_rate"])],
        _compared(comparable.loc[_best(shared, [*METHOD, "value"])]),
    )


def curves(results: Results, name: str) -> pd.DataFrame:
    """Returns what is chosen over the epochs: means and deviations in percent."""
    chosen = results.epochs.merge(results.chosen[CANDIDATE]).dropna(subset=name)
    over_seeds = chosen.groupby([*METHOD, "epoch"], sort=False)[name]
    return (100 * over_seeds.agg(["mean", "std"])).reset_index()


def _check_names(records):
    """Raises an error for names that no study has, because they become file names."""
    names = {record[of] for record in records for of in ("study", "noise", "loss")}
    odd = sorted(name for name in names if not re.fullmatch(r"[\w.:+ -]+", name))
    if odd:
        raise ValueError(
            "Expected records with names of letters, digits, spaces and `_.:+-`. "
            f"Received: {odd}"
        )


def _order(record):
    noise, loss, method, value, *others = (record[name] for name in _CELL)
    return (
        *(noise != "clean", noise, [*PRESETS, loss].index(loss), loss),
        *(METHODS.index(method), float(value or 0), *others),
    )


def _table(records, columns):
    """Returns a table of the cells of records and of columns made from the records."""
    cells = ({name: record[name] for name in ("study", *_CELL)} for record in records)
    rows = [cell | columns(of) for cell, of in zip(cells, records, strict=True)]
    return pd.DataFrame(rows).astype({"value": float})


def _epochs(records):
    def columns(record):
        epochs = dict(record["epochs"])
        loss = epochs.pop("loss")  # Another column has the name of the loss.
        return {"epoch": [*range(1, len(loss) + 1)], "training_loss": loss, **epochs}

    table = _table(records, columns)
    lists = [*table.columns[1 + len(_CELL) :]]
    types = dict.fromkeys(lists, float) | {"epoch": int}
    return table.explode(lists, ignore_index=True).astype(types)


def _scores(record):
    curves = {name: np.array(record["epochs"][name], float) for name in _LAST_EPOCHS}
    accuracy, noisy_accuracy = curves["accuracy"], curves["noisy_accuracy"]
    stopped = noisy_accuracy.argmax()
    return {
        "noise_rate": record["noise_rate"],
        **{name: mean_of_last_epochs(curve) for name, curve in curves.items()},
        "stopped_accuracy": accuracy[stopped],
        "stopped_noisy_accuracy": noisy_accuracy[stopped],
        "best_accuracy": accuracy.max(),
        "epochs": len(accuracy),
        "seconds": record["seconds"],
    }


def _of_shared_seeds(cells):
    """Returns the cells with seeds that all candidates of a loss share, else all."""
    loss = METHOD[:2]
    candidates = cells.groupby(loss).candidate.transform("nunique")
    shared = cells.groupby([*loss, "seed"]).candidate.transform("size") == candidates
    any_shared = cells.assign(shared=shared).groupby(loss).shared.transform("any")
    return cells[shared | ~any_shared]


def _best(cells, by):
    """Returns the candidate of each group that noisy validation chooses."""
    best = []
    for _, group in cells.groupby(by, sort=False, dropna=False):
        accuracies, numbers = {}, {}
        for row in group.itertuples():
            value = None if row.method == "plain" else row.value
            candidate = Candidate(value, row.learning_rate)
            accuracies.setdefault(candidate, {})[row.seed] = row.noisy_accuracy
            numbers[candidate] = row.candidate
        best.append(numbers[choose(accuracies)])
    return best


def _over_seeds(cells):
    """Returns a row for each candidate, with means over its seeds."""
    means = [*_LAST_EPOCHS[1:], "stopped_accuracy", "best_accuracy"]
    rows = cells.groupby("candidate").agg(
        **{name: (name, "first") for name in CANDIDATE},
        seeds=("seed", "size"),
        mean=("accuracy", "mean"),
        std=("accuracy", "std"),
        standard_error=("accuracy", "sem"),
        **{name: (name, "mean") for name in means},
    )
    rate, rates = rows.learning_rate, rows.groupby(METHOD).learning_rate
    low, high = rates.transform("min"), rates.transform("max")
    return rows.assign(
        trials=rates.transform("size"),
        at_edge=((low < high) & ((rate == low) | (rate == high))).astype(int),
    )


def _compared(rows):
    """Adds the gain of each row over the plain loss, and a verdict."""
    is_plain = rows.method == "plain"
    plain = rows[is_plain].set_index(METHOD[:2])[["mean", "standard_error"]]
    both = rows.join(plain.add_prefix("plain_"), METHOD[:2])
    gain = (both["mean"] - both.plain_mean).mask(is_plain)
    error = np.hypot(both.standard_error, both.plain_standard_error).mask(is_plain)
    beyond = (gain.abs() - error).round(_DIGITS) > 0
    cases = [error.isna(), beyond & (gain > 0), beyond]
    verdict = np.select(cases, ["", "helps", "hurts"], "same")
    return rows.assign(gain=gain, gain_error=error, verdict=verdict)
