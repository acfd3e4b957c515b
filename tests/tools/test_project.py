"""What the project's files say of each other: versions, commands, supported Pythons."""

import re
import tomllib

import pytest

import keras_logitclip
from tests.subprocesses import ROOT
from tests.subprocesses import run_well

yaml = pytest.importorskip("yaml")

pytestmark = pytest.mark.once


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


def make(*arguments):
    return run_well(["make", *arguments], cwd=ROOT)


def test_the_version_is_the_same_everywhere():
    version = keras_logitclip.__version__
    assert yaml.safe_load(read("CITATION.cff"))["version"] == version
    heading = r"^## \[(.+?)\] - (?:Unreleased|\d{4}-\d\d-\d\d)$"
    assert re.findall(heading, read("CHANGELOG.md"), re.M)[0] == version


@pytest.fixture
def ci():
    """The matrix of the public CI: its targets and its Pythons."""
    (job,) = yaml.safe_load(read(".github/workflows/tests.yml"))["jobs"].values()
    assert job["steps"][-1] == {"run": "make ${{ matrix.target }}"}
    matrix = job["strategy"]["matrix"]
    added = matrix.pop("include")
    return {key: {*matrix[key], *(one[key] for one in added)} for key in matrix}


def test_the_public_ci_runs_all_tests(ci):
    make("--dry-run", *ci["target"])
    tests = make("--dry-run", "test", "test-groups")
    assert {*re.findall(r"test-\w+", tests)} <= ci["target"]


def test_the_public_ci_runs_the_pythons_that_are_declared(ci):
    project = tomllib.loads(read("pyproject.toml"))["project"]
    declared = re.findall(r":: (3\.\d+)$", "\n".join(project["classifiers"]), re.M)
    assert ci["python"] == {*declared}
    assert project["requires-python"] == f">={declared[0]}"


def test_the_help_of_make_names_targets_that_exist():
    names = re.findall(r"^make ([\w-]+)", make("help"), re.M)
    assert {"test", "release", "docs", "lint"} <= {*names}
    make("--dry-run", *names)
