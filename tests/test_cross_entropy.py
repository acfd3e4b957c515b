from collections import namedtuple

import keras
import numpy as np
import pytest

from keras_logitclip import ops
from keras_logitclip._kernels import clipped_cross_entropy
from tests import oracle
from tests.conftest import BACKEND
from tests.conftest import MODES
from tests.conftest import QUICKEST
from tests.cross_entropy_oracle import Case
from tests.cross_entropy_oracle import as_tensor
from tests.cross_entropy_oracle import assert_equal_the_oracle
from tests.cross_entropy_oracle import assert_gradients_close
from tests.cross_entropy_oracle import assert_losses_close
from tests.cross_entropy_oracle import expected_loss_and_gradient
from tests.cross_entropy_oracle import fused
from tests.cross_entropy_oracle import wild_logits
from tests.oracle import INF
from tests.running import apply
from tests.running import apply_each
from tests.running import double_precision
from tests.running import gradient_along
from tests.running import on_parts
from tests.running import to_numpy
from tests.running import to_tensor
from tests.running import value_and_vjp_each
from tests.samples import CLASSES
from tests.samples import KINDS
from tests.samples import ROWS
from tests.samples import logits
from tests.samples import some_labels

# NumPy warns of norms that float32 cannot hold.
overflows = pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
# NumPy warns of infinite minus infinite, and of casting NaN to integers.
has_nan = pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")

UPSTREAM = np.random.default_rng(1).normal(size=ROWS)
ALL_KINDS = (*KINDS, "smooth", "unnormalized", "zero")


# Sizes, kinds of labels, orders of the norm.

TAUS = (0.01, 1.0, 10.0, 200.0)
SIZES = [
    *((QUICKEST, classes, TAUS) for classes in (10, 128_000)),
    *((QUICKEST, classes, TAUS[::3]) for classes in (2, 1000)),
    *((QUICKEST, classes, [1.0]) for classes in (4096, 40_009)),
    *((mode, classes, [tau])
      for mode in MODES if mode != QUICKEST
      for classes, tau in ((2, 10.0), (1003, 200.0), (40_009, 1.0), (128_000, 1.0))),
]  # fmt: skip


if BACKEND == "openvino":  # Which adds up longer rows to five digits.
    SIZES = [size for size in SIZES if size[1] <= 4096]


@overflows
@pytest.mark.parametrize(("mode", "classes", "taus"), SIZES, ids=str)
def test_loss_and_gradient_of_every_size(mode, classes, taus):
    """Separately, because a single huge row decides how a batch is computed."""
    for kind, z in {
        "ordinary": logits(ROWS, classes),
        "wild": wild_logits(classes),
    }.items():
        labels = some_labels("sparse", classes=classes)
        cases = {f"{kind}, tau={tau}": Case(labels, tau) for tau in taus}
        assert_equal_the_oracle(cases, z, mode, UPSTREAM)


@overflows
@pytest.mark.parametrize("rows", ["ordinary", "wild"])
def test_every_kind_of_labels(rows, mode):
    z = logits(ROWS, 100) if rows == "ordinary" else wild_logits(100)
    apart = ("sparse", "soft", "unnormalized", "zero")  # The others end up as these.
    if mode == QUICKEST:
        kinds = [
            *((kind, 1.0) for kind in ALL_KINDS),
            *((kind, 100.0) for kind in apart),
        ]
    else:
        kinds = [(kind, 1.0) for kind in apart]
    cases = {f"{kind}, tau={tau}": Case(some_labels(kind, classes=100), tau)
             for kind, tau in kinds}  # fmt: skip
    assert_equal_the_oracle(cases, z, mode, UPSTREAM)


def test_every_order_of_the_norm():
    cases = {f"p={p}, {kind}": Case(some_labels(kind), 1.5, p)
             for p in (1, 2, 3, INF)
             for kind in ("sparse", "soft")}  # fmt: skip
    assert_equal_the_oracle(cases, logits(), "eager", np.ones(ROWS), rtol=2e-6)


def test_every_mode_and_dtype(run):
    mode, dtype = run
    with double_precision(dtype):
        z = to_numpy(to_tensor(logits(ROWS, 100), dtype))
    upstream = np.arange(1.0, ROWS + 1)
    loss_rtol = 1e-14 if dtype == "float64" else 1e-6  # Half precision: in float32.
    rtol = {"float64": 1e-13, "float32": 1e-6, "float16": 5e-4, "bfloat16": 4e-3}[dtype]
    cases = {
        f"{kind}, tau={tau}": Case(some_labels(kind, classes=100), tau)
        for kind, tau in (("sparse", 1.0), ("sparse", 60.0), ("smooth", 60.0))
    }
    with double_precision(dtype):
        functions = {name: fused(as_tensor(labels.given), tau)
                     for name, (labels, tau, _) in cases.items()}  # fmt: skip
    parts = value_and_vjp_each(functions, z, mode, dtype, upstream)
    for name, (value, gradient) in parts.items():
        labels, tau, _ = cases[name]
        expected = expected_loss_and_gradient(labels.weights, z, tau, upstream)
        assert value.dtype == ("float64" if dtype == "float64" else "float32")
        assert_losses_close(value, expected[0], tau, loss_rtol, name)
        if gradient is not None:
            assert_gradients_close(
                gradient, expected[1], z, tau, upstream, rtol=rtol, name=name
            )


# Rows that are long, and longer than their dtype can square.

MAGNITUDES = (1e3, 1e10, 1e15, 1e17, 1e19, 1e25)


def test_gradients_of_ever_longer_rows(mode):
    """In separate batches, because the longest row decides how a batch is computed."""
    rows = {f"{x:g}": logits() * np.float32(x) for x in MAGNITUDES}
    cases = dict.fromkeys(rows, Case(some_labels("sparse"), 0.001))
    assert_equal_the_oracle(cases, rows, mode, np.full(ROWS, 1e-3))


@pytest.mark.gradients
def test_huge_float64_rows(mode):
    magnitudes = (1e30, 1e200, 1e300) if mode == QUICKEST else (1e300,)
    rows = {magnitude: logits().astype(float) * magnitude for magnitude in magnitudes}
    labels = some_labels("sparse")
    with double_precision("float64"):
        functions = dict.fromkeys(rows, fused(as_tensor(labels.given), 1.0))
    parts = value_and_vjp_each(functions, rows, mode, "float64")
    expected = expected_loss_and_gradient(labels.weights, logits(), 1.0, np.ones(ROWS))
    for magnitude, (losses, gradient) in parts.items():
        name = f"{magnitude:g}"
        # The rows are rounded where they are multiplied.
        np.testing.assert_allclose(losses, expected[0], rtol=1e-12, err_msg=name)
        np.testing.assert_allclose(
            gradient * magnitude, expected[1], 0, 1e-12, err_msg=name
        )


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_huge_half_precision_rows(dtype):
    z = to_numpy(to_tensor(1e4 * np.sign(logits(ROWS, 1000)), dtype))
    labels = some_labels("sparse", classes=1000)
    losses = apply(fused(labels.given, 100.0), z, dtype=dtype)
    expected = oracle.weighted_cross_entropy(labels.weights, oracle.clip(z, 100.0, 2))
    np.testing.assert_allclose(losses, expected, rtol=1e-6)


@has_nan
def test_rows_without_a_norm_become_nan(mode):
    z, labels = logits(), some_labels("sparse")
    z[0, 3], z[1, 0], z[2, 9], z[3] = np.nan, np.inf, -np.inf, np.inf
    parts = value_and_vjp_each({"": fused(as_tensor(labels.given), 1.0)}, z, mode)
    losses, gradient = parts[""]
    assert np.isnan(losses[:4]).all()
    expected = expected_loss_and_gradient(labels.weights[4:], z[4:], 1.0, np.ones(2))
    assert_losses_close(losses[4:], expected[0], 1.0)
    if gradient is not None:
        assert np.isnan(gradient[:4]).all()
        assert_gradients_close(gradient[4:], expected[1], z[4:], 1.0, np.ones(2))


def test_infinite_tau_is_plain_cross_entropy():
    z, labels = logits(scale=100.0), some_labels("sparse")
    plain = keras.losses.sparse_categorical_crossentropy(
        labels.given, to_tensor(z), from_logits=True
    )
    np.testing.assert_array_equal(apply(fused(labels.given, INF), z), to_numpy(plain))


# Shapes.

Layout = namedtuple("Layout", "shape axis")
LAYOUTS = {
    "two-classes": Layout((ROWS, 2), -1),
    "sequence": Layout((2, 5, CLASSES), -1),
    "image": Layout((2, 3, 4, CLASSES), 3),
    "channels-first": Layout((2, CLASSES, 3, 4), 1),
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_every_shape(layout):
    shape, axis = layout
    z = logits(*shape)
    moved = np.moveaxis(z, axis, -1)
    sparse, soft = (
        some_labels(kind, moved.shape[:-1], moved.shape[-1])
        for kind in ("sparse", "soft")
    )
    cases = {
        "flat": (sparse.given, sparse.weights),
        "size-one": (np.expand_dims(sparse.given, axis), sparse.weights),
        "soft": (np.moveaxis(soft.given, -1, axis), soft.weights),
    }
    functions = {
        name: fused(as_tensor(given), 1.5, axis=axis)
        for name, (given, _) in cases.items()
    }
    upstream = np.random.default_rng(1).normal(size=moved.shape[:-1])
    parts = value_and_vjp_each(functions, z, QUICKEST, upstream=upstream)
    for name, (losses, gradient) in parts.items():
        weights = cases[name][1]
        expected = expected_loss_and_gradient(weights, moved, 1.5, upstream)
        assert losses.shape == expected[0].shape
        assert_losses_close(losses, expected[0], 1.5, name=name)
        if gradient is not None:
            assert_gradients_close(
                np.moveaxis(gradient, axis, -1), expected[1], moved, 1.5, upstream,
                name=name,
            )  # fmt: skip


@pytest.mark.parametrize("kind", ["sparse", "soft"])
def test_one_row(kind):
    z, labels = logits(CLASSES), some_labels(kind, (1,))
    for given in (labels.given[0], labels.given):
        if given.shape == (1, CLASSES):
            continue  # One row of weights has the shape of the logits, and no other.
        losses = apply(fused(given, 1.5, axis=0), z)
        clipped = oracle.clip(z, 1.5, 2)
        expected = oracle.weighted_cross_entropy(labels.weights[0], clipped)
        assert losses.shape == ()
        assert_losses_close(losses, expected, 1.5)


@pytest.mark.skipif(BACKEND == "openvino", reason="aborts on empty tensors")
@pytest.mark.parametrize("shape", [(0,), (0, 1), (0, CLASSES)], ids=str)
def test_empty_batch(shape):
    losses = apply(fused(np.zeros(shape, "int32"), 1.5), np.zeros((0, CLASSES)))
    assert losses.shape == (0,)


# Labels that are no class.

INVALID_IDS = (-1, 10, 1_000_000, -1_000_000)


@has_nan
def test_invalid_class_ids_give_nan(mode):
    """A NaN loss, and a gradient that is NaN where there is one."""
    ids = np.array([3, *INVALID_IDS, 9])
    invalid = [False, *(True for _ in INVALID_IDS), False]
    cases = [("int32", 2, 1.0), ("int32", 3, 1.0), ("float32", 2, 1.0)]
    if mode == "eager":
        cases += [("int64", 2, 1.0), ("float32", 3, 1.0), ("int32", 2, INF),
                  ("float32", 2, INF)]  # fmt: skip
    functions = {
        f"{dtype}, p={p}, tau={tau}": fused(as_tensor(ids.astype(dtype)), tau, p=p)
        for dtype, p, tau in cases
    }
    for name, part in value_and_vjp_each(functions, logits(), mode).items():
        np.testing.assert_array_equal(np.isnan(part.value), invalid, name)
        if part.gradient is not None:
            np.testing.assert_array_equal(np.isnan(part.gradient).all(-1), invalid)
            np.testing.assert_array_equal(np.isnan(part.gradient).any(-1), invalid)


@has_nan
def test_ids_that_are_no_whole_numbers_give_nan():
    ids = np.array([0.5, np.nan, np.inf, 1e20, -0.0, 9.0], "float32")
    losses = apply(fused(ids, 1.0), logits())
    np.testing.assert_array_equal(np.isnan(losses), 4 * [True] + 2 * [False])


def test_dtypes_of_class_ids():
    ids = np.array([0, 99, 50])
    dtypes = ("int32", "int8", "uint8", "int16", "uint16", "int64")
    functions = {dtype: fused(ids.astype(dtype), 1.0) for dtype in dtypes}
    losses = apply_each(functions, logits(3, 1000), QUICKEST)
    assert np.isfinite(losses["int32"]).all()
    for dtype in dtypes:
        np.testing.assert_array_equal(losses[dtype], losses["int32"], dtype)


BAD_LABELS = {
    "too-few": (4,),
    "too-many": (6,),
    "wrong-classes": (5, 9),
    "wrong-rank": (5, 10, 1),
    "scalar": (),
}


@pytest.mark.once
@pytest.mark.parametrize("symbolic", [False, True], ids=("tensor", "symbolic"))
@pytest.mark.parametrize("shape", BAD_LABELS.values(), ids=BAD_LABELS)
def test_labels_of_the_wrong_shape(shape, symbolic):
    z = keras.Input(batch_shape=(5, 10)) if symbolic else logits(5, 10)
    with pytest.raises(ValueError, match="Expected labels.*Received: y_true.shape="):
        ops.clipped_softmax_cross_entropy(np.zeros(shape, "int32"), z, 1.0)


@pytest.mark.once
@pytest.mark.parametrize(
    ("name", "value"), [("tau", 0), ("p", 0.5), ("axis", 1.0), ("axis", 2)]
)
def test_bad_arguments(name, value):
    arguments = {"tau": 1.0, name: value}
    with pytest.raises(ValueError, match=f"`{name}`: expected .* Received: {name}="):
        ops.clipped_softmax_cross_entropy([0, 0], logits(2, 3), **arguments)


@pytest.mark.once
def test_logits_that_are_no_floats():
    with pytest.raises(ValueError, match="expected floating.*dtype=int32"):
        ops.clipped_softmax_cross_entropy([0, 0], np.ones((2, 3), "int32"), 1.0)


# Derivatives beyond the logits' first.


@pytest.mark.gradients
def test_gradient_of_the_labels(mode):
    cases = {f"{magnitude:g}, tau={tau}": (logits() * np.float32(magnitude), tau)
             for magnitude in (1.0, 1e25)
             for tau in (1.5, 60.0)}  # fmt: skip

    def of_labels(z, tau):
        z = to_tensor(z)
        # No constant, of which XLA would take the square alone.
        return lambda y: ops.clipped_softmax_cross_entropy(y, z + 0 * y, tau)

    functions = {name: of_labels(*case) for name, case in cases.items()}
    labels = some_labels("soft").given
    parts = value_and_vjp_each(functions, labels, mode, upstream=UPSTREAM)
    for name, (z, tau) in cases.items():
        clipped = oracle.clip(z.astype("float64"), tau, 2)
        expected = -UPSTREAM[:, None] * oracle.log_softmax(clipped)
        np.testing.assert_allclose(
            parts[name].gradient, expected, 1e-5, 1e-6 * tau, err_msg=name
        )


@pytest.mark.gradients
def test_second_derivatives():
    z, direction = logits(4, 5), logits(4, 5, seed=2)
    z[0] *= 100
    z[2] /= 100
    z[3] = 0
    upstream = np.arange(1.0, 5)
    cases = {f"{kind}, tau={tau}": Case(some_labels(kind, (4,), 5), tau)
             for kind in ("sparse", "soft")
             for tau in (1.5, 60.0)}  # fmt: skip
    functions = on_parts(
        {name: fused(labels.given, tau) for name, (labels, tau, _) in cases.items()}
    )
    stacked = [np.concatenate([x] * len(cases)) for x in (z, upstream, direction)]
    second = np.split(gradient_along(functions, *stacked), len(cases))
    for (name, (labels, tau, _)), found in zip(cases.items(), second, strict=True):

        def along(z, weights=labels.weights, tau=tau):
            gradient = expected_loss_and_gradient(weights, z, tau, upstream)[1]
            return (direction * gradient).sum()

        expected = oracle.slopes(along, z)
        np.testing.assert_allclose(found, expected, atol=2e-5, err_msg=name)


# The gradient divided by the mean of min(1, tau / norm).

COUNTED = np.array([True, False, True, True, False, True])


def with_counted(labels, counted, tau, p):
    labels = as_tensor(labels)
    counted = counted if counted is True else as_tensor(counted)
    return lambda z: clipped_cross_entropy(labels, z, tau, p, counted)


@pytest.mark.gradients
@pytest.mark.parametrize("p", [2, 3])
def test_counted_rows_multiply_the_gradient(p, mode):
    z, tau = logits(), 5.0
    z[0] /= 100
    z[3] = np.nan  # Neither its loss nor any other may be hidden by the mean.
    lengths = oracle.norm(z, p)
    multiplier = np.minimum(1, tau / lengths)
    has_norm = ~np.isnan(lengths)
    cases = {"some": COUNTED, "none": np.zeros(ROWS, bool), "all": True}
    factors = {
        "some": 1 / multiplier[COUNTED & has_norm].mean(),
        "none": 1,
        "all": 1 / multiplier[has_norm].mean(),
    }
    for kind in ("sparse", "soft"):
        labels = some_labels(kind).given
        functions = {
            name: with_counted(labels, counted, tau, p)
            for name, counted in cases.items()
        }
        functions["plain"] = fused(as_tensor(labels), tau, p=p)
        parts = value_and_vjp_each(functions, z, mode, upstream=UPSTREAM)
        plain = parts.pop("plain")
        for name, (losses, gradient) in parts.items():
            np.testing.assert_array_equal(losses, plain.value, name)
            expected = factors[name] * plain.gradient
            np.testing.assert_allclose(gradient, expected, 1e-5, 1e-7, err_msg=name)


@pytest.mark.gradients
@pytest.mark.parametrize("p", [2, 3])
def test_counted_rows_multiply_the_gradient_of_the_labels(p, mode):
    z, counted, tau = to_tensor(logits()), as_tensor(COUNTED), 2.0
    factor = 1 / np.minimum(1, tau / oracle.norm(logits(), p))[COUNTED].mean()
    functions = {
        # No constant, of which XLA would take the square alone.
        "plain": lambda y: clipped_cross_entropy(y, z + 0 * y, tau, p),
        "counted": lambda y: clipped_cross_entropy(y, z + 0 * y, tau, p, counted),
    }
    parts = value_and_vjp_each(
        functions, some_labels("soft").given, mode, upstream=UPSTREAM
    )
    expected = factor * parts["plain"].gradient
    np.testing.assert_allclose(parts["counted"].gradient, expected, 1e-5, 1e-6)


@pytest.mark.gradients
def test_factor_of_counted_rows_is_a_constant():
    """Also in derivatives of second order."""
    z, direction, upstream = logits(), logits(seed=1), np.ones(ROWS)
    labels = some_labels("soft").given
    factor = 1 / np.minimum(1, 2.0 / oracle.norm(z, 2))[COUNTED].mean()
    for p in (2, 2.0001):  # Fused, and not.
        second = gradient_along(
            fused(as_tensor(labels), 2.0, p=p), z, upstream, direction
        )
        function = with_counted(labels, COUNTED, 2.0, p)
        found = gradient_along(function, z, upstream, direction)
        np.testing.assert_allclose(found, factor * second, 1e-3, 1e-5)


# As a node of a functional model.


@pytest.mark.parametrize("classes", [None, 10], ids=("any-classes", "ten-classes"))
def test_symbolic_shape_and_dtype(classes):
    outputs = ops.clipped_softmax_cross_entropy(
        keras.Input((7,), dtype="int32"),
        keras.Input((7, classes), dtype="float16"),
        1.0,
    )
    assert outputs.shape == (None, 7)
    assert outputs.dtype == "float32"


def test_functional_model_survives_saving(tmp_path):
    y_true, y_pred = keras.Input((), dtype="int32"), keras.Input((CLASSES,))
    losses = ops.clipped_softmax_cross_entropy(y_true, y_pred, tau=1.5)
    model = keras.Model([y_true, y_pred], losses)
    model.save(tmp_path / "model.keras")
    reloaded = keras.models.load_model(tmp_path / "model.keras")
    z, labels = logits(), some_labels("sparse")
    expected = oracle.weighted_cross_entropy(labels.weights, oracle.clip(z, 1.5, 2))
    inputs = [as_tensor(labels.given), to_tensor(z)]
    for each in (model, reloaded):
        np.testing.assert_allclose(to_numpy(each(inputs)), expected, rtol=1e-6)
