import csv
import io
import itertools
import math
import os
import random
import re
import struct
import sys
from collections import namedtuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

from keras_logitclip import study
from keras_logitclip.study._pictures import draw_pictures
from keras_logitclip.study._plan import count
from keras_logitclip.study._report import report_of
from keras_logitclip.study._summary import METHOD
from keras_logitclip.study._summary import evaluate
from tests.subprocesses import ROOT

pytestmark = pytest.mark.once

reproducibly = settings(max_examples=25, deadline=None, derandomize=True)


def record(
    noise="symmetric 0.5",
    loss="CE",
    method="plain",
    value=None,
    rate=0.1,
    seed=0,
    accuracy=0.5,
    noisy_accuracy=0.5,
    memorized=None,
    **others,
):
    """Returns a record with these values of its epochs; a number is used for all."""
    count = len(accuracy) if isinstance(accuracy, list) else 3
    epochs = {
        "loss": 2.0,
        "accuracy": accuracy,
        "noisy_accuracy": noisy_accuracy,
        "memorized": memorized,
        "recovered": memorized,
        "clean_accuracy": 0.75,
        "logit_norm": 3.0,
        "seconds": 0.25,
    }
    return {
        "format": 2,
        "study": "digits",
        "noise": noise,
        "loss": loss,
        "method": method,
        "value": "inf" if value == math.inf else value,
        "learning_rate": rate,
        "seed": seed,
        "noise_rate": 0.0 if noise == "clean" else 0.5,
        "epochs": {
            name: values if isinstance(values, list) else [values] * count
            for name, values in epochs.items()
        },
        "seconds": 12.3,
        "planned": 28,
        "versions": {"keras": "3.15.1", "jax": "0.10.2"},
        "commit": "abc1234",
        "started": "2026-11-23T07:00:00+00:00",
        **others,
    }


def seeds_of(accuracies, **setting):
    return [record(seed=i, accuracy=a, **setting) for i, a in enumerate(accuracies)]


def clipped(accuracies, tau=1.0, **setting):
    return seeds_of(accuracies, method="tau", value=tau, **setting)


NOISES = ("symmetric 0.5", "clean", "symmetric 0.25")
LOSSES = ("NCE+RCE", "Mine", "CE")


def some_study(noises=NOISES, losses=LOSSES):
    """Two rates and seeds of each method, except for missing cells."""
    rng = np.random.default_rng(0)
    methods = [("plain", None), ("tau", 0.5), ("tau", 1 / 3), ("norm_penalty", 0.01)]
    records = []
    for noise, loss, method, rate, seed in itertools.product(
        noises, losses, methods, (0.1, 1 / 30), (0, 1)
    ):
        accuracy, noisy_accuracy, memorized = rng.uniform(0.2, 0.9, (3, 12)).tolist()
        memorized = None if noise == "clean" else memorized
        curves = (accuracy, noisy_accuracy, memorized)
        records.append(record(noise, loss, *method, rate, seed, *curves))
    del records[3], records[20]
    return records


def table(name, records):
    """The rows of one of the tables of the results."""
    return list(getattr(evaluate(records), name).itertuples())


def only(name, records):
    (row,) = table(name, records)
    return row


# From epochs to what a training reached.

ScoreCase = namedtuple(
    "ScoreCase", "accuracy noisy last noisy_last stopped noisy_stopped best"
)
SCORES = {
    "two of twenty": ScoreCase(
        [1, 0.75, *[0.5] * 16, 0.6, 0.7],
        [0.2, 0.4, *[0.3] * 16, 0.1, 0.2],
        last=0.65,
        noisy_last=0.15,
        stopped=0.75,
        noisy_stopped=0.4,
        best=1,
    ),
    "fewer than ten": ScoreCase(
        [0.2, 0.4, 0.3], [0.1, 0.3, 0.3], 0.3, 0.3, 0.4, 0.3, 0.4
    ),
    "one": ScoreCase([0.2], [0.1], 0.2, 0.1, 0.2, 0.1, 0.2),
}


@pytest.mark.parametrize("case", SCORES.values(), ids=SCORES)
def test_score(case):
    row = only("cells", [record(accuracy=case.accuracy, noisy_accuracy=case.noisy)])
    last = (row.accuracy, row.noisy_accuracy)
    stopped = (row.stopped_accuracy, row.stopped_noisy_accuracy)
    assert (*last, *stopped, row.best_accuracy) == pytest.approx(case[2:])
    assert math.isnan(row.memorized)


# From the seeds to a summary.


def test_summary_of_three_seeds():
    accuracies = ([0.9, 0.8], [1.0, 0.9], [1.1, 1.0])
    curves = {"noisy_accuracy": [0.4, 0.3], "memorized": [0.5, 0.25]}
    row = only("summary", seeds_of(accuracies, **curves))
    assert row[1:7] == (
        "symmetric 0.5",
        "CE",
        "plain",
        pytest.approx(math.nan, nan_ok=True),
        0.1,
        3,
    )
    assert (row.mean, row.std) == pytest.approx((0.9, 0.1))
    assert row.standard_error == pytest.approx(0.1 / math.sqrt(3))
    assert (row.stopped_accuracy, row.best_accuracy) == pytest.approx((1, 1))
    assert (row.noisy_accuracy, row.memorized) == pytest.approx((0.3, 0.25))


def test_summary_of_one_seed():
    row = only("summary", [record(accuracy=[0.8, 0.6])])
    assert (row.seeds, row.mean) == (1, 0.6)
    assert math.isnan(row.std)
    assert math.isnan(row.standard_error)


@reproducibly
@given(st.lists(st.floats(0, 1), min_size=2, max_size=6), st.randoms())
def test_summary_agrees_with_numpy_in_any_order(accuracies, rng):
    records = seeds_of(accuracies)
    expected = only("summary", records)
    rng.shuffle(records)
    assert repr(only("summary", records)) == repr(expected)
    assert expected.mean == pytest.approx(np.mean(accuracies))
    std = np.std(accuracies, ddof=1)
    assert expected.std == pytest.approx(std, abs=1e-12)
    assert expected.standard_error == pytest.approx(std / len(accuracies) ** 0.5)


def test_order_of_rows():
    noises = ["symmetric 0.15", "symmetric 0.9", "clean", "pair-flip 0.2"]
    keys = [(noise, "CE", "plain", 0) for noise in noises]
    keys += [("clean", loss, "plain", 0) for loss in ("aa", "NCE", "GCE", "Zz")]
    methods = [
        *(("norm_penalty", 1), ("value_limit", 1), ("normalized_tau", 1)),
        *(("tau", math.inf), ("tau", 10), ("tau", 9.5)),
    ]
    keys += [("clean", "CE", *method) for method in methods]
    records = [
        record(*key[:3], key[3] or None, rate) for key in keys for rate in (1, 0.5)
    ]
    rows = table("summary", records)
    assert [row.learning_rate for row in rows] == [0.5, 1] * len(keys)
    ordered = [
        (row.noise, row.loss, row.method, np.nan_to_num(row.value, posinf=math.inf))
        for row in rows[::2]
    ]
    assert ordered == [
        ("clean", "CE", "plain", 0),
        *(("clean", "CE", *method) for method in reversed(methods)),
        *(("clean", loss, "plain", 0) for loss in ("GCE", "NCE", "Zz", "aa")),
        ("pair-flip 0.2", "CE", "plain", 0),
        *((f"symmetric {r}", "CE", "plain", 0) for r in ("0.15", "0.9")),
    ]


# The choice of value and learning rate: from noisy labels, never from clean ones.

# By value and rate: the accuracies of each seed.
ChoiceCase = namedtuple("ChoiceCase", "noisy clean chosen")
CHOICES = {
    "noisy and clean disagree": ChoiceCase(
        {(0.5, 1): [0.3], (1, 1): [0.4], (1, 3): [0.2]},
        {(0.5, 1): [0.7], (1, 1): [0.8], (1, 3): [0.9]},
        (1, 1),
    ),
    "ties": ChoiceCase(
        {(0.5, 1): [0.4], (1, 1): [0.4], (1, 3): [0.4], (2, 1): [0.2]},
        {(0.5, 1): [0.9], (1, 1): [0.7], (1, 3): [0.7], (2, 1): [0.9]},
        (1, 1),
    ),
    "ties but for rounding": ChoiceCase(
        {(0.5, 1): [0.1 + 0.2], (1, 1): [0.3]},
        {(0.5, 1): [0.1 + 0.2], (1, 1): [0.3]},
        (1, 1),
    ),
    "infinite": ChoiceCase(
        {(0.5, 1): [0.4], (math.inf, 1): [0.5]},
        {(0.5, 1): [0.9], (math.inf, 1): [0.8]},
        (math.inf, 1),
    ),
    "over the seeds that all have": ChoiceCase(
        {(0.5, 1): [0.4], (1, 1): [0.5, 0.1]},
        {(0.5, 1): [0.8], (1, 1): [0.9, 0.2]},
        (1, 1),
    ),
}


@pytest.mark.parametrize("case", CHOICES.values(), ids=CHOICES)
def test_choice(case):
    records = [
        record("clean", "CE", "tau", value, rate, seed, accuracy, noisy_accuracy)
        for (value, rate), accuracies in case.clean.items()
        for seed, (accuracy, noisy_accuracy) in enumerate(
            zip(accuracies, case.noisy[value, rate], strict=True)
        )
    ]
    rows = table("summary", records)
    assert [tuple(row[4:6]) for row in rows if row.chosen] == [case.chosen]
    assert only("chosen", records)[4:6] == case.chosen


def two_stages():
    """Returns two rates and taus with one seed, and the chosen one with another seed.

    By noisy labels, rate 1 is one point better, and tau 2 half a point.
    """
    records = []
    for value, rate, seed in itertools.product((None, 0.5, 2.0), (0.1, 1.0), (0, 1)):
        noisy = 0.5 + 0.01 * (rate == 1) + 0.005 * (value == 2)
        if seed == 0 or (rate == 1 and value != 0.5):
            clean = 0.8 - 0.1 * (value is None) - 0.02 * seed - 0.05 * rate
            method = "plain" if value is None else "tau"
            records.append(
                record("clean", "CE", method, value, rate, seed, clean, noisy)
            )
    return records


def test_tables_over_rates_and_values_are_over_the_seeds_that_all_have():
    results = evaluate(two_stages())
    assert results.chosen.seeds.tolist() == [2, 2]
    assert results.chosen["mean"].tolist() == pytest.approx([0.64, 0.74])
    rates = results.by_rate
    assert rates.seeds.tolist() == [1] * 4
    assert rates.value.fillna(0).tolist() == [0, 0, 2, 2]
    assert rates["mean"].tolist() == pytest.approx([0.695, 0.65, 0.795, 0.75])
    values = results.by_value
    assert values.value.fillna(0).tolist() == [0, 0.5, 2]
    assert values.learning_rate.tolist() == [1] * 3
    assert values.gain[1:].tolist() == pytest.approx([0.1, 0.1])


# What is marked if 0.1 is the best of these rates.
EDGES = {(0.1,): 0, (0.1, 1.0): 1, (0.01, 0.1): 1, (0.01, 0.1, 1.0): 0}


@pytest.mark.parametrize(("rates", "at_edge"), EDGES.items())
def test_trials_and_edges_of_rates(rates, at_edge):
    records = [
        record(method="tau", value=value, rate=rate, noisy_accuracy=accuracy)
        for value in (1.0, 2.0)
        for rate, accuracy in {0.01: 0.3, 0.1: 0.5, 1.0: 0.4}.items()
        if rate in rates
    ]
    chosen = only("chosen", records)
    assert (chosen.learning_rate, chosen.at_edge) == (0.1, at_edge)
    assert chosen.trials == 2 * len(rates)


# The verdict on a method.

VerdictCase = namedtuple("VerdictCase", "plain clipped gain error verdict")
# The standard error of two numbers is half their distance.
VERDICTS = {
    "helps": VerdictCase([0.5, 0.56], [0.56, 0.64], 0.07, 0.05, "helps"),
    "hurts": VerdictCase([0.56, 0.64], [0.5, 0.56], -0.07, 0.05, "hurts"),
    "within the error": VerdictCase([0.5, 0.56], [0.5, 0.58], 0.01, 0.05, "same"),
    "as much as the error": VerdictCase([0.5, 0.6], [0.6, 0.6], 0.05, 0.05, "same"),
    "equal": VerdictCase([0.5, 0.5], [0.5, 0.5], 0, 0, "same"),
    "better without any spread": VerdictCase([0.5] * 2, [0.6] * 2, 0.1, 0, "helps"),
    "one seed with": VerdictCase([0.5, 0.6], [0.9], 0.35, None, None),
    "one seed without": VerdictCase([0.5], [0.9, 0.9], 0.4, None, None),
    "only with": VerdictCase([], [0.9, 0.8], None, None, None),
}


@pytest.mark.parametrize("case", VERDICTS.values(), ids=VERDICTS)
def test_verdict(case):
    other = seeds_of([0.1, 0.1], loss="GCE")
    records = [*other, *seeds_of(case.plain), *clipped(case.clipped)]
    (result,) = (row for row in table("chosen", records) if row[2:4] == ("CE", "tau"))
    expected = [math.nan if n is None else n for n in (case.gain, case.error)]
    assert [result.gain, result.gain_error] == pytest.approx(expected, nan_ok=True)
    assert (result.verdict or None) == case.verdict


# The tables.

# Of the rates, 1 and 0.1 are at the edge.
SMALL = [
    *seeds_of([0.7, 0.8], noisy_accuracy=0.4),
    *seeds_of([0.8, 0.82], noisy_accuracy=0.3, rate=1.0),
    *clipped([0.9, 0.91], tau=1.5, noisy_accuracy=[0.5, 0.6, 0.4], rate=0.3),
    *clipped([[0.95, 0.9, 0.9], [0.94, 0.91, 0.9]], tau=0.5, noisy_accuracy=0.3),
    *clipped([0.5, 0.5], tau=1.5, noisy_accuracy=0.2, rate=1.0),
    *seeds_of([0.9, 0.88], loss="GCE", noise_rate=0.49),
    *clipped([0.8], tau=math.inf, loss="GCE"),
    record("clean", accuracy=[0.9, 0.95, 0.9], noisy_accuracy=[0.4, 0.3, 0.5]),
]


NOTES = """
## What was trained

- Trained cells: 14 of 28, with 3 epochs, seeds 0, 1 and learning rates 0.1, 0.3, 1.
- The methods had different numbers of trials: plain 1 to 2, LogitClip 1 to 3. Who \
tries more finds more; `trials` in the study file makes them equal.
- Versions: jax 0.10.2, keras 3.15.1 (commit abc1234).
"""


def tables_of(text):
    """The rows of each table of a Markdown document, each a list of its cells."""
    tables = []
    for block in re.findall(r"(?:^\|.*\n?)+", text, re.MULTILINE):
        # As GitHub does it: a pipe divides unless a backslash is before it.
        rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in block.splitlines()]
        tables.append([[cell.strip() for cell in row] for row in rows])
    return tables


def test_markdown_tables():
    text = report_of(SMALL)
    clean, noisy, rates, taus = tables_of(text)
    assert text.startswith("# Study digits\n\nTest accuracy in percent: ")
    assert "## symmetric 0.5\n\n49.0 to 50.0% of training labels wrong.\n" in text
    assert text.endswith(NOTES)
    assert clean[2] == ["CE", "last", "90.0 (0.1)"]
    assert noisy == [
        ["loss", "epochs", "plain (rate)", "LogitClip (tau, rate)"],
        ["---"] * 4,
        ["CE", "last", "75.0 ± 7.1 (0.1*)", "90.5 ± 0.7 (1.5, 0.3) +"],
        ["CE", "best by noisy validation", "75.0", "90.5"],
        ["CE", "best by test labels", "75.0", "90.5"],
        ["GCE", "last", "89.0 ± 1.4 (0.1)", "80.0 (inf, 0.1)"],
        ["GCE", "best by noisy validation", "89.0", "80.0"],
        ["GCE", "best by test labels", "89.0", "80.0"],
        ["", "trials", "1 to 2", "1 to 3"],
    ]
    assert rates == [
        ["loss", "method", "0.1", "0.3", "1"],
        ["---"] * 5,
        ["CE", "plain", "75.0 ± 7.1", "n/a", "81.0 ± 1.4"],
        ["CE", "LogitClip", "90.0 ± 0.0 (0.5)", "90.5 ± 0.7 (1.5)", "50.0 ± 0.0 (1.5)"],
        ["GCE", "plain", "90.0", "n/a", "n/a"],
        ["GCE", "LogitClip", "80.0 (inf)", "n/a", "n/a"],
    ]
    assert taus == [
        ["loss", "method", "0.5", "1.5", "inf"],
        ["---"] * 5,
        ["CE", "LogitClip", "90.0 ± 0.0 (0.1*) +", "90.5 ± 0.7 (0.3) +", "n/a"],
        ["GCE", "LogitClip", "n/a", "n/a", "80.0 (0.1)"],
    ]


def test_what_is_worse_or_missing_in_a_table():
    records = [
        *seeds_of([0.9, 0.9]),
        *clipped([0.8, 0.8]),
        *seeds_of([0.8, 0.8], loss="GCE"),
        record(method="normalized_tau", value=1.0),
    ]
    (table,) = tables_of(report_of(records))
    assert table[0][2:] == [
        *("plain (rate)", "LogitClip (tau, rate)"),
        "normalized LogitClip (tau, rate)",
    ]
    assert table[2][2:] == [
        "90.0 ± 0.0 (0.1)",
        "80.0 ± 0.0 (1, 0.1) -",
        "50.0 (1, 0.1)",
    ]
    assert table[5][2:] == ["80.0 ± 0.0 (0.1)", "n/a", "n/a"]
    assert table[-1][1:] == ["trials", "1", "1", "1"]
    assert "different numbers" not in report_of(records)


def test_number_of_planned_cells():
    records = seeds_of([0.5, 0.6])
    assert "Trained cells: 2 of 28, with" in report_of(records)
    for one in records:
        del one["planned"]  # As in the folder `cells`.
    assert "Trained cells: 2, with" in report_of(records)


def test_different_versions_and_commits_are_all_named():
    records = seeds_of([0.5, 0.6])
    records[0].update(versions={"jax": "0.9"}, commit=None)
    note = "Versions: jax 0.10.2, keras 3.15.1; jax 0.9 (commit abc1234)."
    assert note in report_of(records)
    assert "(commit" not in report_of(records[:1])


# Files.


def read_csv(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_csv_files(tmp_path):
    records = some_study()
    paths = study.write_report(records, tmp_path / "new" / "folder", pictures=False)
    names = ["report.md", "report.html", "summary.csv", "cells.csv", "epochs.csv"]
    assert [path.name for path in paths] == names
    summary, cells, epochs = map(read_csv, paths[2:])
    results = evaluate(records)
    assert len(summary) == len(results.summary) == 72
    for row, expected in zip(summary, results.summary.to_dict("records"), strict=True):
        for name, value in expected.items():
            if isinstance(value, float):
                number = float(row[name] or "nan")
                assert number == pytest.approx(value, rel=1e-5, nan_ok=True)
            else:
                assert row[name] == str(value)
    chosen = [row for row in summary if row["chosen"] == "1"]
    assert [[row[name] for name in METHOD] for row in chosen] == results.chosen[
        METHOD
    ].values.tolist()
    assert [row["verdict"] for row in chosen] == results.chosen.verdict.tolist()
    assert {row["verdict"] for row in summary if row["chosen"] == "0"} == {""}
    assert {row["learning_rate"] for row in cells} == {"0.1", "0.0333333"}
    assert len(cells) == len(records)
    assert {(row["seconds"], row["epochs"]) for row in cells} == {("12.3", "12")}
    assert len(epochs) == 12 * len(records)
    assert [row["epoch"] for row in epochs[:12]] == [str(i) for i in range(1, 13)]
    assert epochs[0]["loss"] == "CE"
    assert epochs[0]["training_loss"] == "2"
    assert epochs[0]["memorized"] == ""
    assert epochs[11]["accuracy"] == cells[0]["accuracy"]


def test_any_order_of_records_gives_the_same_files(tmp_path):
    pytest.importorskip("matplotlib").use("Agg")
    # Few, because pictures are slow.
    records = some_study(NOISES[:2], LOSSES[:2])
    shuffled = random.Random(0).sample(records, len(records))
    first = study.write_report(records, tmp_path / "first")
    second = study.write_report(shuffled, tmp_path / "second")
    assert len(first) == 5 + 3
    assert [path.name for path in first] == [path.name for path in second]
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes()
    assert sorted(first) == sorted((tmp_path / "first").iterdir())
    written = b"".join(path.read_bytes() for path in first)
    assert str(tmp_path).encode() not in written


def test_report_shows_the_pictures(tmp_path):
    pytest.importorskip("matplotlib").use("Agg")
    records = [*SMALL, *clipped([0.8], tau=1.5, noise="pair-flip 0.2")]
    paths = study.write_report(records, tmp_path)
    shown = re.findall(r"!\[[^\]]+\]\((.*)\)", paths[0].read_text(encoding="utf-8"))
    assert shown == [
        "curves-clean.png",
        "curves-pair-flip-0.2.png",
        "curves-symmetric-0.5.png",
    ]
    assert shown == [path.name for path in paths[5:]]


def test_no_cells_yet(tmp_path):
    assert "No cell" in report_of([])
    (path,) = study.write_report([], tmp_path)
    assert "No cell" in path.read_text(encoding="utf-8")


def test_a_failure_leaves_the_old_file(tmp_path, monkeypatch):
    def fail(source, target):
        raise OSError("disk full")

    (tmp_path / "report.md").write_text("old")
    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        study.write_report(SMALL, tmp_path, pictures=False)
    assert [path.name for path in tmp_path.iterdir()] == ["report.md"]
    assert (tmp_path / "report.md").read_text() == "old"


def test_without_matplotlib(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match="pip install matplotlib"):
        study.write_report(SMALL, tmp_path / "report")
    assert not (tmp_path / "report").exists()
    paths = study.write_report(SMALL, tmp_path / "report", pictures=False)
    assert "![" not in paths[0].read_text(encoding="utf-8")


# Pictures.

# The first colors of Matplotlib.
BLUE = (0x1F, 0x77, 0xB4)
ORANGE = (0xFF, 0x7F, 0x0E)


def pixels_of(picture, color):
    """How many pixels have exactly this color."""
    image = pytest.importorskip("matplotlib.image").imread(io.BytesIO(picture))
    return (np.rint(255 * image[..., :3]) == color).all(-1).sum()


PictureCase = namedtuple("PictureCase", "records kinds")
PICTURES = {
    "complete": PictureCase(
        [
            *seeds_of([[0.5, 0.9], [0.6, 0.8]], memorized=[0.1, 0.5]),
            *seeds_of([[0.4, 0.9], [0.5, 0.8]], memorized=[0.1, 0.5], rate=1.0),
            *clipped([[0.6, 0.8], [0.7, 0.9]], memorized=[0.1, 0.2]),
            *clipped([[0.5, 0.8], [0.6, 0.9]], memorized=[0.1, 0.2], rate=1.0),
        ],
        ["curves", "memorized"],
    ),
    "one epoch": PictureCase([record(accuracy=[0.5])], ["curves"]),
    "one seed and epoch": PictureCase([record(), *clipped([[0.7]])], ["curves"]),
    "no loss without clipping": PictureCase(
        [*clipped([[0.6, 0.8]]), *clipped([[0.7, 0.9]], tau=300.0)], ["curves"]
    ),
    "epochs of unequal number": PictureCase(
        seeds_of([[0.5, 0.7, 0.8, 0.9], [0.6, 0.8]], memorized=None), ["curves"]
    ),
    "other methods": PictureCase(
        [
            record(method="value_limit", value=1.0),
            record(method="norm_penalty", value=1.0),
        ],
        ["curves"],
    ),
}


@pytest.mark.parametrize("case", PICTURES.values(), ids=PICTURES)
def test_pictures(case):
    pytest.importorskip("matplotlib").use("Agg")
    from matplotlib import pyplot

    figures = pyplot.get_fignums()
    pictures = draw_pictures(evaluate(case.records))["symmetric 0.5"]
    assert [*pictures] == [f"{kind}-symmetric-0.5.png" for kind in case.kinds]
    clipped = any(record["method"] == "tau" for record in case.records)
    for picture in pictures.values():
        width, height = struct.unpack(">II", picture[16:24])
        assert 500 <= width <= 1200
        assert height >= 150
        assert (pixels_of(picture, BLUE) > 0) == clipped
    assert pyplot.get_fignums() == figures


def test_colors_of_methods_are_the_same_in_all_pictures():
    pytest.importorskip("matplotlib").use("Agg")
    normalized = record(method="normalized_tau", value=1.0)
    drawn = draw_pictures(evaluate([record(), normalized]))
    for picture in drawn["symmetric 0.5"].values():
        assert pixels_of(picture, ORANGE) > 0
        assert pixels_of(picture, BLUE) == 0


# Records that no report can be made of.

InvalidCase = namedtuple("InvalidCase", "records message")
INVALID = {
    "other format": InvalidCase([record(), record(format=1)], "format 2. Received"),
    "no format": InvalidCase([{}], "format 2. Received: {None}"),
    "twice": InvalidCase(
        [record(), record(accuracy=0.6)], "Received several: [['symmetric 0.5', 'CE'"
    ),
    "noise in another folder": InvalidCase(
        [record("../../escaped"), *clipped([0.5])], "Received: ['../../escaped']"
    ),
    "loss of several cells": InvalidCase([record(loss="a|b\n")], "['a|b\\n']"),
    "study of several lines": InvalidCase([record(study="a\n# b")], "['a\\n# b']"),
    "two studies": InvalidCase(
        [record(), record(seed=1, study="other")], "['digits', 'other']"
    ),
}


@pytest.mark.parametrize("case", INVALID.values(), ids=INVALID)
def test_invalid_records(case, tmp_path):
    for function in (
        report_of,
        lambda records: study.write_report(records, tmp_path / "report"),
    ):
        with pytest.raises(ValueError, match=re.escape(case.message)):
            function(case.records)
    assert not (tmp_path / "report").exists()


# The studies that have reports.


@pytest.mark.parametrize(
    "path", sorted(ROOT.glob("docs/results/*.toml")), ids=lambda p: p.stem
)
def test_study_files_of_the_documents(path):
    loaded = study.load(path)
    assert f"study run docs/results/{path.name}" in path.read_text()
    assert count(loaded) >= 32
