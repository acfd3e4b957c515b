"""Imports Keras, or explains which backend is missing."""

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
        raise ImportError(
            f"Keras is configured for the backend {missing!r}, which is not "
            "installed. Expected one of these backends: "
            + ", ".join(f"{name} (`{pip}`)" for name, pip in _INSTALLS.items())
            + ". Choose an installed one with the environment variable "
            "KERAS_BACKEND, set before the first import of Keras. "
            f"Received: KERAS_BACKEND={choice}"
        ) from error
