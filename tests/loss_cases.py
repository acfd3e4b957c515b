"""Every loss, and what it should compute: the tests of all of them go by this table.

A loss is added by one line here and its formula in `loss_oracle.py`. Where its bound
is not reached, or it refuses other arguments, the tests have a table of that.
"""

from collections import namedtuple

import numpy as np

from keras_logitclip import LogitClipLoss
from keras_logitclip import losses
from keras_logitclip.bounds import cross_entropy_bounds
from tests import loss_oracle as oracle
from tests.conftest import BACKEND
from tests.oracle import INF
from tests.running import with_labels
from tests.samples import CLASSES


def noise(classes):
    """The transition matrix of a noise that gives every label."""
    rng = np.random.default_rng(3)
    return 0.6 * np.eye(classes) + 0.4 * rng.dirichlet(np.ones(classes), classes)


def pair_flip(classes):
    """A transition matrix that is mostly zeros."""
    return 0.7 * np.eye(classes) + 0.3 * np.roll(np.eye(classes), 1, axis=1)


# `arguments` are those of the class and of its `formula`; functions among them are
# called with the number of classes. `bound` is the largest value for a class id (None:
# where a loss can be negative, or grows slowly) and `total` the sum over all labels,
# where that is constant, both for 10 classes. `inner` are the classes of the losses
# that it wraps.
Case = namedtuple(
    "Case", "loss formula arguments bound total inner", defaults=({}, INF, None, {})
)
CE, MAE = losses.CrossEntropy, losses.CategoricalMeanAbsoluteError
GCE, RCE = losses.GeneralizedCrossEntropy, losses.ReverseCrossEntropy
NCE, NGCE = losses.NormalizedCrossEntropy, losses.NormalizedGeneralizedCrossEntropy
AGCE, AUL = losses.AsymmetricGeneralizedCrossEntropy, losses.AsymmetricUnhinged
A = -np.log(1e-4)
# Those of logits of the norms 25 and 1.5.
NORM_25, NORM_1_5 = (cross_entropy_bounds(tau, 10).upper for tau in (25, 1.5))
CASES = {
    "CE": Case(CE, oracle.cross_entropy),
    "MAE": Case(MAE, oracle.mean_absolute_error, {}, 2, 18),
    "RCE": Case(RCE, oracle.reverse_cross_entropy, {}, A, 9 * A),
    "SCE": Case(
        losses.SymmetricCrossEntropy,
        oracle.symmetric_cross_entropy,
        {"alpha": 0.1, "beta": 1.0},
    ),
    "GCE": Case(GCE, oracle.generalized_cross_entropy, {"q": 0.7}, 1 / 0.7),
    "GCE-1": Case(GCE, oracle.generalized_cross_entropy, {"q": 1.0}, 1, 9),
    "PHuber-CE": Case(
        losses.PHuberCrossEntropy,
        oracle.phuber_cross_entropy,
        {"threshold": 10.0},
        np.log(10) + 1,
    ),
    "PHuber-GCE": Case(
        losses.PHuberGeneralizedCrossEntropy,
        oracle.phuber_generalized_cross_entropy,
        {"q": 0.7, "threshold": 10.0},
        (1 - 10 ** (-7 / 3)) / 0.7 + 10 ** (-7 / 3),
    ),
    "Taylor-CE": Case(
        losses.TaylorCrossEntropy, oracle.taylor_cross_entropy, {"order": 2}, 1.5
    ),
    "Taylor-CE-6": Case(
        losses.TaylorCrossEntropy, oracle.taylor_cross_entropy, {"order": 6}, 2.45
    ),
    "Focal": Case(losses.Focal, oracle.focal, {"gamma": 0.5}),
    "Focal-2": Case(losses.Focal, oracle.focal, {"gamma": 2.0}),
    "AGCE": Case(
        AGCE,
        oracle.asymmetric_generalized_cross_entropy,
        {"a": 0.6, "q": 0.6},
        (1.6**0.6 - 0.6**0.6) / 0.6,
    ),
    "AGCE-3": Case(
        AGCE,
        oracle.asymmetric_generalized_cross_entropy,
        {"a": 1.8, "q": 3.0},
        (2.8**3 - 1.8**3) / 3,
    ),
    "AUL": Case(
        AUL, oracle.asymmetric_unhinged, {"a": 5.5, "q": 3.0}, (5.5**3 - 4.5**3) / 3
    ),
    "AUL-1": Case(AUL, oracle.asymmetric_unhinged, {"a": 6.3, "q": 1.0}, 1, 9),
    "AEL": Case(
        losses.AsymmetricExponential, oracle.asymmetric_exponential, {"a": 2.5}, 1
    ),
    "NCE": Case(NCE, oracle.normalized_cross_entropy, {}, 1, 1),
    "NFL": Case(losses.NormalizedFocal, oracle.normalized_focal, {"gamma": 0.5}, 1, 1),
    "NGCE": Case(NGCE, oracle.normalized_generalized_cross_entropy, {"q": 0.7}, 1, 1),
    "NGCE-0.1": Case(
        NGCE, oracle.normalized_generalized_cross_entropy, {"q": 0.1}, 1, 1
    ),
    "NNCE": Case(
        losses.NormalizedNegativeCrossEntropy,
        oracle.normalized_negative_cross_entropy,
        {},
        1,
        9,
    ),
    "NNFL": Case(
        losses.NormalizedNegativeFocal,
        oracle.normalized_negative_focal,
        {"gamma": 0.5},
        1,
        9,
    ),
    "JS": Case(losses.JensenShannon, oracle.jensen_shannon, {"weight": 0.5}, 2),
    "JS-0.1": Case(
        losses.JensenShannon,
        oracle.jensen_shannon,
        {"weight": 0.1},
        1 + 0.1 * np.log(0.1) / (0.9 * np.log(0.9)),
    ),
    "JS-0.9": Case(
        losses.JensenShannon,
        oracle.jensen_shannon,
        {"weight": 0.9},
        1 + 0.9 * np.log(0.9) / (0.1 * np.log(0.1)),
    ),
    "CORES": Case(
        losses.ConfidenceRegularized, oracle.confidence_regularized, {"beta": 0.5}, None
    ),
    "Bootstrap-soft": Case(losses.Bootstrap, oracle.bootstrap, {"beta": 0.6}),
    "Bootstrap-hard": Case(
        losses.Bootstrap, oracle.bootstrap, {"beta": 0.8, "hard": True}
    ),
    "Bi-tempered": Case(
        losses.BiTempered, oracle.bi_tempered, {"t1": 0.8, "t2": 1.2}, 5
    ),
    "Bi-tempered-strong": Case(
        losses.BiTempered, oracle.bi_tempered, {"t1": 0.2, "t2": 4.0}, 1.25
    ),
    "Bi-tempered-slight": Case(
        losses.BiTempered, oracle.bi_tempered, {"t1": 0.0, "t2": 1.0001}, 1
    ),
    "Bi-tempered-log": Case(
        losses.BiTempered, oracle.bi_tempered, {"t1": 0.5, "t2": 1.0}, 2
    ),
    "Bi-tempered-softmax": Case(
        losses.BiTempered, oracle.bi_tempered, {"t1": 1.0, "t2": 2.0}, None
    ),
    "LogitNorm": Case(
        losses.LogitNormCrossEntropy,
        oracle.logit_norm_cross_entropy,
        {"temperature": 0.04},
        NORM_25,
    ),
    "Forward": Case(
        losses.ForwardCorrection,
        oracle.forward_correction,
        {"transition": noise},
        -np.log(noise(10).min()),
    ),
    "Forward-zeros": Case(
        losses.ForwardCorrection, oracle.forward_correction, {"transition": pair_flip}
    ),
    "Backward": Case(
        losses.BackwardCorrection,
        oracle.backward_correction,
        {"transition": noise},
        None,
    ),
    "Logit-clip": Case(
        LogitClipLoss,
        oracle.clipped_cross_entropy,
        {"tau": 1.5},
        NORM_1_5,
        inner={"loss": CE},
    ),
    "Value-clip": Case(
        losses.LogitValueClip,
        oracle.value_clipped_cross_entropy,
        {"limit": 1.5},
        np.log(1 + 9 * np.e**3),
        inner={"loss": CE},
    ),
    "Norm-penalty": Case(
        losses.NormPenalty,
        oracle.penalized_cross_entropy,
        {"weight": 0.1},
        inner={"loss": CE},
    ),
    "Sum": Case(
        losses.ActivePassive,
        oracle.active_passive,
        {"alpha": 2.0, "beta": 0.5},
        3,
        inner={"active": NCE, "passive": MAE},
    ),
}
if BACKEND == "openvino":  # Whose `log1p` cancels for tiny numbers.
    del CASES["Bi-tempered-slight"]
# One case for each way to implement a loss, for what all of them share: of the
# label's probability, of all probabilities, of labels and probabilities, of the
# logits, with a matrix, fused with clipping, around a loss, and a sum.
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
    """A loss of the table, which returns one value per sample."""
    case = CASES[name]
    axis = {"axis": changes["axis"]} if "axis" in changes else {}
    inner = {role: loss(**axis) for role, loss in case.inner.items()}
    given = {"reduction": "none", **arguments(name, classes), **inner, **changes}
    return case.loss(**given)


def takes_probabilities(name):
    return "from_logits" in build(name).get_config()


def functions(labels, names=tuple(CASES), **changes):
    """Losses of the table with these labels, as functions of the logits."""
    return {name: with_labels(build(name, **changes), labels) for name in names}


def expected_values(name, weights, z, **changes):
    parameters = {**arguments(name, np.shape(z)[-1]), **changes}
    return oracle.value(CASES[name].formula, weights, z, **parameters)


def expected_gradient(name, weights, z, entries=None, **changes):
    """The gradient of the sum of the losses, of all columns or of some."""
    parameters = {**arguments(name, np.shape(z)[-1]), **changes}
    return oracle.gradient(CASES[name].formula, weights, z, entries, **parameters)
