"""The example that finds wrong labels with cleanlab."""

import importlib
import re
import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest

from keras_logitclip import noise

pytest.importorskip("cleanlab")
pytest.importorskip("sklearn")
sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))

import find_label_errors

IN_WORST = {
    # The quality of each label, whether it is wrong, and what is counted.
    "all": ([0.9, 0.1, 0.5, 0.2, 0.8], [0, 1, 0, 1, 0], 2),
    "some": ([0.9, 0.1, 0.5, 0.2, 0.8], [0, 1, 0, 0, 1], 1),
    "none": ([0.1, 0.9, 0.2, 0.8], [0, 1, 0, 1], 0),
    "the-first-of-equals": ([0.5, 0.5, 0.5, 0.9], [1, 0, 1, 0], 1),
    "all-wrong": ([0.5, 0.1], [1, 1], 2),
    "no-wrong-label": ([0.5, 0.1], [0, 0], 0),
}


@pytest.mark.once
@pytest.mark.parametrize(
    ("quality", "wrong", "expected"), IN_WORST.values(), ids=IN_WORST
)
def test_count_in_worst(quality, wrong, expected):
    counted = find_label_errors.count_in_worst(np.array(quality), np.array(wrong, bool))
    assert counted == expected


@pytest.mark.once
def test_find_with_perfect_predictions():
    noisy = noise.symmetric(np.arange(300) % 3, 0.2, 3, exact=True, seed=0)
    found = find_label_errors.find(noisy, 0.05 + 0.85 * np.eye(3)[noisy.clean])
    assert found == (60, 60, 60, 60)
    np.testing.assert_array_equal(found.percentages, 100)


@pytest.mark.once
def test_percentages():
    found = find_label_errors.Found(wrong=50, in_worst=40, reported=20, rightly=15)
    assert found.percentages.tolist() == [80, 75, 30]
    nothing = find_label_errors.Found(wrong=50, in_worst=40, reported=0, rightly=0)
    np.testing.assert_array_equal(nothing.percentages, [80, np.nan, 0])


@pytest.mark.parametrize(
    ("tau", "logits"),
    [(1.0, [[0.6, 0.8], [0.3, 0.4]]), (np.inf, [[6, 8], [0.3, 0.4]])],
    ids=("clipped", "plain"),
)
def test_probabilities_are_of_clipped_logits(tau, logits):
    raw = np.array([[6, 8], [0.3, 0.4]], "float32")
    exponentials = np.exp(logits)
    np.testing.assert_allclose(
        find_label_errors.predict_probabilities(raw, tau),
        exponentials / exponentials.sum(-1, keepdims=True),
        rtol=1e-6,
    )


ASYMMETRIC = Namespace(
    data="digits", data_dir=None, samples=200, noise="asymmetric", noise_rate=0.5
)
FOUND = re.compile(
    r"^(cross-entropy|LogitClip, tau=0\.5), fold 1 2: (\d+) of (\d+) wrong labels "
    r"among the \3 of the lowest quality; cleanlab reports (\d+), (\d+) of them",
    re.MULTILINE,
)


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["find_label_errors.py", *arguments])
    find_label_errors.main()


@pytest.mark.gradients
@pytest.mark.parametrize("seeds", [1, pytest.param(2, marks=pytest.mark.once)])
def test_what_is_printed(seeds, monkeypatch, capsys):
    arguments = ["--samples", "200", "--noise", "asymmetric", "--noise-rate", "0.5"]
    arguments += ["--tau", "0.5", "--epochs", "6", "--folds", "2"]
    run(monkeypatch, *arguments, "--seeds", str(seeds))
    printed = capsys.readouterr().out
    runs = [(name, *map(int, counts)) for name, *counts in FOUND.findall(printed)]
    names = [name for name, *_ in runs]
    assert names == seeds * ["cross-entropy", "LogitClip, tau=0.5"]

    _, labels = find_label_errors.load(ASYMMETRIC)
    assert len(labels) == 200
    for (_, in_worst, wrong, reported, rightly), seed in zip(
        runs, np.repeat(np.arange(seeds), 2).tolist(), strict=True
    ):
        noisy = find_label_errors.make_wrong(labels, ASYMMETRIC, seed)
        assert repr(noisy) in printed
        assert wrong == noisy.flipped.sum() > 0
        assert 0 < in_worst <= wrong
        assert 0 <= rightly <= min(reported, wrong)

    for name in names[:2]:
        shares = [
            (in_worst / wrong, rightly / reported, rightly / wrong)
            for other, in_worst, wrong, reported, rightly in runs
            if other == name
        ]
        cells = (
            f"{100 * np.mean(values):.1f} ± {100 * np.std(values):.1f}"
            for values in zip(*shares, strict=True)
        )
        assert f"| {name} | {' | '.join(cells)} |" in printed


@pytest.mark.once
@pytest.mark.parametrize(
    "arguments",
    [["--seeds", "0"], ["--folds", "1"], ["--noise-rate", "0"], ["--data", "cifar"]],
    ids=str,
)
def test_bad_arguments_are_refused(arguments, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        run(monkeypatch, *arguments)
    message = capsys.readouterr().err
    assert arguments[0] in message
    assert re.search("must be|invalid choice", message)


@pytest.mark.once
def test_no_wrong_label_is_an_error(monkeypatch):
    with pytest.raises(SystemExit, match="nothing to find"):
        run(monkeypatch, "--samples", "50", "--noise-rate", "1e-9")


@pytest.mark.once
def test_without_cleanlab(monkeypatch):
    monkeypatch.setitem(sys.modules, "cleanlab.filter", None)
    monkeypatch.delitem(sys.modules, "find_label_errors")
    with pytest.raises(ImportError, match="needs cleanlab.*pip install cleanlab"):
        importlib.import_module("find_label_errors")
