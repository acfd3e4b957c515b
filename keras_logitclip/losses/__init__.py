"""Losses for noisy labels."""

from keras_logitclip.losses.generalized_cross_entropy import GeneralizedCrossEntropy
from keras_logitclip.losses.generalized_cross_entropy import generalized_cross_entropy
from keras_logitclip.losses.logit_clip import LogitClipLoss

__all__ = [
    "GeneralizedCrossEntropy",
    "LogitClipLoss",
    "generalized_cross_entropy",
]
