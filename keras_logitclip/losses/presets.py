"""The robust losses under their papers' names, with their papers' values."""

from typing import Any
from typing import NamedTuple

from keras_logitclip._arguments import check_num_classes
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

# From this number of classes on, presets have the values for CIFAR-100. It is the
# geometric mean of 10 and 100.
_MANY_CLASSES = 32


class Preset(NamedTuple):
    """Holds a loss and its paper's values.

    Attributes:
        loss: The class, or the classes of an active and a passive loss that are added.
        formula: The loss of the label y, with the probabilities p of the logits z.
        reference: Link to the paper.
        cifar10: The arguments for CIFAR-10. For a sum, `alpha`, `beta`, and the
            arguments of both losses as `active` and `passive`.
        cifar100: The arguments for CIFAR-100.
        l1: Weights of the L1 penalty of all parameters that the paper uses with the
            loss, for CIFAR-10 and CIFAR-100. A loss cannot add it: give the layers
            `kernel_regularizer=keras.regularizers.L1(weight)` and the same
            `bias_regularizer`, and the optimizer no weight decay.
    """

    loss: type | tuple[type, type]
    formula: str
    reference: str
    cifar10: dict
    cifar100: dict
    l1: tuple[float, float]


def _arxiv(number: str) -> str:
    return f"https://arxiv.org/abs/{number}"


def _preset(
    loss, formula, reference, cifar10=None, cifar100=None, l1=(0.0, 0.0)
) -> Preset:
    """Returns a preset, by default with the same values for CIFAR-10 and CIFAR-100."""
    cifar10 = cifar10 or {}
    return Preset(loss, formula, reference, cifar10, cifar100 or cifar10, l1)


def _sum(alpha: float, beta: float, active=None, passive=None) -> dict:
    return {
        "alpha": alpha,
        "beta": beta,
        "active": active or {},
        "passive": passive or {},
    }


_APL = _arxiv("2006.13554")
_ALF = _arxiv("2106.03110")
_ANL = _arxiv("2310.20162")
_PHUBER = "https://openreview.net/forum?id=rklB76EKPr"
_FOCAL = {"gamma": 0.5}

# Weights are halved if a paper's mean absolute error is 1 - p_y, half of ours.
PRESETS = {
    "CE": _preset(CrossEntropy, "-log p_y", _arxiv("2212.04055")),
    "Focal": _preset(Focal, "-(1 - p_y)^gamma log p_y", _arxiv("1708.02002"), _FOCAL),
    "MAE": _preset(CategoricalMeanAbsoluteError, "2 (1 - p_y)", _arxiv("1712.09482")),
    "GCE": _preset(
        GeneralizedCrossEntropy, "(1 - p_y^q) / q", _arxiv("1805.07836"), {"q": 0.7}
    ),
    "RCE": _preset(ReverseCrossEntropy, "-log(1e-4) (1 - p_y)", _arxiv("1908.06112")),
    "SCE": _preset(
        SymmetricCrossEntropy,
        "alpha CE + beta RCE",
        _arxiv("1908.06112"),
        {"alpha": 0.1, "beta": 1.0},
        {"alpha": 6.0, "beta": 0.1},
    ),
    "PHuber-CE": _preset(
        PHuberCrossEntropy,
        "CE, and below p_y = 1/t its tangent 1 + log t - t p_y",
        _PHUBER,
        {"threshold": 2.0},
        {"threshold": 10.0},
    ),
    "PHuber-GCE": _preset(
        PHuberGeneralizedCrossEntropy,
        "GCE, and below p_y = t^(1/(q-1)) its tangent",
        _PHUBER,
        {"q": 0.7, "threshold": 10.0},
    ),
    "Taylor-CE": _preset(
        TaylorCrossEntropy,
        "sum_i (1 - p_y)^i / i, i = 1 to order",
        "https://www.ijcai.org/proceedings/2020/305",
        {"order": 2},
    ),
    "NCE": _preset(NormalizedCrossEntropy, "log p_y / sum_k log p_k", _APL),
    "NFL": _preset(NormalizedFocal, "Focal_y / sum_k Focal_k", _APL, _FOCAL),
    "NGCE": _preset(
        NormalizedGeneralizedCrossEntropy,
        "GCE_y / sum_k GCE_k",
        _APL,
        {"q": 0.1},
        {"q": 0.7},
    ),
    "NCE+RCE": _preset(
        (NormalizedCrossEntropy, ReverseCrossEntropy),
        "alpha NCE + beta RCE",
        _APL,
        _sum(1.0, 1.0),
        _sum(10.0, 0.1),
    ),
    "NCE+MAE": _preset(
        (NormalizedCrossEntropy, CategoricalMeanAbsoluteError),
        "alpha NCE + beta MAE",
        _APL,
        _sum(1.0, 0.5),
        _sum(10.0, 0.5),
    ),
    "NFL+RCE": _preset(
        (NormalizedFocal, ReverseCrossEntropy),
        "alpha NFL + beta RCE",
        _APL,
        _sum(1.0, 1.0, active=_FOCAL),
        _sum(10.0, 0.1, active=_FOCAL),
    ),
    "NFL+MAE": _preset(
        (NormalizedFocal, CategoricalMeanAbsoluteError),
        "alpha NFL + beta MAE",
        _APL,
        _sum(1.0, 0.5, active=_FOCAL),
        _sum(10.0, 0.5, active=_FOCAL),
    ),
    "AGCE": _preset(
        AsymmetricGeneralizedCrossEntropy,
        "((a + 1)^q - (a + p_y)^q) / q",
        _ALF,
        {"a": 0.6, "q": 0.6},
    ),
    "AUL": _preset(
        AsymmetricUnhinged, "((a - p_y)^q - (a - 1)^q) / q", _ALF, {"a": 5.5, "q": 3.0}
    ),
    "AEL": _preset(AsymmetricExponential, "exp(-p_y / a)", _ALF, {"a": 2.5}),
    "NCE+AGCE": _preset(
        (NormalizedCrossEntropy, AsymmetricGeneralizedCrossEntropy),
        "alpha NCE + beta AGCE",
        _ALF,
        _sum(1.0, 4.0, passive={"a": 6.0, "q": 1.5}),
        _sum(10.0, 0.1, passive={"a": 1.8, "q": 3.0}),
    ),
    "NCE+AUL": _preset(
        (NormalizedCrossEntropy, AsymmetricUnhinged),
        "alpha NCE + beta AUL",
        _ALF,
        _sum(1.0, 4.0, passive={"a": 6.3, "q": 1.5}),
        _sum(10.0, 0.015, passive={"a": 6.0, "q": 3.0}),
    ),
    "NCE+AEL": _preset(
        (NormalizedCrossEntropy, AsymmetricExponential),
        "alpha NCE + beta AEL",
        _ALF,
        _sum(1.0, 4.0, passive={"a": 5.0}),
        _sum(10.0, 0.1, passive={"a": 1.5}),
    ),
    "ANL-CE": _preset(
        (NormalizedCrossEntropy, NormalizedNegativeCrossEntropy),
        "alpha NCE + beta (1 - (A - CE_y) / sum_k (A - CE_k)), A = -log(1e-7)",
        _ANL,
        _sum(5.0, 5.0),
        _sum(10.0, 1.0),
        l1=(5e-5, 5e-7),
    ),
    "ANL-FL": _preset(
        (NormalizedFocal, NormalizedNegativeFocal),
        "the same with Focal",
        _ANL,
        _sum(5.0, 5.0, active=_FOCAL, passive=_FOCAL),
        _sum(10.0, 1.0, active=_FOCAL, passive=_FOCAL),
        l1=(5e-5, 5e-7),
    ),
    # The values for 40% symmetric noise. The paper's weight grows with the noise, from
    # 0.1 to 0.9 for CIFAR-10 and to 0.5 for CIFAR-100.
    "JS": _preset(
        JensenShannon,
        "(w KL(y, m) + (1-w) KL(p, m)) / (-(1-w) log(1-w)), m = w y + (1-w) p",
        _arxiv("2105.04522"),
        {"weight": 0.7},
        {"weight": 0.3},
    ),
    # The last value of the paper's schedule, which begins with 0 (see the loss).
    "CORES": _preset(
        ConfidenceRegularized,
        "CE_y - beta mean_k CE_k",
        _arxiv("2010.02347"),
        {"beta": 2.0},
    ),
    "Bootstrap-soft": _preset(
        Bootstrap,
        "-sum_k (beta y_k + (1 - beta) p_k) log p_k",
        _arxiv("1412.6596"),
        {"beta": 0.95},
    ),
    "Bootstrap-hard": _preset(
        Bootstrap,
        "beta CE_y + (1 - beta) min_k CE_k",
        _arxiv("1412.6596"),
        {"beta": 0.8, "hard": True},
    ),
    "Bi-tempered": _preset(
        BiTempered,
        "tempered logarithm (t1) of the tempered softmax (t2)",
        _arxiv("1906.03361"),
        {"t1": 0.8, "t2": 1.2},
    ),
    "LogitNorm": _preset(
        LogitNormCrossEntropy,
        "CE of z / (temperature norm(z))",
        _arxiv("2205.09310"),
        {"temperature": 0.04},
    ),
}
"""The presets by their names in the papers, such as `"GCE"` or `"NCE+AGCE"`."""

_OTHER_NAMES = {"FL": "Focal"}


def preset(name: str, num_classes: int) -> Any:
    """Builds a robust loss with the values of its paper.

    The papers have values for CIFAR-10 and CIFAR-100. The loss gets those for CIFAR-10
    with fewer than 32 classes, which is about the geometric mean of 10 and 100. The
    best values also depend on the noise, so these are only a start.

    "ANL-CE" and "ANL-FL" need an L1 penalty of the parameters (see `PRESETS[name].l1`),
    and "CORES" needs a schedule (see `ConfidenceRegularized`).

    Args:
        name: Name of the loss in the papers, a key of `PRESETS` or "FL", in upper
            or lower case.
        num_classes: Number of classes, at least 2.

    Returns:
        The loss, which takes logits and class ids, one-hot or soft labels.

    Raises:
        ValueError: If the name is unknown, or `num_classes` is not an integer of at
            least 2.

    Example:

    >>> from keras_logitclip import losses
    >>> losses.preset("GCE", num_classes=10).q
    0.7
    >>> losses.preset("nce+rce", num_classes=100).alpha
    10.0
    """
    key = find_name(name)
    chosen = PRESETS[key]
    few = has_few_classes(check_num_classes(num_classes))
    arguments = {
        **(chosen.cifar10 if few else chosen.cifar100),
        "name": _snake_case(key),
    }
    if not isinstance(chosen.loss, tuple):
        return chosen.loss(**arguments)
    for role, part in zip(("active", "passive"), chosen.loss, strict=True):
        arguments[role] = part(**arguments[role])
    return ActivePassive(**arguments)


def has_few_classes(num_classes: int) -> bool:
    """Returns whether presets have the values for CIFAR-10, not for CIFAR-100."""
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
