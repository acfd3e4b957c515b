"""Imports the functions that a study file names."""

import contextlib
import functools
import importlib.util
import inspect
import sys
from collections.abc import Callable
from pathlib import Path

from keras_logitclip.study._config import Study
from keras_logitclip.study.models import MODELS


def import_function(study: Study, name: str) -> Callable:
    """Returns a built-in model, or the function "module:function".

    The function can import modules in the folder of the study, wherever it runs.
    """
    folder = study.folder.resolve()
    own = MODELS.get(name) or _find(folder, name)
    try:
        signature = inspect.signature(own)
    except ValueError:  # A function in C has no signature.
        return own

    @functools.wraps(own)
    def run(*arguments, **settings):
        try:
            signature.bind(*arguments, **settings)
        except TypeError as error:
            raise ValueError(f"Cannot use {name!r}{signature}: {error}") from error
        with _importable(folder):
            return own(*arguments, **settings)

    return run


def _find(folder, name):
    module, function = name.split(":")
    try:
        with _importable(folder):
            own = getattr(_import_module(folder, module), function)
    except (ModuleNotFoundError, AttributeError) as error:
        raise ValueError(f"Cannot use {name!r}: {error}") from error
    if not callable(own):
        raise ValueError(f"Cannot use {name!r}: expected a function. Received: {own!r}")
    return own


def _import_module(folder, name):
    """Executes a module of the folder under a name that is unique to the folder."""
    path = folder / f"{name}.py"
    if not path.is_file():  # It is installed or part of a package.
        return importlib.import_module(name)
    spec = importlib.util.spec_from_file_location(f"{name} of {folder}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@contextlib.contextmanager
def _importable(folder):
    """Makes the modules of a folder importable, and hides others of the same name."""
    names = {path.stem for path in folder.glob("[!_]*.py")}
    elsewhere = {name: sys.modules.pop(name) for name in names & sys.modules.keys()}
    before = set(sys.modules)
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name in set(sys.modules) - before:
            # Not all modules below the folder, because packages can be installed there.
            own = folder / name.partition(".")[0]
            place = _place(sys.modules[name])
            if place == own.with_suffix(".py") or place.is_relative_to(own):
                del sys.modules[name]
        sys.modules.update(elsewhere)


def _place(module):
    file = getattr(module, "__file__", None)
    # A package without `__init__.py` has only a path.
    return Path(file or next(iter(getattr(module, "__path__", ())), ""))
