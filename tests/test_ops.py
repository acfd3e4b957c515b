from collections import namedtuple
from functools import partial

import keras
import numpy as np
import pytest

from keras_logitclip import ops
from tests import oracle
from tests.conftest import BACKEND
from tests.conftest import DTYPES
from tests.conftest import MODES
from tests.conftest import QUICKEST
from tests.cross_entropy_oracle import allow_nan_in_longest_rows
from tests.oracle import INF
from tests.oracle import assert_rows_close
from tests.running import apply
from tests.running import apply_each
from tests.running import double_precision
from tests.running import gradient_along
from tests.running import on_parts
from tests.running import to_numpy
from tests.running import to_tensor
from tests.running import value_and_vjp_each
from tests.samples import CLASSES
from tests.samples import ROWS
from tests.samples import logits

TAU = 2.5
ORDERS = (1, 1.5, 2, 3, INF)
RTOL = {"float64": 1e-13, "float32": 1e-6, "float16": 5e-4, "bfloat16": 4e-3}
if BACKEND == "openvino":
    RTOL["bfloat16"] *= 2  # It rounds once more what is cast from that.
# Of float16 below its smallest normal number; the others lose no digits here.
SPACING = {"float16": 2.0**-24}


def clips(tau, axis=-1, orders=ORDERS):
    """A function of each order, to be computed as one."""
    return {p: partial(ops.logit_clip, tau=tau, p=p, axis=axis) for p in orders}


def norms(orders=ORDERS):
    return {p: partial(ops.logit_norm, p=p) for p in orders}


def quantize(x, dtype):
    with double_precision(dtype):
        return to_numpy(to_tensor(x, dtype))


# Every shape.

Layout = namedtuple("Layout", "shape axis")
LAYOUTS = {
    "one-row": Layout((CLASSES,), 0),
    "batch": Layout((ROWS, CLASSES), -1),
    "two-classes": Layout((ROWS, 2), -1),
    "one-logit": Layout((ROWS, 1), 1),
    "sequence": Layout((2, 5, CLASSES), -1),
    "image": Layout((2, 3, 4, CLASSES), -1),
    "channels-first": Layout((2, CLASSES, 3, 4), 1),
}
if BACKEND != "openvino":  # Which aborts the process on empty tensors.
    LAYOUTS["empty-batch"] = Layout((0, CLASSES), -1)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_every_shape(layout):
    shape, axis = layout
    z, upstream = logits(*shape), logits(*shape, seed=1)
    for p in ORDERS if len(shape) == 2 else (2, 3):
        norm = apply(partial(ops.logit_norm, p=p, axis=axis), z, QUICKEST)
        expected = oracle.norm(z, p, axis)
        assert norm.shape == expected.shape
        np.testing.assert_allclose(norm, expected, rtol=1e-6, err_msg=f"p={p}")
        clip = clips(TAU, axis, [p])
        value, gradient = value_and_vjp_each(clip, z, QUICKEST, upstream=upstream)[p]
        assert_rows_close(value, oracle.clip(z, TAU, p, axis), 1e-6, axis, name=p)
        if gradient is not None:
            expected = oracle.clip_vjp(z, upstream, TAU, p, axis)
            # With one logit, the gradient of a clipped row is 0 and rounding is left.
            atol = 1e-6 * (1 + np.abs(expected).max(initial=0))
            np.testing.assert_allclose(gradient, expected, 0, atol, err_msg=f"p={p}")


@pytest.mark.parametrize("keepdims", [False, True])
def test_keepdims_and_symbolic_shape_agree(keepdims):
    norm = ops.logit_norm(to_tensor(logits(2, 10, 3)), axis=1, keepdims=keepdims)
    symbolic = ops.logit_norm(keras.Input((10, 3)), axis=1, keepdims=keepdims)
    assert tuple(norm.shape) == ((2, 1, 3) if keepdims else (2, 3))
    assert symbolic.shape == (None, *norm.shape[1:])


# Every mode and dtype.


def orders_in(mode, dtype="float32", orders=ORDERS):
    """Returns all orders in the plain mode, and fewer if torch.compile traces them.

    Each takes a second, and only order 2 has its own form on PyTorch.
    """
    if mode != "aot_eager":
        return orders
    return (2, INF) if (dtype, orders) == ("float32", ORDERS) else (2,)


LONGER = 8
SHAPE = (24, 100)


def rows_around_tau(p, dtype):
    """Returns rows up to a thousand times longer than tau, shorter ones, and zeros."""
    z = logits(*SHAPE)
    shorter = np.random.default_rng(1).uniform(0.1, 0.99, len(z) - LONGER)
    lengths = TAU * np.concatenate([np.geomspace(1.1, 1000, LONGER), shorter])
    z *= (lengths / oracle.norm(z, p))[:, None].astype("float32")
    z[-2], z[-1] = 0.0, -0.0
    return quantize(z, dtype)


def test_clipping_in_every_mode_and_dtype(run):
    mode, dtype = run
    rows = {p: rows_around_tau(p, dtype) for p in orders_in(mode, dtype)}
    upstream = quantize(logits(*SHAPE, seed=1), dtype)
    functions = clips(TAU, orders=rows)
    clipped = value_and_vjp_each(functions, rows, mode, dtype, upstream)
    for p, z in rows.items():
        value, gradient = clipped[p]
        assert_rows_close(value, oracle.clip(z, TAU, p), RTOL[dtype], name=p)
        assert_come_back_bit_for_bit(value[LONGER:], z[LONGER:])
        if gradient is not None:
            expected = oracle.clip_vjp(z, upstream, TAU, p)
            assert_rows_close(gradient, expected, RTOL[dtype], name=p)
            np.testing.assert_array_equal(gradient[LONGER:], upstream[LONGER:])


def assert_come_back_bit_for_bit(clipped, z):
    np.testing.assert_array_equal(clipped, z)
    np.testing.assert_array_equal(np.signbit(clipped), np.signbit(z))


def test_norms_in_every_mode_and_dtype(run):
    mode, dtype = run
    z = quantize(logits(*SHAPE), dtype)
    z[0] = 0
    z[1] = np.where(np.arange(z.shape[1]) < 3, [-5.0], 1.0)  # Three maxima.
    upstream = 1 + np.arange(len(z))
    functions = norms(orders_in(mode, dtype))
    parts = value_and_vjp_each(functions, z, mode, dtype, upstream)
    for p, (norm, gradient) in parts.items():
        rtol = min(RTOL[dtype], 1e-6)
        np.testing.assert_allclose(norm, oracle.norm(z, p), rtol, err_msg=f"p={p}")
        if gradient is not None:
            expected = upstream[:, None] * oracle.norm_gradient(z, p)
            assert_rows_close(gradient, expected, RTOL[dtype], name=p)


@pytest.mark.gradients
def test_gradients_of_clipped_rows_with_zero_entries():
    z, upstream = np.round(logits()), logits(seed=1)
    assert (z == 0).any()
    parts = value_and_vjp_each(clips(0.5), z, QUICKEST, upstream=upstream)
    for p, part in parts.items():
        expected = oracle.clip_vjp(z, upstream, 0.5, p)
        assert_rows_close(part.gradient, expected, 2e-6, name=p)


@pytest.mark.gradients
def test_rows_that_are_as_long_as_tau(mode):
    """Compilers may find such a row clipped in one place and unclipped in another.

    The gradient perpendicular to a row is the same in both cases.
    """
    z, upstream = logits(4000, 4), logits(4000, 4, seed=1)
    z *= (3.3 / oracle.norm(z, 2)[:, None]).astype("float32")
    upstream -= z * ((upstream * z).sum(-1) / (z * z).sum(-1))[:, None]
    parts = value_and_vjp_each(clips(3.3, orders=(2,)), z, mode, upstream=upstream)
    np.testing.assert_allclose(parts[2].value, z, 1e-5)
    np.testing.assert_allclose(parts[2].gradient, upstream, 0, 1e-5)


def test_a_norm_of_exactly_tau_is_not_clipped():
    z, upstream = np.tile([3.0, -4.0], (3, 1)), logits(3, 2)
    for p, tau in ((1, 7.0), (2, 5.0), (INF, 4.0)):
        functions = clips(tau, orders=[p])
        value, gradient = value_and_vjp_each(functions, z, QUICKEST, upstream=upstream)[
            p
        ]
        np.testing.assert_array_equal(value, z)
        if gradient is not None:
            np.testing.assert_array_equal(gradient, upstream)


@pytest.mark.gradients
def test_every_upstream_gradient_of_shorter_rows_comes_back(mode):
    """Also one that is infinite, or whose product with the row overflows."""
    z = np.full((3, 4), 0.2)
    upstream = np.array([[3e38] * 4, [1, np.inf, -2, 3], [1e30, 2, 3, 4]], "float32")
    functions = clips(1.0, orders=orders_in(mode))
    for part in value_and_vjp_each(functions, z, mode, upstream=upstream).values():
        np.testing.assert_array_equal(part.gradient, upstream)


@pytest.mark.parametrize("dtype", ["float32", *DTYPES])
def test_two_thousand_shorter_rows_come_back_bit_for_bit(dtype):
    z = logits(2000, CLASSES)
    shares = np.random.default_rng(1).uniform(0.1, 0.99, (2000, 1))
    rows = {p: quantize(z * shares * 5 / oracle.norm(z, p)[:, None], dtype)
            for p in ORDERS}  # fmt: skip
    for p, clipped in apply_each(clips(5.0), rows, QUICKEST, dtype).items():
        assert_come_back_bit_for_bit(clipped, rows[p])


@pytest.mark.parametrize(
    ("classes", "mode"),
    [(2, QUICKEST), (1000, QUICKEST), *((128_000, mode) for mode in MODES)],
    ids=str,
)
def test_longer_rows_get_norm_tau_and_keep_direction(classes, mode):
    z = logits(8, classes) + 1e-3
    lengths = 2.0 * np.geomspace(1.1, 1e6, 8)[:, None]
    rows = {p: (z * lengths / oracle.norm(z, p)[:, None]).astype("float32")
            for p in orders_in(mode)}  # fmt: skip
    for p, clipped in apply_each(clips(2.0, orders=rows), rows, mode).items():
        norm = oracle.norm(clipped, p)
        np.testing.assert_allclose(norm, 2.0, rtol=2e-6, err_msg=f"p={p}")
        directions = [x / oracle.norm(x, 2)[:, None] for x in (rows[p], clipped)]
        assert_rows_close(directions[1], directions[0], 1e-6, name=p)
        np.testing.assert_array_equal(clipped.argmax(-1), z.argmax(-1))


# Rows whose sums of squares overflow or vanish, and rows that have no norm.

WITHOUT_NORM = 4
Wild = namedtuple("Wild", "magnitudes tau orders", defaults=((*ORDERS, 100),))
WILD = {
    "float32": [
        Wild((1e30, 3e38), 1.0),
        Wild((1e30, 1e36), 1e28, (2,)),
        Wild((1e-25, 1e-24), 1e-27),
    ],
    "float16": [Wild((1e4, 6.5e4), 100.0), Wild((1e4, 6.5e4), 1000.0, (2,))],
    "bfloat16": [Wild((1e30, 3e38), 1.0)],
    "float64": [Wild((1e200, 1e300), 1.0)],
}


def wild_rows(magnitudes, dtype):
    """Returns huge and tiny rows, an ordinary one, zeros, and rows without a norm."""
    number = SHAPE[0] - WITHOUT_NORM
    factors = np.resize(magnitudes, (number, 1))
    z = np.random.default_rng(0).uniform(-1, 1, (number, SHAPE[1])) * factors
    z[-2], z[-1] = logits(SHAPE[1]), 0
    no_norm = np.ones((WITHOUT_NORM, SHAPE[1]))
    no_norm[0, 3], no_norm[1, 0], no_norm[2, -1] = np.nan, np.inf, -np.inf
    no_norm[3] = np.inf
    return quantize(np.concatenate([z, no_norm]), dtype)


# NumPy warns of infinite minus infinite, and of norms that float32 cannot hold.
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
def test_wild_rows_in_every_mode_and_dtype(run):
    mode, dtype = run
    functions, rows, taus = {}, {}, {}
    for wild in WILD[dtype]:
        for p in orders_in(mode, dtype, wild.orders):
            name = f"p={p}, tau={wild.tau}, {dtype}"
            functions[name] = partial(ops.logit_clip, tau=wild.tau, p=p)
            rows[name] = wild_rows(wild.magnitudes, dtype)
            taus[name] = wild.tau, p
    upstream = quantize(logits(*SHAPE), dtype)
    parts = value_and_vjp_each(functions, rows, mode, dtype, upstream)
    for name, (value, gradient) in parts.items():
        assert np.isnan(value[-WITHOUT_NORM:]).all(), name
        if gradient is not None and taus[name][1] != 100:
            assert np.isnan(gradient[-WITHOUT_NORM:]).all(), name
        z = rows[name][:-WITHOUT_NORM]
        expected = (
            oracle.clip(z, *taus[name]),
            oracle.clip_vjp(z, upstream[: len(z)], *taus[name]),
        )
        if dtype != "float64":
            tau = taus[name][0]
            value, gradient = (
                None
                if found is None
                else allow_nan_in_longest_rows(found[: len(z)], exact, z, tau)
                for found, exact in zip((value, gradient), expected, strict=True)
            )
        rtol, spacing = 2 * RTOL[dtype], SPACING.get(dtype, 0)
        assert_rows_close(value[: len(z)], expected[0], rtol, atol=spacing, name=name)
        # The gradient of order 100 magnifies rounding errors a hundred times.
        if gradient is not None and taus[name][1] != 100:
            # The factor of the longest rows, tau / norm, may be flushed to zero.
            tiny = np.finfo("float64" if dtype == "float64" else "float32").tiny
            atol = spacing or np.abs(upstream).max() * tiny
            assert_rows_close(gradient[: len(z)], expected[1], rtol, -1, atol, name)


# NumPy warns of infinite minus infinite, and of norms that float32 cannot hold.
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
def test_norms_of_wild_rows_in_every_mode_and_dtype(run):
    mode, dtype = run
    z = wild_rows(WILD[dtype][0].magnitudes, dtype)
    finite = z[:-WITHOUT_NORM].astype("float64")
    largest = np.finfo("float64" if dtype == "float64" else "float32").max
    functions = norms(orders_in(mode, dtype))
    for p, norm in apply_each(functions, z, mode, dtype).items():
        assert np.isnan(norm[-WITHOUT_NORM:]).all(), f"p={p}"
        expected = oracle.norm(finite, p)
        held = expected < largest * (1 - 1e-6)
        np.testing.assert_allclose(
            norm[: len(finite)][held], expected[held], rtol=1e-6, err_msg=f"p={p}"
        )


# Derivatives of second order.


@pytest.mark.gradients
def test_second_derivatives():
    z, upstream, direction = (logits(4, 5, seed=seed) for seed in range(3))
    z[2] /= 100  # Not clipped.
    z[3] = 0
    functions = clips(1.5, orders=(1, 2, 3))
    stacked = [np.tile(x, (len(functions), 1)) for x in (z, upstream, direction)]
    second = gradient_along(on_parts(functions), *stacked)
    for p, found in zip(functions, np.split(second, len(functions)), strict=True):

        def along(z, p=p):
            return (direction * oracle.clip_vjp(z, upstream, 1.5, p)).sum()

        expected = oracle.slopes(along, z)
        np.testing.assert_allclose(found, expected, atol=1e-5, err_msg=f"p={p}")


# The plain call, and nodes of a functional model.


def test_infinite_tau_returns_the_logits():
    z = logits(scale=1e30)
    np.testing.assert_array_equal(apply(lambda x: ops.logit_clip(x, INF), z), z)


def test_norm_of_half_precision_is_float32():
    norm = ops.logit_norm(to_tensor(np.full((1, 1000), 1e4), "float16"))
    assert keras.backend.standardize_dtype(norm.dtype) == "float32"
    np.testing.assert_allclose(to_numpy(norm), 1e4 * 1000**0.5, rtol=1e-6)


@pytest.mark.filterwarnings("error")
def test_no_warnings():
    ops.logit_clip(to_tensor(logits()), 1.0)
    ops.logit_norm(to_tensor(logits()))
    # If float32 cannot hold a norm, only its bound is computed.
    ops.logit_clip(to_tensor(np.full((2, 3), 3e38)), 1.0)


@pytest.mark.parametrize("tau", [1, np.float32(1), np.int64(1)], ids=repr)
def test_any_kind_of_number_is_a_tau(tau):
    z = logits()
    np.testing.assert_array_equal(
        to_numpy(ops.logit_clip(z, tau)), to_numpy(ops.logit_clip(z, 1.0))
    )


def test_functional_model_of_ops_survives_saving(tmp_path):
    inputs = keras.Input((CLASSES,))
    clipped = ops.logit_clip(inputs, tau=1.5, p=INF)
    model = keras.Model(inputs, [clipped, ops.logit_norm(clipped, p=3)])
    model.save(tmp_path / "model.keras")
    reloaded = keras.models.load_model(tmp_path / "model.keras")
    z = logits()
    expected = oracle.clip(z, 1.5, INF)
    for outputs in (model(z), reloaded(z)):
        np.testing.assert_allclose(to_numpy(outputs[0]), expected, rtol=1e-6)
        np.testing.assert_allclose(
            to_numpy(outputs[1]), oracle.norm(expected, 3), rtol=1e-6
        )


def test_symbolic_dtype_is_that_of_the_value():
    half = keras.Input((10,), dtype="float16")
    assert ops.logit_clip(half, 1.0).dtype == "float16"
    assert ops.logit_norm(half).dtype == "float32"


# Bad arguments: all of them here, one in the tests of each other caller.

BAD_TAUS = (0, 0.0, -1.0, float("nan"), True, "1", None, [1.0])
BAD_ORDERS = (0.5, 0, -1, float("nan"), True, "2", None)
BAD_AXES = (2, -3, 1.0, True, None, (0, 1))


@pytest.mark.once
@pytest.mark.parametrize("tau", BAD_TAUS, ids=repr)
def test_bad_tau(tau):
    with pytest.raises(ValueError, match=r"`tau`: expected .* Received: tau="):
        ops.logit_clip(logits(2, 3), tau)


@pytest.mark.once
@pytest.mark.parametrize("p", BAD_ORDERS, ids=repr)
def test_bad_p(p):
    for function in (lambda: ops.logit_clip(logits(2, 3), 1.0, p=p),
                     lambda: ops.logit_norm(logits(2, 3), p=p)):  # fmt: skip
        with pytest.raises(ValueError, match=r"`p`: expected .* Received: p="):
            function()


@pytest.mark.once
@pytest.mark.parametrize("axis", BAD_AXES, ids=repr)
@pytest.mark.parametrize("symbolic", [False, True], ids=("tensor", "symbolic"))
def test_bad_axis(axis, symbolic):
    z = keras.Input((3,)) if symbolic else logits(2, 3)
    for function in (lambda: ops.logit_clip(z, 1.0, axis=axis),
                     lambda: ops.logit_norm(z, axis=axis)):  # fmt: skip
        with pytest.raises(ValueError, match=r"`axis`: expected .* Received: axis="):
            function()


@pytest.mark.parametrize("dtype", ["int32", "uint8", "bool"])
def test_logits_that_are_no_floats(dtype):
    for z in (np.ones((2, 3), dtype), keras.Input((3,), dtype=dtype)):
        for function in (lambda z: ops.logit_clip(z, 1.0), ops.logit_norm):
            with pytest.raises(ValueError, match=f"expected floating.*dtype={dtype}"):
                function(z)
