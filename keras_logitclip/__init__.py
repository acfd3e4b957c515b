"""LogitClip for Keras 3: train classifiers on noisy labels."""

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
from keras_logitclip.layers import LogitClip  # noqa: E402
from keras_logitclip.losses import LogitClipLoss  # noqa: E402

__version__ = "0.1.0"

__all__ = [
    "LogitClip",
    "LogitClipLoss",
    "__version__",
    "bounds",
    "callbacks",
    "datasets",
    "layers",
    "losses",
    "metrics",
    "noise",
    "ops",
    "tuning",
]


def __dir__():
    return __all__
