"""The numbers and names in the page of a report; `tests/tools` opens it."""

import importlib.util
import itertools
import json
import re
import sys

import pytest

from keras_logitclip import study
from keras_logitclip.study import _command
from keras_logitclip.study import _summary
from keras_logitclip.study._page import page_of
from keras_logitclip.study._report import report_of
from keras_logitclip.study._summary import evaluate
from tests.test_study_report import clipped
from tests.test_study_report import record
from tests.test_study_report import seeds_of
from tests.test_study_report import some_study

pytest.importorskip("vl_convert")

pytestmark = pytest.mark.once


def page(records):
    """The page, up to its notes and the code of Vega-Lite."""
    text = page_of(evaluate(records), "Study digits", notes=[])
    return text.partition("What was trained")[0]


def tables(text):
    """The rows of each table, by their headings."""
    for table in re.findall(r"<table>.*?</table>", text, re.S):
        headings = re.findall(r"<th><button>(.*?)</button>", table)
        rows = (row.strip().split("<td>") for row in re.findall("<tr><td>(.*)", table))
        yield [dict(zip(headings, row, strict=True)) for row in rows]


def charts(text):
    """The kind and the rows of each chart."""
    pattern = r'data-kind="(\w+)"><script type="application/json">(.*?)</script>'
    return [(kind, json.loads(rows)) for kind, rows in re.findall(pattern, text)]


def test_the_methods_are_those_of_the_report():
    records = some_study()
    report = report_of(records)
    of_each_noise = [*tables(page(records))][::2]
    assert [len(rows) for rows in of_each_noise] == [9, 9, 9]
    for row in itertools.chain(*of_each_noise):
        deviation = f" ± {row['±']}" if row["±"] else ""
        candidate = ", ".join(filter(None, [row["value"], row["learning rate"]]))
        shown = rf"{row['accuracy']}{deviation} \({candidate}\*?\)"
        assert re.search(rf"\| {re.escape(row['loss'])} +\| last .*\| {shown}", report)


def test_all_candidates_are_those_of_the_summary():
    records = some_study()
    summary = evaluate(records).summary
    rows = [*itertools.chain(*[*tables(page(records))][1::2])]
    accuracies = [f"{100 * mean:.1f}" for mean in summary["mean"]]
    assert [row["accuracy"] for row in rows] == accuracies
    assert [row["seeds"] for row in rows] == [str(count) for count in summary.seeds]
    assert {row["gain"] for row in rows if row["method"] == "plain"} == {""}


def test_charts():
    records = [
        *seeds_of([[0.5, 0.7], [0.6, 0.9]], memorized=[0.25, 0.5]),
        *clipped([[0.75, 0.7], [0.65, 0.8]], memorized=[0.25, 0.5], tau=float("inf")),
        *clipped([[0.4, 0.4]], memorized=[0.25, 0.5], tau=0.5, rate=1e-5),
    ]
    accuracy, memorized, (kind, cells) = charts(page(records))
    assert (accuracy[0], memorized[0], kind) == ("curves", "curves", "map")
    assert accuracy[1][:2] == [
        {"method": "plain", "epoch": 1, "mean": 55.0, "std": 7.07},
        {"method": "plain", "epoch": 2, "mean": 80.0, "std": 14.14},
    ]
    assert [point["mean"] for point in memorized[1][:2]] == [25.0, 50.0]
    # Of the one seed that all have.
    names = ("method", "value", "learning rate", "accuracy")
    assert [tuple(cell[name] for name in names) for cell in cells] == [
        ("plain", "", "0.1", "70.0"),
        ("LogitClip", "0.5", "1e-05", "40.0"),
        ("LogitClip", "inf", "0.1", "70.0"),
    ]
    assert {(cell["seeds"], cell["±"]) for cell in cells} == {("1", "")}


def test_texts_of_records_are_no_code(monkeypatch):
    """Also without the check that refuses such names."""
    monkeypatch.setattr(_summary, "_check_names", lambda records: None)
    code = "</script><script>alert(1)</script>"
    results = _summary.evaluate([record(study=code, noise=code, loss=code)])
    text = page_of(results, code, [code])
    assert text.count("&lt;script&gt;alert(1)") == 7
    assert "<script>alert" not in text
    *_, (kind, (cell,)) = charts(text)
    assert (kind, cell["loss"]) == ("map", code)


def test_without_vl_convert(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    with pytest.raises(ImportError, match="pip install vl-convert-python"):
        study.write_report([record()], tmp_path, pictures=False)
    assert not [*tmp_path.iterdir()]
    paths = study.write_report([record()], tmp_path, pictures=False, page=False)
    assert "report.html" not in [path.name for path in paths]


def test_the_command_writes_what_it_can(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    printed = _command._report_of([record()], tmp_path).splitlines()
    assert printed[-3].endswith(": report.md, summary.csv, cells.csv, epochs.csv")
    assert printed[-2].endswith("pip install matplotlib")
    assert printed[-1].endswith("pip install vl-convert-python")
