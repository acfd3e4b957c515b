"""Each block of code in documents and docstrings runs, and each command is parsed."""

import argparse
import ast
import pickle
import re
import runpy
import shlex
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_logitclip
from keras_logitclip import noise
from tests.data_files import cifar10n
from tests.data_files import write_cifar
from tests.subprocesses import ROOT
from tests.subprocesses import run_well

matplotlib = pytest.importorskip("matplotlib.pyplot").matplotlib
for package in ("cleanlab", "msgspec", "optuna", "pandas", "sklearn"):
    pytest.importorskip(package)

from keras_logitclip import study  # noqa: E402

pytestmark = pytest.mark.once

# Those of lists are indented: tests/test_contributing.py has them. What cannot run here
# says why in a comment above it.
REASON = r"(<!-- not run: [^\n]+ -->\n+)?"
BLOCK = re.compile(rf"^{REASON}^```(\w+)[^\n]*\n(.*?)^```$", re.M | re.S)
# In docstrings, what is below "Formula:" is for the eye.
EXAMPLE = re.compile(r"(?<!^Formula:)\n\n```python\n(.*?)^```$", re.M | re.S)
COMMANDS = re.compile(r"^    ((?:pip|python|keras-logitclip) (?:.*\\\n)*.*)$", re.M)
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
SCRIPTS = sorted([*ROOT.glob("examples/*.py"), *ROOT.glob("docs/**/*.py")])
LANGUAGES = {"python", "py", "sh", "toml"}
NOT_RUN = {"bibtex", "formula", "text"}


def blocks_of(path, *languages):
    """Returns the line and the code of each block, and whether it runs here."""
    text = path.read_text(encoding="utf-8")
    return [
        (text.count("\n", 0, match.start(3)), match[3], not match[1])
        for match in BLOCK.finditer(text)
        if match[2] in languages
    ]


def pages_with(*languages):
    pages = [path for path in PAGES if blocks_of(path, *languages)]
    names = [path.relative_to(ROOT).as_posix() for path in pages]
    return pytest.mark.parametrize("path", pages, ids=names)


def test_every_language_is_known():
    found = {name for path in PAGES for _, name, _ in BLOCK.findall(path.read_text())}
    assert LANGUAGES <= found <= LANGUAGES | NOT_RUN


# Python.

CLASSES = 10
CLEAN = np.arange(200) % CLASSES
NOISY = noise.symmetric(CLEAN, 0.2, CLASSES, exact=True, seed=0)
# Whose first numbers are the class, so that a few steps are enough.
X = np.random.default_rng(0).normal(0, 0.3, (200, 64)).astype("float32")
X[:, :CLASSES] += np.eye(CLASSES)[CLEAN]
LOGITS = 5 * X[:, :CLASSES]
DATA = {
    "x_train": X,
    "y_train": NOISY.labels,
    "noisy": NOISY,
    "noisy_labels": NOISY.labels,
    "x_clean": X,
    "y_clean": CLEAN,
    "x_test": X,
    "y_test": CLEAN,
}
STUDY = """
epochs = 1
data.name = "data.npz"
model = { name = "mlp", width = 4 }
optimizer = { name = "sgd", learning_rate = 0.1 }
noise = [{ kind = "clean" }]
methods = [{ losses = ["CE"], taus = [1.0] }]
"""


def build_model():
    """Stands for the reader's own, and takes any input."""
    outputs = keras.layers.Dense(CLASSES, kernel_initializer="identity")
    return keras.Sequential([keras.layers.Flatten(), outputs])


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """The records of a study of two cells."""
    folder = tmp_path_factory.mktemp("study")
    write_data(folder)
    (folder / "small.toml").write_text(STUDY)
    small = study.load(folder / "small.toml")
    return study.run(small, results=folder, data_dir=folder, verbose=False)


def write_data(folder):
    parts = ("x_train", "y_train", "x_test", "y_test")
    np.savez(folder / "data.npz", **{name: DATA[name] for name in parts})


def names_of_readers(records):
    """Returns what the blocks take from the reader, except the data."""
    model = build_model()
    cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", cross_entropy)
    package = {name: getattr(keras_logitclip, name) for name in dir(keras_logitclip)}
    return {
        **package,
        "build_model": build_model,
        "held_out": LOGITS,
        "images": X.reshape(-1, 8, 8),
        "keras": keras,
        "logits": LOGITS,
        "model": model,
        "np": np,
        "records": records,
        "write_report": study.write_report,
    }


@pytest.fixture
def reader(records, tmp_path, monkeypatch):
    """Gives the reader's names, in a folder with the reader's files."""
    matplotlib.use("Agg")
    monkeypatch.chdir(tmp_path)
    write_data(tmp_path)
    write_cifar("cifar10", tmp_path / "data" / "cifar-10-batches-py")
    Path("CIFAR-10_human.pt").write_bytes(pickle.dumps(cifar10n()))
    for name in ("fashion.toml", "my_study.toml"):
        Path(name).write_text(STUDY)
    yield names_of_readers(records)
    matplotlib.pyplot.close("all")


def run_block(code, names, path, line=0):
    """Runs a block on small data, of few epochs; errors have its place in the file."""
    code = re.sub(r"\bepochs=\d+", "epochs=2", code)
    names |= DATA  # Also where a block before made larger data of the same names.
    exec(compile("\n" * line + code, str(path), "exec"), names)


@pages_with("python", "py")
def test_python_runs(path, reader):
    for line, code, runs in blocks_of(path, "python", "py"):
        if runs:
            run_block(code, reader, path, line)
        else:
            compile(code, str(path), "exec")


def examples_of(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            for code in EXAMPLE.findall(ast.get_docstring(node) or ""):
                yield pytest.param(path, code, id=f"{path.stem}.{node.name}")


MODULES = sorted(ROOT.glob("keras_logitclip/**/*.py"))
EXAMPLES = [example for path in MODULES for example in examples_of(path)]


@pytest.mark.parametrize(("path", "code"), EXAMPLES)
def test_docstrings_run(path, code, reader):
    run_block(code, reader, path)


# TOML and commands.


@pages_with("toml")
def test_toml_is_a_study(path, tmp_path):
    for _, code, _ in blocks_of(path, "toml"):
        if "methods" in tomllib.loads(code):
            (tmp_path / "study.toml").write_text(code)
            study.load(tmp_path / "study.toml")


class Parsed(Exception):
    """Arguments were accepted."""


@pytest.fixture
def parse_only(monkeypatch):
    """Ends each program that takes arguments as soon as it has parsed them."""
    parse = argparse.ArgumentParser.parse_args

    def parse_args(parser, arguments=None, namespace=None):
        parse(parser, arguments, namespace)
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_args)

    def run(run_it, name, arguments):
        monkeypatch.syspath_prepend(Path(name).parent)
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        with pytest.raises(Parsed):
            run_it(name, run_name="__main__")

    return run


EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
    "optional-dependencies"
]


def check(command, parse_only):
    """Checks that what a command names is there, and that it takes the arguments."""
    words = shlex.split(command, comments=True)
    while words and re.match(r"\w+=", words[0]):
        del words[0]  # A variable of the environment.
    if words and words[0].endswith("python"):
        words[0] = "python"
    match words:
        case ["pip", _, *packages]:
            extras = re.findall(r"\[([\w,]+)\]", " ".join(packages))
            assert {*",".join(extras).split(",")} <= {*EXTRAS, ""}
        case ["make", *targets]:
            run_well(["make", "--dry-run", *targets], cwd=ROOT)
        case ["keras-logitclip", *arguments]:
            parse_only(runpy.run_module, "keras_logitclip", arguments)
        case ["python", "-m", module, *arguments]:
            assert find_spec(module)
            if module.partition(".")[0] in ("keras_logitclip", "benchmarks", "tests"):
                parse_only(runpy.run_module, module, arguments)
        case ["python", script, *arguments] if "/" in script:
            if "parse_args" in (ROOT / script).read_text():
                parse_only(runpy.run_path, str(ROOT / script), arguments)
        case ["python", _]:
            pass  # The reader's own.
        case ["cd" | "export" | "git" | "mkdir" | "tar", *_] | []:
            pass
        case _:
            raise AssertionError(f"Not a command that this test knows: {command}")


def check_all(commands, parse_only):
    for command in commands.replace("\\\n", " ").splitlines():
        check(command, parse_only)


@pages_with("sh")
def test_commands_are_parsed(path, parse_only):
    for _, commands, _ in blocks_of(path, "sh"):
        check_all(commands, parse_only)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_commands_of_scripts_are_parsed(path, parse_only):
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    check_all("\n".join(COMMANDS.findall(docstring)), parse_only)
