"""The examples and the README's code run under the current backend."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

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
