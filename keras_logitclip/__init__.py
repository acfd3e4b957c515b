"""LogitClip for Keras 3: train classifiers on noisy labels."""

from keras_logitclip import layers
from keras_logitclip import losses
from keras_logitclip import ops
from keras_logitclip.layers import LogitClip
from keras_logitclip.losses import LogitClipLoss

__version__ = "0.1.0"

__all__ = [
    "LogitClip",
    "LogitClipLoss",
    "__version__",
    "layers",
    "losses",
    "ops",
]
