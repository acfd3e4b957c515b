import re
import sys
import tomllib
from importlib.metadata import EntryPoint

import keras
import numpy as np
import pytest

from keras_logitclip import LogitClipLoss
from keras_logitclip import __version__
from keras_logitclip import bounds
from keras_logitclip.__main__ import PAPER_GRID
from keras_logitclip.__main__ import main
from tests import subprocesses

pytestmark = pytest.mark.once


def test_tau_prints_the_threshold_of_the_noise_rate_and_the_grid_of_the_paper(capsys):
    main(["tau", "--classes", "10", "--noise-rate", "0.4"])
    lines = capsys.readouterr().out.splitlines()
    suggested = bounds.tau_for_noise_rate(0.4, 10)
    assert lines[1].startswith(f"tau = {suggested:.4g} is the smallest")
    rows = [[float(cell) for cell in line.split()] for line in lines[5:-2]]
    taus = [suggested, *(1 / inverse for inverse in PAPER_GRID)]
    assert len(rows) == len(taus)
    for row, tau in zip(rows, taus, strict=True):
        expected = [
            tau,
            1 / tau,
            bounds.max_probability(tau, 10),
            *bounds.cross_entropy_bounds(tau, 10),
            bounds.excess_risk_bound(tau, 10, 0.4),
        ]
        assert row == pytest.approx(expected, rel=1e-3)
    assert len({len(line) for line in lines[4:-2]}) == 1


def test_tau_for_another_order_and_without_noise(capsys):
    main(["tau", "--classes", "1000000", "--noise-rate", "0", "--p", "inf"])
    lines = capsys.readouterr().out.splitlines()
    assert "norm of order inf" in lines[0]
    assert lines[1].startswith("tau = inf is")
    assert lines[5].split() == ["inf", "0", "1", "0", "inf", "0"]


BAD = {
    "noise": (
        "10",
        "0.9",
        "2",
        "`noise_rate`: expected .* noise_rate=0.9 .*",
    ),
    "classes": ("1", "0.4", "2", "`num_classes`: expected .* num_classes=1 .*"),
    "p": ("10", "0.4", "0.5", "`p`: expected .* p=0.5 .*"),
}


@pytest.mark.parametrize(("classes", "rate", "p", "message"), BAD.values(), ids=BAD)
def test_bad_values_are_errors_of_one_line(classes, rate, p, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["tau", "--classes", classes, "--noise-rate", rate, "--p", p])
    assert stopped.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    prefix = "python -m keras_logitclip: error: Invalid value for argument "
    assert re.fullmatch(prefix + message, line)


@pytest.mark.parametrize("arguments", [[], ["tau"], ["tau", "--classes", "many"]])
def test_incomplete_commands_show_the_usage(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert capsys.readouterr().err.startswith("usage: python -m keras_logitclip")


def test_the_version(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--version"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out == f"keras-logitclip {__version__}\n"


def test_the_console_script_is_the_module():
    project = tomllib.loads((subprocesses.ROOT / "pyproject.toml").read_text())
    script = project["project"]["scripts"]["keras-logitclip"]
    assert EntryPoint("keras-logitclip", script, "console_scripts").load() is main


def test_the_module_runs():
    command = [sys.executable, "-m", "keras_logitclip", "tau"]
    command += ["--classes", "10", "--noise-rate", "0.4"]
    assert "tau = 2.469 is the smallest" in subprocesses.run_well(command)


@pytest.fixture
def files(tmp_path):
    """A model file, and a file of arrays, some of which are wrong."""
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile("sgd", LogitClipLoss("sparse_categorical_crossentropy", tau=1.5))
    model.save(tmp_path / "model.keras")
    y = np.arange(20) % 2
    x = np.random.default_rng(0).normal(size=(20, 3))
    names = y.astype(str).astype(object)
    np.savez(tmp_path / "data.npz", x=x, y=y, inputs=x, from_one=1 + y, names=names)
    return [str(tmp_path / name) for name in ("model.keras", "data.npz")]


def test_check_prints_the_report(files, capsys):
    main(["check", *files, "--x", "inputs", "--samples", "7"])
    printed = capsys.readouterr().out
    assert printed.startswith("7 samples: class ids from 0 to 1, outputs of shape (7, ")
    assert "clipped at tau = 1.5" in printed
    assert printed.endswith("Nothing wrong was found.\n")


def test_check_fails_where_something_is_wrong(files, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["check", *files, "--y", "from_one"])
    assert stopped.value.code == 1
    assert "begin at 0: `y - 1`" in capsys.readouterr().out


BAD_FILES = {
    "no-array": (["{0}", "{1}", "--y", "labels"], "with 'x' and 'labels' in it"),
    "objects": (["{0}", "{1}", "--y", "names"], "no objects.*allow_pickle=False"),
    "no-arrays": (["{0}", "{0}"], "Expected a file of arrays.*model.keras"),
    "no-model": (["{1}", "{1}"], "Expected a model file.*data.npz"),
    "missing-data": (["{0}", "none.npz"], "No such file.*none.npz"),
    "missing-model": (["none.keras", "{1}"], "Expected a model file.*none.keras"),
    "samples": (["{0}", "{1}", "--samples", "0"], "`samples`.*at least 1"),
}


@pytest.mark.parametrize(("options", "message"), BAD_FILES.values(), ids=BAD_FILES)
def test_check_explains_files_that_are_none(options, message, files, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["check", *(option.format(*files) for option in options)])
    assert stopped.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert re.search(f"error: .*{message}", captured.err, re.DOTALL)


def test_check_runs_no_code_of_a_model_file(tmp_path, files, capsys):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Lambda(lambda x: x)])
    model.save(tmp_path / "lambda.keras")
    with pytest.raises(SystemExit) as stopped:
        main(["check", str(tmp_path / "lambda.keras"), files[1]])
    assert stopped.value.code == 2
    assert "safe_mode" in capsys.readouterr().err
