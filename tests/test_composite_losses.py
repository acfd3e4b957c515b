from collections import namedtuple
from functools import cache
from functools import partial

import keras
import numpy as np
import pytest

from keras_logitclip import LogitClipLoss
from keras_logitclip import _kernels
from keras_logitclip.losses.active_passive import ActivePassive
from keras_logitclip.losses.bi_tempered import BiTempered
from keras_logitclip.losses.bi_tempered import bi_tempered
from keras_logitclip.losses.bi_tempered import log_tempered_softmax
from keras_logitclip.losses.bootstrap import Bootstrap
from keras_logitclip.losses.bootstrap import bootstrap
from keras_logitclip.losses.confidence_regularized import ConfidenceRegularized
from keras_logitclip.losses.confidence_regularized import confidence_regularized
from keras_logitclip.losses.cross_entropy import CrossEntropy
from keras_logitclip.losses.cross_entropy import cross_entropy
from keras_logitclip.losses.logit_norm_cross_entropy import LogitNormCrossEntropy
from keras_logitclip.losses.logit_norm_cross_entropy import logit_norm_cross_entropy
from keras_logitclip.losses.logit_value_clip import LogitValueClipLoss
from keras_logitclip.losses.loss_correction import BackwardCorrection
from keras_logitclip.losses.loss_correction import ForwardCorrection
from keras_logitclip.losses.loss_correction import backward_correction
from keras_logitclip.losses.loss_correction import forward_correction
from keras_logitclip.losses.mean_absolute_error import CategoricalMeanAbsoluteError
from keras_logitclip.losses.norm_penalty import NormPenalty
from keras_logitclip.losses.normalized import NormalizedCrossEntropy
from tests import oracle
from tests.conftest import BACKEND
from tests.conftest import DTYPES
from tests.conftest import INFERENCE_ONLY
from tests.conftest import MODES
from tests.oracle import INF
from tests.running import apply
from tests.running import double_precision
from tests.running import gradient_along
from tests.running import on_parts
from tests.running import to_numpy
from tests.running import to_tensor
from tests.running import value_and_vjp

# The formulas in NumPy, of weights of the classes and of logits. They also hold for
# complex logits, whose imaginary parts are the exact derivatives.


def log_softmax(z):
    z = z - z.real.max(-1, keepdims=True)
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


def expected_cross_entropy(y, z):
    return -(y * log_softmax(z)).sum(-1)


def expected_bootstrap(y, z, beta, hard=False):
    log_p = log_softmax(z)
    belief = np.exp(log_p)
    if hard:
        belief = np.eye(z.shape[-1])[z.real.argmax(-1)]
    return -((beta * y + (1 - beta) * belief) * log_p).sum(-1)


def expected_confidence_regularized(y, z, beta):
    return expected_cross_entropy(y, z) + beta * log_softmax(z).mean(-1)


def expected_forward(y, z, transition):
    log_p = log_softmax(z)
    peak = log_p.real.max(-1, keepdims=True)
    if (transition == 0).any():  # Then underflow would make log 0 of a tiny number.
        with np.errstate(divide="ignore"):
            log_joint = log_p[..., None] + np.log(transition)
        peak = log_joint.real.max(-2, keepdims=True)
        given = np.log(np.exp(log_joint - peak).sum(-2)) + peak[..., 0, :]
    else:
        given = np.log(np.exp(log_p - peak) @ transition) + peak
    return -(y * given).sum(-1)


def expected_backward(y, z, transition):
    return -((y @ np.linalg.inv(transition)) * log_softmax(z)).sum(-1)


def norm(z):
    """The norm of order 2, for complex numbers without conjugation."""
    scale = np.abs(z.real).max(-1, keepdims=True)
    scale = np.where(scale > 0, scale, 1)
    return scale * np.sqrt(((z / scale) ** 2).sum(-1, keepdims=True))


def expected_logit_norm(y, z, temperature):
    length = norm(z)
    epsilon = 1e-7 * np.where(length.real > 1, length, 1)
    return expected_cross_entropy(y, z / (temperature * (length + epsilon)))


def tempered_softmax(z, t2):
    """By bisection, and for imaginary parts by steps from there."""
    s = t2 - 1
    if s == 0:
        return np.exp(log_softmax(z))
    z = z - z.real.max(-1, keepdims=True)
    low = np.zeros((*z.shape[:-1], 1))
    high = np.full_like(low, (z.shape[-1] ** s - 1) / s)
    for _ in range(200):
        middle = (low + high) / 2
        above = ((1 + s * (middle - z.real)) ** (-1 / s)).sum(-1, keepdims=True) > 1
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    normalizer = (low + high) / 2
    for _ in range(3 if np.iscomplexobj(z) else 0):
        base = 1 + s * (normalizer - z)
        excess = (base ** (-1 / s)).sum(-1, keepdims=True) - 1
        slope = -(base ** (-1 / s - 1)).sum(-1, keepdims=True)
        normalizer = normalizer - excess / slope
    return (1 + s * (normalizer - z)) ** (-1 / s)


def tempered_log(x, t):
    return np.log(x) if t == 1 else (x ** (1 - t) - 1) / (1 - t)


def expected_bi_tempered(y, z, t1, t2):
    p = tempered_softmax(z, t2)
    of_labels = y * tempered_log(np.where(y == 0, 1, y), t1) - y ** (2 - t1) / (2 - t1)
    p = np.where(p == 0, np.finfo("float64").tiny, p)
    return (of_labels - y * tempered_log(p, t1) + p ** (2 - t1) / (2 - t1)).sum(-1)


def expected_value_clip(y, z, limit):
    inside = np.abs(z.real) <= limit
    return expected_cross_entropy(y, np.where(inside, z, np.sign(z.real) * limit))


def expected_norm_penalty(y, z, weight):
    return expected_cross_entropy(y, z) + weight * norm(z)[..., 0]


def expected_active_passive(y, z, alpha, beta):
    log_p = log_softmax(z)
    active = (y * log_p).sum(-1) / log_p.sum(-1)
    difference = np.exp(log_p) - y
    passive = (difference * np.sign(difference.real)).sum(-1)
    return alpha * active + beta * passive


def noise(classes):
    """A transition without zeros."""
    rng = np.random.default_rng(3)
    return 0.6 * np.eye(classes) + 0.4 * rng.dirichlet(np.ones(classes), classes)


def pair_flip(classes):
    """A transition that is mostly zeros."""
    return 0.7 * np.eye(classes) + 0.3 * np.roll(np.eye(classes), 1, axis=1)


def nothing(classes):
    return {}


def same(**kwargs):
    return lambda classes: kwargs


def transition(matrix):
    return lambda classes: {"transition": matrix(classes)}


# `shared` are the arguments of both the loss and the formula, by number of classes;
# `own` those of the loss alone.
Case = namedtuple("Case", "loss shared expected own", defaults=({},))
CASES = {
    "CE": Case(CrossEntropy, nothing, expected_cross_entropy),
    "Bootstrap-soft": Case(Bootstrap, same(beta=0.6), expected_bootstrap),
    "Bootstrap-hard": Case(Bootstrap, same(beta=0.8, hard=True), expected_bootstrap),
    "Bi-tempered": Case(BiTempered, same(t1=0.8, t2=1.2), expected_bi_tempered),
    "Bi-tempered-strong": Case(BiTempered, same(t1=0.2, t2=4.0), expected_bi_tempered),
    "Bi-tempered-slight": Case(
        BiTempered, same(t1=0.0, t2=1.0001), expected_bi_tempered
    ),
    "Bi-tempered-log": Case(BiTempered, same(t1=0.5, t2=1.0), expected_bi_tempered),
    "Bi-tempered-softmax": Case(BiTempered, same(t1=1.0, t2=2.0), expected_bi_tempered),
    "Forward": Case(ForwardCorrection, transition(noise), expected_forward),
    "Forward-zeros": Case(ForwardCorrection, transition(pair_flip), expected_forward),
    "Backward": Case(BackwardCorrection, transition(noise), expected_backward),
    "CORES": Case(
        ConfidenceRegularized, same(beta=0.5), expected_confidence_regularized
    ),
    "LogitNorm": Case(
        LogitNormCrossEntropy, same(temperature=0.04), expected_logit_norm
    ),
    "Value-clip": Case(
        LogitValueClipLoss, same(limit=1.5), expected_value_clip, {"loss": CrossEntropy}
    ),
    "Norm-penalty": Case(
        NormPenalty, same(weight=0.1), expected_norm_penalty, {"loss": CrossEntropy}
    ),
    "Sum": Case(
        ActivePassive,
        same(alpha=2.0, beta=0.5),
        expected_active_passive,
        {"active": NormalizedCrossEntropy, "passive": CategoricalMeanAbsoluteError},
    ),
}
if BACKEND == "openvino":  # Whose `log1p` cancels for tiny numbers.
    del CASES["Bi-tempered-slight"]
every_case = pytest.mark.parametrize("name", CASES)

# Relative to the value, or to 1 where that is smaller, and to the largest entry of a
# row's gradient and, a tenth of it, of all gradients.
RTOL = {"float64": 1e-11, "float32": 1e-5, "float16": 1e-5, "bfloat16": 1e-5}
GRADIENT_RTOL = {**RTOL, "float16": 1e-3, "bfloat16": 8e-3}


def build(name, classes=10, **kwargs):
    case = CASES[name]
    axis = {"axis": kwargs["axis"]} if "axis" in kwargs else {}
    own = {role: loss(**axis) for role, loss in case.own.items()}
    return case.loss(**{"reduction": "none", **case.shared(classes), **own, **kwargs})


def expected_values(name, y, z):
    case = CASES[name]
    y, z = np.asarray(y, "float64"), np.asarray(z, "float64")
    return case.expected(y, z, **case.shared(z.shape[-1]))


def expected_gradient(name, y, z, columns=None):
    """The gradient of the sum of the losses, of all columns or of some."""
    case, step = CASES[name], 1e-100
    y, z = np.asarray(y, "float64"), np.asarray(z, "float64")
    columns = range(z.shape[-1]) if columns is None else columns
    slopes = []
    for k in columns:
        moved = z.astype("complex128")
        moved[..., k] += 1j * step
        slopes.append(case.expected(y, moved, **case.shared(z.shape[-1])).imag / step)
    return np.stack(slopes, -1)


def logits(*shape, scale=3.0, seed=0):
    return scale * np.random.default_rng(seed).normal(size=shape).astype("float32")


Labels = namedtuple("Labels", "given weights")
KINDS = ("sparse", "column", "one-hot", "soft")


def some_labels(kind, shape, classes):
    """Labels as they are given, and the weight of each class that they mean."""
    rng = np.random.default_rng(1)
    ids = rng.integers(0, classes, shape)
    one_hot = (ids[..., None] == np.arange(classes)).astype("float32")
    soft = rng.dirichlet(np.ones(classes), shape).astype("float32")
    soft[..., 0] = 0
    return {
        "sparse": Labels(ids.astype("int32"), one_hot),
        "column": Labels(ids[..., None].astype("int32"), one_hot),
        "one-hot": Labels(one_hot, one_hot),
        "soft": Labels(soft, soft),
    }[kind]


Z = logits(6, 10)
IDS = some_labels("sparse", (6,), 10).given
ONE_HOT = some_labels("one-hot", (6,), 10).given
SOFT = some_labels("soft", (6,), 10).given


def tensor_of(labels):
    return to_tensor(labels.given, labels.given.dtype.name)


@cache
def rows_and_expected(name, kind, classes, dtype="float32"):
    """Rows, the columns to look at, and values and gradients there."""
    with double_precision(dtype):
        z = to_numpy(to_tensor(logits(4, classes), dtype))
    weights = some_labels(kind, (4,), classes).weights
    labels = weights.argmax(-1)
    columns = np.unique([*range(min(classes, 10)), *labels, *z.argmax(-1)])
    values = expected_values(name, weights, z)
    return z, columns, values, expected_gradient(name, weights, z, columns)


def assert_values_close(actual, expected, dtype="float32"):
    rtol = RTOL[dtype]
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=rtol)


def assert_gradients_close(gradient, columns, expected, dtype="float32"):
    largest = np.abs(np.asarray(gradient, "float64")).max(-1, keepdims=True)
    error = np.abs(gradient[:, columns] - expected)
    assert (error <= GRADIENT_RTOL[dtype] * (largest + largest.max() / 10)).all()


def unclipped(name, z):
    """The logits that have a gradient, whatever the loss: all but clipped ones."""
    return (np.abs(z) <= 1.5) | (name != "Value-clip")


def assert_case(name, kind, classes, mode, dtype="float32"):
    z, columns, values, gradient = rows_and_expected(name, kind, classes, dtype)
    with double_precision(dtype):
        labels = tensor_of(some_labels(kind, (4,), classes))
    with double_precision(dtype):
        loss = build(name, classes, dtype=dtype)
    actual = value_and_vjp(lambda x: loss.call(labels, x), z, np.ones(4), mode, dtype)
    assert_values_close(actual[0], values, dtype)
    assert_gradients_close(actual[1], columns, gradient, dtype)


# With gradients, all kinds follow.
@every_case
@pytest.mark.parametrize("kind", KINDS if INFERENCE_ONLY else ["sparse"])
def test_values_equal_the_oracle(name, kind):
    z, _, values, _ = rows_and_expected(name, kind, 10)
    labels = some_labels(kind, (4,), 10).given
    assert_values_close(apply(lambda x: build(name)(labels, x), z), values)


@pytest.mark.gradients
@every_case
@pytest.mark.parametrize(
    ("classes", "kind"), [(2, "sparse"), (2, "soft"), *((10, kind) for kind in KINDS)]
)
def test_values_and_gradients_equal_the_oracle(name, kind, classes):
    assert_case(name, kind, classes, MODES[0])


@pytest.mark.gradients
@every_case
@pytest.mark.parametrize("kind", ["sparse", "soft"])
def test_a_thousand_classes(name, kind):
    assert_case(name, kind, 1000, MODES[0])


@pytest.mark.gradients
@pytest.mark.parametrize("mode", MODES[1:])
def test_compiled(mode):
    """Ordinary rows, extreme ones and one whose label is no class, in one batch."""
    z, ids = extreme_logits()[[0, 2, 4, 4]], np.array([0, 0, 0, 10])
    z = np.concatenate([Z, z[:3], Z[:1]])
    ids = np.concatenate([IDS, ids])
    one_hot = np.eye(11)[ids][:, :10]
    labels, count = to_tensor(ids, "int32"), len(CASES)
    functions = [partial(build(name).call, labels) for name in CASES]
    all_values, all_gradients = value_and_vjp(
        on_parts(functions), np.tile(z, (count, 1)), np.ones(10 * count), mode
    )
    for name, values, gradient in zip(
        CASES,
        np.split(all_values, count),
        np.split(all_gradients, count),
        strict=True,
    ):
        assert np.isnan(values[9]), name
        assert np.isnan(gradient[9][unclipped(name, z[9])]).all(), name
        assert_values_close(values[:9], expected_values(name, one_hot, z)[:9])
        expected = expected_gradient(name, one_hot, z)
        assert_gradients_close(gradient[:6], range(10), expected[:6])
        assert np.isfinite(gradient[6:9]).all(), name


@pytest.mark.gradients
@every_case
@pytest.mark.parametrize("dtype", DTYPES)
def test_dtypes(name, dtype):
    assert_case(name, "one-hot", 10, MODES[0], dtype)


Layout = namedtuple("Layout", "shape axis")
LAYOUTS = {"sequence": Layout((2, 3, 10), -1), "channels-first": Layout((2, 10, 3), 1)}


@every_case
@pytest.mark.parametrize("kind", ["sparse", "column", "soft"])
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_layouts(name, kind, layout):
    z = logits(*layout.shape)
    moved = np.moveaxis(z, layout.axis, -1)
    labels = some_labels(kind, moved.shape[:-1], 10)
    given = labels.given
    if given.ndim == 3:
        given = np.moveaxis(given, -1, layout.axis)
    values = apply(lambda x: build(name, axis=layout.axis)(given, x), z)
    assert_values_close(values, expected_values(name, labels.weights, moved))


# Extreme logits.


def extreme_logits():
    """Rows that are sure of the label 0, of another class, and of neither."""
    z = logits(6, 10)
    z[0, 0] = 1e4
    z[1, 3] = 1e4
    z[2], z[2, 3] = -1e4, 1e4
    z[3], z[3, 0] = 1e4, -1e4
    z[4] = 1e4
    z[5] *= 3000
    return z


@pytest.mark.gradients
@every_case
@pytest.mark.parametrize("kind", ["sparse", "one-hot"])
def test_extreme_logits(name, kind):
    z, ids = extreme_logits(), np.zeros(6, "int32")
    one_hot = np.eye(10, dtype="float32")[ids]
    given = ids if kind == "sparse" else one_hot
    labels = to_tensor(given, given.dtype.name)
    loss = build(name)
    values, gradient = value_and_vjp(
        lambda x: loss.call(labels, x), z, np.ones(6), MODES[0]
    )
    np.testing.assert_allclose(
        values, expected_values(name, one_hot, z), rtol=1e-5, atol=1e-5
    )
    expected = expected_gradient(name, one_hot, z)
    # Of logarithms of probabilities of -20,000, the last place is 0.002.
    np.testing.assert_allclose(gradient, expected, rtol=2e-3, atol=5e-7)
    # The pull of the label does not vanish where it is most wrong.
    wrong = z.argmax(-1) != 0
    np.testing.assert_allclose(
        gradient[wrong, 0], expected[wrong, 0], rtol=2e-3, atol=1e-37
    )


@pytest.mark.gradients
@every_case
def test_invalid_class_ids_give_nan(name):
    ids, z = to_tensor([3, -1, 10, 9], "int32"), logits(4, 10)
    loss = build(name)
    values, gradient = value_and_vjp(
        lambda x: loss.call(ids, x), z, np.ones(4), MODES[0]
    )
    invalid = [False, True, True, False]
    np.testing.assert_array_equal(np.isnan(values), invalid)
    assert np.isnan(gradient[1:3][unclipped(name, z[1:3])]).all()
    assert np.isfinite(gradient[[0, 3]]).all()


# Limits and properties.

IDENTITY = np.eye(10)
CROSS_ENTROPIES = {
    "Bootstrap-soft": Bootstrap(beta=1.0),
    "Bootstrap-hard": Bootstrap(beta=1.0, hard=True),
    "Bi-tempered": BiTempered(1.0, 1.0),
    "Forward": ForwardCorrection(IDENTITY),
    "Backward": BackwardCorrection(IDENTITY),
    "CORES": ConfidenceRegularized(0.0),
    "Value-clip": LogitValueClipLoss(CrossEntropy(), INF),
    "Norm-penalty": NormPenalty("sparse_categorical_crossentropy", 0.0),
    "Active": ActivePassive(CrossEntropy(), "mse", beta=0.0),
    "Passive": ActivePassive(Bootstrap(), CrossEntropy(), alpha=0.0),
}
if BACKEND != "openvino":
    CROSS_ENTROPIES["Bi-tempered-nearly"] = BiTempered(1.0, 1.0 + 1e-9)


@pytest.mark.parametrize("name", CROSS_ENTROPIES)
def test_limits_that_are_cross_entropy(name):
    labels = ONE_HOT if name == "Active" else IDS
    values = apply(lambda z: CROSS_ENTROPIES[name].call(to_tensor(labels), z), Z)
    np.testing.assert_allclose(
        values, oracle.cross_entropy(IDS, Z), rtol=2e-6, atol=1e-6
    )


def test_bi_tempered_loss_of_the_labels_themselves_is_zero():
    probabilities = tempered_softmax(Z, 1.2).astype("float32")
    values = apply(lambda z: bi_tempered(probabilities, z, 0.8, 1.2), Z)
    np.testing.assert_allclose(values, np.zeros(6), atol=1e-6)


def test_bi_tempered_loss_is_bounded():
    ids = np.zeros(6, "int32")
    values = apply(lambda z: bi_tempered(ids, z, t1=0.5, t2=1.2), extreme_logits())
    assert (values <= 2).all()
    assert values.max() > 1.9


# Two values of depth d below the largest logit, over the range in which the largest
# probability goes from 1 to 1 / K.
T2S = (1.2, 1.74, 2.0, 3.0, 5.0)
if BACKEND != "openvino":  # Whose `log1p` cancels for tiny numbers.
    T2S = (1.001, *T2S)
TOLERANCE = {"float32": 1e-5, "float64": 1e-13}


@pytest.mark.parametrize("dtype", ["float32"] + ["float64"] * (not INFERENCE_ONLY))
@pytest.mark.parametrize("classes", [2, 10, 1000, 128_000])
@pytest.mark.parametrize("t2", T2S)
def test_tempered_softmax_of_the_slowest_rows(t2, classes, dtype):
    s = t2 - 1
    deepest = min((classes**s - 1) / s * 100, 2e4)
    depths = np.float32([0, *np.geomspace(deepest * 1e-4, deepest, 7)])
    z = np.tile(-depths[:, None], (1, classes))
    z[:, classes // 2] = 0
    log_p = apply(lambda z: log_tempered_softmax(z, t2), z + 100, dtype=dtype)
    low, high = np.zeros(8), np.full(8, (classes**s - 1) / s)
    depths = 100 - (z[:, classes // 2 - 1] + np.float32(100)).astype("float64")
    for _ in range(200):
        middle = (low + high) / 2
        others = (classes - 1) * (1 + s * (middle + depths)) ** (-1 / s)
        above = (1 + s * middle) ** (-1 / s) + others > 1
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    for column, depth in ((classes // 2, 0), (classes // 2 - 1, depths)):
        expected = -np.log1p(s * (low + depth)) / s
        error = np.abs(log_p[:, column] - expected) / (1 + np.abs(expected))
        assert error.max() <= TOLERANCE[dtype]


@pytest.mark.parametrize("offset", [-1000, 1000])
def test_tempered_softmax_is_invariant_to_offsets(offset):
    z = np.round(Z * 64) / 64
    log_p = apply(lambda z: log_tempered_softmax(z, 2.0), z + np.float32(offset))
    expected = np.log(tempered_softmax(z.astype("float64"), 2.0))
    np.testing.assert_allclose(log_p, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.gradients
@pytest.mark.parametrize("t2", [1.2, 3.0])
def test_second_derivatives_of_the_bi_tempered_loss(t2):
    z, direction = logits(4, 5), logits(4, 5, seed=2).astype("float64")
    labels = some_labels("soft", (4,), 5)
    second = gradient_along(
        lambda z: bi_tempered(labels.given, z, 0.8, t2), z, np.ones(4), direction
    )

    def along(z):
        moved = z + 1e-100j * direction
        return expected_bi_tempered(labels.weights, moved, 0.8, t2).imag.sum() * 1e100

    steps = 1e-5 * np.eye(z.size).reshape(-1, *z.shape)
    slopes = [(along(z + step) - along(z - step)) / 2e-5 for step in steps]
    np.testing.assert_allclose(second, np.reshape(slopes, z.shape), atol=2e-5)


def test_backward_correction_is_unbiased():
    matrix = noise(10)
    losses = np.stack(
        [
            apply(lambda z, y=y: backward_correction(np.full(6, y), z, matrix), Z)
            for y in range(10)
        ],
        -1,
    )
    expected = -oracle.log_softmax(Z)
    np.testing.assert_allclose(losses @ matrix.T, expected, rtol=1e-5, atol=1e-5)


def test_forward_correction_of_the_noise_itself_is_its_entropy_at_best():
    matrix = noise(10)
    clean = np.float32([200 * IDENTITY[3]])
    value = apply(lambda z: forward_correction(matrix[3:4], z, matrix), clean)
    np.testing.assert_allclose(value, [-(matrix[3] * np.log(matrix[3])).sum()], 1e-5)
    others = apply(
        lambda z: forward_correction(np.tile(matrix[3], (6, 1)), z, matrix), Z
    )
    assert (others > value).all()


@pytest.mark.gradients
@pytest.mark.parametrize("kind", ["sparse", "one-hot", "soft"])
def test_labels_that_the_transition_never_gives(kind):
    matrix = np.eye(10)
    matrix[3] = matrix[4]
    given = {"sparse": np.array([3, 4]), "one-hot": IDENTITY[3:5], "soft": None}[kind]
    if kind == "soft":
        given = 0.5 * (IDENTITY[3:5] + IDENTITY[4:6])
    given = to_tensor(given, "int32" if kind == "sparse" else "float32")
    values, gradient = value_and_vjp(
        lambda z: forward_correction(given, z, matrix), Z[:2], np.ones(2), MODES[0]
    )
    assert values[0] > 1e29
    assert values[1] < 1e3
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("scale", [1e-3, 1e10, 1e30, 1e38])
def test_logit_norm_is_invariant_to_scale(scale):
    unit = Z / np.abs(Z).max()
    values = apply(lambda z: logit_norm_cross_entropy(IDS, z), unit * np.float32(scale))
    expected = expected_logit_norm(ONE_HOT, unit.astype("float64"), 0.04)
    np.testing.assert_allclose(
        values, expected, rtol=1e-3 if scale < 1 else 1e-5, atol=1e-6
    )


@pytest.mark.gradients
@pytest.mark.parametrize(
    ("mode", "scale"),
    [
        *((MODES[0], scale) for scale in (1e-30, 1e-3, 1e10, 1e30, 1e37, 3e38)),
        *((mode, 1e30) for mode in MODES[1:]),
    ],
)
def test_logit_norm_of_long_and_short_rows(mode, scale):
    z = Z / np.abs(Z).max(-1, keepdims=True) * np.float32(scale)
    z[5] = 0
    ids = to_tensor(IDS, "int32")
    upstream = np.full(6, 1e3 if scale > 1e35 else 1.0)
    values, gradient = value_and_vjp(
        lambda z: logit_norm_cross_entropy(ids, z), z, upstream, mode
    )
    y, z = ONE_HOT.astype("float64"), z.astype("float64")
    np.testing.assert_allclose(
        values, expected_logit_norm(y, z, 0.04), rtol=1e-5, atol=1e-6
    )
    expected = upstream[:, None] * expected_gradient("LogitNorm", y, z)
    assert np.isfinite(gradient).all()
    if scale > 1e38:  # The inverse of such a norm is no normal number.
        return
    largest = np.abs(expected).max(-1, keepdims=True)
    assert (np.abs(gradient - expected) <= 1e-3 * largest + 1e-37).all()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_logit_norm_of_long_half_precision_rows(dtype):
    z = to_numpy(to_tensor(2e4 * Z, "float16"))
    z = np.where(np.isfinite(z), z, np.sign(z) * 6e4)
    z = to_numpy(to_tensor(z, dtype))
    values = apply(lambda z: logit_norm_cross_entropy(IDS, z), z, dtype=dtype)
    expected = expected_logit_norm(ONE_HOT, z.astype("float64"), 0.04)
    np.testing.assert_allclose(values, expected, rtol=1e-5)


def test_value_clip_of_half_precision_keeps_infinite_limits():
    loss = LogitValueClipLoss(CrossEntropy(), INF)
    values = apply(lambda z: loss.call(to_tensor(IDS), z), Z, dtype="float16")
    assert np.isfinite(values).all()


# Losses around losses.


@keras.saving.register_keras_serializable(package="tests")
def squared_error(y_true, y_pred):
    return keras.ops.mean(keras.ops.square(y_true - y_pred), -1)


def unregistered(y_true, y_pred):
    return squared_error(y_true, y_pred)


WRAPPERS = {
    "value-clip": lambda loss, **kwargs: LogitValueClipLoss(loss, 1.5, **kwargs),
    "norm-penalty": lambda loss, **kwargs: NormPenalty(loss, 0.1, **kwargs),
    "active": lambda loss, **kwargs: ActivePassive(loss, CrossEntropy(), **kwargs),
    "passive": lambda loss, **kwargs: ActivePassive(CrossEntropy(), loss, **kwargs),
}
every_wrapper = pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
INNER = {
    "ours": CrossEntropy(),
    "keras": keras.losses.CategoricalCrossentropy(from_logits=True),
    "name": "categorical_crossentropy",
    "function": squared_error,
    "clipped": LogitClipLoss(CrossEntropy(), 1.0),
}


@every_wrapper
@pytest.mark.parametrize("inner", INNER.values(), ids=INNER)
def test_any_loss_can_be_wrapped_and_saved(wrap, inner):
    loss = wrap(inner, reduction="sum", name="named", dtype="float64")
    config = keras.saving.serialize_keras_object(loss)
    clone = keras.saving.deserialize_keras_object(config)
    assert type(clone) is type(loss)
    assert clone.get_config() == loss.get_config()
    assert (clone.name, clone.reduction, clone.dtype) == ("named", "sum", "float64")
    with double_precision("float64"):
        values = [to_numpy(each(ONE_HOT, Z)) for each in (loss, clone)]
    assert np.isfinite(values[0])
    assert values[0] == values[1]


@every_wrapper
def test_functions_that_cannot_be_saved(wrap):
    with pytest.raises(ValueError, match="register_keras_serializable.*Received: loss"):
        wrap(unregistered).get_config()


@every_wrapper
@pytest.mark.parametrize(
    ("inner", "message"),
    [
        (keras.losses.CategoricalCrossentropy(), "takes probabilities"),
        (CrossEntropy(from_logits=False), "takes probabilities"),
        ("crossentropi", "the name of a Keras loss"),
        (None, "expected a loss instance"),
        (CrossEntropy(reduction="sum"), "`reduction` of its own"),
        (CrossEntropy(dtype="float16"), "`dtype` of its own"),
    ],
)
def test_losses_that_cannot_be_wrapped(wrap, inner, message):
    with pytest.raises(ValueError, match=message):
        wrap(inner)


@every_wrapper
def test_the_wrapped_loss_has_to_agree_on_the_axis(wrap):
    with pytest.raises(ValueError, match="same class axis. Received: axis=-1"):
        wrap(CrossEntropy(axis=1))(np.zeros((2, 4), "int32"), logits(2, 4, 10))


@every_wrapper
def test_class_ids_that_the_dtype_cannot_hold(wrap):
    loss = wrap(CrossEntropy(), dtype="bfloat16")
    with pytest.raises(ValueError, match="more than 256 classes"):
        loss(np.zeros(2), np.zeros((2, 257), "float32"))


@pytest.mark.parametrize("name", ["value-clip", "norm-penalty"])
def test_an_activation_for_losses_of_probabilities(name):
    loss = WRAPPERS[name](keras.losses.CategoricalCrossentropy(), activation="softmax")
    plain = WRAPPERS[name](CrossEntropy())
    np.testing.assert_allclose(
        to_numpy(loss(ONE_HOT, Z)), to_numpy(plain(ONE_HOT, Z)), rtol=1e-5
    )


@pytest.mark.parametrize("name", ["Norm-penalty", "Sum", "Value-clip"])
def test_sample_weights(name):
    weights = np.arange(6, dtype="float32")
    loss = build(name, reduction="sum_over_batch_size")
    value = to_numpy(loss(IDS, Z, sample_weight=weights))
    expected = (weights * expected_values(name, ONE_HOT, Z)).mean()
    np.testing.assert_allclose(value, expected, rtol=1e-5)


MASKED = {
    "norm-penalty": (lambda loss: NormPenalty(loss, 0.1), expected_norm_penalty, 0.1),
    "active": (
        lambda loss: ActivePassive(loss, Bootstrap(0.6)),
        lambda y, z, beta: (
            expected_cross_entropy(y, z) + expected_bootstrap(y, z, beta)
        ),
        0.6,
    ),
}


@pytest.mark.parametrize("name", MASKED)
def test_ignored_classes_stay_ignored(name):
    wrap, expected, parameter = MASKED[name]
    ids = np.arange(6)
    inner = keras.losses.SparseCategoricalCrossentropy(True, ignore_class=2)
    value = to_numpy(wrap(inner)(ids, Z))
    kept = ids != 2
    losses = expected(np.eye(10)[ids], Z.astype("float64"), parameter)
    np.testing.assert_allclose(value, losses[kept].mean(), rtol=1e-5)


def test_both_masks_of_a_sum_count():
    ignoring = [
        keras.losses.SparseCategoricalCrossentropy(True, ignore_class=k) for k in (2, 4)
    ]
    value = to_numpy(ActivePassive(*ignoring)(np.arange(6), Z))
    losses = 2 * oracle.cross_entropy(np.arange(6), Z)
    np.testing.assert_allclose(value, losses[[0, 1, 3, 5]].mean(), rtol=1e-5)


def test_values_of_different_shapes_are_not_added():
    with pytest.raises(ValueError, match="same shape.*Received: shapes"):
        ActivePassive(CrossEntropy(axis=1), "mse", axis=1)(
            np.zeros((2, 10, 3), "float32"), logits(2, 10, 3)
        )


@pytest.mark.once
@every_case
def test_saving_alone_and_inside_logit_clip(name):
    for loss in (
        build(name),
        LogitClipLoss(build(name, reduction="sum_over_batch_size"), 1.0),
    ):
        config = keras.saving.serialize_keras_object(loss)
        clone = keras.saving.deserialize_keras_object(config)
        assert type(clone) is type(loss)
        assert clone.get_config() == loss.get_config()
        np.testing.assert_array_equal(to_numpy(clone(IDS, Z)), to_numpy(loss(IDS, Z)))


@every_case
def test_inside_logit_clip(name):
    loss = LogitClipLoss(build(name, reduction="sum_over_batch_size"), 1.0)
    clipped = oracle.clip(Z, 1.0, 2)
    expected = expected_values(name, ONE_HOT, clipped).mean()
    np.testing.assert_allclose(to_numpy(loss(IDS, Z)), expected, rtol=1e-5)


# Cross-entropy is computed together with the clipping.


@pytest.mark.parametrize("labels", [IDS, IDS[:, None], ONE_HOT, SOFT], ids=KINDS)
def test_clipped_cross_entropy_is_fused(labels, monkeypatch):
    calls, original = [], _kernels.clipped_cross_entropy

    def spy(*args):
        calls.append(args)
        return original(*args)

    monkeypatch.setattr(_kernels, "clipped_cross_entropy", spy)
    loss = LogitClipLoss(CrossEntropy(), 1.0, reduction="none")
    fused = to_numpy(loss(labels, Z))
    assert len(calls) == 1
    monkeypatch.setattr("keras_logitclip.losses.logit_clip.can_fuse", lambda *_: False)
    plain = to_numpy(loss(labels, Z))
    assert len(calls) == 1
    np.testing.assert_allclose(fused, plain, rtol=2e-6)


@keras.saving.register_keras_serializable(package="tests")
class Halved(CrossEntropy):
    def call(self, y_true, y_pred):
        return super().call(y_true, y_pred) / 2


def test_a_subclass_is_not_fused():
    halved, whole = LogitClipLoss(Halved(), 1.0), LogitClipLoss(CrossEntropy(), 1.0)
    np.testing.assert_allclose(
        2 * to_numpy(halved(IDS, Z)), to_numpy(whole(IDS, Z)), rtol=1e-6
    )


@pytest.mark.gradients
def test_invalid_class_ids_of_the_fused_loss_give_nan(mode):
    loss = LogitClipLoss(CrossEntropy(), 1.0, reduction="none")
    ids = to_tensor([3, -1, 10, 9], "int32")
    values, gradient = value_and_vjp(lambda z: loss(ids, z), Z[:4], np.ones(4), mode)
    np.testing.assert_array_equal(np.isnan(values), [False, True, True, False])
    np.testing.assert_array_equal(np.isnan(gradient).all(-1), np.isnan(values))


def test_probabilities():
    probabilities = np.exp(oracle.log_softmax(Z)).astype("float32")
    for name in (
        "CE",
        "Bootstrap-soft",
        "Bootstrap-hard",
        "Forward",
        "Backward",
        "CORES",
    ):
        loss = build(name, from_logits=False)
        values = to_numpy(loss(IDS, probabilities))
        np.testing.assert_allclose(
            values, expected_values(name, ONE_HOT, Z), rtol=1e-4, err_msg=name
        )


# Bad input.

SINGULAR = [[0.5, 0.5], [0.5, 0.5]]
BAD_ARGUMENTS = {
    Bootstrap: {"beta": (-0.1, 1.1, None), "hard": (1, None), "axis": (0.5,)},
    BiTempered: {"t1": (-0.1, 1.1, "0"), "t2": (0.9, 5.1, INF)},
    ConfidenceRegularized: {"beta": (-1, INF, True)},
    LogitNormCrossEntropy: {"temperature": (0, -1, INF, None)},
    CrossEntropy: {"from_logits": (1, None), "axis": (None,)},
    ForwardCorrection: {
        "transition": (
            None, 1.0, "abc", [], [[1.0]] * 2, [[0.5, 0.5]], [[1.5, -0.5], [0, 1]],
            [[float("nan"), 0], [0, 1]], [[0.9, 0.2], [0, 1]], [[1, 0], [1]],
        )
    },
    BackwardCorrection: {"transition": (SINGULAR, [[0.5, 0.4], [0, 1]])},
    LogitValueClipLoss: {"limit": (0, -1, None), "activation": ("relu",)},
    NormPenalty: {"weight": (-1, INF, None), "p": (0.5,)},
    ActivePassive: {"alpha": (-1, None), "beta": (-1, INF)},
}  # fmt: skip
REQUIRED = {
    ConfidenceRegularized: {"beta": 1.0},
    LogitValueClipLoss: {"loss": "mse", "limit": 1.0},
    NormPenalty: {"loss": "mse", "weight": 1.0},
    ActivePassive: {"active": "mse", "passive": "mse"},
}


@pytest.mark.parametrize(
    ("loss", "name", "value"),
    [
        (loss, name, value)
        for loss, arguments in BAD_ARGUMENTS.items()
        for name, values in arguments.items()
        for value in values
    ],
    ids=str,
)
def test_bad_arguments(loss, name, value):
    with pytest.raises(ValueError, match=f"`{name}`: expected .* Received: {name}="):
        loss(**{**REQUIRED.get(loss, {}), name: value})


@pytest.mark.parametrize("loss", [ForwardCorrection, BackwardCorrection])
@pytest.mark.parametrize("labels", [IDS, ONE_HOT], ids=("sparse", "one-hot"))
def test_a_transition_of_another_size(loss, labels):
    with pytest.raises(ValueError, match=r"for each class. Received: .*\(9, 9\), 10"):
        loss(np.eye(9))(labels, Z)


def test_rows_of_a_transition_may_be_rounded():
    ForwardCorrection(np.full((3, 3), 1 / 3, "float32"))


@every_case
def test_labels_of_the_wrong_shape(name):
    for shape in ((5,), (6, 9), (6, 10, 1)):
        with pytest.raises(ValueError, match="Received: y_true.shape="):
            build(name)(np.zeros(shape), Z)


@pytest.mark.parametrize("name", ["Bi-tempered", "LogitNorm", "Sum", "Norm-penalty"])
@pytest.mark.skipif(BACKEND in ("jax", "numpy"), reason="tensors take no attributes")
def test_probabilities_are_refused_where_keras_marks_them(name):
    probabilities = keras.activations.softmax(to_tensor(Z))
    with pytest.raises(ValueError, match="Expected logits. Received: probabilities"):
        build(name).call(to_tensor(IDS), probabilities)


FUNCTIONS = {
    "CE": cross_entropy,
    "Bootstrap-soft": bootstrap,
    "Bi-tempered": bi_tempered,
    "Forward": forward_correction,
    "Backward": backward_correction,
    "CORES": confidence_regularized,
    "LogitNorm": logit_norm_cross_entropy,
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_equal_the_losses(name):
    arguments = CASES[name].shared(10)
    np.testing.assert_array_equal(
        apply(lambda z: FUNCTIONS[name](IDS, z, **arguments), Z),
        to_numpy(build(name)(IDS, Z)),
    )
