"""Values and gradients of every loss of `loss_cases.py`, for all labels and logits.

All losses are compiled as one function. Batches have the same shape where possible,
because JAX compiles each operation for each shape.
"""

from collections import namedtuple

import keras
import numpy as np
import pytest

from keras_logitclip import LogitClipLoss
from keras_logitclip._labels import set_masks
from tests import oracle
from tests.conftest import BACKEND
from tests.conftest import COMPILED
from tests.conftest import DTYPES
from tests.conftest import INFERENCE_ONLY
from tests.conftest import MODES
from tests.loss_cases import CASES
from tests.loss_cases import KINDS_OF_LOSSES
from tests.loss_cases import arguments
from tests.loss_cases import build
from tests.loss_cases import expected_gradient
from tests.loss_cases import expected_values
from tests.loss_cases import functions
from tests.loss_cases import scale_of
from tests.loss_cases import takes_probabilities
from tests.oracle import INF
from tests.running import TAKES_MASKS
from tests.running import apply_each
from tests.running import double_precision
from tests.running import to_numpy
from tests.running import to_tensor
from tests.running import value_and_vjp_each
from tests.running import with_labels
from tests.samples import KINDS
from tests.samples import logits
from tests.samples import some_labels

PLAIN = MODES[0]
OF_PROBABILITIES = tuple(filter(takes_probabilities, CASES))
# OpenVINO compiles every computation.
QUICK = KINDS_OF_LOSSES if BACKEND == "openvino" else tuple(CASES)
# JAX compiles each operation again for another number of classes and for float64,
# which the formulas of the losses are tested with on the other backends.
SOME = KINDS_OF_LOSSES if BACKEND == "jax" else tuple(CASES)

# Relative to the value, and to the largest entry of a row's gradient.
RTOL = {"float64": 1e-12, "float32": 1e-5}
GRADIENT_RTOL = {"float64": 1e-12, "float32": 2e-5, "float16": 1e-3, "bfloat16": 8e-3}
# Besides that; float16 is no more precise near zero.
GRADIENT_ATOL = {"float16": 1e-7}
# Ill-conditioned ones, in float64.
LESS_PRECISE = {"Bi-tempered-slight": 1e-11}
# Where a row's gradient is small, as a difference of large terms: a tenth of the
# largest one of all rows counts, too.
OF_DIFFERENCES = ("LogitNorm", "NGCE-{'q': 1.0}")


def assert_all_close(actual, expected, allowed):
    """Compares arrays by the names of losses, and names every wrong one."""
    wrong = {}
    for name, values in actual.items():
        assert values.shape == expected[name].shape, name
        error = np.abs(np.asarray(values, "float64") - expected[name])
        excess = (error / allowed(name, expected[name])).max()
        if not excess <= 1:  # NaN is wrong, too.
            wrong[name] = excess
    assert not wrong, f"errors, as multiples of what is allowed: {wrong}"


def assert_values_close(parts, expected, dtype="float32"):
    def allowed(name, values):
        if name == "Logit-clip" and dtype in ("float16", "bfloat16"):
            return GRADIENT_RTOL[dtype] * np.abs(values)  # It returns this dtype.
        rtol = RTOL["float64" if dtype == "float64" else "float32"]
        if dtype == "float64":
            rtol = LESS_PRECISE.get(name, rtol)
        return rtol * np.abs(values) + 0.2 * rtol

    actual = {name: part.value for name, part in parts.items()}
    assert_all_close(actual, expected, allowed)


def assert_gradients_close(parts, expected, dtype="float32", columns=slice(None)):
    if INFERENCE_ONLY:
        return

    def allowed(name, gradient):
        largest = np.abs(gradient).max(-1, keepdims=True)
        if name in OF_DIFFERENCES:
            largest = largest + largest.max() / 10
        rtol = GRADIENT_RTOL[dtype]
        if dtype == "float64":
            rtol = LESS_PRECISE.get(name, rtol)
        return rtol * largest + GRADIENT_ATOL.get(dtype, 1e-15)

    actual = {name: part.gradient[:, columns] for name, part in parts.items()}
    assert_all_close(actual, expected, allowed)


# Ordinary logits.

SIZES = [(kind, 10) for kind in KINDS]
if not INFERENCE_ONLY:
    SIZES += [(kind, classes) for classes in (2, 1000) for kind in ("sparse", "soft")]


@pytest.mark.parametrize(("kind", "classes"), SIZES)
def test_values_and_gradients_equal_the_oracle(kind, classes):
    names = CASES if classes == 10 else SOME
    z, labels = logits(6, classes), some_labels(kind, classes=classes)
    losses = functions(labels.given, names, classes=classes)
    parts = value_and_vjp_each(losses, z, PLAIN)
    columns = columns_to_check(z, labels.weights)
    values = {name: expected_values(name, labels.weights, z) for name in names}
    gradients = {
        name: expected_gradient(name, labels.weights, z, columns) for name in names
    }
    assert_values_close(parts, values)
    assert_gradients_close(parts, gradients, columns=columns)


def columns_to_check(z, weights):
    """Returns the classes of the labels, the most probable ones, and 50 others."""
    some = np.arange(0, z.shape[-1], -(-z.shape[-1] // 50))
    return np.unique([*some, *weights.argmax(-1), *z.argmax(-1)])


# The ends of the parameters' ranges.
ENDS = {
    "RCE": [{"min_label": 1e-7}, {"min_label": 0.5}],
    "SCE": [{"alpha": 100.0, "beta": 0.0}, {"alpha": 0.0, "min_label": 0.5}],
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
ENDS = {f"{name}-{end}": (name, end) for name in ENDS for end in ENDS[name]}


@pytest.mark.gradients
@pytest.mark.parametrize("kind", ["sparse", "soft"])
def test_the_ends_of_the_parameters(kind):
    z, labels = logits(), some_labels(kind)
    parts = value_and_vjp_each(
        {
            key: with_labels(build(name, **end), labels.given)
            for key, (name, end) in ENDS.items()
        },
        z,
        PLAIN,
    )
    weights = labels.weights
    values, gradients = (
        {key: expected(name, weights, z, **end) for key, (name, end) in ENDS.items()}
        for expected in (expected_values, expected_gradient)
    )
    assert_values_close(parts, values)
    assert_gradients_close(parts, gradients)


def values_and_vjps(names, labels, z, mode, dtype):
    """Calls the losses without Keras's cast of their values to the loss's dtype."""
    with double_precision(dtype):
        calls = {
            name: with_labels(build(name, dtype=dtype).call, labels) for name in names
        }
    return value_and_vjp_each(calls, z, mode, dtype)


def rounded(z, dtype):
    return to_numpy(to_tensor(z, "float32" if dtype == "float64" else dtype))


@pytest.mark.gradients
@pytest.mark.parametrize("kind", ["sparse", "soft"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_dtypes(dtype, kind):
    z, labels = rounded(logits(), dtype), some_labels(kind)
    names = SOME if dtype == "float64" else CASES
    parts = values_and_vjps(names, labels.given, z, PLAIN, dtype)
    assert_parts_equal_the_oracle(parts, labels.weights, z, dtype)


def assert_parts_equal_the_oracle(parts, weights, z, dtype):
    for name, part in parts.items():
        if name != "Logit-clip":  # It returns the dtype of the logits.
            expected = "float64" if dtype == "float64" else "float32"
            assert part.value.dtype == expected, name
    values, gradients = (
        {name: expected(name, weights, z) for name in parts}
        for expected in (expected_values, expected_gradient)
    )
    assert_values_close(parts, values, dtype)
    assert_gradients_close(parts, gradients, dtype)


# Compiled.

# One case of each class, and those that take other branches.
BRANCHES = ("Bootstrap-hard", "Bi-tempered-log", "Bi-tempered-slight", "Forward-zeros")
EACH_CLASS = [*{case.loss: name for name, case in reversed(CASES.items())}.values()]
EACH_BRANCH = sorted({*EACH_CLASS, *BRANCHES} & {*CASES} - {"Bi-tempered"})
# These cases check compiled arithmetic. PyTorch's compiler takes a second for each. The
# other cases are only traced.
WITH_NUMERICS = (
    "GCE",
    "NCE",
    "Focal",
    "AGCE",
    "AUL",
    "JS",
    "Bi-tempered-slight",
    "LogitNorm",
)
SOME_BRANCHES = sorted({*WITH_NUMERICS, *KINDS_OF_LOSSES} & {*CASES})
Sweep = namedtuple("Sweep", "mode dtype kind names")
if BACKEND == "torch":
    OTHERS = sorted({*EACH_BRANCH} - {*WITH_NUMERICS})
    SWEEPS = [
        Sweep(COMPILED, "float32", "sparse", WITH_NUMERICS),
        Sweep(COMPILED, "float16", "soft", ("GCE", "NCE")),
        Sweep("aot_eager", "float32", "sparse", OTHERS),
    ]
elif BACKEND == "tensorflow":
    SWEEPS = [
        Sweep("graph", "float32", "sparse", EACH_BRANCH),
        Sweep("graph", "float32", "soft", KINDS_OF_LOSSES),
        Sweep("xla", "float32", "sparse", KINDS_OF_LOSSES),
        Sweep("xla", "float32", "soft", SOME_BRANCHES),
        Sweep("xla", "float16", "soft", KINDS_OF_LOSSES),
    ]
elif BACKEND == "jax":
    SWEEPS = [
        Sweep("jit", "float32", "sparse", EACH_BRANCH),
        Sweep("jit", "float32", "soft", SOME_BRANCHES),
        Sweep("jit", "float16", "soft", KINDS_OF_LOSSES),
    ]
else:
    SWEEPS = []


@pytest.mark.gradients
@pytest.mark.parametrize("sweep", SWEEPS, ids=lambda sweep: "-".join(sweep[:3]))
def test_compiled(sweep):
    """Compares ordinary rows, extreme rows, and rows with invalid class ids."""
    mode, dtype, kind, names = sweep
    z, labels = rounded(logits(), dtype), some_labels(kind)
    given, weights = labels
    if kind == "sparse":
        z = np.concatenate([z, very_sure_logits()[[0, 2, 4]], z[:3]])
        given = np.concatenate([given, np.int32([0, 0, 0, 10, -1, 1_000_000])])
        weights = np.concatenate([weights, np.eye(10, dtype="float32")[[0] * 3]])
    parts = values_and_vjps(names, given, z, mode, dtype)
    ordinary = {
        name: type(part)(part.value[:6], part.gradient[:6])
        for name, part in parts.items()
    }
    assert_parts_equal_the_oracle(ordinary, weights[:6], z[:6], dtype)
    if kind == "sparse":
        extreme = {
            name: type(part)(part.value[6:9], part.gradient[6:9])
            for name, part in parts.items()
        }
        values = {name: expected_values(name, weights[6:9], z[6:9]) for name in parts}
        assert_extreme_values_close(extreme, values)
        for name, part in parts.items():
            assert np.isfinite(extreme[name].gradient).all(), name
            assert_is_no_number(name, part, z, [9, 10, 11])


# Layouts.

Layout = namedtuple("Layout", "shape axis")
LAYOUTS = {"sequence": Layout((2, 3, 10), -1), "channels-first": Layout((2, 10, 3), 1)}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_layouts(layout, kind):
    z = logits(*layout.shape)
    rows = np.moveaxis(z, layout.axis, -1)
    labels = some_labels(kind, rows.shape[:-1])
    given = labels.given
    if given.ndim == 3:
        given = np.moveaxis(given, -1, layout.axis)
    values = apply_each(functions(given, QUICK, axis=layout.axis), z)
    assert_equal_the_oracle(values, labels.weights, rows)


def assert_equal_the_oracle(values, weights, z, rtol=RTOL["float32"]):
    expected = {name: expected_values(name, weights, z) for name in values}
    assert_all_close(values, expected, lambda _, e: rtol * np.abs(e) + 0.2 * rtol)


# Probabilities.


@pytest.mark.parametrize("kind", KINDS)
def test_values_of_probabilities(kind):
    z, labels = logits(), some_labels(kind)
    p = np.exp(oracle.log_softmax(z))
    losses = functions(labels.given, OF_PROBABILITIES, from_logits=False)
    assert_equal_the_oracle(apply_each(losses, p), labels.weights, z)


@pytest.mark.gradients
@pytest.mark.parametrize("kind", KINDS)
def test_values_of_probabilities_in_float64(kind):
    z, labels = logits(), some_labels(kind)
    p = np.exp(oracle.log_softmax(z))
    names = [name for name in SOME if name in OF_PROBABILITIES]
    with double_precision("float64"):
        losses = functions(labels.given, names, from_logits=False, dtype="float64")
    values = apply_each(losses, p, dtype="float64")
    assert_equal_the_oracle(values, labels.weights, z, RTOL["float64"])


@pytest.mark.gradients
@pytest.mark.parametrize("kind", ["sparse", "soft"])
def test_gradients_through_a_softmax(kind):
    z, labels = logits(), some_labels(kind)
    losses = functions(labels.given, OF_PROBABILITIES, from_logits=False)
    parts = value_and_vjp_each(
        {name: after_softmax(loss) for name, loss in losses.items()}, z, PLAIN
    )
    actual = {name: part.gradient for name, part in parts.items()}
    expected = {name: expected_gradient(name, labels.weights, z) for name in parts}
    assert_all_close(actual, expected, lambda _, e: 1e-4 * np.abs(e) + 1e-6)


def after_softmax(loss):
    return lambda z: loss(keras.ops.softmax(z))


@pytest.mark.gradients
def test_probabilities_of_zero_and_one():
    """Also slightly more than one, as a softmax in float32 can return."""
    p = np.zeros((6, 10), "float32")
    p[::2, 0] = 1
    p[1::2, 0] = np.nextafter(np.float32(1), 2)
    ids = np.int32([0, 0, 1, 1, 9, 9])
    losses = functions(ids, OF_PROBABILITIES, from_logits=False)
    for name, part in value_and_vjp_each(losses, p, PLAIN).items():
        assert np.isfinite(part.value).all(), name
        assert np.isfinite(part.gradient).all(), name
        np.testing.assert_array_equal(part.value[::2], part.value[1::2], err_msg=name)


# Extreme logits.


def sure_logits(margin):
    """Returns rows with the label 0: most wrong, all wrong, most right."""
    z = np.zeros((3, 10), "float32")
    z[0, 0], z[0, 1] = -margin / 2, margin / 2
    z[1] = margin / 2
    z[1, 0] = -margin / 2
    z[2] = -margin / 2
    z[2, 0] = margin / 2
    return z


def very_sure_logits():
    """Returns rows certain of the label 0, of another class, and of neither."""
    z = logits()
    z[0, 0] = 1e4
    z[1, 3] = 1e4
    z[2], z[2, 3] = -1e4, 1e4
    z[3], z[3, 0] = 1e4, -1e4
    z[4] = 1e4
    z[5] *= 3000
    return z


EXTREME = np.concatenate(
    [*map(sure_logits, (20.0, 50.0, 80.0, 2e4)), very_sure_logits()]
)
EXTREME_LABELS = {
    "sparse": np.zeros(6, "int32"),
    "one-hot": np.tile(np.eye(10, dtype="float32")[0], (6, 1)),
    "soft": np.tile(np.float32([0.5, 0.25, 0.25, *[0] * 7]), (6, 1)),
}


def in_batches(losses, z):
    """Values and gradients of more rows, six at a time."""
    batches = [value_and_vjp_each(losses, part, PLAIN) for part in np.split(z, 3)]
    return {name: joined([batch[name] for batch in batches]) for name in losses}


def joined(parts):
    return type(parts[0])(*map(np.concatenate, zip(*parts, strict=True)))


@pytest.mark.gradients
@pytest.mark.parametrize("kind", EXTREME_LABELS)
def test_extreme_logits(kind):
    z, labels = EXTREME, EXTREME_LABELS[kind]
    weights = EXTREME_LABELS["one-hot" if kind == "sparse" else kind][:1]
    weights = np.tile(weights, (len(z), 1))
    parts = in_batches(functions(labels), z)
    values, gradients = (
        {name: expected(name, weights, z) for name in parts}
        for expected in (expected_values, expected_gradient)
    )
    assert_extreme_values_close(parts, values)
    actual = {name: part.gradient for name, part in parts.items()}
    assert_all_close(actual, gradients, allowed_where_extreme)
    if kind != "soft":
        assert_labels_are_pulled(actual, gradients)


def assert_extreme_values_close(parts, expected):
    assert_all_close(
        {name: part.value for name, part in parts.items()},
        expected,
        lambda name, values: 1e-5 * np.abs(values) + 1e-6 * scale_of(name),
    )


def allowed_where_extreme(name, gradients):
    largest = np.abs(gradients).max(-1, keepdims=True)
    return rtol_where_extreme(name, 2e-5) * largest + 1e-6 * scale_of(name)


def rtol_where_extreme(name, rtol):
    # Of logarithms of probabilities of -20,000, the last place is 0.002.
    return 2e-3 if name == "Forward-zeros" else rtol


def assert_labels_are_pulled(actual, expected):
    """For any small probability."""
    assert_all_close(
        {name: pulls(name, gradient) for name, gradient in actual.items()},
        {name: pulls(name, gradient) for name, gradient in expected.items()},
        lambda name, pull: (
            rtol_where_extreme(name, 1e-3) * np.abs(pull) + np.finfo("float32").tiny
        ),
    )


def pulls(name, gradient):
    """The gradient at the label, for rows that are certain of another class."""
    wrong = EXTREME.argmax(-1) != 0
    if name == "LogitNorm":
        # The gradient has no part along the clipped logits, so the first rows are left
        # out.
        wrong[: -len(very_sure_logits())] = False
    return gradient[wrong, 0]


# Most bounds are reached where the probability of the label is zero. Some are those of
# directions of the logits or of another label, and heavy tails have no zero.
NOT_REACHED = (
    "Bi-tempered",
    "Bi-tempered-strong",
    "Forward",
    "LogitNorm",
    "Logit-clip",
    "Sum",
)


BOUND_RTOL = 2e-6 if BACKEND == "openvino" else 1e-6  # Its `log_sigmoid` rounds more.


def test_values_are_bounded():
    z = np.concatenate([EXTREME, logits(18, 10)])
    # OpenVINO compiles for each batch.
    count = 1 if BACKEND == "openvino" else 6
    losses = functions(np.zeros(len(z) // count, "int32"))
    batches = [apply_each(losses, part) for part in np.split(z, count)]
    for name in losses:
        bound = CASES[name].bound
        values = np.concatenate([batch[name] for batch in batches])
        if bound == INF:
            assert values.max() > 1000, name
        elif bound is not None:
            assert (values >= -1e-6).all(), name
            assert (values <= bound * (1 + BOUND_RTOL)).all(), name
        if bound not in (1, None, INF) and name not in NOT_REACHED:
            np.testing.assert_allclose(
                values.max(), bound, rtol=BOUND_RTOL, err_msg=name
            )


# Invalid class ids, and labels of the wrong shape.

IDS = np.int32([3, -1, 9, 10, 1_000_000, 0])
INVALID = [1, 3, 4]


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # NumPy.
def test_invalid_class_ids_give_nan():
    z = logits()
    parts = value_and_vjp_each(functions(IDS), z, PLAIN)
    for name, part in parts.items():
        assert np.isfinite(np.delete(part.value, INVALID)).all(), name
        if not INFERENCE_ONLY:
            assert np.isfinite(np.delete(part.gradient, INVALID, 0)).all(), name
        assert_is_no_number(name, part, z, INVALID)


def assert_is_no_number(name, part, z, rows):
    assert np.isnan(part.value[rows]).all(), name
    if not INFERENCE_ONLY:
        # Logits that are clipped have no gradient, whatever the loss.
        free = (np.abs(z[rows]) <= 1.5) | (name != "Value-clip")
        assert np.isnan(part.gradient[rows][free]).all(), name


@pytest.mark.parametrize("shape", [(), (5,), (6, 9), (6, 10, 1)], ids=str)
@pytest.mark.parametrize("name", KINDS_OF_LOSSES)
def test_labels_of_the_wrong_shape(name, shape):
    with pytest.raises(ValueError, match="Expected labels.*Received: y_true.shape="):
        build(name).call(np.zeros(shape, "int32"), to_tensor(logits()))


# As a Keras loss.

REDUCTIONS = {
    "none": lambda values, weights: values * weights,
    "sum": lambda values, weights: (values * weights).sum(),
    "sum_over_batch_size": lambda values, weights: (values * weights).mean(),
    "mean_with_sample_weight": lambda values, weights: (
        (values * weights).sum() / weights.sum()
    ),
}


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name", [*KINDS_OF_LOSSES, "Value-clip"])
def test_reductions_and_sample_weights(name, reduction):
    z, labels = logits(), some_labels("sparse")
    weights = np.float32([0.5, 0, 2, 1, 3, 0.25])
    loss = build(name, reduction=reduction)
    value = to_numpy(loss(labels.given, z, sample_weight=weights))
    expected = REDUCTIONS[reduction](expected_values(name, labels.weights, z), weights)
    np.testing.assert_allclose(value, expected, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("kind", ["sparse", "soft"])
def test_inside_logit_clip(kind):
    z, labels = logits(), some_labels(kind)
    clipped = {
        name: LogitClipLoss(
            build(name, reduction="sum_over_batch_size"), 1.5, reduction="none"
        )
        for name in QUICK
    }
    functions = {k: with_labels(v, labels.given) for k, v in clipped.items()}
    values = apply_each(functions, z)
    assert_equal_the_oracle(values, labels.weights, oracle.clip(z, 1.5, 2))


def test_a_probability_that_rounding_makes_larger_than_one(mode):
    """Compilers can round a logit to more than the maximum of its row."""
    z, labels = logits(), some_labels("sparse")
    z[:, 3] = np.linspace(200, 300, len(z))
    losses = {
        (name, tau): LogitClipLoss(
            build(name, reduction="sum_over_batch_size"), tau, reduction="none"
        )
        for name in ("Focal", "NFL", "NNFL")
        for tau in (99.7, 99.8, 99.9)
    }
    functions = {key: with_labels(loss, labels.given) for key, loss in losses.items()}
    for (name, tau), values in apply_each(functions, z, mode).items():
        expected = expected_values(name, labels.weights, oracle.clip(z, tau, 2))
        np.testing.assert_allclose(values, expected, 1e-5, 1e-5, err_msg=name)


@pytest.mark.gradients
@pytest.mark.parametrize("name", ["GCE", "NCE"])
def test_training_in_mixed_precision(name):
    keras.config.set_dtype_policy("mixed_float16")
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(10)])
    before = to_numpy(model.layers[0].kernel)
    model.compile("sgd", CASES[name].loss(**arguments(name)), run_eagerly=True)
    # The first steps may only find a scale at which float16 does not overflow.
    history = model.fit(logits(6, 8), some_labels("sparse").given, epochs=4, verbose=0)
    after = to_numpy(model.layers[0].kernel)
    assert np.isfinite(history.history["loss"]).all()
    assert np.isfinite(after).all()
    assert (before != after).any()


@pytest.mark.parametrize(("dtype", "limit"), [("bfloat16", 256), ("float16", 2048)])
def test_class_ids_beyond_what_the_dtype_holds(dtype, limit):
    """Integer ids stay exact. Ids that were rounded before are refused."""
    loss = build("GCE", dtype=dtype)
    z = np.zeros((2, limit + 2), "float32")
    z[:, limit + 1] = 8
    values = to_numpy(loss(np.array([limit, limit + 1]), z))
    assert values[0] > 1.4 > 0.8 > values[1]
    rounded_ids = to_tensor([limit, limit + 1], dtype)
    with pytest.raises(ValueError, match=f"more than {limit} classes"):
        loss(rounded_ids, z)


@pytest.mark.parametrize("kind", KINDS)
def test_lists(kind):
    z, labels = logits(), some_labels(kind)
    values = {name: build(name)(labels.given.tolist(), z.tolist()) for name in QUICK}
    calls = {
        name: build(name).call(labels.given.tolist(), z.tolist()) for name in QUICK
    }
    for each in (values, calls):
        each = {name: to_numpy(value) for name, value in each.items()}
        assert_equal_the_oracle(each, labels.weights, z)


# Tensors of JAX and NumPy take no attributes.
@pytest.mark.skipif(BACKEND in ("jax", "numpy"), reason="Keras leaves no mark there")
@pytest.mark.parametrize("name", [*KINDS_OF_LOSSES, "Bi-tempered"])
def test_probabilities_are_refused_where_keras_marks_them(name):
    probabilities = keras.activations.softmax(to_tensor(logits()))
    with pytest.raises(ValueError, match="Expected logits. Received: probabilities"):
        build(name).call(to_tensor(some_labels("sparse").given), probabilities)


# Hidden samples.

HIDDEN = np.array([False, True, False, True, True, False])
# Values of hidden samples.
JUNK_IDS, JUNK_LOGITS = [-1, -100, 255], [float("nan"), INF, -INF]
Hiding = namedtuple("Hiding", "arguments weights mask")
HIDINGS = {
    "ignore-class": Hiding({"ignore_class": 255}, None, None),
    "ignore-negative": Hiding({"ignore_class": -100}, None, None),
    "sample-weight": Hiding({}, 1.0 - HIDDEN, None),
    "mask": Hiding({}, None, ~HIDDEN),
    "mask-and-class": Hiding({"ignore_class": 255}, None, [True, False, *[True] * 4]),
}
if not TAKES_MASKS:
    HIDINGS = {k: each for k, each in HIDINGS.items() if each.mask is None}


def some_hidden(kind, ignored, shape=(6, 10)):
    """Returns logits and labels with some junk rows, and which rows are not junk."""
    z, labels = logits(*shape), some_labels(kind, shape[:-1])
    hidden = HIDDEN.reshape(shape[:-1])
    given = labels.given.copy()
    z[hidden] = np.tile(np.float32(JUNK_LOGITS), 4)[:10]
    z[hidden, 0] = JUNK_LOGITS
    if kind == "soft":
        given[hidden] = np.nan
    else:
        junk = np.array(JUNK_IDS if ignored is None else [ignored] * 3)
        given[hidden] = junk.reshape(given[hidden].shape)
    return z, given, labels.weights


def hiding(loss, given, weights, mask):
    """Returns a loss as a function of logits, some of which are hidden."""
    given = to_tensor(given, "int32" if given.dtype.kind == "i" else "float32")

    def function(z):
        if mask is not None:
            set_masks(z, to_tensor(mask, "bool"))
        return loss(given, z, sample_weight=weights)

    return function


def takes(name, arguments):
    return arguments.keys() <= build(name).get_config().keys()


# Only class ids can be ignored.
HIDDEN_KINDS = [(way, kind) for way in HIDINGS for kind in ("sparse", "column")]
HIDDEN_KINDS += [(way, "soft") for way in HIDINGS if not HIDINGS[way].arguments]


@pytest.mark.parametrize(("way", "kind"), HIDDEN_KINDS)
def test_hidden_samples(way, kind):
    arguments, weights, mask = HIDINGS[way]
    z, given, expected_weights = some_hidden(kind, arguments.get("ignore_class"))
    names = [name for name in QUICK if takes(name, arguments)]
    assert names
    losses = {
        name: hiding(build(name, **arguments), given, weights, mask) for name in names
    }
    parts = value_and_vjp_each(losses, z, PLAIN)
    shown = {
        name: type(part)(*(x if x is None else x[~HIDDEN] for x in part))
        for name, part in parts.items()
    }
    z, expected_weights = z[~HIDDEN], expected_weights[~HIDDEN]
    values, gradients = (
        {name: expected(name, expected_weights, z) for name in names}
        for expected in (expected_values, expected_gradient)
    )
    assert_values_close(shown, values)
    assert_gradients_close(shown, gradients)
    for name, part in parts.items():
        np.testing.assert_array_equal(part.value[HIDDEN], 0, err_msg=name)
        if not INFERENCE_ONLY:
            np.testing.assert_array_equal(part.gradient[HIDDEN], 0, err_msg=name)


@pytest.mark.parametrize("way", HIDINGS)
def test_means_of_the_samples_that_are_not_hidden(way):
    """Keras's mean counts samples with weight zero, but not masked samples."""
    arguments, weights, mask = HIDINGS[way]
    z, given, expected_weights = some_hidden("sparse", arguments.get("ignore_class"))
    for name in QUICK:
        if takes(name, arguments):
            loss = build(name, reduction="sum_over_batch_size", **arguments)
            value = to_numpy(hiding(loss, given, weights, mask)(to_tensor(z)))
            values = expected_values(name, expected_weights[~HIDDEN], z[~HIDDEN])
            count = 3 if weights is None else 6
            np.testing.assert_allclose(
                value, values.sum() / count, rtol=1e-5, atol=2e-6, err_msg=name
            )


@pytest.mark.parametrize("way", HIDINGS)
def test_hidden_pixels(way):
    arguments, weights, mask = HIDINGS[way]
    ignored = arguments.get("ignore_class")
    z, given, expected_weights = some_hidden("sparse", ignored, (2, 3, 10))
    weights, mask = (
        None if each is None else np.reshape(each, (2, 3)) for each in (weights, mask)
    )
    hidden, channels_first = HIDDEN.reshape(2, 3), np.moveaxis(z, -1, 1)
    for name in KINDS_OF_LOSSES:
        if takes(name, arguments):
            loss = build(name, axis=1, **arguments)
            value = hiding(loss, given, weights, mask)(to_tensor(channels_first))
            expected = expected_values(name, expected_weights[~hidden], z[~hidden])
            value = to_numpy(value)
            np.testing.assert_array_equal(value[hidden], 0, err_msg=name)
            np.testing.assert_allclose(
                value[~hidden], expected, rtol=1e-5, atol=2e-6, err_msg=name
            )


@pytest.mark.once
@pytest.mark.parametrize("kind", ["one-hot", "soft"])
def test_only_class_ids_can_be_ignored(kind):
    for name in CASES:
        if takes(name, {"ignore_class": None}):
            with pytest.raises(ValueError, match="class ids as labels.*`ignore_class`"):
                build(name, ignore_class=2)(some_labels(kind).given, logits())


# The attributes of losses.


def test_losses_that_treat_all_other_classes_alike():
    """Losses with a transition matrix do not."""
    z, ids = logits(), np.full(6, 3)
    moved = np.concatenate([z[:, 2::-1], z[:, 3:4], z[:, :3:-1]], 1)
    before, after = (apply_each(functions(ids, QUICK), each) for each in (z, moved))
    for name in QUICK:
        alike = np.allclose(before[name], after[name], rtol=1e-5, atol=1e-6)
        assert alike == getattr(build(name), "treats_other_classes_alike", False), name


def test_losses_that_are_functions_of_the_label_alone():
    """Two kinds of logits give the label the same probabilities."""
    p = np.linspace(0.05, 0.95, 6)[:, None]
    log_shares = oracle.log_softmax(logits(6, 9))
    skewed, even = (
        np.concatenate([np.log(p), np.log1p(-p) + rest], 1).astype("float32")
        for rest in (log_shares, np.full((6, 9), -np.log(9)))
    )
    losses = functions(np.zeros(6, "int32"), QUICK)
    first, second = (apply_each(losses, each) for each in (skewed, even))
    for name in QUICK:
        same = np.allclose(first[name], second[name], rtol=1e-4, atol=1e-6)
        falls = (np.diff(second[name]) < 0).all()
        says = getattr(build(name), "falls_with_probability", False)
        assert says == (same and falls), name


def test_losses_whose_sum_over_all_labels_is_constant():
    """All symmetric losses have a `total`. Others may have one for some arguments."""
    for name in CASES:
        if getattr(build(name), "is_symmetric", False):
            assert CASES[name].total is not None, name
    constant = {case.loss for case in CASES.values() if case.total is not None}
    for loss in constant - {CASES["GCE"].loss, CASES["AUL"].loss}:
        assert loss.is_symmetric, loss
