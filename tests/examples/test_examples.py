"""The examples."""

import pickle
import re
import sys
from collections import namedtuple

import numpy as np
import pytest

from tests.running import BACKEND
from tests.subprocesses import ROOT
from tests.subprocesses import environment
from tests.subprocesses import run_well
from tests.test_datasets import write_cifar

pytestmark = pytest.mark.gradients

Example = namedtuple("Example", "name options expected")
QUICKSTART = Example(
    "quickstart.py",
    ["--epochs", "3", "--seeds", "2", "--output", "curves.png"],
    r"LogitClip, tau=1.5, rate 0.03 .*±.*From its best to the last epochs.*curves\.png",
)
LAYER = Example("layer.py", ["--epochs", "2"], "Test accuracy: .* saving and loading")
LOOP = Example(
    "custom_training_loop.py",
    ["--epochs", "2"],
    f"with a loop for {BACKEND} .*epoch 2: loss .*test accuracy: ",
)


def run_as_a_user(name, options, folder):
    """Runs an example in its own process, which spends most of its time on imports."""
    command = [sys.executable, ROOT / "examples" / name, *options]
    return run_well(command, cwd=folder, env=environment(COLUMNS="300"))


def test_quickstart_runs(tmp_path):
    printed = run_as_a_user(QUICKSTART.name, QUICKSTART.options, tmp_path)
    assert re.search(QUICKSTART.expected, printed, re.DOTALL)
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("example", [LAYER, LOOP], ids=lambda case: case.name)
def test_examples_run(example, run_here):
    printed = run_here(example.name, example.options)
    assert re.search(example.expected, printed, re.DOTALL)


@pytest.mark.once
@pytest.mark.parametrize("example", [LAYER, LOOP], ids=lambda case: case.name)
def test_examples_run_as_a_user_runs_them(example, tmp_path):
    printed = run_as_a_user(example.name, example.options, tmp_path)
    assert re.search(example.expected, printed, re.DOTALL)


@pytest.mark.once
def test_human_noise_runs(tmp_path):
    """On ten images in the format of CIFAR-10, half of them with wrong labels."""
    _, labels = write_cifar("cifar10", tmp_path / "cifar-10-batches-py")
    clean = labels[:10]
    contents = {"clean_label": clean, "worse_label": np.where(clean < 5, 5, clean)}
    (tmp_path / "human.pt").write_bytes(pickle.dumps(contents))
    options = ["--data-dir", ".", "--labels", "human.pt", "--epochs", "1"]
    printed = run_as_a_user("human_noise.py", options, tmp_path)
    assert "kind='human, worse', asked_rate=None, rate=0.5" in printed
    assert re.search("LogitClip, tau=1: test accuracy .* memorized", printed)


REFUSED = {
    "epochs": "0",
    "noise-rate": "1.5",
    "learning-rates": "0 1",
    "tau": "0",
    "weight-decay": "-1",
}


@pytest.mark.once
@pytest.mark.parametrize(("name", "value"), REFUSED.items())
def test_quickstart_refuses_bad_arguments(name, value, run_here, capsys):
    with pytest.raises((SystemExit, ValueError)) as refused:
        run_here("quickstart.py", [f"--{name}", *value.split()])
    assert getattr(refused.value, "code", 1) != 0
    message = f"{refused.value} {capsys.readouterr().err}"
    assert name in message
    assert re.search("must be|expected", message)
