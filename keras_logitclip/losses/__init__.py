"""Losses for noisy labels."""

from keras_logitclip.losses.logit_clip import LogitClipLoss

__all__ = ["LogitClipLoss"]
