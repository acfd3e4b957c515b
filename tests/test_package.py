import doctest
import importlib
import os
import pkgutil
import re
import subprocess
import sys

import pytest

import keras_logitclip

MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(
        keras_logitclip.__path__, prefix="keras_logitclip."
    )
)
BACKENDS = ("tensorflow", "jax", "torch")


OF_NO_BACKEND = re.compile(r"keras_logitclip\.(bounds|datasets|noise|study|tuning)\b")


def once_if_of_no_backend(name):
    marks = pytest.mark.once if OF_NO_BACKEND.match(name) else ()
    return pytest.param(name, marks=marks)


def run_python(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("name", MODULES)
def test_every_module_imports(name):
    importlib.import_module(name)


def test_public_names_exist_and_are_sorted():
    assert list(keras_logitclip.__all__) == sorted(keras_logitclip.__all__)
    for name in keras_logitclip.__all__:
        assert hasattr(keras_logitclip, name)


@pytest.mark.gradients
@pytest.mark.parametrize(
    "name", ["keras_logitclip", *map(once_if_of_no_backend, MODULES)]
)
def test_docstring_examples(name):
    results = doctest.testmod(importlib.import_module(name))
    assert results.failed == 0


def test_public_objects_have_examples():
    for public in (
        keras_logitclip.LogitClip,
        keras_logitclip.LogitClipLoss,
        keras_logitclip.ops.logit_clip,
        keras_logitclip.ops.logit_norm,
    ):
        for section in ("Formula:", "Args:", "Raises:", "Example:", ">>> "):
            assert section in public.__doc__


def test_the_import_adds_no_package_and_little_time():
    """Beyond Keras: no other backend, and what extras need where it is used."""
    code = (
        "import sys, time, keras; before, start = set(sys.modules), time.process_time()"
        "; import keras_logitclip; print(time.process_time() - start, *{"
        "name.split('.')[0] for name in set(sys.modules) - before})"
    )
    # Processor time, so that a busy machine does not fail this, and several times, for
    # the first one may compile the modules.
    for _ in range(5):
        result = run_python(code, PYTHONDONTWRITEBYTECODE="")
        seconds, *imported = result.stdout.split()
        assert imported == ["keras_logitclip"]
        if float(seconds) < 0.05:
            return
    pytest.fail(f"The import took {seconds} s beyond that of Keras, expected 0.05")


@pytest.mark.once
@pytest.mark.parametrize("missing", BACKENDS)
def test_a_missing_backend_is_explained(missing):
    code = f"import sys; sys.modules[{missing!r}] = None; import keras_logitclip"
    result = run_python(code, KERAS_BACKEND=missing)
    assert result.returncode != 0
    message = result.stderr.strip().splitlines()[-1]
    assert message.startswith("ImportError: Keras is configured for the backend")
    assert f"Received: KERAS_BACKEND={missing}" in message
    for install in ("tensorflow", "jax", "torch"):
        assert f"`pip install {install}`" in message


@pytest.mark.once
def test_another_missing_module_is_left_alone():
    result = run_python(
        "import sys; sys.modules['keras'] = None; import keras_logitclip"
    )
    assert result.returncode != 0
    message = result.stderr.strip().splitlines()[-1]
    assert message.startswith("ModuleNotFoundError: import of keras halted")
