"""From records of trained cells to the numbers of the papers' tables."""

import itertools
import math
import re
import statistics
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from keras_logitclip.losses.presets import PRESETS
from keras_logitclip.study._config import FORMAT

# The papers report the mean of the last epochs, not the best epoch, which clean test
# labels would have to pick.
LAST_EPOCHS = 10
METHODS = ("plain", "tau", "value_limit", "norm_penalty")

# Accuracies are shares of samples: what is closer than this is equal but for rounding.
_DIGITS = 9


class Score(NamedTuple):
    """What one training reached, as means of its last epochs.

    Attributes:
        accuracy: Accuracy on the clean test set.
        best_epoch: The same of the epoch in which it was best.
        noisy_accuracy: Accuracy on held-out samples with noisy labels, or `None`.
        memorized: Share of the wrong labels that the model predicts, or `None`.
        recovered: Share of the samples with a wrong label for which the model
            predicts the true class, or `None`.
    """

    accuracy: float
    best_epoch: float
    noisy_accuracy: float | None
    memorized: float | None
    recovered: float | None


class Summary(NamedTuple):
    """One setting over its seeds.

    Attributes:
        noise, loss, method, value: The setting; `value` is `None` for "plain".
        seeds: How many.
        mean: Mean test accuracy.
        std: Its sample standard deviation, `None` for a single seed.
        standard_error: The standard error of `mean`, `None` for a single seed.
        best_epoch, noisy_accuracy, memorized, recovered: Means of the scores.
    """

    noise: str
    loss: str
    method: str
    value: float | None
    seeds: int
    mean: float
    std: float | None
    standard_error: float | None
    best_epoch: float
    noisy_accuracy: float | None
    memorized: float | None
    recovered: float | None


class Result(NamedTuple):
    """What a method reached for a noise and a loss.

    Attributes:
        chosen: The summary with the value that noisy validation chooses, `None` if
            there are several values and no noisy accuracies.
        hindsight: The summary with the best value by the clean test labels.
        gain: By how much `chosen` is better than without the method, `None`
            without one of the two.
        gain_error: The standard error of `gain`, `None` if one has a single seed.
        verdict: "helps" or "hurts" if the gain is beyond one standard error, else
            "same", `None` if the standard error is unknown.
    """

    chosen: Summary | None
    hindsight: Summary
    gain: float | None
    gain_error: float | None
    verdict: str | None


def in_order(records: Iterable[dict]) -> list[dict]:
    """Returns the records of one study in the order of a report.

    Raises:
        ValueError: If a record is not what a study writes, a cell is there twice,
            or the records are of several studies.
    """
    records = list(records)
    for record in records:
        _check(record)
    studies = sorted({record["study"] for record in records})
    if len(studies) > 1:
        raise ValueError(f"Expected records of one study. Received those of: {studies}")
    counts = Counter((*setting(record), record["seed"]) for record in records)
    repeated = [cell for cell, count in counts.items() if count > 1]
    if repeated:
        raise ValueError(
            "Expected one record for each cell. Received several for (noise, loss, "
            f"method, value, seed): {sorted(repeated, key=repr)}"
        )
    return sorted(records, key=_order)


def setting(record: dict) -> tuple:
    """Returns what all seeds of a setting have in common."""
    return tuple(record[name] for name in ("noise", "loss", "method", "value"))


def loss_order(name: str) -> tuple:
    """Returns the sort key of a loss: the presets in their order, then others."""
    names = [*PRESETS]
    return (names.index(name) if name in PRESETS else len(names), name)


def score(record: dict) -> Score:
    """Returns what the training of a record reached."""
    epochs = record["epochs"]

    def last(name):
        return _mean(epochs[name][-LAST_EPOCHS:])

    return Score(
        last("accuracy"),
        max(_defined(epochs["accuracy"])),
        last("noisy_accuracy"),
        last("memorized"),
        last("recovered"),
    )


def summarize(records: Iterable[dict]) -> list[Summary]:
    """Returns a summary for each setting, in the order of a report."""
    return [
        _summary(key, [score(record) for record in cells])
        for key, cells in itertools.groupby(in_order(records), setting)
    ]


def compare(summaries: list[Summary]) -> dict[tuple[str, str, str], Result]:
    """Returns the result of each noise, loss and method.

    The value of a method is the one with the best accuracy on held-out noisy labels,
    the larger one of equals: a user has no clean labels to choose it with.
    """
    plain = {(row.noise, row.loss): row for row in summaries if row.method == "plain"}
    groups = itertools.groupby(summaries, lambda row: (row.noise, row.loss, row.method))
    results = {}
    for key, rows in groups:
        rows = list(rows)
        chosen = _choose(rows)
        gain, error = _gain(chosen, plain.get(key[:2]))
        hindsight = max(rows, key=lambda row: (round(row.mean, _DIGITS), row.value))
        results[key] = Result(chosen, hindsight, gain, error, _verdict(gain, error))
    return results


def _check(record):
    if record.get("format") != FORMAT:
        raise ValueError(
            f"Expected records of format {FORMAT}. "
            f"Received: format={record.get('format')!r}"
        )
    *_, method, value = cell = setting(record)
    if method not in METHODS:
        raise ValueError(
            f"Expected a record with one of the methods {METHODS}. Received: {cell}"
        )
    if value is not None if method == "plain" else not _is_positive(value):
        raise ValueError(
            "Expected a record with a value greater than zero, or with `None` for "
            f"the method 'plain'. Received: {cell}"
        )
    if _mean(record["epochs"]["accuracy"][-LAST_EPOCHS:]) is None:
        raise ValueError(
            "Expected a record with test accuracies in its last epochs. Received "
            f"none for {cell}, seed {record['seed']}"
        )


def _is_positive(value):
    return isinstance(value, int | float) and value > 0


def _order(record):
    noise, loss, method, value = setting(record)
    # Splits at numbers, which makes every second part one: "0.9" before "0.10".
    parts = re.split(r"(\d+(?:\.\d+)?)", noise)
    parts[1::2] = map(float, parts[1::2])
    return (
        (noise != "clean", parts, noise),
        loss_order(loss),
        METHODS.index(method),
        value or 0,
        record["seed"],
    )


def _defined(values):
    return [value for value in values if value is not None and not math.isnan(value)]


def _mean(values):
    """The mean of what is defined, `None` if nothing is."""
    values = _defined(values)
    return statistics.fmean(values) if values else None


def _summary(key, scores):
    accuracies = [score.accuracy for score in scores]
    seeds = len(scores)
    std = statistics.stdev(accuracies) if seeds > 1 else None
    return Summary(
        *key,
        seeds=seeds,
        mean=_mean(accuracies),
        std=std,
        standard_error=None if std is None else std / math.sqrt(seeds),
        **{
            name: _mean([getattr(score, name) for score in scores])
            for name in Score._fields[1:]
        },
    )


def _choose(rows):
    if len(rows) == 1:
        return rows[0]
    rated = [row for row in rows if row.noisy_accuracy is not None]
    return max(
        rated,
        key=lambda row: (round(row.noisy_accuracy, _DIGITS), row.value),
        default=None,
    )


def _gain(row, plain):
    if row is None or plain is None or row is plain:
        return None, None
    errors = (row.standard_error, plain.standard_error)
    error = None if None in errors else math.hypot(*errors)
    return row.mean - plain.mean, error


def _verdict(gain, error):
    if error is None:
        return None
    if round(abs(gain) - error, _DIGITS) <= 0:
        return "same"
    return "helps" if gain > 0 else "hurts"
