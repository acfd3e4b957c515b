"""The three backends compute the same, each in its own process.

Every backend has to be installed; the current one does not matter.
"""

import sys
from itertools import permutations

import numpy as np
import pytest

from tests.subprocesses import ROOT
from tests.subprocesses import environment
from tests.subprocesses import run_together
from tests.subprocesses import run_well

pytestmark = pytest.mark.timeout(600)

BACKENDS = ("tensorflow", "jax", "torch")
PAIRS = [(a, b) for a, b in permutations(BACKENDS, 2) if a < b]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("backends")
    worker = ("-m", "tests.distribution.worker", str(folder), *BACKENDS)
    run_together(3 * [worker], [*map(environment, BACKENDS)], folder)
    return folder


def test_the_example_agrees():
    command = [sys.executable, "examples/switch_backends.py", "--epochs", "1"]
    printed = run_well(command, cwd=ROOT)
    for backend in BACKENDS:
        assert f"{backend}: " in printed
    assert "Largest difference of the predictions between backends" in printed


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
