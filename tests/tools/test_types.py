"""Type checkers accept the code of users: a script, the README, and docstrings."""

import ast
import doctest
import json
import re
import sys
from pathlib import Path

import pytest

from tests.subprocesses import ROOT
from tests.subprocesses import run

pytest.importorskip("mypy")
pytest.importorskip("basedpyright")

pytestmark = pytest.mark.once

# What Pyright says of Keras's own functions, whose types it infers from their defaults.
OF_KERAS = re.compile('in function "fit"|OpenVINOKerasTensor')
DOCUMENTED = ast.Module | ast.ClassDef | ast.FunctionDef


def examples_in(path):
    """The code of each docstring in a file that is an example, by its line."""
    for node in ast.walk(ast.parse(path.read_text())):
        text = isinstance(node, DOCUMENTED) and ast.get_docstring(node)
        examples = doctest.DocTestParser().get_examples(text or "")
        if examples:
            name = f"{path.stem}_{getattr(node, 'lineno', 0)}.py"
            yield name, "".join(example.source for example in examples)


# What the README takes from its reader.
OF_THE_READER = """\
from typing import Any
x_train: Any = ...
noisy_labels: Any = ...
build_model: Any = ...
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Returns a folder with only the checked files."""
    folder = tmp_path_factory.mktemp("typed")
    script = Path(__file__).with_name("typed_script.py").read_text()
    readme = (ROOT / "README.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    blocks.insert(0, OF_THE_READER)
    sources = {"script.py": script, "readme.py": "\n".join(blocks)}
    for path in (ROOT / "keras_logitclip").rglob("*.py"):
        sources |= examples_in(path)
    assert len(sources) > 50
    for name, source in sources.items():
        (folder / name).write_text(source)
    return folder


def check_with_mypy(folder):
    """Returns the errors of mypy, to which Keras is of any type."""
    command = ["mypy", "--strict", "--follow-imports", "silent"]
    command += ["--ignore-missing-imports", "--cache-dir", folder / "cache"]
    files = sorted(folder.glob("*.py"))
    ended = run([sys.executable, "-m", *command, *files], cwd=ROOT)
    assert not ended.stderr
    return [line for line in ended.stdout.splitlines() if ": error: " in line]


def check_with_pyright(folder):
    """Returns the errors of Pyright, as what comes with its own Node.js finds them."""
    settings = {
        "include": ["."],
        "extraPaths": [str(ROOT)],
        "typeCheckingMode": "standard",
    }
    (folder / "pyrightconfig.json").write_text(json.dumps(settings))
    command = ["basedpyright", "--pythonpath", sys.executable, "--outputjson"]
    ended = run([sys.executable, "-m", *command, "--project", folder])
    assert not ended.stderr
    found = json.loads(ended.stdout)["generalDiagnostics"]
    errors = [f"{x['file']}: {x['message']}" for x in found if x["severity"] == "error"]
    return [error for error in errors if not OF_KERAS.search(error)]


CHECKERS = {"mypy": check_with_mypy, "pyright": check_with_pyright}
checkers = pytest.mark.parametrize("check", CHECKERS.values(), ids=CHECKERS)


@checkers
def test_the_code_of_users_has_no_errors(check, folder):
    assert check(folder) == []


WRONG = """\
from keras_logitclip import bounds, noise, study
bounds.max_probability("1", 10)
noise.symmetric([0, 1], 0.4, seed="0")
noise.pair_flips
study.loads
"""


@checkers
def test_mistakes_are_found(check, tmp_path):
    """So that the types are there, and not all of them `Any`."""
    (tmp_path / "wrong.py").write_text(WRONG)
    errors = check(tmp_path)
    assert len(errors) == 4, errors
