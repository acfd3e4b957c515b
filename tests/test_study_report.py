import csv
import io
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

from keras_logitclip.study import _report
from keras_logitclip.study._pictures import draw_pictures
from keras_logitclip.study._pictures import file_names
from keras_logitclip.study._summary import compare
from keras_logitclip.study._summary import score
from keras_logitclip.study._summary import summarize

pytestmark = pytest.mark.once

reproducibly = settings(max_examples=60, deadline=None, derandomize=True)

# Names that mean something to Markdown, to a file system, to TeX or to a terminal.
NAMES = {
    "pipe": "a|b",
    "escaped pipe": "a\\|b",
    "backslash": "a\\",
    "slash": "a/b",
    "parent": "../../escaped",
    "lines": "a\n\n# b\r\n| c |",
    "html": "<b>a</b> & c",
    "link": "![a](b) `c` *d* _e_",
    "tex": r"$\frac$ 5 $",
    "control": "\x1b[31ma\x00b",
    "surrogate": "a\udc80",
    "empty": "",
    "dots": "..",
    "long": "x" * 300,
    "not ascii": "rauschen é",
}


def record(
    noise="symmetric 0.5",
    loss="CE",
    method="plain",
    value=None,
    seed=0,
    accuracy=(0.5,),
    noisy_accuracy=None,
    memorized=None,
    recovered=None,
    **others,
):
    """A cell with these values in its epochs, the same in all if it is a number."""
    count = len(accuracy) if isinstance(accuracy, tuple | list) else 3
    epochs = {
        "loss": 2.0,
        "accuracy": accuracy,
        "noisy_accuracy": noisy_accuracy,
        "memorized": memorized,
        "recovered": recovered,
        "logit_norm": 3.0,
        "seconds": 0.25,
    }
    return {
        "format": 1,
        "study": "digits",
        "noise": noise,
        "loss": loss,
        "method": method,
        "value": value,
        "seed": seed,
        "noise_rate": 0.0 if noise == "clean" else 0.5,
        "epochs": {
            name: list(values) if isinstance(values, tuple | list) else [values] * count
            for name, values in epochs.items()
        },
        "seconds": 12.3,
        "config": {},
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
    """Two seeds of each method, except for missing cells."""
    rng = np.random.default_rng(0)
    methods = [("plain", None), ("tau", 0.5), ("tau", 1 / 3), ("norm_penalty", 0.01)]
    records = []
    for noise in noises:
        for loss in losses:
            for method, value in methods:
                for seed in (0, 1):
                    curve = rng.uniform(0.5, 1, 12).tolist()
                    memorized = None if noise == "clean" else curve[::-1]
                    setting = (noise, loss, method, value, seed)
                    noisy = rng.uniform(0.2, 0.5, 12).tolist()
                    records.append(record(*setting, curve, noisy, memorized, memorized))
    del records[3], records[20]
    return records


# From epochs to the score of a training.

ScoreCase = namedtuple("ScoreCase", "epochs accuracy best noisy memorized")
SCORES = {
    "ten of twelve": ScoreCase(
        {"accuracy": [1, 0.75, *[0.5] * 9, 0.6], "memorized": [0.9] * 2 + [0.1] * 10},
        accuracy=0.51,
        best=1,
        noisy=None,
        memorized=0.1,
    ),
    "fewer than ten": ScoreCase(
        {"accuracy": [0.2, 0.4, 0.3], "noisy_accuracy": [0.1, 0.2, 0.6]},
        accuracy=0.3,
        best=0.4,
        noisy=0.3,
        memorized=None,
    ),
    "one": ScoreCase({"accuracy": [0.2]}, 0.2, 0.2, None, None),
    "undefined here and there": ScoreCase(
        {
            "accuracy": [0.2, None, 0.4],
            "noisy_accuracy": [math.nan, 0.5, None],
            "memorized": [math.nan] * 3,
        },
        accuracy=0.3,
        best=0.4,
        noisy=0.5,
        memorized=None,
    ),
}


@pytest.mark.parametrize("case", SCORES.values(), ids=SCORES)
def test_score(case):
    got = score(record(**case.epochs))
    expected = (case.accuracy, case.best, case.noisy, case.memorized, None)
    assert got == pytest.approx(expected)


# From the seeds to a summary.


def test_summary_of_three_seeds():
    accuracies = ([0.8, 0.6], [0.9, 0.7], [1.0, 0.8])
    records = seeds_of(accuracies, noisy_accuracy=0.4, memorized=0.25, recovered=0.5)
    (row,) = summarize(records)
    assert row[:5] == ("symmetric 0.5", "CE", "plain", None, 3)
    spread = (0.8, 0.1, 0.1 / math.sqrt(3))
    assert row[5:] == pytest.approx((*spread, 0.9, 0.4, 0.25, 0.5))


def test_summary_of_one_seed():
    (row,) = summarize([record(accuracy=[0.8, 0.6])])
    assert row[4:] == (1, 0.7, None, None, 0.8, None, None, None)


@reproducibly
@given(st.lists(st.floats(0, 1), min_size=2, max_size=6), st.randoms())
def test_summary_agrees_with_numpy_in_any_order(accuracies, rng):
    records = seeds_of(accuracies)
    (expected,) = summarize(records)
    rng.shuffle(records)
    assert summarize(records) == [expected]
    assert expected.mean == pytest.approx(np.mean(accuracies))
    std = np.std(accuracies, ddof=1)
    assert expected.std == pytest.approx(std, abs=1e-12)
    assert expected.standard_error == pytest.approx(std / len(accuracies) ** 0.5)


def test_order_of_rows():
    noises = ["symmetric 0.10", "symmetric 0.9", "clean", "pair 0.2", "symmetric 0.5"]
    keys = [(noise, "CE", "plain", None) for noise in noises]
    keys += [("clean", loss, "plain", None) for loss in ("aa", "NCE", "GCE", "Zz")]
    methods = [("norm_penalty", 1), ("value_limit", 1), ("tau", 10), ("tau", 9.5)]
    keys += [("clean", "CE", *method) for method in methods]
    assert [row[:4] for row in summarize(record(*key) for key in keys)] == [
        ("clean", "CE", "plain", None),
        *(("clean", "CE", *method) for method in reversed(methods)),
        *(("clean", loss, "plain", None) for loss in ("GCE", "NCE", "Zz", "aa")),
        ("pair 0.2", "CE", "plain", None),
        *((f"symmetric {r}", "CE", "plain", None) for r in ("0.10", "0.5", "0.9")),
    ]


# The choice of the value: from noisy labels, never from clean ones.

ChoiceCase = namedtuple("ChoiceCase", "noisy clean chosen hindsight")
CHOICES = {
    "noisy and clean disagree": ChoiceCase(
        {0.5: 0.3, 1: 0.4, 2: 0.2}, {0.5: 0.9, 1: 0.7, 2: 0.8}, 1, 0.5
    ),
    "ties": ChoiceCase({0.5: 0.4, 1: 0.4, 2: 0.2}, {0.5: 0.9, 1: 0.7, 2: 0.9}, 1, 2),
    "ties but for rounding": ChoiceCase(
        {0.5: 0.1 + 0.2, 1: 0.3}, {0.5: 0.1 + 0.2, 1: 0.3}, 1, 1
    ),
    "one value, nothing to choose": ChoiceCase({2: None}, {2: 0.8}, 2, 2),
    "one value without noisy accuracy": ChoiceCase(
        {0.5: 0.1, 1: None}, {0.5: 0.8, 1: 0.9}, 0.5, 1
    ),
    "no noisy accuracies": ChoiceCase(
        {0.5: None, 1: None}, {0.5: 0.8, 1: 0.9}, None, 1
    ),
}


@pytest.mark.parametrize("case", CHOICES.values(), ids=CHOICES)
def test_choice_of_the_value(case):
    records = [
        record(method="tau", value=tau, accuracy=case.clean[tau], noisy_accuracy=noisy)
        for tau, noisy in case.noisy.items()
    ]
    (result,) = compare(summarize(records)).values()
    assert (result.chosen and result.chosen.value) == case.chosen
    assert result.hindsight.value == case.hindsight


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
    result = compare(summarize(records))["symmetric 0.5", "CE", "tau"]
    assert result.gain == pytest.approx(case.gain)
    assert result.gain_error == pytest.approx(case.error)
    assert result.verdict == case.verdict


# The tables.

SMALL = [
    *seeds_of([0.7, 0.8], noisy_accuracy=0.4),
    *clipped([0.9, 0.91], tau=1.5, noisy_accuracy=0.5),
    *clipped([0.95, 0.94], tau=0.5, noisy_accuracy=0.3),
    *seeds_of([0.9, 0.88], loss="GCE", noise_rate=0.49),
    *clipped([0.8], tau=1.5, loss="GCE"),
    record("clean", accuracy=[0.9, 1.0]),
]


def test_terminal_table():
    tables, notes = _report.terminal_table(SMALL).split("\n\nTest accuracy")
    assert (
        tables
        == """\
clean: 0.0% of training labels wrong.
loss  plain
CE    95.0

symmetric 0.5: 49.0 to 50.0% of training labels wrong.
loss  plain       LogitClip (tau)
CE    75.0 ± 7.1  90.5 ± 0.7 (1.5) +
GCE   89.0 ± 1.4  80.0 (1.5)"""
    )
    assert notes.splitlines()[1:] == [
        "Trained cells: 10, with 2, 3 epochs and seeds 0, 1.",
        "Missing cells: 9 of clean, 1 of symmetric 0.5.",
        "LogitClip (tau): the best value by clean test labels would give 2.0 points "
        "more on average, 4.0 at most (CE, symmetric 0.5).",
        "Versions: jax 0.10.2, keras 3.15.1 (commit abc1234).",
    ]


def tables_of(text):
    """The rows of each table of a Markdown document, each a list of its cells."""
    tables = []
    for block in re.findall(r"(?:^\|.*\n?)+", text, re.MULTILINE):
        # As GitHub does it: a pipe divides unless a backslash is before it.
        rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in block.splitlines()]
        tables.append([[cell.strip() for cell in row] for row in rows])
    return tables


def rendered(cell):
    """What a reader sees: GitHub first frees pipes, Markdown then the others."""
    return re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", cell.replace("\\|", "|"))


def test_markdown_tables():
    clean, _, noisy, best = tables_of(_report.markdown(SMALL))
    assert clean == [["loss", "plain"], ["---"] * 2, ["CE", "95.0"]]
    header = ["loss", "plain", "LogitClip (tau)"]
    assert noisy == [
        header,
        ["---"] * 3,
        ["CE", "75.0 ± 7.1", "90.5 ± 0.7 (1.5) ▲"],
        ["GCE", "89.0 ± 1.4", "80.0 (1.5)"],
    ]
    assert best == [
        header,
        ["---"] * 3,
        ["CE", "75.0", "90.5 (1.5)"],
        ["GCE", "89.0", "80.0 (1.5)"],
    ]


def test_what_is_worse_or_missing_in_a_table():
    records = [
        *seeds_of([0.9, 0.9]),
        *clipped([0.8, 0.8]),
        *seeds_of([0.8, 0.8], loss="GCE"),
        *(record(method="value_limit", value=limit) for limit in (1, 2)),
    ]
    table, _ = tables_of(_report.markdown(records))
    assert table[2:] == [
        ["CE", "90.0 ± 0.0", "80.0 ± 0.0 (1) ▼", "n/a"],
        ["GCE", "80.0 ± 0.0", "n/a", "n/a"],
    ]


def test_complete_study_misses_nothing():
    assert "Missing cells: none." in _report.markdown(seeds_of([0.5, 0.6]))


def test_different_versions_and_commits_are_all_named():
    records = seeds_of([0.5, 0.6])
    records[0].update(versions={"jax": "0.9"}, commit=None)
    note = "Versions: jax 0.10.2, keras 3.15.1; jax 0.9 (commit abc1234)."
    assert note in _report.terminal_table(records)
    assert "(commit" not in _report.terminal_table(records[:1])


@reproducibly
@given(st.text() | st.sampled_from([*NAMES.values()]), st.text(), st.text())
def test_any_name_leaves_markdown_in_shape(loss, noise, study):
    records = [
        record(noise, loss, method, value, accuracy=0.5, study=study)
        for method, value in (("plain", None), ("tau", 1.0))
    ]
    text = _report.markdown(records)
    tables = tables_of(text)
    assert [[len(row) for row in table] for table in tables] == [[3] * 3] * 2
    visible = "".join(letter if letter.isprintable() else " " for letter in loss)
    assert rendered(tables[0][2][0]) == " ".join(visible.split())
    lines = text.splitlines()
    assert [line[:2] for line in lines if line.startswith("#")] == ["# ", "##", "##"]
    assert not re.search(r"(?<!\\)[<`*_~]", text)
    assert all(map(str.isprintable, lines))
    assert all(map(str.isprintable, _report.terminal_table(records).split("\n")))


# Files.


def read_csv(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_csv_files(tmp_path):
    records = some_study()
    paths = _report.write_report(records, tmp_path / "new" / "folder", pictures=False)
    names = ["report.md", "summary.csv", "cells.csv", "epochs.csv"]
    assert [path.name for path in paths] == names
    summary, cells, epochs = map(read_csv, paths[1:])
    summaries = summarize(records)
    assert len(summary) == len(summaries)
    for row, expected in zip(summary, summaries, strict=True):
        for name, value in expected._asdict().items():
            if isinstance(value, float):
                assert float(row[name]) == pytest.approx(value, rel=1e-5)
            else:
                assert row[name] == ("" if value is None else str(value))
    results = compare(summaries)
    chosen = [row for row in summary if row["chosen"] == "1"]
    keys = [(row["noise"], row["loss"], row["method"]) for row in chosen]
    assert keys == [*results]
    assert [row["verdict"] or None for row in chosen] == [
        result.verdict for result in results.values()
    ]
    hindsight = [float(row["mean"]) for row in summary if row["hindsight"] == "1"]
    best = [result.hindsight.mean for result in results.values()]
    assert hindsight == pytest.approx(best, rel=1e-5)
    assert any(row["chosen"] != row["hindsight"] for row in summary)
    assert len(cells) == len(records)
    assert {(row["seconds"], row["epochs"]) for row in cells} == {("12.3", "12")}
    assert len(epochs) == 12 * len(records)
    assert [row["epoch"] for row in epochs[:12]] == [str(i) for i in range(1, 13)]
    assert epochs[0]["loss"] == "CE"
    assert epochs[0]["training_loss"] == "2"
    assert epochs[0]["memorized"] == ""
    of_cell = [float(row["accuracy"]) for row in epochs[2:12]]
    assert float(cells[0]["accuracy"]) == pytest.approx(np.mean(of_cell), rel=1e-5)


def test_names_survive_in_csv_files(tmp_path):
    names = [name for key, name in NAMES.items() if key != "surrogate"]
    records = [record(noise=name, loss=name) for name in names]
    _report.write_report(records, tmp_path, pictures=False)
    for file in ("summary.csv", "cells.csv", "epochs.csv"):
        rows = read_csv(tmp_path / file)
        assert {(row["noise"], row["loss"]) for row in rows} == {(n, n) for n in names}


def test_any_order_of_records_gives_the_same_files(tmp_path):
    pytest.importorskip("matplotlib").use("Agg")
    # Few, because pictures are slow.
    records = some_study(NOISES[:2], LOSSES[:2])
    shuffled = random.Random(0).sample(records, len(records))
    first = _report.write_report(records, tmp_path / "first")
    second = _report.write_report(shuffled, tmp_path / "second")
    assert len(first) == 4 + 2 * 2 + 1
    assert [path.name for path in first] == [path.name for path in second]
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes()
    assert sorted(first) == sorted((tmp_path / "first").iterdir())
    written = b"".join(path.read_bytes() for path in first)
    assert str(tmp_path).encode() not in written


def test_report_shows_the_pictures(tmp_path):
    pytest.importorskip("matplotlib").use("Agg")
    records = [*SMALL, *clipped([0.8], tau=1.5, noise="pair (0.2)")]
    paths = _report.write_report(records, tmp_path)
    shown = re.findall(r"!\[[^\]]+\]\((.*)\)", paths[0].read_text(encoding="utf-8"))
    assert shown == [
        "curves-clean.png",
        "curves-pair-0.2.png",
        "tau-pair-0.2.png",
        "curves-symmetric-0.5.png",
        "tau-symmetric-0.5.png",
        "gain.png",
    ]
    assert shown == [path.name for path in paths[4:]]


def test_no_cells_yet(tmp_path):
    assert "No cell" in _report.terminal_table([])
    assert _report.csv_rows([]) == []
    paths = _report.write_report([], tmp_path, pictures=False)
    assert "No cell" in paths[0].read_text(encoding="utf-8")
    assert [read_csv(path) for path in paths[1:]] == [[], [], []]


def test_a_failure_leaves_the_old_file(tmp_path, monkeypatch):
    def fail(source, target):
        raise OSError("disk full")

    (tmp_path / "report.md").write_text("old")
    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        _report.write_report(SMALL, tmp_path, pictures=False)
    assert [path.name for path in tmp_path.iterdir()] == ["report.md"]
    assert (tmp_path / "report.md").read_text() == "old"


def test_without_matplotlib(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match="pip install matplotlib"):
        _report.write_report(SMALL, tmp_path / "report")
    assert not (tmp_path / "report").exists()
    paths = _report.write_report(SMALL, tmp_path / "report", pictures=False)
    assert "![" not in paths[0].read_text(encoding="utf-8")


# Pictures.

# The first colors of Matplotlib.
BLUE = (0x1F, 0x77, 0xB4)
ORANGE = (0xFF, 0x7F, 0x0E)


def pixels_of(picture, color):
    """How many pixels have exactly this color."""
    image = pytest.importorskip("matplotlib.image").imread(io.BytesIO(picture.png))
    return (np.rint(255 * image[..., :3]) == color).all(-1).sum()


PictureCase = namedtuple("PictureCase", "records names")
PICTURES = {
    "complete": PictureCase(
        [
            *seeds_of([[0.5, 0.9], [0.6, 0.8]], memorized=[0.1, 0.5]),
            *clipped([[0.6, 0.8], [0.7, 0.9]], memorized=[0.1, 0.2]),
        ],
        ["curves-symmetric-0.5.png", "tau-symmetric-0.5.png", "gain.png"],
    ),
    "clean": PictureCase(
        [record("clean", accuracy=[0.5, 0.9])],
        ["curves-clean.png"],
    ),
    "one epoch": PictureCase([record("clean")], ["curves-clean.png"]),
    "one seed and epoch": PictureCase(
        [record(), *clipped([[0.7]])],
        ["curves-symmetric-0.5.png", "tau-symmetric-0.5.png", "gain.png"],
    ),
    "no loss without clipping": PictureCase(
        [
            *clipped([[0.6, 0.8]], noisy_accuracy=0.5),
            *clipped([[0.7, 0.9]], tau=300.0),
        ],
        ["curves-symmetric-0.5.png", "tau-symmetric-0.5.png"],
    ),
    "tau not chosen, infinite or far off": PictureCase(
        [*seeds_of([0.5]), *clipped([0.5], tau=math.inf), *clipped([0.4], tau=1e-5)],
        ["curves-symmetric-0.5.png", "tau-symmetric-0.5.png"],
    ),
    "epochs of unequal number, undefined": PictureCase(
        seeds_of([[0.5, 0.7, 0.8, 0.9], [0.6, 0.8, None]], memorized=math.nan),
        ["curves-symmetric-0.5.png"],
    ),
    "other methods only": PictureCase(
        [record(method="value_limit", value=1.0)],
        [],
    ),
}


@pytest.mark.parametrize("case", PICTURES.values(), ids=PICTURES)
def test_pictures(case):
    pytest.importorskip("matplotlib").use("Agg")
    from matplotlib import pyplot

    figures = pyplot.get_fignums()
    pictures = draw_pictures(case.records)
    assert [picture.name for picture in pictures] == case.names
    for picture in pictures:
        width, height = struct.unpack(">II", picture.png[16:24])
        assert 500 <= width <= 1200
        assert height >= 150
        assert pixels_of(picture, BLUE) > 0
    assert pyplot.get_fignums() == figures


def test_colors_of_losses_are_the_same_in_all_pictures():
    """GCE has the second color, also where there is no other loss."""
    pytest.importorskip("matplotlib").use("Agg")
    records = [record("clean"), record("clean", "GCE"), record(loss="GCE")]
    *_, picture = draw_pictures([*records, *clipped([0.6], loss="GCE")])
    assert pixels_of(picture, ORANGE) > 0
    assert pixels_of(picture, BLUE) == 0


def test_pictures_of_odd_names_stay_in_the_folder(tmp_path):
    pytest.importorskip("matplotlib").use("Agg")
    names = [
        NAMES[key] for key in ("parent", "slash", "lines", "tex", "control", "long")
    ]
    records = [record(name, name) for name in names]
    folder = tmp_path / "a" / "b" / "c"
    paths = _report.write_report([*records, *clipped([0.7], loss="$a")], folder)
    assert all(path.parent == folder for path in paths)
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == sorted(
        paths
    )


FILE_NAMES = {
    "plain": (["symmetric 0.5", "clean"], ["symmetric-0.5", "clean"]),
    "equal when safe": (
        ["a b", "a/b", "a-b-2", "A b"],
        ["a-b", "a-b-2", "a-b-2-2", "A-b-3"],
    ),
    "nothing left": (["", "..", "/"], ["noise", "noise-2", "noise-3"]),
    "parent": (["../../a", "a/.."], ["a", "a-2"]),
}


@pytest.mark.parametrize(("names", "expected"), FILE_NAMES.values(), ids=FILE_NAMES)
def test_file_names(names, expected):
    assert file_names(names) == dict(zip(names, expected, strict=True))


@reproducibly
@given(st.lists(st.text() | st.sampled_from([*NAMES.values()]), unique=True))
def test_any_name_makes_a_safe_file_name(names):
    safe = file_names(names)
    assert [*safe] == names
    assert len({name.lower() for name in safe.values()}) == len(names)
    for name in safe.values():
        assert re.fullmatch(r"[A-Za-z0-9-](?:[A-Za-z0-9.-]{0,60}[A-Za-z0-9])?", name)


# Records that no report can be made of.

InvalidCase = namedtuple("InvalidCase", "records message")
INVALID = {
    "other format": InvalidCase([record(format=2)], "format 1. Received: format=2"),
    "no format": InvalidCase([{}], "format 1. Received: format=None"),
    "unknown method": InvalidCase([record(method="taus", value=1.0)], "'taus'"),
    "no value": InvalidCase([record(method="tau")], "a value greater than zero"),
    "value of zero": InvalidCase(clipped([0.5], tau=0), "a value greater than zero"),
    "needless value": InvalidCase([record(value=1.0)], "`None` for the method 'plain'"),
    "no epochs": InvalidCase([record(accuracy=[])], "test accuracies in its last"),
    "undefined": InvalidCase([record(accuracy=[None, math.nan])], "test accuracies"),
    "only early": InvalidCase([record(accuracy=[0.5] + [None] * 10)], "seed 0"),
    "twice": InvalidCase([record(), record(accuracy=0.6)], "('symmetric 0.5', 'CE'"),
    "two studies": InvalidCase(
        [record(), record(seed=1, study="other")], "['digits', 'other']"
    ),
}


@pytest.mark.parametrize("case", INVALID.values(), ids=INVALID)
def test_invalid_records(case, tmp_path):
    for function in (
        summarize,
        _report.terminal_table,
        _report.markdown,
        _report.csv_rows,
        lambda records: _report.write_report(records, tmp_path / "report"),
    ):
        with pytest.raises(ValueError, match=re.escape(case.message)):
            function(case.records)
    assert not (tmp_path / "report").exists()
