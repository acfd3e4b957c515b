"""LogitClip for Keras 3: train classifiers on noisy labels."""

import importlib
from typing import TYPE_CHECKING

from keras_logitclip import _backend

_backend.import_keras()

from keras_logitclip import bounds  # noqa: E402
from keras_logitclip import callbacks  # noqa: E402
from keras_logitclip import datasets  # noqa: E402
from keras_logitclip import layers  # noqa: E402
from keras_logitclip import losses  # noqa: E402
from keras_logitclip import metrics  # noqa: E402
from keras_logitclip import noise  # noqa: E402
from keras_logitclip import ops  # noqa: E402
from keras_logitclip import tuning  # noqa: E402
from keras_logitclip._check.model import check_model  # noqa: E402
from keras_logitclip.layers import LogitClip  # noqa: E402
from keras_logitclip.losses import LogitClipLoss  # noqa: E402

# Imported when they are first used, because not everybody needs their dependencies.
_LAZY = ("calibration", "cleaning", "study")
if TYPE_CHECKING:
    from keras_logitclip import calibration as calibration
    from keras_logitclip import cleaning as cleaning
    from keras_logitclip import study as study
else:

    def __getattr__(name):
        if name in _LAZY:
            return importlib.import_module(f"{__name__}.{name}")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__version__ = "0.2.0"

__all__ = [
    "LogitClip",
    "LogitClipLoss",
    "__version__",
    "bounds",
    "callbacks",
    "check_model",
    "datasets",
    "layers",
    "losses",
    "metrics",
    "noise",
    "ops",
    "tuning",
]


def __dir__():
    return sorted([*__all__, *_LAZY])
