import re
import sys

import pytest

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


def test_the_module_runs():
    command = [sys.executable, "-m", "keras_logitclip", "tau"]
    command += ["--classes", "10", "--noise-rate", "0.4"]
    assert "tau = 2.469 is the smallest" in subprocesses.run_well(command)
