"""Losses for noisy labels."""

from keras_logitclip.losses.active_passive import ActivePassive
from keras_logitclip.losses.asymmetric import AsymmetricExponential
from keras_logitclip.losses.asymmetric import AsymmetricGeneralizedCrossEntropy
from keras_logitclip.losses.asymmetric import AsymmetricUnhinged
from keras_logitclip.losses.asymmetric import asymmetric_exponential
from keras_logitclip.losses.asymmetric import asymmetric_generalized_cross_entropy
from keras_logitclip.losses.asymmetric import asymmetric_unhinged
from keras_logitclip.losses.bi_tempered import BiTempered
from keras_logitclip.losses.bi_tempered import bi_tempered
from keras_logitclip.losses.bootstrap import Bootstrap
from keras_logitclip.losses.bootstrap import bootstrap
from keras_logitclip.losses.confidence_regularized import ConfidenceRegularized
from keras_logitclip.losses.confidence_regularized import confidence_regularized
from keras_logitclip.losses.cross_entropy import CrossEntropy
from keras_logitclip.losses.cross_entropy import cross_entropy
from keras_logitclip.losses.focal import Focal
from keras_logitclip.losses.focal import focal
from keras_logitclip.losses.generalized_cross_entropy import GeneralizedCrossEntropy
from keras_logitclip.losses.generalized_cross_entropy import generalized_cross_entropy
from keras_logitclip.losses.jensen_shannon import JensenShannon
from keras_logitclip.losses.jensen_shannon import jensen_shannon
from keras_logitclip.losses.logit_clip import LogitClipLoss
from keras_logitclip.losses.logit_norm_cross_entropy import LogitNormCrossEntropy
from keras_logitclip.losses.logit_norm_cross_entropy import logit_norm_cross_entropy
from keras_logitclip.losses.logit_value_clip import LogitValueClipLoss
from keras_logitclip.losses.loss_correction import BackwardCorrection
from keras_logitclip.losses.loss_correction import ForwardCorrection
from keras_logitclip.losses.loss_correction import backward_correction
from keras_logitclip.losses.loss_correction import forward_correction
from keras_logitclip.losses.mean_absolute_error import CategoricalMeanAbsoluteError
from keras_logitclip.losses.mean_absolute_error import categorical_mean_absolute_error
from keras_logitclip.losses.norm_penalty import NormPenalty
from keras_logitclip.losses.normalized import NormalizedCrossEntropy
from keras_logitclip.losses.normalized import NormalizedFocal
from keras_logitclip.losses.normalized import NormalizedGeneralizedCrossEntropy
from keras_logitclip.losses.normalized import normalized_cross_entropy
from keras_logitclip.losses.normalized import normalized_focal
from keras_logitclip.losses.normalized import normalized_generalized_cross_entropy
from keras_logitclip.losses.normalized_negative import NormalizedNegativeCrossEntropy
from keras_logitclip.losses.normalized_negative import NormalizedNegativeFocal
from keras_logitclip.losses.normalized_negative import normalized_negative_cross_entropy
from keras_logitclip.losses.normalized_negative import normalized_negative_focal
from keras_logitclip.losses.partially_huberized import PHuberCrossEntropy
from keras_logitclip.losses.partially_huberized import PHuberGeneralizedCrossEntropy
from keras_logitclip.losses.partially_huberized import phuber_cross_entropy
from keras_logitclip.losses.partially_huberized import phuber_generalized_cross_entropy
from keras_logitclip.losses.presets import PRESETS
from keras_logitclip.losses.presets import Preset
from keras_logitclip.losses.presets import preset
from keras_logitclip.losses.symmetric_cross_entropy import ReverseCrossEntropy
from keras_logitclip.losses.symmetric_cross_entropy import SymmetricCrossEntropy
from keras_logitclip.losses.symmetric_cross_entropy import reverse_cross_entropy
from keras_logitclip.losses.symmetric_cross_entropy import symmetric_cross_entropy
from keras_logitclip.losses.taylor_cross_entropy import TaylorCrossEntropy
from keras_logitclip.losses.taylor_cross_entropy import taylor_cross_entropy

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
    "ConfidenceRegularized",
    "CrossEntropy",
    "Focal",
    "ForwardCorrection",
    "GeneralizedCrossEntropy",
    "JensenShannon",
    "LogitClipLoss",
    "LogitNormCrossEntropy",
    "LogitValueClipLoss",
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
    "asymmetric_exponential",
    "asymmetric_generalized_cross_entropy",
    "asymmetric_unhinged",
    "backward_correction",
    "bi_tempered",
    "bootstrap",
    "categorical_mean_absolute_error",
    "confidence_regularized",
    "cross_entropy",
    "focal",
    "forward_correction",
    "generalized_cross_entropy",
    "jensen_shannon",
    "logit_norm_cross_entropy",
    "normalized_cross_entropy",
    "normalized_focal",
    "normalized_generalized_cross_entropy",
    "normalized_negative_cross_entropy",
    "normalized_negative_focal",
    "phuber_cross_entropy",
    "phuber_generalized_cross_entropy",
    "preset",
    "reverse_cross_entropy",
    "symmetric_cross_entropy",
    "taylor_cross_entropy",
]
