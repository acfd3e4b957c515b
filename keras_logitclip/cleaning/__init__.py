"""Tools for wrong labels: estimates how many are wrong, and finds them.

`held_out_logits` trains models. `estimate_noise` and `find_label_errors` take logits
from any model. cleanlab estimates the noise.
"""

from keras_logitclip.cleaning._errors import LabelErrors
from keras_logitclip.cleaning._errors import find_label_errors
from keras_logitclip.cleaning._held_out import held_out_logits
from keras_logitclip.cleaning._noise import NoiseEstimate
from keras_logitclip.cleaning._noise import estimate_noise

__all__ = [
    "LabelErrors",
    "NoiseEstimate",
    "estimate_noise",
    "find_label_errors",
    "held_out_logits",
]


def __dir__():
    return __all__
