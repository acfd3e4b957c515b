"""The page of a report: tables that sort, and charts whose numbers one can read."""

import json
from collections.abc import Iterable
from html import escape
from pathlib import Path
from string import Template

import pandas as pd

from keras_logitclip.study._pictures import COLORS
from keras_logitclip.study._pictures import KINDS
from keras_logitclip.study._pictures import NAMES
from keras_logitclip.study._summary import Results
from keras_logitclip.study._summary import curves

_TEMPLATE = Path(__file__).with_name("_page.html")


def _number(value):
    return f"{value:.4g}"


def _percent(share):
    return f"{100 * share:.1f}"


# The headings of a table, and how its numbers are written.
_COLUMNS = {
    "loss": ("loss", str),
    "method": ("method", NAMES.get),
    "value": ("value", _number),
    "learning_rate": ("learning rate", _number),
    "mean": ("accuracy", _percent),
    "std": ("±", _percent),
    "seeds": ("seeds", str),
    "gain": ("gain", _percent),
    "gain_error": ("± of the gain", _percent),
    "stopped_accuracy": ("stopped", _percent),
    "best_accuracy": ("best", _percent),
    "noisy_accuracy": ("noisy labels", _percent),
    "memorized": ("memorized", _percent),
}


def page_of(results: Results, title: str, notes: Iterable[str]) -> str:
    """Returns the report as HTML that needs no other file."""
    lines = {label: curves(results, name) for name, label in KINDS.values()}
    noises = results.cells.noise.unique()
    sections = (part for of in noises for part in _section(results, lines, of))
    return Template(_TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=escape(title),
        sections="\n".join(sections),
        notes="".join(f"<p>{escape(note)}</p>\n" for note in notes),
        colors=json.dumps({NAMES[method]: color for method, color in COLORS.items()}),
        vega=_vega(),
    )


def _vega():
    """Returns the code of Vega-Lite, or explains how to install it."""
    try:
        import vl_convert
    except ModuleNotFoundError as error:
        raise ImportError(
            "`write_report` needs vl-convert for the page `report.html`, which is not "
            "installed. Install it with: pip install vl-convert-python"
        ) from error
    return vl_convert.javascript_bundle()


def _section(results, lines, noise):
    """A noise: what is chosen, the charts of each loss, and all candidates."""
    chosen = results.chosen[results.chosen.noise == noise]
    summary = results.summary[results.summary.noise == noise]
    yield f"<h2>{escape(noise)}</h2>{_table(chosen)}"
    for loss in chosen.loss.unique():
        charts = "".join(_charts(results, lines, noise, loss))
        yield f'<h3>{escape(loss)}</h3><div class="charts">{charts}</div>'
    heading = f"<summary>All {len(summary)} candidates</summary>"
    yield f"<details>{heading}{_table(summary)}</details>"


def _texts(rows):
    columns = {
        title: ["" if pd.isna(value) else text(value) for value in rows[name]]
        for name, (title, text) in _COLUMNS.items()
        if name in rows
    }
    return pd.DataFrame(columns)


def _table(rows):
    texts = _texts(rows)
    titles = "".join(f"<th><button>{title}</button>" for title in texts)
    body = "".join(
        f"<tr><td>{'<td>'.join(map(escape, row))}\n"
        for row in texts.itertuples(index=False)
    )
    table = f"<table><thead><tr>{titles}</thead>\n<tbody>{body}</tbody></table>"
    return f'<div class="table">{table}</div>\n'


def _charts(results, lines, noise, loss):
    """The chosen methods over the epochs, and all candidates by rate and value."""
    this = "noise == @noise and loss == @loss"
    for label, of_all in lines.items():
        of_loss = of_all.query(this).dropna(axis=1, how="all")
        if not of_loss.empty:
            named = of_loss.assign(method=of_loss.method.map(NAMES))
            yield _chart(
                "curves", label, named.drop(columns=["noise", "loss"]).round(2)
            )
    title = "test accuracy (%) of each value and learning rate"
    yield _chart("map", title, _texts(results.comparable.query(this)))


def _chart(kind, title, rows):
    """A chart that `_page.html` draws from the rows, in which "<" ends nothing."""
    data = rows.to_json(orient="records").replace("<", r"\u003c")
    return (
        f"<figure><figcaption>{title}</figcaption>"
        f'<div class="chart" data-kind="{kind}">'
        f'<script type="application/json">{data}</script></div></figure>\n'
    )
