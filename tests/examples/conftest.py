import runpy
import sys

import pytest

from tests.subprocesses import ROOT


@pytest.fixture
def run_here(monkeypatch, tmp_path, capsys):
    """Runs an example in the process of the tests, and returns what it prints."""
    folder = ROOT / "examples"
    monkeypatch.syspath_prepend(folder)
    monkeypatch.chdir(tmp_path)

    def run(name, options):
        monkeypatch.setattr(sys, "argv", [name, *options])
        runpy.run_path(str(folder / name), run_name="__main__")
        return capsys.readouterr().out

    return run
