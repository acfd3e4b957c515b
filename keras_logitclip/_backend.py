"""Imports Keras, or explains which backend is missing."""

import importlib.util
import json
import os
import sys
from pathlib import Path

_INSTALLS = {
    "tensorflow": "pip install tensorflow",
    "jax": "pip install jax",
    "torch": "pip install torch",
}


def import_keras() -> None:
    """Imports Keras, on the backend that is installed if no other one was asked for.

    Keras fails to import without its backend, with an error that names
    neither the choice nor the remedy.
    """
    installed = [name for name in _INSTALLS if importlib.util.find_spec(name)]
    if len(installed) == 1 and _is_undecided():
        os.environ["KERAS_BACKEND"] = installed[0]
    try:
        import keras  # noqa: F401
    except ModuleNotFoundError as error:
        missing = (error.name or "").split(".")[0]
        if missing not in _INSTALLS:
            raise
        choice = os.environ.get("KERAS_BACKEND", "not set")
        raise ImportError(
            f"Keras is configured for the backend {missing!r}, which is not "
            "installed. Expected one of these backends: "
            + ", ".join(f"{name} (`{pip}`)" for name, pip in _INSTALLS.items())
            + ". Choose an installed one with the environment variable "
            "KERAS_BACKEND, set before the first import of Keras. "
            f"Received: KERAS_BACKEND={choice}, installed: "
            f"{', '.join(installed) or 'none'}"
        ) from error


def _is_undecided():
    """Whether neither the environment nor a file of Keras says which backend to take.

    The file that Keras writes itself says TensorFlow.
    """
    if "keras" in sys.modules or os.environ.get("KERAS_BACKEND"):
        return False
    # Not `Path.home`, which fails for a user without one.
    folder = Path(os.environ.get("KERAS_HOME") or os.path.expanduser("~/.keras"))
    try:
        configured = json.loads((folder / "keras.json").read_text())["backend"]
    except (OSError, ValueError, LookupError, TypeError):
        return True
    return configured == "tensorflow"


def check_installed(backend: str) -> None:
    """Raises an error that says how to install a backend, if it is missing."""
    if importlib.util.find_spec(backend) is None:
        raise ImportError(
            f"The backend {backend!r} is not installed. Install it with: "
            f"{_INSTALLS[backend]}"
        )
