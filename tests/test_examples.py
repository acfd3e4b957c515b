"""The examples and the README's code run under the current backend."""

import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.test_datasets import write_cifar

ROOT = Path(__file__).parents[1]
EXAMPLES = {
    "quickstart.py": (
        ["--epochs", "3", "--seeds", "2", "--output", "curves.png"],
        r"LogitClip, tau=1 .*±.*From its best to the last epochs.*curves\.png",
    ),
    "layer.py": (["--epochs", "2"], r"accuracy"),
    "custom_training_loop.py": (["--epochs", "2"], r"accuracy"),
}

pytestmark = pytest.mark.gradients


def run_example(name, arguments, folder):
    return subprocess.run(
        [sys.executable, ROOT / "examples" / name, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "300"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_run(name, tmp_path):
    arguments, expected = EXAMPLES[name]
    result = run_example(name, arguments, tmp_path)
    assert result.returncode == 0, result.stderr
    assert re.search(expected, result.stdout, re.DOTALL)
    if name == "quickstart.py":
        assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.once
def test_human_noise_runs(tmp_path):
    """On ten images in the format of CIFAR-10, half of them with wrong labels."""
    _, labels = write_cifar("cifar10", tmp_path / "cifar-10-batches-py")
    clean = labels[:10]
    contents = {"clean_label": clean, "worse_label": np.where(clean < 5, 5, clean)}
    (tmp_path / "human.pt").write_bytes(pickle.dumps(contents))
    arguments = ["--data-dir", ".", "--labels", "human.pt", "--epochs", "1"]
    result = run_example("human_noise.py", arguments, tmp_path)
    assert result.returncode == 0, result.stderr
    assert "kind='human, worse', asked_rate=None, rate=0.5" in result.stdout
    assert re.search("LogitClip, tau=1: test accuracy .* memorized", result.stdout)


@pytest.mark.once
@pytest.mark.parametrize(
    "arguments",
    [
        ["--epochs", "0"],
        ["--noise-rate", "1.5"],
        ["--tau", "0"],
        ["--weight-decay", "-1"],
    ],
    ids=str,
)
def test_quickstart_refuses_bad_arguments(arguments, tmp_path):
    result = run_example("quickstart.py", arguments, tmp_path)
    assert result.returncode != 0
    assert arguments[0].removeprefix("--") in result.stderr
    assert re.search("must be|expected", result.stderr)


def test_readme_code_runs():
    readme = (ROOT / "README.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    assert len(blocks) >= 3
    names = {}
    for block in blocks:
        exec(block, names)
    inputs, labels = np.zeros((4, 64)), np.arange(4)
    assert names["model"].fit(inputs, labels, verbose=0).history["loss"][0] > 0
