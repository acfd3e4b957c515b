"""Statements of the papers about their losses: limits, constant sums, continuity."""

from collections import namedtuple

import keras
import numpy as np
import pytest

from keras_logitclip import losses
from tests import loss_cases
from tests import oracle
from tests import running
from tests.conftest import BACKEND
from tests.conftest import INFERENCE_ONLY
from tests.conftest import MODES
from tests.loss_cases import CASES
from tests.loss_cases import build
from tests.loss_cases import expected_gradient
from tests.loss_cases import functions
from tests.loss_cases import noise
from tests.oracle import INF
from tests.running import apply
from tests.running import apply_each
from tests.running import gradient_along
from tests.running import to_numpy
from tests.running import to_tensor
from tests.running import value_and_vjp
from tests.samples import logits
from tests.samples import some_labels

PLAIN = MODES[0]
Z = logits()
IDS, ONE_HOT = some_labels("sparse").given, some_labels("one-hot").given
IDENTITY = np.eye(10, dtype="float32")


def with_labels(loss, labels):
    """Returns a loss without reduction, as a function of the logits."""
    return running.with_labels(loss.call, labels)


def values_of(loss, labels, z, **kwargs):
    return apply(with_labels(loss, labels), z, **kwargs)


def test_the_sum_over_all_labels_is_constant():
    names = [name for name, case in CASES.items() if case.total is not None]
    for z in (Z, 10 * Z, logits(seed=1), 10 * logits(seed=1)):
        per_label = [
            apply_each(functions(np.tile(label, (6, 1)), names), z)
            for label in IDENTITY
        ]
        for name in names:
            total = sum(values[name] for values in per_label)
            np.testing.assert_allclose(
                total, CASES[name].total, rtol=1e-5, err_msg=name
            )


# Limits.

CE, MAE = loss_cases.cross_entropy, loss_cases.mean_absolute_error
NCE = loss_cases.normalized_cross_entropy
Limit = namedtuple("Limit", "loss expected factor rtol", defaults=(1.0, 1e-5))


def gce(y, z):
    return loss_cases.generalized_cross_entropy(y, z, q=0.7)


LIMITS = {
    "GCE-to-CE": Limit(losses.GeneralizedCrossEntropy(q=1e-6), CE),
    "GCE-1": Limit(losses.GeneralizedCrossEntropy(q=1), MAE, 0.5),
    "Taylor-1": Limit(losses.TaylorCrossEntropy(order=1), MAE, 0.5),
    # Of ten classes: what is missing is (1 - p) ** order / order.
    "Taylor-to-CE": Limit(losses.TaylorCrossEntropy(order=300), CE),
    "PHuber-CE": Limit(losses.PHuberCrossEntropy(threshold=1e9), CE),
    "PHuber-GCE": Limit(
        losses.PHuberGeneralizedCrossEntropy(q=0.7, threshold=1e9), gce, rtol=1e-4
    ),
    "AGCE-to-GCE": Limit(
        losses.AsymmetricGeneralizedCrossEntropy(a=1e-6, q=0.7), gce, rtol=1e-4
    ),
    "SCE-without-RCE": Limit(losses.SymmetricCrossEntropy(alpha=2, beta=0), CE, 2.0),
    "SCE-without-CE": Limit(
        losses.SymmetricCrossEntropy(alpha=0, beta=2),
        loss_cases.reverse_cross_entropy,
        2.0,
    ),
    "RCE": Limit(losses.ReverseCrossEntropy(), MAE, -np.log(1e-4) / 2),
    "Focal-0": Limit(losses.Focal(gamma=0), CE),
    "NFL-0": Limit(losses.NormalizedFocal(gamma=0), NCE),
    "NGCE-to-NCE": Limit(losses.NormalizedGeneralizedCrossEntropy(q=1e-6), NCE),
    "AUL-1": Limit(losses.AsymmetricUnhinged(a=2, q=1), MAE, 0.5),
    "JS-to-CE": Limit(losses.JensenShannon(weight=1e-3), CE, rtol=5e-3),
}


@pytest.mark.parametrize("kind", ["sparse", "one-hot"])
def test_limits(kind):
    labels = some_labels(kind)
    for z in (0.2 / 3 * logits(seed=seed) for seed in range(3)):
        values = apply_each(
            {k: with_labels(limit.loss, labels.given) for k, limit in LIMITS.items()}, z
        )
        for name, limit in LIMITS.items():
            expected = loss_cases.value(limit.expected, labels.weights, z)
            np.testing.assert_allclose(
                values[name], limit.factor * expected, limit.rtol, err_msg=name
            )


CROSS_ENTROPIES = {
    "Bootstrap-soft": losses.Bootstrap(beta=1.0),
    "Bootstrap-hard": losses.Bootstrap(beta=1.0, hard=True),
    "Bi-tempered": losses.BiTempered(1.0, 1.0),
    "Forward": losses.ForwardCorrection(IDENTITY),
    "Backward": losses.BackwardCorrection(IDENTITY),
    "CORES": losses.ConfidenceRegularized(0.0),
    "Value-clip": losses.LogitValueClip(losses.CrossEntropy(), INF),
    "Norm-penalty": losses.NormPenalty("sparse_categorical_crossentropy", 0.0),
    "Active": losses.ActivePassive(losses.CrossEntropy(), "mse", beta=0.0),
    "Passive": losses.ActivePassive(
        losses.Bootstrap(), losses.CrossEntropy(), alpha=0.0
    ),
}
if BACKEND != "openvino":  # Whose `log1p` cancels for tiny numbers.
    CROSS_ENTROPIES["Bi-tempered-nearly"] = losses.BiTempered(1.0, 1.0 + 1e-9)


def test_limits_that_are_cross_entropy():
    values = apply_each(
        {
            name: with_labels(loss, ONE_HOT if name == "Active" else IDS)
            for name, loss in CROSS_ENTROPIES.items()
        },
        Z,
    )
    expected = oracle.cross_entropy(IDS, Z)
    for name in values:
        np.testing.assert_allclose(
            values[name], expected, rtol=2e-6, atol=1e-6, err_msg=name
        )


# OpenVINO's `log_sigmoid` loses digits there, unlike the backends that train.
@pytest.mark.gradients
def test_jensen_shannon_becomes_half_of_mean_absolute_error():
    rests = (1e-2, 1e-4, 1e-6)
    values = apply_each(
        {rest: with_labels(losses.JensenShannon(1 - rest), IDS) for rest in rests}, Z
    )
    half = loss_cases.value(MAE, ONE_HOT, Z) / 2
    for rest in rests:
        assert np.abs(values[rest] - half).max() < -1 / np.log(rest), rest


# At and beyond a threshold.

TURNS = {
    "PHuber-CE": (losses.PHuberCrossEntropy(threshold=10), 0.1),
    "PHuber-GCE": (losses.PHuberGeneralizedCrossEntropy(q=0.5, threshold=10), 0.01),
}


@pytest.mark.gradients
@pytest.mark.parametrize("name", TURNS)
def test_value_and_slope_do_not_jump_at_the_threshold(name):
    loss, turn = TURNS[name]
    p = turn * np.array([1 - 1e-3, 1 + 1e-3])
    z = np.stack([np.log(p), np.log(1 - p)], -1)
    values, gradient = value_and_vjp(with_labels(loss, [0, 0]), z, np.ones(2), PLAIN)
    slopes = gradient[:, 0] / (p * (1 - p))
    np.testing.assert_allclose(slopes, -10, rtol=1.1e-3)
    np.testing.assert_allclose(values[0] - values[1], 2e-3 * 10 * turn, rtol=1e-2)


@pytest.mark.gradients
@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_focal_has_a_gradient_where_the_label_is_certain(gamma):
    loss = with_labels(losses.Focal(gamma), np.zeros(6, int))
    z = 200 * IDENTITY[[0] * 6]
    values, gradient = value_and_vjp(loss, z, np.ones(6), PLAIN)
    np.testing.assert_array_equal(values, 0)
    np.testing.assert_array_equal(gradient, 0)


@pytest.mark.gradients
def test_focal_of_gamma_zero_is_cross_entropy_where_the_label_is_certain():
    loss = losses.Focal(0.0, from_logits=False, reduction="none")
    certain = IDENTITY[[0] * 6]
    _, gradient = value_and_vjp(
        with_labels(loss, np.zeros(6, int)), certain, np.ones(6), PLAIN
    )
    np.testing.assert_allclose(gradient, -certain, rtol=1e-6)


def test_mean_absolute_error_of_weights_whose_sum_is_not_one():
    labels = some_labels("unnormalized")
    loss = with_labels(build("MAE"), labels.given)
    expected = np.abs(np.exp(oracle.log_softmax(Z)) - labels.weights).sum(-1)
    np.testing.assert_allclose(apply(loss, Z), expected, rtol=1e-5)


# Against Keras.


@pytest.mark.parametrize("q", [0.3, 0.7])
def test_generalized_cross_entropy_equals_that_of_keras(q):
    p = np.exp(oracle.log_softmax(Z)).astype("float32")
    theirs = keras.losses.CategoricalGeneralizedCrossEntropy(q, reduction="none")
    ours = losses.GeneralizedCrossEntropy(q, from_logits=False, reduction="none")
    np.testing.assert_allclose(
        to_numpy(ours(IDS, p)), to_numpy(theirs(IDS, p)), rtol=1e-4
    )


@pytest.mark.parametrize("kind", ["one-hot", "soft"])
@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_focal_equals_that_of_keras(gamma, kind):
    labels = some_labels(kind).given
    theirs = keras.losses.CategoricalFocalCrossentropy(
        alpha=1.0, gamma=gamma, from_logits=True, reduction="none"
    )
    ours = losses.Focal(gamma, reduction="none")
    np.testing.assert_allclose(
        to_numpy(ours(labels, Z)), to_numpy(theirs(labels, Z)), rtol=1e-4
    )


# The bi-tempered loss.


def test_bi_tempered_loss_of_the_labels_themselves_is_zero():
    p = loss_cases.tempered_softmax(Z.astype("float64"), 1.2).astype("float32")
    values = values_of(losses.BiTempered(0.8, 1.2), p, Z)
    np.testing.assert_allclose(values, np.zeros(6), atol=1e-6)


def test_bi_tempered_loss_is_bounded():
    z = Z.copy()
    z[0, 1], z[1], z[2, 0] = 1e4, 1e4, 1e4
    z[1, 0] = -1e4
    values = values_of(losses.BiTempered(t1=0.5, t2=1.2), np.zeros(6, int), z)
    assert (values <= 2).all()
    assert values.max() > 1.9


# Of labels that are class ids, the loss with t1 = 1 is minus the logarithm of the
# tempered softmax.
T2S = (1.2, 1.74, 2.0, 3.0, 5.0)
if BACKEND != "openvino":  # Whose `log1p` cancels for tiny numbers.
    T2S = (1.001, *T2S)
# Of values and of gradients. The slowest rows amplify how float32 rounds a sum of
# 128,000 terms, on TensorFlow to 2e-4.
TOLERANCES = {"float32": (1e-5, 5e-4), "float64": (1e-13, 1e-12)}
if BACKEND == "tensorflow" and running.KERAS_VERSION < (3, 15):
    # With TensorFlow 2.18, values to 3e-5.
    TOLERANCES["float32"] = 5e-5, 5e-4


@pytest.mark.parametrize("dtype", ["float32"] + ["float64"] * (not INFERENCE_ONLY))
@pytest.mark.parametrize("classes", [2, 10, 1000, 128_000])
@pytest.mark.parametrize("t2", T2S)
def test_tempered_softmax_of_the_slowest_rows(t2, classes, dtype):
    """Where all logits but one have the same depth below it.

    The iteration is slowest where the others together are about as probable as the
    one. With a step less, the gradients of 128,000 classes are wrong in float64.
    """
    s = t2 - 1
    slowest = (classes**s - 1) / s
    depths = np.minimum(slowest * np.array([0, 0.01, 0.1, 0.5, 1, 2, 10, 100]), 2e4)
    z = np.tile(-depths[:, None].astype("float32"), (1, classes))
    largest = classes // 2
    other = largest - 1
    z[:, largest] = 0
    z += 100
    # The depths as rounded.
    depths = 100 - z[:, other].astype("float64")
    low = normalizer_of(depths, classes, s)
    log_p = {
        column: -np.log1p(s * (low + depth)) / s
        for column, depth in ((largest, 0), (other, depths))
    }
    for_value, for_gradient = TOLERANCES[dtype]
    for column, expected in log_p.items():
        loss = losses.BiTempered(1.0, t2, dtype=dtype)
        value, gradient = value_and_gradient(
            with_labels(loss, np.full(8, column)), z, dtype
        )
        error = np.abs(value + expected) / (1 + np.abs(expected))
        assert error.max() <= for_value, column
        if not INFERENCE_ONLY:
            slope = np.exp(s * log_p[column])[:, None]
            actual = gradient[:, [largest, other]] / slope
            error = actual - unit_gradient_of(log_p, column, s, classes)
            assert np.abs(error).max() <= for_gradient, column


def value_and_gradient(function, z, dtype):
    if INFERENCE_ONLY:
        return apply(function, z, dtype=dtype), None
    return value_and_vjp(function, z, np.ones(()), PLAIN, dtype)


def unit_gradient_of(log_p, label, s, classes):
    """Of -log p / p ** s of the label, at the most probable class and at another one.

    Where the label is certain, the two terms cancel.
    """
    largest, other = (np.exp((1 + s) * each) for each in log_p.values())
    total = largest + (classes - 1) * other
    shares = np.stack([largest, other], -1) / total[:, None]
    return shares - [label == column for column in log_p]


def normalizer_of(depths, classes, s):
    """By bisection."""
    low, high = np.zeros(8), np.full(8, (classes**s - 1) / s)
    for _ in range(200):
        middle = (low + high) / 2
        others = (classes - 1) * (1 + s * (middle + depths)) ** (-1 / s)
        above = (1 + s * middle) ** (-1 / s) + others > 1
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return low


@pytest.mark.parametrize("offset", [-1000, 1000])
def test_tempered_softmax_is_invariant_to_offsets(offset):
    z = np.round(Z * 64) / 64
    expected = np.log(loss_cases.tempered_softmax(z.astype("float64"), 2.0))
    values = [
        values_of(losses.BiTempered(1.0, 2.0), np.full(6, k), z + np.float32(offset))
        for k in range(10)
    ]
    np.testing.assert_allclose(-np.stack(values, -1), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.gradients
@pytest.mark.parametrize("t2", [1.2, 3.0])
def test_second_derivatives_of_the_bi_tempered_loss(t2):
    direction = logits(seed=2).astype("float64")
    labels, loss = some_labels("soft"), losses.BiTempered(0.8, t2)
    second = gradient_along(with_labels(loss, labels.given), Z, np.ones(6), direction)

    def along(z):
        moved = z + 1e-100j * direction
        return loss_cases.bi_tempered(labels.weights, moved, 0.8, t2).imag * 1e100

    # The rows are independent of each other: a step in all of them at once.
    steps = 1e-5 * np.eye(10)
    slopes = [(along(Z + step) - along(Z - step)) / 2e-5 for step in steps]
    np.testing.assert_allclose(second, np.stack(slopes, -1), atol=2e-5)


# Corrections of a known noise.


def test_backward_correction_is_unbiased():
    matrix = noise(10)
    given = {
        k: with_labels(losses.BackwardCorrection(matrix), np.full(6, k))
        for k in range(10)
    }
    of_labels = np.stack([*apply_each(given, Z).values()], -1)
    expected = -oracle.log_softmax(Z)
    np.testing.assert_allclose(of_labels @ matrix.T, expected, rtol=1e-5, atol=1e-5)


def test_forward_correction_of_the_noise_itself_is_its_entropy_at_best():
    matrix = noise(10)
    z = np.concatenate([200 * IDENTITY[3:4], Z[:5]])
    values = values_of(losses.ForwardCorrection(matrix), np.tile(matrix[3], (6, 1)), z)
    entropy = -(matrix[3] * np.log(matrix[3])).sum()
    np.testing.assert_allclose(values[0], entropy, rtol=1e-5)
    assert (values[1:] > values[0]).all()


@pytest.mark.gradients
@pytest.mark.parametrize("kind", ["sparse", "one-hot", "soft"])
def test_labels_that_the_transition_never_gives(kind):
    matrix = np.eye(10)
    matrix[3] = matrix[4]
    given = {
        "sparse": np.array([3, 4] * 3),
        "one-hot": IDENTITY[[3, 4] * 3],
        "soft": 0.5 * (IDENTITY[[3, 4] * 3] + IDENTITY[[4, 5] * 3]),
    }[kind]
    loss = with_labels(losses.ForwardCorrection(matrix), given)
    values, gradient = value_and_vjp(loss, Z, np.ones(6), PLAIN)
    assert (values[::2] > 1e29).all()
    assert (values[1::2] < 1e3).all()
    assert np.isfinite(gradient).all()


# Logits divided by their norm.


@pytest.mark.parametrize("scale", [1e-3, 1e10, 1e30, 1e38])
def test_logit_norm_is_invariant_to_scale(scale):
    unit = Z / np.abs(Z).max()
    values = values_of(build("LogitNorm"), IDS, unit * np.float32(scale))
    expected = loss_cases.logit_norm_cross_entropy(
        ONE_HOT, unit.astype("float64"), 0.04
    )
    np.testing.assert_allclose(
        values, expected, rtol=1e-3 if scale < 1 else 1e-5, atol=1e-6
    )


# Of PyTorch's compiler itself, about each autograd function.
@pytest.mark.gradients
@pytest.mark.parametrize(
    ("mode", "scale"),
    [
        *((PLAIN, scale) for scale in (1e-30, 1e-3, 1e10, 1e30, 1e37, 3e38)),
        *((mode, 1e30) for mode in MODES[1:]),
    ],
)
def test_logit_norm_of_long_and_short_rows(mode, scale):
    z = Z / np.abs(Z).max(-1, keepdims=True) * np.float32(scale)
    z[5] = 0
    upstream = np.full(6, 1e3 if scale > 1e35 else 1.0)
    values, gradient = value_and_vjp(
        with_labels(build("LogitNorm"), IDS), z, upstream, mode
    )
    expected = loss_cases.logit_norm_cross_entropy(ONE_HOT, z.astype("float64"), 0.04)
    np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-6)
    expected = upstream[:, None] * expected_gradient("LogitNorm", ONE_HOT, z)
    assert np.isfinite(gradient).all()
    if scale > 1e38:  # The inverse of such a norm is no normal number.
        return
    largest = np.abs(expected).max(-1, keepdims=True)
    assert (np.abs(gradient - expected) <= 1e-3 * largest + 1e-37).all()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_logit_norm_of_long_half_precision_rows(dtype):
    z = np.clip(2e4 * Z, -6e4, 6e4).astype("float32")
    z = to_numpy(to_tensor(z, dtype))
    values = values_of(build("LogitNorm"), IDS, z, dtype=dtype)
    expected = loss_cases.logit_norm_cross_entropy(ONE_HOT, z.astype("float64"), 0.04)
    np.testing.assert_allclose(values, expected, rtol=1e-5)
