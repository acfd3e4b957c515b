import sys

import pytest

from tests.subprocesses import ROOT
from tests.subprocesses import environment
from tests.subprocesses import run_well

# The tutorials are trained, unless that was done for the same source.
SECONDS = 900


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """The folder of the documentation, built as a site."""
    pytest.importorskip("mkdocstrings")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir"]
    variables = environment(NO_MKDOCS_2_WARNING="1")
    run_well([*command, folder], limit=SECONDS, cwd=ROOT, env=variables)
    return folder
