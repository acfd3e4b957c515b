"""The report of a study: tables for the terminal, for Markdown and for programs."""

import os
import re
from collections.abc import Iterable
from pathlib import Path

from keras_logitclip._jobs import files
from keras_logitclip.study._pictures import NAMES
from keras_logitclip.study._pictures import draw_pictures
from keras_logitclip.study._pictures import one_line
from keras_logitclip.study._summary import METHOD
from keras_logitclip.study._summary import evaluate

# What the value of a method is.
_VALUES = dict(zip(NAMES, ("", "tau", "tau", "limit", "weight"), strict=True))
_MARKS = {"helps": " +", "hurts": " -"}
_LEGEND = (
    "Test accuracy in percent: mean of the last tenth of the epochs, ± standard "
    "deviation over seeds, in brackets the value and the learning rate with the best "
    "accuracy on held-out noisy labels; + better, - worse than plain by more than one "
    "standard error of the difference. Best by noisy validation: the epoch at which "
    "early stopping ends. Best by test labels: a bound, for which one needs clean "
    "labels. Trials: the candidates to choose from."
)
_EDGE = " *: the rate is at the edge of those tried, a better one may lie beyond."
_BY_RATE = "Each learning rate with its best value, over the seeds that all have:"
_BY_TAU = "Each tau with its best learning rate, over the seeds that all have:"
_NOTHING_YET = "No cell of this study has been trained yet."


def terminal_table(records: Iterable[dict]) -> str:
    """Returns the results of a study as text: for each noise a table of the methods."""
    records = list(records)
    if not records:
        return _NOTHING_YET
    results = evaluate(records)
    blocks = [
        f"{one_line(noise)}: {_noise_rate(cells)}\n{_aligned(_chosen(results, noise))}"
        for noise, cells in results.cells.groupby("noise", sort=False)
    ]
    notes = [_legend(results), *_notes(records, results)]
    return "\n\n".join([*blocks, "\n".join(map(one_line, notes))])


def write_report(
    records: Iterable[dict], folder: str | os.PathLike, pictures: bool = True
) -> list[Path]:
    """Writes the report of a study.

    Args:
        records: The records of the trained cells, in any order: the same records
            give the same files.
        folder: Where to write `report.md`, `summary.csv`, `cells.csv`, `epochs.csv`
            and pictures. Made if missing. Files of these names are replaced.
        pictures: Whether to draw pictures, which needs Matplotlib. Defaults to
            `True`.

    Returns:
        The paths of the files, the report first; no others if there are no records.

    Raises:
        ImportError: If there is no Matplotlib for the pictures.
        ValueError: If the records are not those of one study.

    Example:

    ```python
    paths = write_report(records, "report")
    ```
    """
    records = list(records)
    contents = {"report.md": f"# Study\n\n{_NOTHING_YET}\n"}
    if records:
        results = evaluate(records)
        drawn = draw_pictures(results) if pictures else []
        tables = ("summary", "cells", "epochs")
        contents["report.md"] = _markdown(records, results, drawn)
        contents |= {f"{name}.csv": _csv(getattr(results, name)) for name in tables}
        contents |= {picture.name: picture.png for picture in drawn}
    for name, content in contents.items():
        if isinstance(content, str):
            content = content.encode(errors="replace")
        files.write_bytes(Path(folder) / name, content)
    return [Path(folder) / name for name in contents]


def _csv(table):
    return table.to_csv(index=False, float_format="%.6g", lineterminator="\n")


def _markdown(records, results, pictures):
    parts = [f"# Study {_escape(records[0]['study'])}", _escape(_legend(results))]
    for noise, cells in results.cells.groupby("noise", sort=False):
        parts += [f"## {_escape(noise)}", _noise_rate(cells)]
        parts.append(_piped(_chosen(results, noise)))
        rates, taus = _by_rate(results, noise), _by_tau(results, noise)
        parts += [_BY_RATE, _piped(rates)] if len(rates[0]) > 3 else []
        parts += [_BY_TAU, _piped(taus)] if len(taus[0]) > 4 else []
        parts += [_link(picture) for picture in pictures if picture.noise == noise]
    general = [_link(picture) for picture in pictures if picture.noise is None]
    parts += ["## All noises", *general] if general else []
    notes = [f"- {_escape(note)}" for note in _notes(records, results)]
    return "\n\n".join([*parts, "## What was trained", "\n".join(notes)]) + "\n"


def _chosen(results, noise):
    """A table of the methods, each as noisy validation chooses it."""
    texts, trials = {}, {}
    for row in _rows(results.chosen, noise):
        last = _mean(row) + _brackets(_value(row), _rate(row))
        for epochs, text in (
            ("last", last + _MARKS.get(row.verdict, "")),
            ("best by noisy validation", f"{100 * row.stopped_accuracy:.1f}"),
            ("best by test labels", f"{100 * row.best_accuracy:.1f}"),
        ):
            texts[(row.loss, epochs), row.method] = text
        trials.setdefault(row.method, []).append(row.trials)
    columns = {
        method: name + _brackets(_VALUES[method], "rate")
        for method, name in NAMES.items()
        if method in trials
    }
    counts = [_range(trials[method]) for method in columns]
    return [*_table(("loss", "epochs"), columns, texts), ["", "trials", *counts]]


def _by_rate(results, noise):
    """A table of the learning rates, each with its best value."""
    texts = {
        ((row.loss, NAMES[row.method]), row.learning_rate): (
            _mean(row) + _brackets(_value(row))
        )
        for row in _rows(results.by_rate, noise)
    }
    rates = sorted({rate for _, rate in texts})
    return _table(("loss", "method"), {rate: f"{rate:.4g}" for rate in rates}, texts)


def _by_tau(results, noise):
    """A table of the taus, each with its best learning rate, beside plain."""
    texts, plain = {}, {}
    for row in _rows(results.by_value, noise):
        text = _mean(row) + _brackets(_rate(row)) + _MARKS.get(row.verdict, "")
        if row.method == "plain":
            plain[row.loss] = text
        elif _VALUES[row.method] == "tau":
            texts[(row.loss, NAMES[row.method]), row.value] = text
    taus = sorted({tau for _, tau in texts})
    texts |= {(row, "plain"): plain[row[0]] for row, _ in texts if row[0] in plain}
    columns = {"plain": "plain", **{tau: f"tau {tau:.4g}" for tau in taus}}
    return _table(("loss", "method"), columns, texts)


def _table(corner, columns, texts):
    """A header, and a row for each first key of the texts; the other is a column."""
    rows = dict.fromkeys(row for row, _ in texts)
    return [
        [*corner, *columns.values()],
        *([*row, *(texts.get((row, key), "n/a") for key in columns)] for row in rows),
    ]


def _rows(table, noise):
    return table[table.noise == noise].itertuples()


def _mean(row):
    deviation = f" ± {100 * row.std:.1f}" if row.seeds > 1 else ""
    return f"{100 * row.mean:.1f}{deviation}"


def _value(row):
    return "" if row.method == "plain" else f"{row.value:.4g}"


def _rate(row):
    return f"{row.learning_rate:.4g}{'*' if row.at_edge else ''}"


def _brackets(*texts):
    inside = ", ".join(filter(None, texts))
    return f" ({inside})" if inside else ""


def _range(numbers, digits=0):
    low, high = f"{min(numbers):.{digits}f}", f"{max(numbers):.{digits}f}"
    return low if low == high else f"{low} to {high}"


def _aligned(table):
    table = [[one_line(text) for text in row] for row in table]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in table)


def _piped(table):
    lines = [f"| {' | '.join(map(_escape, row))} |" for row in table]
    return "\n".join([lines[0], "|---" * len(table[0]) + "|", *lines[1:]])


def _escape(text):
    return re.sub(r"([\\`*_\[\]<>|#~$&!])", r"\\\1", one_line(text))


def _link(picture):
    return f"![{_escape(picture.caption)}]({picture.name})"


def _noise_rate(cells):
    return f"{_range(100 * cells.noise_rate, 1)}% of training labels wrong."


def _legend(results):
    edge = _EDGE if results.summary.at_edge.any() else ""
    return _LEGEND + edge


def _notes(records, results):
    """What was trained and with what, a line for each."""
    seeds, epochs, rates = (
        ", ".join(f"{number:g}" for number in sorted(results.cells[name].unique()))
        for name in ("seed", "epochs", "learning_rate")
    )
    yield (
        f"Trained cells: {len(records)}{_planned(records)}, with {epochs} "
        f"epochs, seeds {seeds} and learning rates {rates}."
    )
    chosen = results.chosen
    if (chosen.groupby(METHOD[:2]).trials.nunique() > 1).any():
        trials = chosen.groupby("method", sort=False).trials.agg(_range)
        counts = (f"{NAMES[method]} {count}" for method, count in trials.items())
        yield (
            f"The methods had different numbers of trials: {', '.join(counts)}. Who "
            "tries more finds more; `trials` in the study file makes them equal."
        )
    for method, rows in chosen[chosen.trials > 1].groupby("method", sort=False):
        worst = rows.loc[rows.cost.idxmax()]
        yield (
            f"{NAMES[method]}: the best candidate by clean test labels would give "
            f"{100 * rows.cost.mean():.1f} points more on average, "
            f"{100 * worst.cost:.1f} at most ({worst.loss}, {worst.noise})."
        )
    versions = {
        ", ".join(f"{name} {of}" for name, of in sorted(record["versions"].items()))
        for record in records
    }
    commits = ", ".join(sorted({r["commit"] for r in records if r["commit"]}))
    commits = f" (commit {commits})" if commits else ""
    yield f"Versions: {'; '.join(sorted(versions))}{commits}."


def _planned(records):
    """Returns the number of planned cells in words, if the records have it."""
    # Those of the folder `cells` have not.
    planned = {record["planned"] for record in records if "planned" in record}
    return f" of {max(planned)}" if planned else ""
