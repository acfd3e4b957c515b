"""The commands of the benchmarks."""

import csv
import sys

import pytest

from tests.running import BACKEND
from tests.subprocesses import run_well

# One that needs no compiler.
MODE = {"tensorflow": "graph", "jax": "jit", "torch": "eager"}.get(BACKEND)


def run(*arguments, script="clipped_cross_entropy"):
    return run_well([sys.executable, "-m", f"benchmarks.{script}", *arguments])


@pytest.mark.gradients
def test_every_candidate_is_measured_and_reported(tmp_path):
    path = tmp_path / "results.csv"
    options = ["--shapes", "8x100", "--modes", MODE, "--rounds", "3", "--no-memory"]
    run(*options, "--csv", path)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    candidates = ["keras", "native", "loss", "normalized", "clip", "formula"]
    assert [row["candidate"] for row in rows] == 2 * candidates  # Of two dtypes.
    assert {row["backend"] for row in rows} == {BACKEND}
    assert all(float(row["median_ms"]) > 0 for row in rows)
    report = run("--report", "--csv", path)
    assert report.count(f"| {BACKEND}, {MODE} | loss |") == 2


@pytest.mark.gradients
def test_a_training_step_is_measured_and_reported(tmp_path):
    path = tmp_path / "results.csv"
    report = run("--rounds", "1", "--csv", path, script="fit_step")
    assert f"| {BACKEND} | " in report
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["candidate"] for row in rows] == ["keras", "loss"]
    assert run("--report", "--csv", path, script="fit_step") == report
