"""The package as a whole: modules, names and docstrings."""

import doctest
import importlib.util
import json
import pkgutil
import re
import sys

import pytest

import keras_logitclip
from tests import subprocesses

MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(
        keras_logitclip.__path__, prefix="keras_logitclip."
    )
)
BACKENDS = ("tensorflow", "jax", "torch")
# Modules that compute with NumPy, or that have other tests on each backend.
OF_NO_BACKEND = re.compile(
    r"keras_logitclip\.(bounds|calibration|cleaning|datasets|noise|study|tuning)\b"
)


def run_python(code, **environment):
    return subprocesses.run(
        [sys.executable, "-c", code],
        env=subprocesses.environment(**environment),
    )


def test_every_module_imports():
    failed = {}
    for name in MODULES:
        try:
            importlib.import_module(name)
        except Exception as error:
            failed[name] = repr(error)
    assert not failed
    assert "keras_logitclip.ops" in MODULES


PUBLIC = ["keras_logitclip"] + [
    name
    for name in MODULES
    if name.count(".") == 1 and not name.partition(".")[2].startswith("_")
]


@pytest.mark.once
@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_are_all_that_a_module_shows(name):
    module = importlib.import_module(name)
    lazy = getattr(module, "_LAZY", ())
    assert dir(module) == sorted([*module.__all__, *lazy])
    for public in dir(module):
        assert hasattr(module, public)


@pytest.mark.once
def test_modules_have_public_names():
    assert {"keras_logitclip.losses", "keras_logitclip.ops"} <= {*PUBLIC}


def has_examples(name):
    return ">>> " in importlib.util.find_spec(name).loader.get_source(name)


def once_if_of_no_backend(name):
    marks = pytest.mark.once if OF_NO_BACKEND.match(name) else ()
    return pytest.param(name, marks=marks)


EXAMPLES = filter(has_examples, ["keras_logitclip", *MODULES])


@pytest.mark.gradients
@pytest.mark.parametrize("name", [*map(once_if_of_no_backend, EXAMPLES)])
def test_docstring_examples(name):
    results = doctest.testmod(importlib.import_module(name))
    assert results.attempted > 0
    assert results.failed == 0


@pytest.mark.once
def test_public_objects_have_examples():
    for public in (
        keras_logitclip.LogitClip,
        keras_logitclip.LogitClipLoss,
        keras_logitclip.ops.logit_clip,
        keras_logitclip.ops.logit_norm,
    ):
        for section in ("Formula:", "Args:", "Raises:", "Example:", ">>> "):
            assert section in public.__doc__


def test_the_import_adds_no_package():
    """The import loads only Keras, no other backend and no packages of extras."""
    code = (
        "import sys, keras; before = set(sys.modules); import keras_logitclip; "
        "print(*{name.split('.')[0] for name in set(sys.modules) - before})"
    )
    result = run_python(code)
    assert result.stdout.split() == ["keras_logitclip"], result.stderr


@pytest.mark.once
@pytest.mark.parametrize("name", keras_logitclip._LAZY)
def test_a_lazy_module_is_imported_when_it_is_used(name):
    code = (
        "import sys; from keras_logitclip import *; import keras_logitclip; "
        f"name = 'keras_logitclip.{name}'; print(name in sys.modules); "
        f"print(keras_logitclip.{name} is sys.modules[name]); "
        f"print('{name}' in dir(keras_logitclip))"
    )
    result = run_python(code)
    assert result.stdout.split() == ["False", "True", "True"], result.stderr


@pytest.mark.once
def test_a_missing_extra_and_an_unknown_attribute_are_told():
    code = (
        "import sys; sys.modules['msgspec'] = None; "
        "import keras_logitclip; keras_logitclip.study"
    )
    message = run_python(code).stderr.strip().splitlines()[-1]
    assert message.startswith("ImportError: Studies need msgspec")
    with pytest.raises(AttributeError, match="has no attribute 'studies'"):
        keras_logitclip.studies  # noqa: B018


@pytest.mark.once
@pytest.mark.parametrize("missing", BACKENDS)
def test_a_missing_backend_is_explained(missing):
    code = f"import sys; sys.modules[{missing!r}] = None; import keras_logitclip"
    result = run_python(code, backend=missing)
    assert result.returncode != 0
    message = result.stderr.strip().splitlines()[-1]
    assert message.startswith("ImportError: Keras is configured for the backend")
    others = ", ".join(name for name in BACKENDS if name != missing)
    assert f"Received: KERAS_BACKEND={missing}, installed: {others}" in message
    for install in ("tensorflow", "jax", "torch"):
        assert f"`pip install {install}`" in message


@pytest.mark.once
@pytest.mark.parametrize("configured", [None, "tensorflow", "numpy"])
def test_the_only_backend_that_is_installed_is_taken(configured, tmp_path):
    """Unless Keras is set to another one than TensorFlow, which it writes itself."""
    if configured:
        contents = json.dumps({"backend": configured})
        (tmp_path / "keras.json").write_text(contents)
    code = (
        "from importlib.machinery import PathFinder; find = PathFinder.find_spec; "
        "PathFinder.find_spec = lambda name, *others: "
        "None if name in ('tensorflow', 'torch') else find(name, *others); "
        "import keras_logitclip, keras; print(keras.config.backend())"
    )
    result = run_python(code, KERAS_BACKEND="", KERAS_HOME=str(tmp_path))
    assert result.stdout.split() == ["numpy" if configured == "numpy" else "jax"], (
        result.stderr
    )


@pytest.mark.once
def test_another_missing_module_is_left_alone():
    result = run_python(
        "import sys; sys.modules['keras'] = None; import keras_logitclip"
    )
    assert result.returncode != 0
    message = result.stderr.strip().splitlines()[-1]
    assert message.startswith("ModuleNotFoundError: import of keras halted")
