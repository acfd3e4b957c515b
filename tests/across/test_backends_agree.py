"""The three backends compute the same, each in a process of its own.

Every backend has to be installed; the current one does not matter.
"""

import os
import subprocess
import sys
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest

BACKENDS = ("tensorflow", "jax", "torch")
PAIRS = [(a, b) for a, b in permutations(BACKENDS, 2) if a < b]


def run_worker(backend, task, folder):
    subprocess.run(
        [sys.executable, "-m", "tests.across.worker", task, str(folder)],
        env={**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"},
        check=True,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("across")
    for task in ("compute", "predict"):
        for backend in BACKENDS:
            run_worker(backend, task, folder)
    return folder


def test_the_example_agrees():
    subprocess.run(
        [sys.executable, "examples/switch_backends.py", "--epochs", "1"],
        cwd=Path(__file__).parents[2],
        check=True,
    )


def load_pair(folder, pair):
    return [dict(np.load(folder / f"{backend}.npz")) for backend in pair]


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_losses_and_gradients(folder, pair):
    one, other = load_pair(folder, pair)
    names = [name for name in one if name.startswith(("loss ", "gradient "))]
    assert len(names) == 16
    for name in names:
        scale = np.abs(one[name]).max()
        np.testing.assert_allclose(
            other[name], one[name], rtol=0, atol=1e-6 * scale, err_msg=name
        )


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_ten_training_steps(folder, pair):
    one, other = load_pair(folder, pair)
    assert one["ten losses"][-1] != one["ten losses"][0]
    for name in (
        "ten losses",
        "weights 0 after ten steps",
        "weights 1 after ten steps",
    ):
        np.testing.assert_allclose(
            other[name], one[name], rtol=1e-4, atol=1e-4, err_msg=name
        )


@pytest.mark.parametrize(
    ("trained", "loaded"), list(permutations(BACKENDS, 2)), ids=str
)
def test_a_model_file_predicts_the_same_under_another_backend(folder, trained, loaded):
    own, foreign = (
        np.load(folder / f"{trained} predicted by {backend}.npy")
        for backend in (trained, loaded)
    )
    assert np.abs(own).max() > 0.1
    np.testing.assert_allclose(foreign, own, atol=1e-5, rtol=0)
