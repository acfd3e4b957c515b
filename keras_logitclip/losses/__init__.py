"""Robust losses, and losses around other losses."""

from keras_logitclip.losses._base import ClassificationLoss
from keras_logitclip.losses._base import LogitsLoss
from keras_logitclip.losses.active_passive import ActivePassive
from keras_logitclip.losses.asymmetric import AsymmetricExponential
from keras_logitclip.losses.asymmetric import AsymmetricGeneralizedCrossEntropy
from keras_logitclip.losses.asymmetric import AsymmetricUnhinged
from keras_logitclip.losses.bi_tempered import BiTempered
from keras_logitclip.losses.bootstrap import Bootstrap
from keras_logitclip.losses.confidence_regularized import ConfidenceRegularized
from keras_logitclip.losses.cross_entropy import CrossEntropy
from keras_logitclip.losses.focal import Focal
from keras_logitclip.losses.generalized_cross_entropy import GeneralizedCrossEntropy
from keras_logitclip.losses.jensen_shannon import JensenShannon
from keras_logitclip.losses.logit_clip import LogitClipLoss
from keras_logitclip.losses.logit_norm_cross_entropy import LogitNormCrossEntropy
from keras_logitclip.losses.logit_value_clip import LogitValueClip
from keras_logitclip.losses.loss_correction import BackwardCorrection
from keras_logitclip.losses.loss_correction import ForwardCorrection
from keras_logitclip.losses.mean_absolute_error import CategoricalMeanAbsoluteError
from keras_logitclip.losses.norm_penalty import NormPenalty
from keras_logitclip.losses.normalized import NormalizedCrossEntropy
from keras_logitclip.losses.normalized import NormalizedFocal
from keras_logitclip.losses.normalized import NormalizedGeneralizedCrossEntropy
from keras_logitclip.losses.normalized_negative import NormalizedNegativeCrossEntropy
from keras_logitclip.losses.normalized_negative import NormalizedNegativeFocal
from keras_logitclip.losses.partially_huberized import PHuberCrossEntropy
from keras_logitclip.losses.partially_huberized import PHuberGeneralizedCrossEntropy
from keras_logitclip.losses.presets import PRESETS
from keras_logitclip.losses.presets import Preset
from keras_logitclip.losses.presets import preset
from keras_logitclip.losses.symmetric_cross_entropy import ReverseCrossEntropy
from keras_logitclip.losses.symmetric_cross_entropy import SymmetricCrossEntropy
from keras_logitclip.losses.taylor_cross_entropy import TaylorCrossEntropy

__all__ = [
    "PRESETS",
    "ActivePassive",
    "AsymmetricExponential",
    "AsymmetricGeneralizedCrossEntropy",
    "AsymmetricUnhinged",
    "BackwardCorrection",
    "BiTempered",
    "Bootstrap",
    "CategoricalMeanAbsoluteError",
    "ClassificationLoss",
    "ConfidenceRegularized",
    "CrossEntropy",
    "Focal",
    "ForwardCorrection",
    "GeneralizedCrossEntropy",
    "JensenShannon",
    "LogitClipLoss",
    "LogitNormCrossEntropy",
    "LogitValueClip",
    "LogitsLoss",
    "NormPenalty",
    "NormalizedCrossEntropy",
    "NormalizedFocal",
    "NormalizedGeneralizedCrossEntropy",
    "NormalizedNegativeCrossEntropy",
    "NormalizedNegativeFocal",
    "PHuberCrossEntropy",
    "PHuberGeneralizedCrossEntropy",
    "Preset",
    "ReverseCrossEntropy",
    "SymmetricCrossEntropy",
    "TaylorCrossEntropy",
    "preset",
]


def __dir__():
    return __all__
