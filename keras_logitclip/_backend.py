"""Imports Keras, or explains which backend is missing."""

import importlib.util
import os

_INSTALLS = {
    "tensorflow": "pip install tensorflow",
    "jax": "pip install jax",
    "torch": "pip install torch",
}


def import_keras() -> None:
    """Imports Keras.

    Keras fails to import without its backend, with an error that names
    neither the choice nor the remedy.
    """
    try:
        import keras  # noqa: F401
    except ModuleNotFoundError as error:
        missing = (error.name or "").split(".")[0]
        if missing not in _INSTALLS:
            raise
        choice = os.environ.get("KERAS_BACKEND", "not set")
        found = [name for name in _INSTALLS if importlib.util.find_spec(name)]
        raise ImportError(
            f"Keras is configured for the backend {missing!r}, which is not "
            "installed. Expected one of these backends: "
            + ", ".join(f"{name} (`{pip}`)" for name, pip in _INSTALLS.items())
            + ". Choose an installed one with the environment variable "
            "KERAS_BACKEND, set before the first import of Keras. "
            f"Received: KERAS_BACKEND={choice}, installed: {', '.join(found) or 'none'}"
        ) from error


def check_installed(backend: str) -> None:
    """Raises an error that says how to install a backend, if it is missing."""
    if importlib.util.find_spec(backend) is None:
        raise ImportError(
            f"The backend {backend!r} is not installed. Install it with: "
            f"{_INSTALLS[backend]}"
        )
