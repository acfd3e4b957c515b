import warnings
from collections import namedtuple

import keras
import numpy as np
import pytest

from keras_logitclip import ops
from keras_logitclip._kernels import compilers
from tests import oracle
from tests.conftest import BACKEND
from tests.conftest import COMPILED_MODES
from tests.conftest import DTYPES
from tests.conftest import MODES
from tests.conftest import runs
from tests.oracle import INF
from tests.oracle import assert_rows_close
from tests.running import apply
from tests.running import gradient_along
from tests.running import to_numpy
from tests.running import to_tensor
from tests.running import value_and_vjp
from tests.running import xla_functions_in

ORDERS = (1, 1.5, 2, 3, INF)
RTOL = {"float64": 1e-13, "float32": 1e-6, "float16": 5e-4, "bfloat16": 4e-3}

Case = namedtuple("Case", "shape axis")
LAYOUTS = {
    "one-row": Case((10,), 0),
    "batch": Case((6, 10), -1),
    "two-classes": Case((6, 2), -1),
    "one-logit": Case((6, 1), 1),
    "sequence": Case((2, 5, 10), -1),
    "image": Case((2, 3, 4, 10), -1),
    "channels-first": Case((2, 10, 3, 4), 1),
}
if BACKEND != "openvino":  # Which aborts the process on empty tensors.
    LAYOUTS["empty-batch"] = Case((0, 10), -1)


def logits(*shape, scale=3.0, seed=0):
    return scale * np.random.default_rng(seed).normal(size=shape).astype("float32")


def quantize(x, dtype):
    return to_numpy(to_tensor(x, dtype))


@pytest.mark.parametrize("p", ORDERS)
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_values_equal_the_oracle(layout, p):
    z = logits(*layout.shape)
    norms = apply(lambda x: ops.logit_norm(x, p, layout.axis), z)
    clipped = apply(lambda x: ops.logit_clip(x, 2.5, p, layout.axis), z)
    np.testing.assert_allclose(norms, oracle.norm(z, p, layout.axis), rtol=1e-6)
    assert_rows_close(
        clipped, oracle.clip(z, 2.5, p, layout.axis), 1e-6, axis=layout.axis
    )


ORDERS_AND_RUNS = [
    (p, run)
    for p in ORDERS
    for run in runs(*(COMPILED_MODES if p in (2, 3) else MODES))
]
every_order_and_run = pytest.mark.parametrize(
    ("p", "run"),
    ORDERS_AND_RUNS,
    ids=["-".join((str(p), *run)) for p, run in ORDERS_AND_RUNS],
)


@every_order_and_run
def test_values_in_every_mode_and_dtype(p, run):
    mode, dtype = run
    z = quantize(logits(8, 100), dtype)
    norms = apply(lambda x: ops.logit_norm(x, p), z, mode, dtype)
    clipped = apply(lambda x: ops.logit_clip(x, 2.5, p), z, mode, dtype)
    rtol = min(RTOL[dtype], 1e-6)
    np.testing.assert_allclose(norms, oracle.norm(z, p), rtol=rtol)
    assert_rows_close(clipped, oracle.clip(z, 2.5, p), RTOL[dtype])


@pytest.mark.gradients
@every_order_and_run
def test_gradients_in_every_mode_and_dtype(p, run):
    mode, dtype = run
    z = quantize(logits(8, 100), dtype)
    z[4:] /= 1000  # Rows that are not clipped.
    upstream = quantize(logits(8, 100, seed=1), dtype)
    clipped, gradient = value_and_vjp(
        lambda x: ops.logit_clip(x, 2.5, p), z, upstream, mode, dtype
    )
    z = quantize(z, dtype)
    assert_rows_close(clipped, oracle.clip(z, 2.5, p), RTOL[dtype])
    assert_rows_close(gradient, oracle.clip_vjp(z, upstream, 2.5, p), RTOL[dtype])
    np.testing.assert_array_equal(gradient[4:], upstream[4:])


@pytest.mark.gradients
@pytest.mark.parametrize("p", ORDERS)
def test_norm_gradients_in_every_mode_and_dtype(p, run):
    mode, dtype = run
    z = quantize(logits(8, 100), dtype)
    z[0] = 0
    upstream = np.arange(8.0)
    _, gradient = value_and_vjp(
        lambda x: ops.logit_norm(x, p), z, upstream, mode, dtype
    )
    expected = upstream[:, None] * oracle.norm_gradient(z, p)
    assert_rows_close(gradient, expected, RTOL[dtype])


@pytest.mark.gradients
@pytest.mark.parametrize("p", ORDERS)
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_gradients_equal_the_oracle(layout, p):
    z, upstream = logits(*layout.shape), logits(*layout.shape, seed=1)
    axis = layout.axis
    _, gradient = value_and_vjp(
        lambda x: ops.logit_clip(x, 2.5, p, axis), z, upstream, "eager"
    )
    # With one logit, the gradient of a clipped row is 0 and rounding is left.
    scale = 1 + np.abs(oracle.clip_vjp(z, upstream, 2.5, p, axis)).max(initial=0)
    np.testing.assert_allclose(
        gradient, oracle.clip_vjp(z, upstream, 2.5, p, axis), atol=1e-6 * scale, rtol=0
    )


@pytest.mark.parametrize("p", ORDERS)
def test_rows_within_tau_come_back_bit_for_bit(p, run):
    mode, dtype = run
    z = logits(2000, 10)
    z *= (
        np.random.default_rng(1).uniform(0.1, 0.99, (2000, 1))
        * 5.0
        / np.maximum(oracle.norm(z, p)[:, None], 1e-30)
    )
    z[0] = 0.0
    z[1] = -0.0
    z = quantize(z, dtype)
    clipped = apply(lambda x: ops.logit_clip(x, 5.0, p), z, mode, dtype)
    np.testing.assert_array_equal(clipped, z)
    np.testing.assert_array_equal(np.signbit(clipped), np.signbit(z))


@pytest.mark.parametrize("p", ORDERS)
@pytest.mark.parametrize("classes", [2, 1000, 128_000])
def test_longer_rows_get_norm_tau_and_keep_direction(classes, p, mode):
    z = logits(8, classes) + 1e-3
    z *= np.geomspace(1.1, 1e6, 8)[:, None] * 2.0 / oracle.norm(z, p)[:, None]
    z = z.astype("float32")
    clipped = apply(lambda x: ops.logit_clip(x, 2.0, p), z, mode)
    np.testing.assert_allclose(oracle.norm(clipped, p), 2.0, rtol=2e-6)
    directions = [x / oracle.norm(x, 2)[:, None] for x in (z, clipped)]
    assert_rows_close(directions[1], directions[0], 1e-6)
    np.testing.assert_array_equal(clipped.argmax(-1), z.argmax(-1))


@pytest.mark.gradients
@pytest.mark.parametrize("p", ORDERS)
def test_zero_rows_have_the_identity_as_gradient(p, mode):
    z, upstream = np.zeros((3, 10), "float32"), logits(3, 10)
    clipped, gradient = value_and_vjp(
        lambda x: ops.logit_clip(x, 1.0, p), z, upstream, mode
    )
    np.testing.assert_array_equal(clipped, z)
    np.testing.assert_array_equal(gradient, upstream)


# Magnitudes at which sums of squares overflow or vanish.
Extreme = namedtuple("Extreme", "dtype magnitude tau")
EXTREMES = (
    Extreme("float32", 1e30, 1.0),
    Extreme("float32", 3e38, 1.0),
    Extreme("float32", 1e-25, 1e-27),
    Extreme("float16", 1e4, 100.0),
    Extreme("float16", 6.5e4, 1000.0),
    Extreme("bfloat16", 3e38, 1.0),
    Extreme("float64", 1e300, 1.0),
)
EXTREMES = [extreme for extreme in EXTREMES if extreme.dtype in ("float32", *DTYPES)]


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
@pytest.mark.parametrize("p", [1, 2, INF, 100])
@pytest.mark.parametrize(
    "extreme", EXTREMES, ids=lambda case: f"{case.dtype}-{case.magnitude:g}"
)
def test_extreme_rows_clip_correctly(extreme, p, mode):
    dtype, magnitude, tau = extreme
    z = quantize(np.random.default_rng(0).uniform(-1, 1, (4, 1000)), dtype)
    clipped = apply(lambda x: ops.logit_clip(x * magnitude, tau, p), z, mode, dtype)
    expected = tau * z / oracle.norm(z, p)[:, None]
    spacing = 2.0**-24 if dtype == "float16" else 0.0  # Of its subnormal numbers.
    rtol = 3 * RTOL[dtype]  # `x * magnitude` is rounded, too.
    np.testing.assert_allclose(
        clipped, expected, rtol=0, atol=rtol * np.abs(expected).max() + spacing
    )


@pytest.mark.gradients
@pytest.mark.parametrize("p", ORDERS)
@pytest.mark.parametrize("magnitude", [1e30, 1e-25])
def test_extreme_rows_have_the_right_gradient(magnitude, p, mode):
    tau = magnitude / 100
    z = np.random.default_rng(0).uniform(-1, 1, (4, 1000)).astype("float32")
    upstream = logits(4, 1000)
    _, gradient = value_and_vjp(
        lambda x: ops.logit_clip(x, tau, p), z * np.float32(magnitude), upstream, mode
    )
    expected = oracle.clip_vjp(z, upstream, 1 / 100, p)  # The units cancel.
    assert_rows_close(gradient, expected, 2e-6)


@pytest.mark.gradients
@pytest.mark.parametrize("p", ORDERS)
def test_half_precision_rows_of_ten_thousand_have_the_right_gradient(p, mode):
    z = quantize(1e4 * np.random.default_rng(0).uniform(-1, 1, (4, 1000)), "float16")
    upstream = quantize(logits(4, 1000), "float16")
    _, gradient = value_and_vjp(
        lambda x: ops.logit_clip(x, 1000.0, p), z, upstream, mode, "float16"
    )
    expected = oracle.clip_vjp(z, upstream, 1000.0, p)
    spacing = 2.0**-24  # Of float16 below its smallest normal number.
    np.testing.assert_allclose(gradient, expected, rtol=5e-4, atol=spacing)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("p", ORDERS)
def test_rows_without_a_norm_become_nan(p, run):
    mode, dtype = run
    z = logits(5, 10)
    z[0, 3], z[1, 0], z[2, 9], z[3] = np.nan, np.inf, -np.inf, np.inf
    clipped = apply(lambda x: ops.logit_clip(x, 1.0, p), z, mode, dtype)
    norms = apply(lambda x: ops.logit_norm(x, p), z, mode, dtype)
    assert np.isnan(clipped[:4]).all()
    assert np.isfinite(clipped[4]).all()
    assert np.isnan(norms[:4]).all()
    assert np.isfinite(norms[4])


@pytest.mark.gradients
@pytest.mark.parametrize("p", ORDERS)
def test_rows_without_a_norm_have_no_finite_gradient(p, mode):
    z = logits(3, 10)
    z[0, 3], z[1, 0] = np.nan, np.inf
    upstream = logits(3, 10, seed=1)
    _, gradient = value_and_vjp(lambda x: ops.logit_clip(x, 1.0, p), z, upstream, mode)
    assert np.isnan(gradient[:2]).all()
    assert np.isfinite(gradient[2]).all()


@pytest.mark.gradients
def test_ties_of_the_maximum_norm_share_the_gradient(mode):
    z = np.array([[2.0, -2.0, 1.0]], "float32")
    _, gradient = value_and_vjp(lambda x: ops.logit_norm(x, INF), z, np.ones(1), mode)
    np.testing.assert_array_equal(gradient, [[0.5, -0.5, 0.0]])


@pytest.mark.gradients
@pytest.mark.parametrize("p", [1, 2, 3])
def test_second_derivatives(p):
    z, upstream, direction = (logits(4, 5, seed=seed) for seed in range(3))
    z[2] /= 100  # Not clipped.
    z[3] = 0
    second = gradient_along(lambda x: ops.logit_clip(x, 1.5, p), z, upstream, direction)

    def along(z):
        return (direction * oracle.clip_vjp(z, upstream, 1.5, p)).sum()

    steps = 1e-5 * np.eye(z.size).reshape(-1, *z.shape)
    slopes = [(along(z + step) - along(z - step)) / 2e-5 for step in steps]
    np.testing.assert_allclose(second, np.reshape(slopes, z.shape), atol=1e-5)


def test_infinite_tau_returns_the_logits():
    z = logits(4, 10, scale=1e30)
    np.testing.assert_array_equal(apply(lambda x: ops.logit_clip(x, INF), z), z)


def test_norm_of_half_precision_is_float32():
    norm = ops.logit_norm(to_tensor(np.full((1, 1000), 1e4), "float16"))
    assert keras.backend.standardize_dtype(norm.dtype) == "float32"
    np.testing.assert_allclose(to_numpy(norm), 1e4 * 1000**0.5, rtol=1e-6)


@pytest.mark.parametrize("keepdims", [False, True])
def test_keepdims_and_symbolic_shape_agree(keepdims):
    z = logits(2, 10, 3)
    norm = ops.logit_norm(to_tensor(z), axis=1, keepdims=keepdims)
    symbolic = ops.logit_norm(keras.Input((10, 3)), axis=1, keepdims=keepdims)
    assert tuple(norm.shape) == ((2, 1, 3) if keepdims else (2, 3))
    assert symbolic.shape == (None, *norm.shape[1:])


def test_functional_model_of_ops_survives_saving(tmp_path):
    inputs = keras.Input((10,))
    clipped = ops.logit_clip(inputs, tau=1.5, p=INF)
    model = keras.Model(inputs, [clipped, ops.logit_norm(clipped, p=3)])
    model.save(tmp_path / "model.keras")
    reloaded = keras.models.load_model(tmp_path / "model.keras")
    z = logits(4, 10)
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


if BACKEND == "tensorflow":
    import tensorflow as tf

    @pytest.mark.parametrize("dtype", ["float32", "float16"])
    def test_gradients_of_large_batches(dtype, monkeypatch):
        """As those of small ones, of second order, too; the value is left to graphs,
        for XLA's functions cannot be exported to every format."""
        z, upstream, direction = (to_tensor(logits(4, 100, seed=i)) for i in range(3))
        z = keras.ops.cast(z, dtype)

        def derivatives(z):
            with tf.GradientTape() as outer:
                outer.watch(z)
                with tf.GradientTape() as inner:
                    inner.watch(z)
                    clipped = keras.ops.cast(ops.logit_clip(z, 1.5), "float32")
                    total = keras.ops.sum(upstream * clipped)
                gradient = inner.gradient(total, z)
                along = keras.ops.sum(direction * keras.ops.cast(gradient, "float32"))
            return gradient, outer.gradient(along, z)

        expected = derivatives(z)
        monkeypatch.setattr(compilers, "MIN_COMPILED", 1)
        function = tf.function(derivatives).get_concrete_function(z)
        assert xla_functions_in(function.graph) > 0
        atol = {"float32": 1e-6, "float16": 1e-3}[dtype]
        for ours, theirs in zip(function(z), expected, strict=True):
            np.testing.assert_allclose(to_numpy(ours), to_numpy(theirs), 0, atol)

        value = tf.function(lambda z: ops.logit_clip(z, 1.5)).get_concrete_function(z)
        assert xla_functions_in(value.graph) == 0


if BACKEND == "torch":  # The tensors of the others cannot be changed in place.

    def test_changing_logits_in_place_is_noticed():
        import torch

        parameter = torch.ones(2, 3, requires_grad=True)
        z = parameter * 2
        clipped = ops.logit_clip(z, 1.0)
        z.add_(1)
        with pytest.raises(RuntimeError, match="inplace operation"):
            clipped.sum().backward()


def test_no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ops.logit_clip(to_tensor(logits(2, 3)), 1.0)
        ops.logit_norm(to_tensor(logits(2, 3)))


BAD_TAUS = (0, 0.0, -1.0, float("nan"), True, "1", None, [1.0])
BAD_ORDERS = (0.5, 0, -1, float("nan"), True, "2", None)
BAD_AXES = (2, -3, 1.0, True, None, (0, 1))


@pytest.mark.parametrize("tau", BAD_TAUS, ids=repr)
def test_bad_tau(tau):
    with pytest.raises(ValueError, match=r"`tau`: expected .* Received: tau="):
        ops.logit_clip(logits(2, 3), tau)


@pytest.mark.parametrize("p", BAD_ORDERS, ids=repr)
def test_bad_p(p):
    for function in (lambda: ops.logit_clip(logits(2, 3), 1.0, p=p),
                     lambda: ops.logit_norm(logits(2, 3), p=p)):  # fmt: skip
        with pytest.raises(ValueError, match=r"`p`: expected .* Received: p="):
            function()


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
        with pytest.raises(ValueError, match=f"expected floating.*dtype={dtype}"):
            ops.logit_clip(z, 1.0)
        with pytest.raises(ValueError, match=f"expected floating.*dtype={dtype}"):
            ops.logit_norm(z)


@pytest.mark.parametrize("tau", [1, np.float32(1), np.int64(1)], ids=repr)
def test_any_kind_of_number_is_a_tau(tau):
    z = logits(2, 3)
    np.testing.assert_array_equal(
        to_numpy(ops.logit_clip(z, tau)), to_numpy(ops.logit_clip(z, 1.0))
    )
