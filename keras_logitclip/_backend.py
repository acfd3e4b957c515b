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
    """Imports Keras; chooses the only installed backend if none is configured.

    Without its backend, Keras raises an error that names neither the configured backend
    nor the remedy.
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
    """Returns whether neither the environment nor Keras's file chooses a backend.

    TensorFlow in that file is not a choice, because Keras writes it there itself.
    """
    if "keras" in sys.modules or os.environ.get("KERAS_BACKEND"):
        return False
    # Not `Path.home`, which fails for a user without a home folder.
    folder = Path(os.environ.get("KERAS_HOME") or os.path.expanduser("~/.keras"))
    try:
        configured = json.loads((folder / "keras.json").read_text())["backend"]
    except (OSError, ValueError, LookupError, TypeError):
        return True
    return configured == "tensorflow"


def check_installed(backend: str) -> None:
    """Raises an error with the installation command if a backend is missing."""
    if importlib.util.find_spec(backend) is None:
        raise ImportError(
            f"The backend {backend!r} is not installed. Install it with: "
            f"{_INSTALLS[backend]}"
        )
