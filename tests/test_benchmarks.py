import csv
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import BACKEND

ROOT = Path(__file__).parents[1]
# One that needs no compiler.
MODE = {"tensorflow": "graph", "jax": "jit", "torch": "eager"}.get(BACKEND)


def run(*arguments, script="clipped_cross_entropy"):
    return subprocess.run(
        [sys.executable, "-m", f"benchmarks.{script}", *arguments],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout


@pytest.mark.gradients
def test_every_candidate_is_measured_and_reported(tmp_path):
    path = tmp_path / "results.csv"
    options = ["--shapes", "8x100", "--modes", MODE, "--rounds", "3", "--no-memory"]
    run(*options, "--csv", str(path))
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    candidates = ["keras", "native", "fused", "clip", "formula"]
    assert [row["candidate"] for row in rows] == 2 * candidates  # Of two dtypes.
    assert {row["backend"] for row in rows} == {BACKEND}
    assert all(float(row["median_ms"]) > 0 for row in rows)
    report = run("--report", "--csv", str(path))
    assert report.count(f"| {BACKEND}, {MODE} | fused |") == 2


def test_the_page_on_tau_has_the_tables_of_its_results():
    page = (ROOT / "docs/choosing_tau.md").read_text()
    lines = run("--report", script="choosing_tau").strip().splitlines()
    assert len(lines) > 60
    assert [line for line in lines if line not in page] == []
