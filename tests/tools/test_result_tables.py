"""The figures of README and docs are those of the trainings in docs/results."""

import re
import sys

import numpy as np
import pytest

from tests.subprocesses import ROOT

pytest.importorskip("pandas", reason="pandas is not installed")
pytestmark = pytest.mark.once
# Rows of README: data and wrong labels as it names them, and as the studies do.
CASES = {
    "even and odd digits | 2 | 40%, the other one": ("odd-digits", "symmetric 0.4"),
    'CIFAR-10N "worse", pretrained features | 10 | 41%, by people': (
        "cifar10n",
        "human worse_label",
    ),
    "letters (UCI) | 26 | 40%, any other": ("letters", "symmetric 0.4"),
    "letters (UCI) | 26 | 30%, the next one": ("letters", "pair-flip 0.3"),
    "banking77, intents | 77 | 40%, any other": ("banking77", "symmetric 0.4"),
    "banking77, intents | 77 | 30%, the next one": ("banking77", "pair-flip 0.3"),
    "CLINC150, intents | 150 | 40%, any other": ("clinc150", "symmetric 0.4"),
    "CLINC150, intents | 150 | 30%, the next one": ("clinc150", "pair-flip 0.3"),
}
# Rows of docs/choosing_loss.md, in the order of the README.
WEIGHT_DECAY = [
    "cifar10n, human worse_label",
    "banking77, symmetric 0.4",
    "banking77, pair-flip 0.3",
]


@pytest.fixture(scope="module")
def tables():
    sys.path.insert(0, str(ROOT / "docs" / "results"))
    try:
        import tables
    finally:
        del sys.path[0]
    return tables


@pytest.fixture(scope="module")
def cells(tables):
    return tables.load()


def page(name):
    """Returns the text of a page without its line breaks, except in tables."""
    text = (ROOT / name).read_text(encoding="utf-8")
    return re.sub(r"(?<=[^|\n])\n(?=[^|\n])", " ", text)


@pytest.mark.parametrize(
    "page", ["choosing_tau.md", "choosing_loss.md", "cleaning.md", "probabilities.md"]
)
def test_a_page_has_the_tables_of_the_trainings(page, tables):
    before, after = tables.before_and_after(page)
    assert before == after


def test_what_is_measured_is_not_measured_again(tables, monkeypatch, tmp_path):
    pytest.importorskip("cleanlab")
    monkeypatch.syspath_prepend(ROOT / "docs" / "results")
    import cleaning

    monkeypatch.setattr(cleaning.cleaning_tables, "PATH", tmp_path / "cleaning.csv")
    monkeypatch.setattr(cleaning, "make_case", lambda names, options: names)
    monkeypatch.setattr(
        cleaning, "measure", lambda names: {"wrong": 1 / (3 + names[-1])}
    )
    for seeds, rows in ((["0"], 8), (["0", "2"], 16), (["0", "1", "2"], 24)):
        monkeypatch.setattr(sys, "argv", ["cleaning.py", "--seeds", *seeds])
        for _ in range(2):
            cleaning.main()
            assert len(cleaning.cleaning_tables.load()) == rows
    written = cleaning.cleaning_tables.load()
    assert not written.duplicated(cleaning.cleaning_tables.NAMES).any()
    np.testing.assert_array_equal(written.wrong, 1 / (3 + written.seed))


def test_cases_of_the_readme(tables, cells):
    rows = tables.all_cases(cells).reset_index()
    rows = rows[rows.optimizer == "sgd"].set_index(["data", "noise"])
    found = [line.replace("*", "") for line in page("README.md").splitlines()]
    for name, case in CASES.items():
        row = rows.loc[case]
        figures = [row["plain"], row["tau 1.5, rate of plain"], row["tau 1.5"]]
        expected = [name, *(figure.replace("*", "") for figure in figures)]
        assert f"| {' | '.join(expected)} |" in found


def test_gains_of_the_readme(tables, cells):
    own = tables.gains(cells).xs("clipped, own rate", level="method")
    above, below = own.above.sum(), own.below.sum()
    text = page("README.md")
    assert f"8 of {own.cases.sum()} cases" in text
    assert f"above the plain loss in {above} and below it in {below}" in text


def test_weight_decay_of_the_readme(tables):
    losses = tables.loss_tables
    rows = losses.instead_of_clipping(losses.load()).loc[WEIGHT_DECAY]
    rows, text = rows.map(lambda figure: figure.split(" ")[0]), page("README.md")
    first, *others = rows["larger weight decay"]
    alone = f'comes to {first} on CIFAR-10N "worse" and to {" and ".join(others)}'
    assert alone in text
    first, second, third = rows["LogitClip, larger weight decay"]
    assert f"Both together come to {first}, {second} and {third}." in text


def test_counts_of_the_page_on_tau(tables, cells):
    text = page("docs/choosing_tau.md")
    below = tables.below_best(cells)
    of_ten = below.index.get_level_values("classes") == 10
    assert f"{of_ten.sum()} of the {len(below)} cases have ten classes" in text
    row = tables.gains(cells).loc["sgd", "normalized, rate of plain"]
    assert f"not in {row.below} of the {row.cases} cases" in text
