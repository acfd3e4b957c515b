"""The robust losses under their papers' names, with their papers' values."""

from typing import NamedTuple

import keras

from keras_logitclip._arguments import check_count
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
from keras_logitclip.losses.logit_norm_cross_entropy import LogitNormCrossEntropy
from keras_logitclip.losses.mean_absolute_error import CategoricalMeanAbsoluteError
from keras_logitclip.losses.normalized import NormalizedCrossEntropy
from keras_logitclip.losses.normalized import NormalizedFocal
from keras_logitclip.losses.normalized import NormalizedGeneralizedCrossEntropy
from keras_logitclip.losses.normalized_negative import NormalizedNegativeCrossEntropy
from keras_logitclip.losses.normalized_negative import NormalizedNegativeFocal
from keras_logitclip.losses.partially_huberized import PHuberCrossEntropy
from keras_logitclip.losses.partially_huberized import PHuberGeneralizedCrossEntropy
from keras_logitclip.losses.symmetric_cross_entropy import ReverseCrossEntropy
from keras_logitclip.losses.symmetric_cross_entropy import SymmetricCrossEntropy
from keras_logitclip.losses.taylor_cross_entropy import TaylorCrossEntropy

# From this number of classes on, the values for CIFAR-100: the middle of 10 and
# 100, as a factor.
_MANY_CLASSES = 32


class Preset(NamedTuple):
    """A loss and the values of its paper.

    Attributes:
        loss: The class, or the classes of an active and a passive loss to add.
        cifar10: The arguments for CIFAR-10. For a sum: `alpha`, `beta`, and under
            `active` and `passive` the arguments of these.
        cifar100: The arguments for CIFAR-100.
        reference: Link to the paper.
        l1: Weights of the L1 norm of all parameters for CIFAR-10 and CIFAR-100,
            without which the paper does not use the loss. No loss can add it:
            give the layers `kernel_regularizer=keras.regularizers.L1(weight)` and
            `bias_regularizer` likewise, and the optimizer no weight decay.
    """

    loss: type | tuple[type, type]
    cifar10: dict
    cifar100: dict
    reference: str
    l1: tuple[float, float] = (0.0, 0.0)


def _arxiv(number: str) -> str:
    return f"https://arxiv.org/abs/{number}"


def _sum(alpha: float, beta: float, active=(), passive=()) -> dict:
    return {
        "alpha": alpha,
        "beta": beta,
        "active": dict(active),
        "passive": dict(passive),
    }


_APL = _arxiv("2006.13554")
_ALF = _arxiv("2106.03110")
_ANL = _arxiv("2310.20162")
_PHUBER = "https://openreview.net/forum?id=rklB76EKPr"
_FOCAL = {"gamma": 0.5}

# Where a paper's mean absolute error is 1 - p_y, half of ours, the weight is halved.
PRESETS = {
    "CE": Preset(CrossEntropy, {}, {}, _arxiv("2212.04055")),
    "Focal": Preset(Focal, _FOCAL, _FOCAL, _arxiv("1708.02002")),
    "MAE": Preset(CategoricalMeanAbsoluteError, {}, {}, _arxiv("1712.09482")),
    "GCE": Preset(
        GeneralizedCrossEntropy, {"q": 0.7}, {"q": 0.7}, _arxiv("1805.07836")
    ),
    "RCE": Preset(ReverseCrossEntropy, {}, {}, _arxiv("1908.06112")),
    "SCE": Preset(
        SymmetricCrossEntropy,
        {"alpha": 0.1, "beta": 1.0},
        {"alpha": 6.0, "beta": 0.1},
        _arxiv("1908.06112"),
    ),
    "PHuber-CE": Preset(
        PHuberCrossEntropy, {"threshold": 2.0}, {"threshold": 10.0}, _PHUBER
    ),
    "PHuber-GCE": Preset(
        PHuberGeneralizedCrossEntropy,
        {"q": 0.7, "threshold": 10.0},
        {"q": 0.7, "threshold": 10.0},
        _PHUBER,
    ),
    "Taylor-CE": Preset(
        TaylorCrossEntropy,
        {"order": 2},
        {"order": 2},
        "https://www.ijcai.org/proceedings/2020/305",
    ),
    "NCE": Preset(NormalizedCrossEntropy, {}, {}, _APL),
    "NFL": Preset(NormalizedFocal, _FOCAL, _FOCAL, _APL),
    "NGCE": Preset(NormalizedGeneralizedCrossEntropy, {"q": 0.1}, {"q": 0.7}, _APL),
    "NCE+RCE": Preset(
        (NormalizedCrossEntropy, ReverseCrossEntropy),
        _sum(1.0, 1.0),
        _sum(10.0, 0.1),
        _APL,
    ),
    "NCE+MAE": Preset(
        (NormalizedCrossEntropy, CategoricalMeanAbsoluteError),
        _sum(1.0, 0.5),
        _sum(10.0, 0.5),
        _APL,
    ),
    "NFL+RCE": Preset(
        (NormalizedFocal, ReverseCrossEntropy),
        _sum(1.0, 1.0, active=_FOCAL),
        _sum(10.0, 0.1, active=_FOCAL),
        _APL,
    ),
    "NFL+MAE": Preset(
        (NormalizedFocal, CategoricalMeanAbsoluteError),
        _sum(1.0, 0.5, active=_FOCAL),
        _sum(10.0, 0.5, active=_FOCAL),
        _APL,
    ),
    "AGCE": Preset(
        AsymmetricGeneralizedCrossEntropy,
        {"a": 0.6, "q": 0.6},
        {"a": 0.6, "q": 0.6},
        _ALF,
    ),
    "AUL": Preset(AsymmetricUnhinged, {"a": 5.5, "q": 3.0}, {"a": 5.5, "q": 3.0}, _ALF),
    "AEL": Preset(AsymmetricExponential, {"a": 2.5}, {"a": 2.5}, _ALF),
    "NCE+AGCE": Preset(
        (NormalizedCrossEntropy, AsymmetricGeneralizedCrossEntropy),
        _sum(1.0, 4.0, passive={"a": 6.0, "q": 1.5}),
        _sum(10.0, 0.1, passive={"a": 1.8, "q": 3.0}),
        _ALF,
    ),
    "NCE+AUL": Preset(
        (NormalizedCrossEntropy, AsymmetricUnhinged),
        _sum(1.0, 4.0, passive={"a": 6.3, "q": 1.5}),
        _sum(10.0, 0.015, passive={"a": 6.0, "q": 3.0}),
        _ALF,
    ),
    "NCE+AEL": Preset(
        (NormalizedCrossEntropy, AsymmetricExponential),
        _sum(1.0, 4.0, passive={"a": 5.0}),
        _sum(10.0, 0.1, passive={"a": 1.5}),
        _ALF,
    ),
    "ANL-CE": Preset(
        (NormalizedCrossEntropy, NormalizedNegativeCrossEntropy),
        _sum(5.0, 5.0),
        _sum(10.0, 1.0),
        _ANL,
        l1=(5e-5, 5e-7),
    ),
    "ANL-FL": Preset(
        (NormalizedFocal, NormalizedNegativeFocal),
        _sum(5.0, 5.0, active=_FOCAL, passive=_FOCAL),
        _sum(10.0, 1.0, active=_FOCAL, passive=_FOCAL),
        _ANL,
        l1=(5e-5, 5e-7),
    ),
    # Those for 40% symmetric noise. The paper's weight grows with the noise, from
    # 0.1 to 0.9 on CIFAR-10 and to 0.5 on CIFAR-100.
    "JS": Preset(JensenShannon, {"weight": 0.7}, {"weight": 0.3}, _arxiv("2105.04522")),
    # What the paper's schedule ends with; see the loss for how to begin with 0.
    "CORES": Preset(
        ConfidenceRegularized, {"beta": 2.0}, {"beta": 2.0}, _arxiv("2010.02347")
    ),
    "Bootstrap-soft": Preset(
        Bootstrap, {"beta": 0.95}, {"beta": 0.95}, _arxiv("1412.6596")
    ),
    "Bootstrap-hard": Preset(
        Bootstrap,
        {"beta": 0.8, "hard": True},
        {"beta": 0.8, "hard": True},
        _arxiv("1412.6596"),
    ),
    "Bi-tempered": Preset(
        BiTempered, {"t1": 0.8, "t2": 1.2}, {"t1": 0.8, "t2": 1.2}, _arxiv("1906.03361")
    ),
    "LogitNorm": Preset(
        LogitNormCrossEntropy,
        {"temperature": 0.04},
        {"temperature": 0.04},
        _arxiv("2205.09310"),
    ),
}

_OTHER_NAMES = {"FL": "Focal"}


def preset(name: str, num_classes: int) -> keras.losses.Loss:
    """Builds a robust loss with the values of its paper.

    The papers give values for CIFAR-10 and CIFAR-100. For fewer than 32 classes,
    which is closer to 10 than to 100 as a factor, the loss gets the former. They are
    a start: the best values depend on the noise, too, as those of "JS" show.

    "ANL-CE" and "ANL-FL" need an L1 penalty of the parameters, and "CORES" a
    schedule: see `PRESETS[name].l1` and `ConfidenceRegularized`.

    Args:
        name: Name of the loss in the papers, a key of `PRESETS` or "FL", in upper
            or lower case.
        num_classes: Number of classes, at least 2.

    Returns:
        The loss, which takes logits, and class ids or one-hot labels.

    Raises:
        ValueError: If the name is unknown or `num_classes` no number of classes.

    Example:

    >>> from keras_logitclip import losses
    >>> losses.preset("GCE", num_classes=10).q
    0.7
    >>> losses.preset("nce+rce", num_classes=100).alpha
    10.0
    """
    key = find_name(name)
    loss, cifar10, cifar100, *_ = PRESETS[key]
    few = has_few_classes(check_count("num_classes", num_classes, minimum=2))
    arguments = {**(cifar10 if few else cifar100), "name": _snake_case(key)}
    if isinstance(loss, tuple):
        for role, part in zip(("active", "passive"), loss, strict=True):
            arguments[role] = part(**arguments[role])
        loss = ActivePassive
    return loss(**arguments)


def has_few_classes(num_classes: int) -> bool:
    """Returns whether the values for CIFAR-10 are taken, not those for CIFAR-100."""
    return num_classes < _MANY_CLASSES


def find_name(name: str) -> str:
    """Returns the key of `PRESETS` for a name in upper or lower case."""
    names = {known.lower(): known for known in PRESETS}
    names.update((other.lower(), known) for other, known in _OTHER_NAMES.items())
    if not isinstance(name, str) or name.lower() not in names:
        raise ValueError(
            "Invalid value for argument `name`: expected one of "
            f"{[*PRESETS, *_OTHER_NAMES]}. Received: name={name!r}"
        )
    return names[name.lower()]


def _snake_case(name):
    return name.lower().replace("+", "_").replace("-", "_")
