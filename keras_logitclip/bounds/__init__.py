"""Guarantees that follow from clipping the logits at `tau`."""

from keras_logitclip.bounds._cross_entropy import Bounds
from keras_logitclip.bounds._cross_entropy import closed_form_upper_bound
from keras_logitclip.bounds._cross_entropy import cross_entropy_bounds
from keras_logitclip.bounds._cross_entropy import paper_cross_entropy_bounds
from keras_logitclip.bounds._excess_risk import class_dependent_excess_risk_bound
from keras_logitclip.bounds._excess_risk import excess_risk_bound
from keras_logitclip.bounds._losses import loss_bounds
from keras_logitclip.bounds._probability import max_probability
from keras_logitclip.bounds._probability import tau_for_noise_rate
from keras_logitclip.bounds._probability import tau_for_probability

__all__ = [
    "Bounds",
    "class_dependent_excess_risk_bound",
    "closed_form_upper_bound",
    "cross_entropy_bounds",
    "excess_risk_bound",
    "loss_bounds",
    "max_probability",
    "paper_cross_entropy_bounds",
    "tau_for_noise_rate",
    "tau_for_probability",
]


def __dir__():
    return __all__
