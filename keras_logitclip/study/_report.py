"""The report of a study: tables for the terminal, for Markdown and for programs."""

import csv
import io
import itertools
import os
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from keras_logitclip.study._pictures import draw_pictures
from keras_logitclip.study._pictures import one_line
from keras_logitclip.study._summary import LAST_EPOCHS
from keras_logitclip.study._summary import METHODS
from keras_logitclip.study._summary import Summary
from keras_logitclip.study._summary import compare
from keras_logitclip.study._summary import in_order
from keras_logitclip.study._summary import score
from keras_logitclip.study._summary import setting
from keras_logitclip.study._summary import summarize

_COLUMNS = {
    "plain": "plain",
    "tau": "LogitClip (tau)",
    "value_limit": "value clip (limit)",
    "norm_penalty": "norm penalty (weight)",
}
_PER_EPOCH = (
    "accuracy",
    "noisy_accuracy",
    "memorized",
    "recovered",
    "logit_norm",
    "seconds",
)
_NOTHING_YET = "No cell of this study has been trained yet."


def terminal_table(records: Iterable[dict]) -> str:
    """Returns the results of a study as text.

    For each noise a table: a row for each loss, a column for each method with the
    value that noisy validation chooses, the test accuracy in percent as mean and
    standard deviation over seeds.

    Args:
        records: The records of the trained cells, in any order.

    Raises:
        ValueError: If the records are not those of one study.
    """
    records = in_order(records)
    if not records:
        return _NOTHING_YET
    results = compare(summarize(records))
    blocks = []
    for noise, cells in itertools.groupby(records, lambda record: record["noise"]):
        table = _table(results, noise, lambda r: _last_epochs(r, "+", "-"))
        blocks.append(f"{one_line(noise)}: {_noise_rate(cells)}\n{_aligned(table)}")
    notes = [_legend("+", "-"), *map(one_line, _notes(records, results))]
    return "\n\n".join([*blocks, "\n".join(notes)])


def markdown(records: Iterable[dict], pictures=()) -> str:
    """Returns the results of a study as a Markdown document.

    Args:
        records: The records of the trained cells, in any order.
        pictures: The `Picture`s to refer to. Defaults to `()`, none.

    Raises:
        ValueError: If the records are not those of one study.
    """
    records = in_order(records)
    if not records:
        return f"# Study\n\n{_NOTHING_YET}\n"
    results = compare(summarize(records))
    parts = [f"# Study {_escape(records[0]['study'])}", _legend("▲", "▼")]
    for noise, cells in itertools.groupby(records, lambda record: record["noise"]):
        parts += [
            f"## {_escape(noise)}",
            _noise_rate(cells),
            _piped(_table(results, noise, lambda r: _last_epochs(r, "▲", "▼"))),
            "The best epoch, which only clean test labels could have picked:",
            _piped(_table(results, noise, _best_epoch)),
            *(_link(picture) for picture in pictures if picture.noise == noise),
        ]
    general = [_link(picture) for picture in pictures if picture.noise is None]
    parts += ["## All noises", *general] if general else []
    notes = [f"- {_escape(note)}" for note in _notes(records, results)]
    return "\n\n".join([*parts, "## What was trained", "\n".join(notes)]) + "\n"


def csv_rows(records: Iterable[dict]) -> list[dict[str, str]]:
    """Returns a row for each summary, of all values and not only the chosen ones.

    Numbers have 6 significant digits, what is undefined is empty. Besides the fields
    of a `Summary`, `chosen` and `hindsight` are 1 where noisy validation and clean
    test labels choose the value, else 0; `gain`, `gain_error` and `verdict` say how
    the chosen value compares with the loss alone.

    Args:
        records: The records of the trained cells, in any order.

    Raises:
        ValueError: If the records are not those of one study.
    """
    summaries = summarize(records)
    results = compare(summaries)
    rows = []
    for row in summaries:
        result = results[row.noise, row.loss, row.method]
        comparison = result[2:] if row is result.chosen else (None, None, None)
        chosen = (int(row is result.chosen), int(row is result.hindsight))
        values = (*row, *chosen, *comparison)
        names = (*Summary._fields, "chosen", "hindsight", *result._fields[2:])
        rows.append(dict(zip(names, map(_number, values), strict=True)))
    return rows


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
        The paths of the files, the report first.

    Raises:
        ImportError: If there is no Matplotlib for the pictures.
        ValueError: If the records are not those of one study.

    Example:

    ```python
    paths = write_report(records, "report")
    ```
    """
    records = in_order(records)
    drawn = draw_pictures(records) if pictures else []
    files = {
        "report.md": markdown(records, drawn).encode(errors="replace"),
        "summary.csv": _csv(csv_rows(records)),
        "cells.csv": _csv(map(_cell, records)),
        "epochs.csv": _csv(row for record in records for row in _epochs(record)),
        **{picture.name: picture.png for picture in drawn},
    }
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, contents in files.items():
        _write(folder / name, contents)
    return [folder / name for name in files]


def _table(results, noise, text):
    """A header and a row for each loss, with the text of each method's result."""
    keys = [key for key in results if key[0] == noise]
    methods = [method for method in METHODS if any(key[2] == method for key in keys)]
    return [
        ["loss", *(_COLUMNS[method] for method in methods)],
        *(
            [loss, *(text(results.get((noise, loss, method))) for method in methods)]
            for loss in dict.fromkeys(key[1] for key in keys)
        ),
    ]


def _last_epochs(result, helps, hurts):
    if result is None or result.chosen is None:
        return "n/a"
    row = result.chosen
    deviation = "" if row.std is None else f" ± {100 * row.std:.1f}"
    mark = {"helps": f" {helps}", "hurts": f" {hurts}"}.get(result.verdict, "")
    return f"{100 * row.mean:.1f}{deviation}{_value(row)}{mark}"


def _best_epoch(result):
    if result is None or result.chosen is None:
        return "n/a"
    return f"{100 * result.chosen.best_epoch:.1f}{_value(result.chosen)}"


def _value(row):
    return "" if row.value is None else f" ({row.value:.4g})"


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


def _legend(helps, hurts):
    return (
        f"Test accuracy in percent, mean of the last {LAST_EPOCHS} epochs, ± standard "
        "deviation over seeds. In brackets the value with the best accuracy on "
        f"held-out noisy labels. {helps} better and {hurts} worse than plain by more "
        "than one standard error of the difference."
    )


def _noise_rate(cells):
    rates = [100 * cell["noise_rate"] for cell in cells]
    low, high = f"{min(rates):.1f}", f"{max(rates):.1f}"
    return f"{low if low == high else f'{low} to {high}'}% of training labels wrong."


def _notes(records, results):
    """What was trained and with what, a line for each."""
    seeds = sorted({record["seed"] for record in records})
    epochs = sorted({len(record["epochs"]["accuracy"]) for record in records})
    versions = {
        ", ".join(
            f"{name} {version}" for name, version in sorted(r["versions"].items())
        )
        for r in records
    }
    commits = sorted({record["commit"] for record in records if record["commit"]})
    return [
        f"Trained cells: {len(records)}, with {_listed(epochs)} epochs and seeds "
        f"{_listed(seeds)}.",
        _missing(records),
        *_costs_of_choice(results),
        f"Versions: {'; '.join(sorted(versions))}"
        + (f" (commit {_listed(commits)})." if commits else "."),
    ]


def _missing(records):
    """Says what is not there of the losses, methods and values, for each noise."""
    settings = {setting(record)[1:] for record in records}
    seeds = {record["seed"] for record in records}
    trained = Counter(record["noise"] for record in records)
    missing = {
        noise: len(settings) * len(seeds) - count for noise, count in trained.items()
    }
    counts = [f"{count} of {noise}" for noise, count in missing.items() if count]
    return f"Missing cells: {_listed(counts) or 'none'}."


def _costs_of_choice(results):
    """Says how much better the values are that clean test labels would choose."""
    for method in METHODS[1:]:
        costs = {
            key: 100 * (result.hindsight.mean - result.chosen.mean)
            for key, result in results.items()
            if key[2] == method and result.chosen is not None
        }
        if costs:
            noise, loss, _ = worst = max(costs, key=costs.get)
            yield (
                f"{_COLUMNS[method]}: the best value by clean test labels would give "
                f"{sum(costs.values()) / len(costs):.1f} points more on average, "
                f"{costs[worst]:.1f} at most ({loss}, {noise})."
            )


def _listed(items):
    return ", ".join(map(str, items))


def _cell(record):
    return {
        **_identity(record),
        "noise_rate": _number(record["noise_rate"]),
        **{name: _number(value) for name, value in score(record)._asdict().items()},
        "epochs": _number(len(record["epochs"]["accuracy"])),
        "seconds": _number(record["seconds"]),
    }


def _epochs(record):
    epochs = record["epochs"]
    columns = {
        "training_loss": epochs["loss"],  # Another column holds the loss's name.
        **{name: epochs[name] for name in _PER_EPOCH},
    }
    for epoch, values in enumerate(zip(*columns.values(), strict=True), start=1):
        numbers = dict(zip(columns, map(_number, values), strict=True))
        yield {**_identity(record), "epoch": _number(epoch), **numbers}


def _identity(record):
    names = ("study", "noise", "loss", "method", "value", "seed")
    return {name: _number(record[name]) for name in names}


def _number(value):
    if value is None or value != value:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _csv(rows):
    rows = list(rows)
    file = io.StringIO()
    if rows:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return file.getvalue().encode(errors="replace")


def _write(path, contents):
    """Replaces a file in one step: nobody ever finds half of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(contents)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
