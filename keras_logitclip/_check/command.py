"""The command `python -m keras_logitclip check`."""

import sys

import keras
import numpy as np

from keras_logitclip._check.model import check_model


def run(options) -> str:
    """Checks a model file with a file of arrays, without executing anything in them.

    The exit status is 1 if anything is wrong.
    """
    x, y = _load_arrays(options.data, options.x, options.y)
    model = _load_model(options.model)
    report = check_model(model, x, y, samples=options.samples)
    if report.ok:
        return str(report)
    print(report)
    sys.exit(1)


def _load_arrays(path, *names):
    try:
        with np.load(path, allow_pickle=False) as file:
            return [file[name] for name in names]
    except FileNotFoundError:
        raise
    except Exception as error:  # A damaged file can cause any error.
        raise ValueError(
            f"Expected a file of arrays, as `numpy.savez({str(path)!r}, x=x, y=y)` "
            f"writes it, with {' and '.join(map(repr, names))} in it and no objects. "
            f"Received: {path}. {error}"
        ) from error


def _load_model(path):
    try:
        return keras.saving.load_model(path)
    except Exception as error:
        raise ValueError(
            "Expected a model file, as `model.save` writes it, with only objects of "
            f"Keras and this package. Received: {path}. {error}"
        ) from error
