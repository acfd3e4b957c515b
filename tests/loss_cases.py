"""Every loss with its formula, as cases for the tests of all losses.

Each formula is from a paper, in float64 NumPy. It takes labels `y` (class weights) and
logits `z` of shape `(..., K)`, and the arguments of the loss by name. It also holds for
complex logits, whose imaginary parts give exact derivatives (`gradient`).

To add a loss, add its formula with a case above it. Tables in the tests have the
arguments that it refuses, and bounds that are not reached.
"""

from collections import namedtuple
from functools import cache

import numpy as np

from keras_logitclip import LogitClipLoss
from keras_logitclip import losses
from keras_logitclip.bounds import cross_entropy_bounds
from tests.conftest import BACKEND
from tests.oracle import INF
from tests.running import with_labels
from tests.samples import CLASSES

Case = namedtuple("Case", "loss formula arguments bound total inner")
CASES = {}


def case(name, loss, arguments=None, bound=INF, total=None, inner=None):
    """Registers a formula as the expected value of a loss with these arguments.

    Args:
        name: Name of the case.
        loss: Class of the loss.
        arguments: The arguments of the class and of the formula. Functions among them
            are called with the number of classes.
        bound: The largest value for a class id with 10 classes, `None` if a loss can be
            negative or grows slowly.
        total: The sum over the labels of 10 classes, if it is constant.
        inner: The classes of the losses that it wraps.
    """

    def add(formula):
        CASES[name] = Case(loss, formula, arguments or {}, bound, total, inner or {})
        return formula

    return add


def noise(classes):
    """The transition matrix of a noise that gives every label."""
    rng = np.random.default_rng(3)
    return 0.6 * np.eye(classes) + 0.4 * rng.dirichlet(np.ones(classes), classes)


def pair_flip(classes):
    """A transition matrix that is mostly zeros."""
    return 0.7 * np.eye(classes) + 0.3 * np.roll(np.eye(classes), 1, axis=1)


A = -np.log(1e-4)
# Those of logits of the norms 25 and 1.5.
NORM_25, NORM_1_5 = (cross_entropy_bounds(tau, 10).upper for tau in (25, 1.5))


def value(formula, y, z, **parameters):
    """Returns the losses of logits `z` along the last axis."""
    return formula(np.asarray(y, "float64"), np.asarray(z, "float64"), **parameters)


def gradient(formula, y, z, entries=None, **parameters):
    """Returns the gradient of the sum of the losses with respect to the logits.

    It uses complex steps, which do not cancel and are exact up to rounding. `entries`
    are the classes to compute, by default all.
    """
    y, z, step = np.asarray(y, "float64"), np.asarray(z, "float64"), 1e-100
    columns = []
    for k in range(z.shape[-1]) if entries is None else entries:
        moved = z.astype("complex128")
        moved[..., k] += 1j * step
        columns.append(formula(y, moved, **parameters).imag / step)
    return np.stack(columns, -1)


def log_softmax(z):
    z = z - z.real.max(-1, keepdims=True)
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


def norm(z):
    """The norm of order 2, for complex numbers without conjugation."""
    scale = np.abs(z.real).max(-1, keepdims=True)
    scale = np.where(scale > 0, scale, 1)
    return scale * np.sqrt(((z / scale) ** 2).sum(-1, keepdims=True))


def _absolute(x):
    return x * np.sign(x.real)


# Losses of the label's probability.


@case("CE", losses.CrossEntropy)
def cross_entropy(y, z):
    return -(y * log_softmax(z)).sum(-1)


@case("MAE", losses.CategoricalMeanAbsoluteError, bound=2, total=18)
def mean_absolute_error(y, z):
    return _absolute(np.exp(log_softmax(z)) - y).sum(-1)


@case("RCE", losses.ReverseCrossEntropy, bound=A, total=9 * A)
def reverse_cross_entropy(y, z, min_label=1e-4):
    return -(np.exp(log_softmax(z)) * np.log(np.clip(y, min_label, 1))).sum(-1)


@case("SCE", losses.SymmetricCrossEntropy, {"alpha": 0.1, "beta": 1.0})
def symmetric_cross_entropy(y, z, alpha, beta, min_label=1e-4):
    reverse = reverse_cross_entropy(y, z, min_label)
    return alpha * cross_entropy(y, z) + beta * reverse


@case("GCE-1", losses.GeneralizedCrossEntropy, {"q": 1.0}, bound=1, total=9)
@case("GCE", losses.GeneralizedCrossEntropy, {"q": 0.7}, bound=1 / 0.7)
def generalized_cross_entropy(y, z, q):
    return (y * (1 - np.exp(q * log_softmax(z))) / q).sum(-1)


@case("PHuber-CE", losses.PHuberCrossEntropy, {"threshold": 10.0}, bound=np.log(10) + 1)
def phuber_cross_entropy(y, z, threshold):
    log_p = log_softmax(z)
    p = np.exp(log_p)
    below = -threshold * p + np.log(threshold) + 1
    return (y * np.where(p.real <= 1 / threshold, below, -log_p)).sum(-1)


@case(
    "PHuber-GCE",
    losses.PHuberGeneralizedCrossEntropy,
    {"q": 0.7, "threshold": 10.0},
    bound=(1 - 10 ** (-7 / 3)) / 0.7 + 10 ** (-7 / 3),
)
def phuber_generalized_cross_entropy(y, z, q, threshold):
    log_p = log_softmax(z)
    p = np.exp(log_p)
    turn = threshold ** (1 / (q - 1))
    below = -threshold * p + threshold * turn + (1 - turn**q) / q
    above = (1 - np.exp(q * log_p)) / q
    return (y * np.where(p.real <= turn, below, above)).sum(-1)


@case("Taylor-CE-6", losses.TaylorCrossEntropy, {"order": 6}, bound=2.45)
@case("Taylor-CE", losses.TaylorCrossEntropy, {"order": 2}, bound=1.5)
def taylor_cross_entropy(y, z, order):
    rest = 1 - np.exp(log_softmax(z))
    return (y * sum(rest**i / i for i in range(1, order + 1))).sum(-1)


def _focal_of_log(log_p, gamma):
    return -((1 - np.exp(log_p)) ** gamma) * log_p


@case("Focal-2", losses.Focal, {"gamma": 2.0})
@case("Focal", losses.Focal, {"gamma": 0.5})
def focal(y, z, gamma):
    return (y * _focal_of_log(log_softmax(z), gamma)).sum(-1)


@case(
    "AGCE-3",
    losses.AsymmetricGeneralizedCrossEntropy,
    {"a": 1.8, "q": 3.0},
    bound=(2.8**3 - 1.8**3) / 3,
)
@case(
    "AGCE",
    losses.AsymmetricGeneralizedCrossEntropy,
    {"a": 0.6, "q": 0.6},
    bound=(1.6**0.6 - 0.6**0.6) / 0.6,
)
def asymmetric_generalized_cross_entropy(y, z, a, q):
    p = np.exp(log_softmax(z))
    return (y * ((a + 1) ** q - (a + p) ** q) / q).sum(-1)


@case("AUL-1", losses.AsymmetricUnhinged, {"a": 6.3, "q": 1.0}, bound=1, total=9)
@case(
    "AUL", losses.AsymmetricUnhinged, {"a": 5.5, "q": 3.0}, bound=(5.5**3 - 4.5**3) / 3
)
def asymmetric_unhinged(y, z, a, q):
    p = np.exp(log_softmax(z))
    return (y * ((a - p) ** q - (a - 1) ** q) / q).sum(-1)


@case("AEL", losses.AsymmetricExponential, {"a": 2.5}, bound=1)
def asymmetric_exponential(y, z, a):
    return (y * np.exp(-np.exp(log_softmax(z)) / a)).sum(-1)


# Losses of all probabilities.


@case("NCE", losses.NormalizedCrossEntropy, bound=1, total=1)
def normalized_cross_entropy(y, z):
    log_p = log_softmax(z)
    return (y * log_p).sum(-1) / log_p.sum(-1)


@case("NFL", losses.NormalizedFocal, {"gamma": 0.5}, bound=1, total=1)
def normalized_focal(y, z, gamma):
    losses = _focal_of_log(log_softmax(z), gamma)
    return (y * losses).sum(-1) / losses.sum(-1)


@case(
    "NGCE-0.1", losses.NormalizedGeneralizedCrossEntropy, {"q": 0.1}, bound=1, total=1
)
@case("NGCE", losses.NormalizedGeneralizedCrossEntropy, {"q": 0.7}, bound=1, total=1)
def normalized_generalized_cross_entropy(y, z, q):
    powers = np.exp(q * log_softmax(z))
    return (y * (1 - powers)).sum(-1) / (z.shape[-1] - powers.sum(-1))


@case("NNCE", losses.NormalizedNegativeCrossEntropy, bound=1, total=9)
def normalized_negative_cross_entropy(y, z, min_probability=1e-7):
    log_p = _clipped_below(log_softmax(z), min_probability)
    negative = log_p - np.log(min_probability)
    return (y * (1 - negative / negative.sum(-1, keepdims=True))).sum(-1)


@case("NNFL", losses.NormalizedNegativeFocal, {"gamma": 0.5}, bound=1, total=9)
def normalized_negative_focal(y, z, gamma, min_probability=1e-7):
    log_p = _clipped_below(log_softmax(z), min_probability)
    largest = _focal_of_log(np.log(min_probability), gamma)
    negative = largest - _focal_of_log(log_p, gamma)
    return (y * (1 - negative / negative.sum(-1, keepdims=True))).sum(-1)


def _clipped_below(log_p, minimum):
    return np.where(np.exp(log_p.real) < minimum, np.log(minimum), log_p)


@case(
    "JS-0.9",
    losses.JensenShannon,
    {"weight": 0.9},
    bound=1 + 0.9 * np.log(0.9) / (0.1 * np.log(0.1)),
)
@case(
    "JS-0.1",
    losses.JensenShannon,
    {"weight": 0.1},
    bound=1 + 0.1 * np.log(0.1) / (0.9 * np.log(0.9)),
)
@case("JS", losses.JensenShannon, {"weight": 0.5}, bound=2)
def jensen_shannon(y, z, weight):
    log_p = log_softmax(z)
    p = np.exp(log_p)
    mean = weight * y + (1 - weight) * p
    log_mean = np.log(np.where(mean == 0, 1, mean))
    log_y = np.log(np.where(y == 0, 1, y))
    divergence = weight * y * (log_y - log_mean)
    divergence = divergence + (1 - weight) * p * (log_p - log_mean)
    return divergence.sum(-1) / (-(1 - weight) * np.log(1 - weight))


@case("CORES", losses.ConfidenceRegularized, {"beta": 0.5}, bound=None)
def confidence_regularized(y, z, beta):
    return cross_entropy(y, z) + beta * log_softmax(z).mean(-1)


@case("Bootstrap-hard", losses.Bootstrap, {"beta": 0.8, "hard": True})
@case("Bootstrap-soft", losses.Bootstrap, {"beta": 0.6})
def bootstrap(y, z, beta, hard=False):
    log_p = log_softmax(z)
    belief = np.exp(log_p)
    if hard:
        belief = np.eye(z.shape[-1])[z.real.argmax(-1)]
    return -((beta * y + (1 - beta) * belief) * log_p).sum(-1)


# Losses with the matrix of the noise.


@case("Forward-zeros", losses.ForwardCorrection, {"transition": pair_flip})
@case(
    "Forward",
    losses.ForwardCorrection,
    {"transition": noise},
    bound=-np.log(noise(10).min()),
)
def forward_correction(y, z, transition):
    log_p = log_softmax(z)
    peak = log_p.real.max(-1, keepdims=True)
    if log_p.real.min() < -100 and (transition == 0).any():
        # Underflow would make log 0 of a tiny number.
        with np.errstate(divide="ignore"):
            log_joint = log_p[..., None] + np.log(transition)
        peak = log_joint.real.max(-2, keepdims=True)
        given = np.log(np.exp(log_joint - peak).sum(-2)) + peak[..., 0, :]
    else:
        given = np.log(np.exp(log_p - peak) @ transition) + peak
    return -(y * given).sum(-1)


@case("Backward", losses.BackwardCorrection, {"transition": noise}, bound=None)
def backward_correction(y, z, transition):
    inverse = _inverse(transition.tobytes(), len(transition))
    return -((y @ inverse) * log_softmax(z)).sum(-1)


@cache
def _inverse(matrix, size):
    return np.linalg.inv(np.frombuffer(matrix).reshape(size, size))


# Losses of the logits themselves.


@case("LogitNorm", losses.LogitNormCrossEntropy, {"temperature": 0.04}, bound=NORM_25)
def logit_norm_cross_entropy(y, z, temperature):
    return cross_entropy(y, z / (temperature * (norm(z) + 1e-7)))


@case("Bi-tempered-softmax", losses.BiTempered, {"t1": 1.0, "t2": 2.0}, bound=None)
@case("Bi-tempered-log", losses.BiTempered, {"t1": 0.5, "t2": 1.0}, bound=2)
@case("Bi-tempered-slight", losses.BiTempered, {"t1": 0.0, "t2": 1.0001}, bound=1)
@case("Bi-tempered-strong", losses.BiTempered, {"t1": 0.2, "t2": 4.0}, bound=1.25)
@case("Bi-tempered", losses.BiTempered, {"t1": 0.8, "t2": 1.2}, bound=5)
def bi_tempered(y, z, t1, t2):
    p = tempered_softmax(z, t2)
    of_labels = y * tempered_log(np.where(y == 0, 1, y), t1) - y ** (2 - t1) / (2 - t1)
    p = np.where(p == 0, np.finfo("float64").tiny, p)
    return (of_labels - y * tempered_log(p, t1) + p ** (2 - t1) / (2 - t1)).sum(-1)


def tempered_log(x, t):
    return np.log(x) if t == 1 else (x ** (1 - t) - 1) / (1 - t)


def tempered_softmax(z, t2):
    """By bisection, and the last digits and imaginary parts by Newton's steps."""
    s = t2 - 1
    if s == 0:
        return np.exp(log_softmax(z))
    z = z - z.real.max(-1, keepdims=True)
    low = np.zeros((*z.shape[:-1], 1))
    high = np.full_like(low, (z.shape[-1] ** s - 1) / s)
    for _ in range(40):
        middle = (low + high) / 2
        above = ((1 + s * (middle - z.real)) ** (-1 / s)).sum(-1, keepdims=True) > 1
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    normalizer = (low + high) / 2
    for _ in range(6):
        base = 1 + s * (normalizer - z)
        excess = (base ** (-1 / s)).sum(-1, keepdims=True) - 1
        slope = -(base ** (-1 / s - 1)).sum(-1, keepdims=True)
        normalizer = normalizer - excess / slope
    return (1 + s * (normalizer - z)) ** (-1 / s)


# Losses around cross-entropy, and a sum of two losses.


@case(
    "Logit-clip",
    LogitClipLoss,
    {"tau": 1.5},
    bound=NORM_1_5,
    inner={"loss": losses.CrossEntropy},
)
def clipped_cross_entropy(y, z, tau):
    length = norm(z)
    longer = length.real > tau
    return cross_entropy(y, np.where(longer, z * tau / np.where(longer, length, 1), z))


@case(
    "Value-clip",
    losses.LogitValueClip,
    {"limit": 1.5},
    bound=np.log(1 + 9 * np.e**3),
    inner={"loss": losses.CrossEntropy},
)
def value_clipped_cross_entropy(y, z, limit):
    inside = np.abs(z.real) <= limit
    return cross_entropy(y, np.where(inside, z, np.sign(z.real) * limit))


@case(
    "Norm-penalty",
    losses.NormPenalty,
    {"weight": 0.1},
    inner={"loss": losses.CrossEntropy},
)
def penalized_cross_entropy(y, z, weight):
    return cross_entropy(y, z) + weight * norm(z)[..., 0]


@case(
    "Sum",
    losses.ActivePassive,
    {"alpha": 2.0, "beta": 0.5},
    bound=3,
    inner={
        "active": losses.NormalizedCrossEntropy,
        "passive": losses.CategoricalMeanAbsoluteError,
    },
)
def active_passive(y, z, alpha, beta):
    """With normalized cross-entropy and mean absolute error."""
    return alpha * normalized_cross_entropy(y, z) + beta * mean_absolute_error(y, z)


if BACKEND == "openvino":  # Whose `log1p` cancels for tiny numbers.
    del CASES["Bi-tempered-slight"]

# One case for each way to implement a loss, for tests of shared mechanisms: of the
# label's probability, of all probabilities, of labels and probabilities, of the logits,
# with a matrix, fused with clipping, around a loss, and a sum.
KINDS_OF_LOSSES = (
    "GCE",
    "NCE",
    "JS",
    "LogitNorm",
    "Backward",
    "Logit-clip",
    "Norm-penalty",
    "Sum",
)


def arguments(name, classes=CLASSES):
    given = CASES[name].arguments
    return {k: v(classes) if callable(v) else v for k, v in given.items()}


def build(name, /, classes=CLASSES, **changes):
    """Builds a loss of the table that returns one value per sample."""
    case = CASES[name]
    axis = {"axis": changes["axis"]} if "axis" in changes else {}
    inner = {role: loss(**axis) for role, loss in case.inner.items()}
    given = {"reduction": "none", **arguments(name, classes), **inner, **changes}
    return case.loss(**given)


def scale_of(name):
    """Returns the bound of a loss, but at least 1, and 1 without a bound."""
    bound = CASES[name].bound
    return 1 if bound in (None, INF) else max(1, bound)


def takes_probabilities(name):
    return "from_logits" in build(name).get_config()


def functions(labels, names=tuple(CASES), **changes):
    """Returns losses of the table with these labels, as functions of the logits."""
    return {name: with_labels(build(name, **changes), labels) for name in names}


def expected_values(name, weights, z, **changes):
    parameters = {**arguments(name, np.shape(z)[-1]), **changes}
    return value(CASES[name].formula, weights, z, **parameters)


def expected_gradient(name, weights, z, entries=None, **changes):
    """Returns the gradient of the sum of the losses, for all columns or for some."""
    parameters = {**arguments(name, np.shape(z)[-1]), **changes}
    return gradient(CASES[name].formula, weights, z, entries, **parameters)
