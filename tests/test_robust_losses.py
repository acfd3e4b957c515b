import importlib
from collections import namedtuple
from functools import cache

import keras
import numpy as np
import pytest

from keras_logitclip import LogitClipLoss
from keras_logitclip.losses.asymmetric import AsymmetricExponential
from keras_logitclip.losses.asymmetric import AsymmetricGeneralizedCrossEntropy
from keras_logitclip.losses.asymmetric import AsymmetricUnhinged
from keras_logitclip.losses.focal import Focal
from keras_logitclip.losses.generalized_cross_entropy import GeneralizedCrossEntropy
from keras_logitclip.losses.jensen_shannon import JensenShannon
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
from tests import loss_oracle
from tests import oracle
from tests.conftest import COMPILED_MODES
from tests.conftest import MODES
from tests.conftest import runs
from tests.oracle import INF
from tests.running import apply
from tests.running import on_parts
from tests.running import to_numpy
from tests.running import to_tensor
from tests.running import value_and_vjp

# `bound` is the largest value for a class id, `total` the sum over all labels of
# 10 classes where it is constant.
Case = namedtuple("Case", "loss kwargs expected bound total", defaults=(INF, None))
A = -np.log(1e-4)
CASES = {
    "MAE": Case(
        CategoricalMeanAbsoluteError, {}, loss_oracle.mean_absolute_error, 2, 18
    ),
    "RCE": Case(ReverseCrossEntropy, {}, loss_oracle.reverse_cross_entropy, A, 9 * A),
    "SCE": Case(
        SymmetricCrossEntropy,
        {"alpha": 0.1, "beta": 1.0},
        loss_oracle.symmetric_cross_entropy,
    ),
    "GCE": Case(
        GeneralizedCrossEntropy,
        {"q": 0.7},
        loss_oracle.generalized_cross_entropy,
        1 / 0.7,
    ),
    "GCE-1": Case(
        GeneralizedCrossEntropy, {"q": 1.0}, loss_oracle.generalized_cross_entropy, 1, 9
    ),
    "PHuber-CE": Case(
        PHuberCrossEntropy,
        {"threshold": 10.0},
        loss_oracle.phuber_cross_entropy,
        np.log(10) + 1,
    ),
    "PHuber-GCE": Case(
        PHuberGeneralizedCrossEntropy,
        {"q": 0.7, "threshold": 10.0},
        loss_oracle.phuber_generalized_cross_entropy,
        (1 - 10 ** (-7 / 3)) / 0.7 + 10 ** (-7 / 3),
    ),
    "Taylor-CE": Case(
        TaylorCrossEntropy, {"order": 2}, loss_oracle.taylor_cross_entropy, 1.5
    ),
    "Taylor-CE-6": Case(
        TaylorCrossEntropy, {"order": 6}, loss_oracle.taylor_cross_entropy, 2.45
    ),
    "Focal": Case(Focal, {"gamma": 0.5}, loss_oracle.focal),
    "Focal-2": Case(Focal, {"gamma": 2.0}, loss_oracle.focal),
    "AGCE": Case(
        AsymmetricGeneralizedCrossEntropy,
        {"a": 0.6, "q": 0.6},
        loss_oracle.asymmetric_generalized_cross_entropy,
        (1.6**0.6 - 0.6**0.6) / 0.6,
    ),
    "AGCE-3": Case(
        AsymmetricGeneralizedCrossEntropy,
        {"a": 1.8, "q": 3.0},
        loss_oracle.asymmetric_generalized_cross_entropy,
        (2.8**3 - 1.8**3) / 3,
    ),
    "AUL": Case(
        AsymmetricUnhinged,
        {"a": 5.5, "q": 3.0},
        loss_oracle.asymmetric_unhinged,
        (5.5**3 - 4.5**3) / 3,
    ),
    "AUL-1": Case(
        AsymmetricUnhinged, {"a": 6.3, "q": 1.0}, loss_oracle.asymmetric_unhinged, 1, 9
    ),
    "AEL": Case(
        AsymmetricExponential, {"a": 2.5}, loss_oracle.asymmetric_exponential, 1
    ),
    "NCE": Case(NormalizedCrossEntropy, {}, loss_oracle.normalized_cross_entropy, 1, 1),
    "NFL": Case(NormalizedFocal, {"gamma": 0.5}, loss_oracle.normalized_focal, 1, 1),
    "NGCE": Case(
        NormalizedGeneralizedCrossEntropy,
        {"q": 0.7},
        loss_oracle.normalized_generalized_cross_entropy,
        1,
        1,
    ),
    "NGCE-0.1": Case(
        NormalizedGeneralizedCrossEntropy,
        {"q": 0.1},
        loss_oracle.normalized_generalized_cross_entropy,
        1,
        1,
    ),
    "NNCE": Case(
        NormalizedNegativeCrossEntropy,
        {},
        loss_oracle.normalized_negative_cross_entropy,
        1,
        9,
    ),
    "NNFL": Case(
        NormalizedNegativeFocal,
        {"gamma": 0.5},
        loss_oracle.normalized_negative_focal,
        1,
        9,
    ),
    "JS": Case(JensenShannon, {"weight": 0.5}, loss_oracle.jensen_shannon, 2),
    "JS-0.1": Case(
        JensenShannon,
        {"weight": 0.1},
        loss_oracle.jensen_shannon,
        1 + 0.1 * np.log(0.1) / (0.9 * np.log(0.9)),
    ),
    "JS-0.9": Case(
        JensenShannon,
        {"weight": 0.9},
        loss_oracle.jensen_shannon,
        1 + 0.9 * np.log(0.9) / (0.1 * np.log(0.1)),
    ),
}
every_case = pytest.mark.parametrize("name", CASES)
# One case of each class, for what does not depend on the parameters.
CLASSES = list({case.loss: name for name, case in reversed(CASES.items())}.values())
every_class = pytest.mark.parametrize("name", CLASSES)

# Relative to the value, and to the largest entry of a row's gradient.
RTOL = {"float64": 1e-12, "float32": 2e-5, "float16": 1e-3, "bfloat16": 8e-3}


def logits(*shape, scale=3.0, seed=0):
    return scale * np.random.default_rng(seed).normal(size=shape).astype("float32")


Labels = namedtuple("Labels", "given weights")


def some_labels(kind, shape, classes):
    """Labels as they are given, and the weight of each class that they mean."""
    rng = np.random.default_rng(1)
    ids = rng.integers(0, classes, shape)
    one_hot = np.eye(classes, dtype="float32")[ids]
    soft = rng.dirichlet(np.ones(classes), shape).astype("float32")
    # An exact zero among the soft labels.
    soft[..., 0] = 0
    return {
        "sparse": Labels(ids.astype("int32"), one_hot),
        "column": Labels(ids[..., None].astype("int32"), one_hot),
        "one-hot": Labels(one_hot, one_hot),
        "soft": Labels(soft, soft),
    }[kind]


KINDS = ("sparse", "column", "one-hot", "soft")


def build(name, /, **kwargs):
    case = CASES[name]
    return case.loss(**{"reduction": "none", **case.kwargs, **kwargs})


def function_of(loss):
    """The public function behind a loss, with the arguments of the loss."""
    function = getattr(importlib.import_module(type(loss).__module__), loss.name)
    config = loss.get_config()
    kwargs = {k: config[k] for k in config if k not in ("reduction", "name", "dtype")}
    return lambda y_true, y_pred: function(y_true, y_pred, **kwargs)


def expected_values(name, weights, z):
    case = CASES[name]
    return loss_oracle.value(case.expected, weights, z, **case.kwargs)


@cache
def expected_values_and_gradient(name, kind, classes, dtype="float32"):
    z = rounded(logits(4, classes), dtype)
    weights = some_labels(kind, (4,), classes).weights
    case = CASES[name]
    gradient = loss_oracle.gradient(
        case.expected, weights, z, entries(weights), **case.kwargs
    )
    return expected_values(name, weights, z), gradient


def entries(weights):
    """The classes to check gradients of: the labels', and at most 50 others."""
    classes = weights.shape[-1]
    return np.union1d(weights.argmax(-1), np.arange(0, classes, -(-classes // 50)))


def rounded(z, dtype):
    return to_numpy(to_tensor(z, "float32" if dtype == "float64" else dtype))


def assert_values_close(actual, expected, rtol=RTOL["float32"], atol=None):
    atol = 0.1 * rtol if atol is None else atol
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=atol)


def assert_gradients_close(actual, expected, rtol=RTOL["float32"], atol=1e-15):
    error = np.abs(np.asarray(actual, "float64") - expected)
    allowed = rtol * np.abs(expected).max(-1, keepdims=True) + atol
    assert (error <= allowed).all(), f"error {error}, allowed {allowed}"


SIZES = [(kind, 10) for kind in KINDS]
SIZES += [(kind, classes) for kind in ("sparse", "soft") for classes in (2, 1000)]


@pytest.mark.gradients
@pytest.mark.parametrize(("kind", "classes"), SIZES)
@every_case
def test_value_and_gradient_equal_the_oracle(name, kind, classes):
    labels = some_labels(kind, (4,), classes)
    given = to_tensor(labels.given, labels.given.dtype.name)
    values, gradient = value_and_vjp(
        lambda z: build(name)(given, z), logits(4, classes), np.ones(4), MODES[0]
    )
    expected = expected_values_and_gradient(name, kind, classes)
    assert_values_close(values, expected[0])
    assert_gradients_close(gradient[:, entries(labels.weights)], expected[1])


# The ends of the parameters' ranges.
ENDS = {
    "GCE": [{"q": 1e-6}],
    "PHuber-CE": [{"threshold": 1.001}, {"threshold": 1e9}],
    "PHuber-GCE": [{"q": 0.001, "threshold": 1.001}, {"q": 0.999, "threshold": 1e9}],
    "Taylor-CE": [{"order": 1}, {"order": 300}],
    "Focal": [{"gamma": 0.0}, {"gamma": 8.0}],
    "AGCE": [{"a": 1e-3, "q": 1e-3}, {"a": 100.0, "q": 4.0}],
    "AUL": [{"a": 1.01, "q": 10.0}, {"a": 10.0, "q": 1e-3}],
    "AEL": [{"a": 0.01}, {"a": 100.0}],
    "NFL": [{"gamma": 0.0}, {"gamma": 8.0}],
    "NGCE": [{"q": 1e-6}, {"q": 1.0}],
    "NNCE": [{"min_probability": 1e-30}, {"min_probability": 0.09}],
    "NNFL": [{"gamma": 8.0, "min_probability": 1e-30}],
    "JS": [{"weight": 1e-6}, {"weight": 1 - 1e-6}],
}
ENDS = [(name, kwargs) for name in ENDS for kwargs in ENDS[name]]


@pytest.mark.gradients
@pytest.mark.parametrize("kind", ["sparse", "soft"])
@pytest.mark.parametrize(("name", "kwargs"), ENDS, ids=str)
def test_the_ends_of_the_parameters(name, kwargs, kind):
    z, labels = logits(4, 10), some_labels(kind, (4,), 10)
    given = to_tensor(labels.given, labels.given.dtype.name)
    values, gradient = value_and_vjp(
        lambda z: build(name, **kwargs)(given, z), z, np.ones(4), MODES[0]
    )
    expected = CASES[name].expected, labels.weights, z
    assert_values_close(values, loss_oracle.value(*expected, **kwargs))
    assert_gradients_close(gradient, loss_oracle.gradient(*expected, **kwargs))


@pytest.mark.parametrize("kind", KINDS)
@every_case
def test_value_equals_the_oracle(name, kind):
    z, labels = logits(4, 10), some_labels(kind, (4,), 10)
    values = apply(lambda z: build(name)(labels.given, z), z)
    assert_values_close(values, expected_values(name, labels.weights, z))


def each_loss_on_its_part(labels):
    losses = [build(name) for name in CLASSES]
    return on_parts([function_of_labels(loss, labels) for loss in losses])


# Class ids are compiled with the invalid ones below.
KINDS_AND_RUNS = [
    *(("sparse", run) for run in runs(MODES[0])),
    *(("soft", run) for run in runs(*COMPILED_MODES)),
]


@pytest.mark.gradients
@pytest.mark.parametrize(
    ("kind", "run"),
    KINDS_AND_RUNS,
    ids=["-".join((kind, *run)) for kind, run in KINDS_AND_RUNS],
)
def test_every_mode_and_dtype(kind, run):
    mode, dtype = run
    z = rounded(logits(4, 10), dtype)
    labels = some_labels(kind, (4,), 10)
    given = to_tensor(labels.given, labels.given.dtype.name)
    values, gradient = value_and_vjp(
        each_loss_on_its_part(given),
        np.tile(z, (len(CLASSES), 1)),
        np.ones(4 * len(CLASSES)),
        mode,
        dtype,
    )
    assert values.dtype == ("float64" if dtype == "float64" else "float32")
    # Below the smallest normal number of float16 there is no such precision.
    atol = 1e-7 if dtype == "float16" else 1e-15
    for i, name in enumerate(CLASSES):
        expected = expected_values_and_gradient(name, kind, 10, dtype)
        rows = slice(4 * i, 4 * i + 4)
        value_rtol = RTOL["float64" if dtype == "float64" else "float32"]
        assert_values_close(values[rows], expected[0], value_rtol)
        assert_gradients_close(gradient[rows], expected[1], RTOL[dtype], atol)


@pytest.mark.parametrize("kind", KINDS)
@every_case
def test_axes_and_ranks(name, kind):
    z, labels = logits(3, 5, 10), some_labels(kind, (3, 5), 10)
    expected = expected_values(name, labels.weights, z)
    values = apply(lambda z: build(name)(labels.given, z), z)
    assert_values_close(values, expected)
    moved = labels.given
    if kind != "sparse":
        moved = np.moveaxis(moved, -1, 1)
    loss = build(name, axis=1)
    values = apply(lambda z: loss(moved, z), np.moveaxis(z, -1, 1))
    assert_values_close(values, expected)


# Probabilities.


@pytest.mark.parametrize("kind", KINDS)
@every_case
def test_values_of_probabilities(name, kind):
    z, labels = logits(4, 10), some_labels(kind, (4,), 10)
    p = np.exp(oracle.log_softmax(z))
    values = apply(lambda p: build(name, from_logits=False)(labels.given, p), p)
    assert_values_close(values, expected_values(name, labels.weights, z))


@pytest.mark.gradients
@pytest.mark.parametrize("kind", KINDS)
@every_class
def test_values_of_probabilities_in_float64(name, kind):
    z, labels = logits(4, 10), some_labels(kind, (4,), 10)
    function = function_of(build(name, from_logits=False))
    p = np.exp(oracle.log_softmax(z))
    values = apply(lambda p: function(labels.given, p), p, dtype="float64")
    expected = expected_values(name, labels.weights, z)
    assert_values_close(values, expected, RTOL["float64"])


@pytest.mark.gradients
@pytest.mark.parametrize("kind", ["sparse", "soft"])
@every_case
def test_gradients_through_a_softmax(name, kind):
    loss, given = build(name, from_logits=False), some_labels(kind, (4,), 10).given
    given = to_tensor(given, given.dtype.name)
    _, gradient = value_and_vjp(
        lambda z: loss(given, keras.ops.softmax(z)), logits(4, 10), np.ones(4), MODES[0]
    )
    expected = expected_values_and_gradient(name, kind, 10)[1]
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.gradients
@pytest.mark.parametrize("label", [0, 1], ids=("right", "wrong"))
@every_case
def test_probabilities_of_zero_and_one(name, label):
    """And a little more than one, as a softmax in float32 returns."""
    p = np.array([[1, 0, 0], [np.nextafter(np.float32(1), 2), 0, 0]], "float32")
    values, gradient = value_and_vjp(
        lambda p: build(name, from_logits=False)([label, label], p),
        p,
        np.ones(2),
        MODES[0],
    )
    assert np.isfinite(values).all()
    assert np.isfinite(gradient).all()
    np.testing.assert_array_equal(values[0], values[1])


# Extreme logits.


def extreme_logits(margin):
    """Rows of 10 logits, whose label is 0: most wrong, all wrong, most right."""
    z = np.zeros((3, 10), "float32")
    z[0, 0], z[0, 1] = -margin / 2, margin / 2
    z[1] = margin / 2
    z[1, 0] = -margin / 2
    z[2] = -margin / 2
    z[2, 0] = margin / 2
    return z


@pytest.mark.gradients
@pytest.mark.parametrize("kind", ["sparse", "one-hot", "soft"])
@pytest.mark.parametrize("margin", [20.0, 50.0, 80.0, 2e4])
@every_case
def test_extreme_logits(name, margin, kind):
    case, z = CASES[name], extreme_logits(margin)
    weights = np.tile(np.eye(10, dtype="float32")[0], (3, 1))
    if kind == "soft":
        weights[:, :3] = 0.5, 0.25, 0.25
    given = np.zeros(3, "int32") if kind == "sparse" else weights
    values, gradient = value_and_vjp(
        lambda z: build(name)(to_tensor(given, given.dtype.name), z),
        z,
        np.ones(3),
        MODES[0],
    )
    scale = 10 if case.bound == INF else case.bound
    expected = expected_values(name, weights, z)
    assert_values_close(values, expected, atol=1e-6 * scale)
    expected = loss_oracle.gradient(case.expected, weights, z, **case.kwargs)
    assert_gradients_close(gradient, expected, atol=1e-6 * scale)
    if kind != "soft":
        # However small the probability, the label is pulled.
        wrong, exact = gradient[:2, 0], expected[:2, 0]
        representable = np.abs(exact) > np.finfo("float32").tiny
        np.testing.assert_allclose(
            wrong[representable], exact[representable], rtol=1e-3
        )


@every_case
def test_values_are_bounded(name):
    case = CASES[name]
    z = np.concatenate([logits(100, 10), extreme_logits(80.0), extreme_logits(2e4)])
    labels = np.zeros(len(z), "int32")
    values = apply(lambda z: build(name)(labels, z), z)
    assert (values >= -1e-6).all()
    if case.bound == INF:
        assert values.max() > 1000
    else:
        assert (values <= case.bound * (1 + 1e-6)).all()


POWERS = [name for name in CASES if CASES[name].bound not in (1, INF)]


@pytest.mark.parametrize("name", POWERS)
def test_bounds_are_reached(name):
    values = apply(lambda z: build(name)([0, 0, 0], z), extreme_logits(200.0))
    np.testing.assert_allclose(values[0], CASES[name].bound, rtol=1e-6)


# Labels that are no class, and labels of the wrong shape.

IDS = np.array([3, -1, 9, 10, 1_000_000], "int32")
VALID = [True, False, True, False, False]


@every_class
def test_invalid_class_ids_give_nan(name):
    values = apply(lambda z: build(name)(IDS, z), logits(5, 10))
    np.testing.assert_array_equal(np.isfinite(values), VALID)


@pytest.mark.gradients
def test_invalid_class_ids_give_nan_in_every_mode(mode):
    losses = each_loss_on_its_part(to_tensor(IDS, "int32"))
    z = np.tile(logits(5, 10), (len(CLASSES), 1))
    values, gradient = value_and_vjp(losses, z, np.ones(len(z)), mode)
    expected = np.tile(VALID, len(CLASSES))
    np.testing.assert_array_equal(np.isfinite(values), expected)
    np.testing.assert_array_equal(np.isfinite(gradient).all(-1), expected)
    np.testing.assert_array_equal(np.isnan(gradient).all(-1), ~expected)


@pytest.mark.parametrize("shape", [(3,), (4, 9), (4, 10, 1), ()], ids=str)
@every_class
def test_labels_of_the_wrong_shape(name, shape):
    with pytest.raises(ValueError, match="Expected labels.*Received: y_true.shape="):
        function_of(build(name))(np.zeros(shape, "int32"), to_tensor(logits(4, 10)))


def test_a_single_class_is_refused():
    with pytest.raises(ValueError, match="at least two classes"):
        GeneralizedCrossEntropy().call(np.zeros(3), np.zeros((3, 1), "float32"))


@pytest.mark.parametrize(("dtype", "limit"), [("bfloat16", 256), ("float16", 2048)])
def test_class_ids_that_the_dtype_cannot_hold(dtype, limit):
    loss = GeneralizedCrossEntropy(dtype=dtype)
    z = np.zeros((2, limit + 1), "float32")
    with pytest.raises(ValueError, match=f"more than {limit} classes"):
        loss(np.array([0, limit]), z)
    assert np.isfinite(to_numpy(loss(np.array([0, limit - 1]), z[:, :limit])))


# As a Keras loss.


@every_class
def test_serialization(name):
    z, labels = logits(4, 10), some_labels("sparse", (4,), 10).given
    loss = build(name, axis=-1, reduction="sum", name="mine", dtype="float32")
    for saved in (loss, LogitClipLoss(CASES[name].loss(**CASES[name].kwargs), 0.7)):
        reloaded = keras.losses.deserialize(keras.losses.serialize(saved))
        assert type(reloaded) is type(saved)
        assert reloaded.get_config() == saved.get_config()
        np.testing.assert_array_equal(
            to_numpy(reloaded(labels, z)), to_numpy(saved(labels, z))
        )


@pytest.mark.parametrize("kind", ["sparse", "soft"])
@every_case
def test_logit_clip_loss_equals_the_loss_of_clipped_logits(name, kind):
    z, labels = logits(4, 10), some_labels(kind, (4,), 10)
    loss = LogitClipLoss(CASES[name].loss(**CASES[name].kwargs), 1.5, reduction="none")
    expected = expected_values(name, labels.weights, oracle.clip(z, 1.5, 2))
    assert_values_close(apply(lambda z: loss(labels.given, z), z), expected)


REDUCTIONS = {
    "none": lambda values, weights: values * weights,
    "sum": lambda values, weights: (values * weights).sum(),
    "sum_over_batch_size": lambda values, weights: (values * weights).mean(),
    "mean_with_sample_weight": lambda values, weights: (
        (values * weights).sum() / weights.sum()
    ),
}


@pytest.mark.parametrize("reduction", REDUCTIONS)
@every_class
def test_reductions_and_sample_weights(name, reduction):
    z, labels = logits(4, 10), some_labels("sparse", (4,), 10)
    weights = np.array([0.5, 0.0, 2.0, 1.0], "float32")
    loss = build(name, reduction=reduction)
    value = to_numpy(loss(labels.given, z, sample_weight=weights))
    values = expected_values(name, labels.weights, z)
    assert_values_close(value, REDUCTIONS[reduction](values, weights))


@pytest.mark.gradients
@every_class
def test_training_in_mixed_precision(name):
    keras.config.set_dtype_policy("mixed_float16")
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(10)])
    before = to_numpy(model.layers[0].kernel)
    loss = CASES[name].loss(**CASES[name].kwargs)
    model.compile("sgd", loss, run_eagerly=True)
    labels = some_labels("sparse", (4,), 10).given
    # The first steps may only find a scale at which float16 does not overflow.
    history = model.fit(logits(4, 8), labels, epochs=4, verbose=0)
    after = to_numpy(model.layers[0].kernel)
    assert np.isfinite(history.history["loss"]).all()
    assert np.isfinite(after).all()
    assert (before != after).any()


BAD_ARGUMENTS = [
    *((ReverseCrossEntropy, "min_label", value) for value in (0, 1, None)),
    *((SymmetricCrossEntropy, "alpha", value) for value in (-0.1, INF, "1")),
    (SymmetricCrossEntropy, "beta", -1),
    (SymmetricCrossEntropy, "min_label", 0),
    *((GeneralizedCrossEntropy, "q", value) for value in (0, 1.1, None)),
    *((PHuberCrossEntropy, "threshold", value) for value in (1, 0.5, INF)),
    *((PHuberGeneralizedCrossEntropy, "q", value) for value in (0, 1)),
    (PHuberGeneralizedCrossEntropy, "threshold", 1),
    *((TaylorCrossEntropy, "order", value) for value in (0, -1, 2.5, 2.0, True, INF)),
    *((Focal, "gamma", value) for value in (-0.1, INF, float("nan"))),
    *((AsymmetricGeneralizedCrossEntropy, "a", value) for value in (0, INF)),
    (AsymmetricGeneralizedCrossEntropy, "q", 0),
    *((AsymmetricUnhinged, "a", value) for value in (1, 0.5, INF)),
    (AsymmetricUnhinged, "q", 0),
    *((AsymmetricExponential, "a", value) for value in (0, -1, INF)),
    (NormalizedFocal, "gamma", -1),
    *((NormalizedGeneralizedCrossEntropy, "q", value) for value in (0, 1.1)),
    *((NormalizedNegativeCrossEntropy, "min_probability", value) for value in (0, 1)),
    (NormalizedNegativeFocal, "gamma", -1),
    (NormalizedNegativeFocal, "min_probability", 1),
    *((JensenShannon, "weight", value) for value in (0, 1, None)),
    *((case.loss, "from_logits", 1) for case in CASES.values()),
    *((case.loss, "axis", 1.0) for case in CASES.values()),
]


@pytest.mark.parametrize(("loss", "name", "value"), BAD_ARGUMENTS)
def test_bad_arguments(loss, name, value):
    with pytest.raises(ValueError, match=f"`{name}`: expected .* Received: {name}="):
        loss(**{name: value})


@pytest.mark.parametrize(
    "loss", [NormalizedNegativeCrossEntropy, NormalizedNegativeFocal]
)
def test_too_many_classes_for_the_least_probability(loss):
    loss = loss(min_probability=0.1)
    with pytest.raises(ValueError, match="min_probability=0.1 for 10 classes"):
        loss([0, 0, 0, 0], logits(4, 10))
    assert np.isfinite(to_numpy(loss([0, 0, 0, 0], logits(4, 9))))


# What the papers state.

TOTALS = [name for name in CASES if CASES[name].total is not None]


@pytest.mark.parametrize("name", TOTALS)
def test_the_sum_over_all_labels_is_constant(name):
    z = np.concatenate([logits(20, 10), logits(20, 10, scale=30.0)])
    labels = np.eye(10, dtype="float32")
    total = sum(
        apply(lambda z, y=y: build(name)(np.tile(y, (40, 1)), z), z) for y in labels
    )
    np.testing.assert_allclose(total, CASES[name].total, rtol=1e-5)


Limit = namedtuple("Limit", "loss expected factor rtol", defaults=(1.0, 1e-5))
NCE, MAE = loss_oracle.normalized_cross_entropy, loss_oracle.mean_absolute_error
LIMITS = {
    "GCE-to-CE": Limit(GeneralizedCrossEntropy(q=1e-6), loss_oracle.cross_entropy),
    "GCE-1": Limit(GeneralizedCrossEntropy(q=1), MAE, 0.5),
    "Taylor-1": Limit(TaylorCrossEntropy(order=1), MAE, 0.5),
    "Taylor-to-CE": Limit(TaylorCrossEntropy(order=100), loss_oracle.cross_entropy),
    "PHuber-CE": Limit(PHuberCrossEntropy(threshold=1e9), loss_oracle.cross_entropy),
    "SCE-without-RCE": Limit(
        SymmetricCrossEntropy(alpha=2, beta=0), loss_oracle.cross_entropy, 2.0
    ),
    "SCE-without-CE": Limit(
        SymmetricCrossEntropy(alpha=0, beta=2), loss_oracle.reverse_cross_entropy, 2.0
    ),
    "RCE": Limit(ReverseCrossEntropy(), MAE, A / 2),
    "Focal-0": Limit(Focal(gamma=0), loss_oracle.cross_entropy),
    "NFL-0": Limit(NormalizedFocal(gamma=0), NCE),
    "NGCE-to-NCE": Limit(NormalizedGeneralizedCrossEntropy(q=1e-6), NCE),
    "AUL-1": Limit(AsymmetricUnhinged(a=2, q=1), MAE, 0.5),
    "JS-to-CE": Limit(JensenShannon(weight=1e-3), loss_oracle.cross_entropy, 1.0, 5e-3),
}


@pytest.mark.parametrize("kind", ["sparse", "one-hot"])
@pytest.mark.parametrize("name", LIMITS)
def test_limits(name, kind):
    limit, z = LIMITS[name], logits(20, 5, scale=0.2)
    labels = some_labels(kind, (20,), 5)
    values = apply(function_of_labels(limit.loss, labels.given), z)
    expected = limit.factor * loss_oracle.value(limit.expected, labels.weights, z)
    np.testing.assert_allclose(values, expected, rtol=limit.rtol)


def function_of_labels(loss, labels):
    function = function_of(loss)  # Not in the other function: torch compiles that.
    return lambda z: function(labels, z)


@pytest.mark.parametrize(
    "loss",
    [
        AsymmetricGeneralizedCrossEntropy(a=1e-6, q=0.7),
        PHuberGeneralizedCrossEntropy(q=0.7, threshold=1e9),
    ],
    ids=lambda loss: loss.name,
)
def test_limits_that_are_generalized_cross_entropy(loss):
    z, labels = logits(20, 5), some_labels("sparse", (20,), 5)
    values = apply(function_of_labels(loss, labels.given), z)
    expected = expected_values("GCE", labels.weights, z)
    np.testing.assert_allclose(values, expected, rtol=1e-4)


# OpenVINO's `log_sigmoid` loses digits there, unlike the backends that train.
@pytest.mark.gradients
@pytest.mark.parametrize("rest", [1e-2, 1e-4, 1e-6])
def test_jensen_shannon_becomes_half_of_mean_absolute_error(rest):
    z, labels = logits(20, 5), some_labels("sparse", (20,), 5)
    loss = JensenShannon(weight=1 - rest)
    values = apply(function_of_labels(loss, labels.given), z)
    half = loss_oracle.value(MAE, labels.weights, z) / 2
    assert np.abs(values - half).max() < -1 / np.log(rest)


TURNS = {
    "PHuber-CE": (PHuberCrossEntropy(threshold=10), 10, 0.1),
    "PHuber-GCE": (
        PHuberGeneralizedCrossEntropy(q=0.5, threshold=10),
        10,
        0.01,
    ),
}


@pytest.mark.gradients
@pytest.mark.parametrize("name", TURNS)
def test_value_and_slope_do_not_jump_at_the_threshold(name):
    loss, threshold, turn = TURNS[name]
    p = turn * np.array([1 - 1e-3, 1 + 1e-3])
    z = np.stack([np.log(p), np.log(1 - p)], -1)
    function = function_of_labels(loss, to_tensor([0, 0], "int32"))
    values, gradient = value_and_vjp(function, z, np.ones(2), MODES[0])
    slopes = gradient[:, 0] / (p * (1 - p))
    np.testing.assert_allclose(slopes, -threshold, rtol=1.1e-3)
    np.testing.assert_allclose(
        values[0] - values[1], 2e-3 * threshold * turn, rtol=1e-2
    )


# Against Keras.


@pytest.mark.parametrize("q", [0.3, 0.7])
def test_generalized_cross_entropy_equals_that_of_keras(q):
    p = np.exp(oracle.log_softmax(logits(20, 10))).astype("float32")
    labels = some_labels("sparse", (20,), 10).given
    theirs = keras.losses.CategoricalGeneralizedCrossEntropy(q, reduction="none")
    ours = GeneralizedCrossEntropy(q, from_logits=False, reduction="none")
    np.testing.assert_allclose(
        to_numpy(ours(labels, p)), to_numpy(theirs(labels, p)), rtol=1e-4
    )


@pytest.mark.parametrize("kind", ["one-hot", "soft"])
@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_focal_equals_that_of_keras(gamma, kind):
    z, labels = logits(20, 10), some_labels(kind, (20,), 10).given
    theirs = keras.losses.CategoricalFocalCrossentropy(
        alpha=1.0, gamma=gamma, from_logits=True, reduction="none"
    )
    ours = Focal(gamma, reduction="none")
    np.testing.assert_allclose(
        to_numpy(ours(labels, z)), to_numpy(theirs(labels, z)), rtol=1e-4
    )


@pytest.mark.gradients
@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_focal_has_a_gradient_where_the_label_is_certain(gamma):
    function = function_of_labels(Focal(gamma), to_tensor([0], "int32"))
    values, gradient = value_and_vjp(function, [[200.0, 0.0]], np.ones(1), MODES[0])
    np.testing.assert_array_equal(values, 0)
    np.testing.assert_array_equal(gradient, 0)
