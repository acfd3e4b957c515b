"""The report of a study: tables in Markdown and in CSV files."""

import os
from collections.abc import Iterable
from collections.abc import Mapping
from pathlib import Path

from keras_logitclip._jobs import files
from keras_logitclip.study._page import page_of
from keras_logitclip.study._pictures import NAMES
from keras_logitclip.study._pictures import draw_pictures
from keras_logitclip.study._summary import METHOD
from keras_logitclip.study._summary import evaluate

# The names of the methods' values.
_VALUES = dict(zip(NAMES, ("", "tau", "tau", "limit", "weight"), strict=True))
_OF_TAU = ("tau", "normalized_tau")
_LEGEND = (
    "Test accuracy in percent: mean of the last tenth of the epochs, ± standard "
    "deviation over seeds, in brackets the value and the learning rate with the best "
    "accuracy on held-out noisy labels; + better, - worse than plain by more than one "
    "standard error of the difference. Best by noisy validation: the epoch at which "
    "early stopping ends. Best by test labels: a bound, for which one needs clean "
    "labels. Trials: the candidates to choose from. *: the rate is at the edge of "
    "those tried, a better one may lie beyond."
)
_BY_RATE = "Each learning rate with its best value, over the seeds that all have:"
_BY_TAU = "Each tau with its best learning rate, over the seeds that all have:"


def write_report(
    records: Iterable[dict],
    folder: str | os.PathLike,
    pictures: bool = True,
    page: bool = True,
) -> list[Path]:
    """Writes the report of a study.

    Args:
        records: The records of the trained cells, in any order: the same records
            give the same files.
        folder: Where to write `report.md`, `report.html`, `summary.csv`, `cells.csv`,
            `epochs.csv` and pictures. Made if missing. Files of these names are
            replaced.
        pictures: Whether to draw pictures, which needs Matplotlib. Defaults to
            `True`.
        page: Whether to write `report.html`, a page with tables that sort and charts
            that show their numbers, which needs vl-convert. Defaults to `True`.

    Returns:
        The paths of the files, the report first. Without records, there is only the
        report.

    Raises:
        ImportError: If Matplotlib for the pictures or vl-convert for the page is
            missing.
        ValueError: If the records are not those of one study.

    Example:

    ```python
    paths = write_report(records, "report")
    ```
    """
    records = list(records)
    results = evaluate(records) if records else None
    drawn = draw_pictures(results) if results and pictures else {}
    contents = {"report.md": report_of(records, drawn).encode()}
    if results and page:
        notes = _notes(records, results)
        text = page_of(results, f"Study {records[0]['study']}", notes)
        contents["report.html"] = text.encode()
    for name in ("summary", "cells", "epochs") if results else ():
        table = getattr(results, name)
        text = table.to_csv(index=False, float_format="%.6g", lineterminator="\n")
        contents[f"{name}.csv"] = text.encode()
    for of_noise in drawn.values():
        contents |= of_noise
    for name, content in contents.items():
        files.write_bytes(Path(folder) / name, content)
    return [Path(folder) / name for name in contents]


def report_of(
    records: list[dict], pictures: Mapping[str, Iterable[str]] | None = None
) -> str:
    """Returns the report in Markdown, with links to the pictures of each noise."""
    if not records:
        return "# Study\n\nNo cell of this study has been trained yet.\n"
    results = evaluate(records)
    parts = [f"# Study {records[0]['study']}", _LEGEND]
    for noise, cells in results.cells.groupby("noise", sort=False):
        wrong = _range(100 * cells.noise_rate, 1)
        parts += [f"## {noise}", f"{wrong}% of training labels wrong."]
        parts.append(_markdown(_chosen(results, noise)))
        rates = _over(_rows(results.by_rate, noise), "learning_rate", _value)
        by_value = results.by_value[results.by_value.method.isin(_OF_TAU)]
        taus = _over(_rows(by_value, noise), "value", _rate)
        for title, table in ((_BY_RATE, rates), (_BY_TAU, taus)):
            parts += [title, _markdown(table)] if len(table[0]) > 3 else []
        parts += [f"![{name}]({name})" for name in (pictures or {}).get(noise, ())]
    notes = [f"- {note}" for note in _notes(records, results)]
    return "\n\n".join([*parts, "## What was trained", "\n".join(notes)]) + "\n"


def _chosen(results, noise):
    """Returns a table of the methods, each as noisy validation chooses it."""
    texts, trials = {}, {}
    for row in _rows(results.chosen, noise):
        for epochs, text in (
            ("last", _result(row, _value(row), _rate(row))),
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


def _over(rows, name, others):
    """Returns a table of learning rates or values, each with the best of the others."""
    texts = {
        ((row.loss, NAMES[row.method]), getattr(row, name)): _result(row, others(row))
        for row in rows
    }
    columns = sorted({number for _, number in texts})
    return _table(("loss", "method"), {n: f"{n:.4g}" for n in columns}, texts)


def _table(corner, columns, texts):
    """Returns a header, and a row for each first key of the texts."""
    rows = dict.fromkeys(row for row, _ in texts)
    return [
        [*corner, *columns.values()],
        *([*row, *(texts.get((row, key), "n/a") for key in columns)] for row in rows),
    ]


def _rows(table, noise):
    return table[table.noise == noise].itertuples()


def _result(row, *candidate):
    """Returns the accuracy over seeds, the candidate in brackets, and a verdict."""
    deviation = f" ± {100 * row.std:.1f}" if row.seeds > 1 else ""
    mark = {"helps": " +", "hurts": " -"}.get(getattr(row, "verdict", ""), "")
    return f"{100 * row.mean:.1f}{deviation}{_brackets(*candidate)}{mark}"


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


def _markdown(table):
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = [f"| {' | '.join(map(str.ljust, row, widths))} |" for row in table]
    return "\n".join([lines[0], "|---" * len(widths) + "|", *lines[1:]])


def _notes(records, results):
    """Yields lines about the trainings and their versions."""
    seeds, epochs, rates = (
        ", ".join(f"{number:g}" for number in sorted(results.cells[name].unique()))
        for name in ("seed", "epochs", "learning_rate")
    )
    # Records of the folder `cells` do not contain the number of planned cells.
    planned = "".join({f" of {r['planned']}" for r in records if "planned" in r})
    yield (
        f"Trained cells: {len(records)}{planned}, with {epochs} "
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
    versions = {
        ", ".join(f"{name} {of}" for name, of in sorted(record["versions"].items()))
        for record in records
    }
    commits = ", ".join(sorted({r["commit"] for r in records if r["commit"]}))
    commits = f" (commit {commits})" if commits else ""
    yield f"Versions: {'; '.join(sorted(versions))}{commits}."
