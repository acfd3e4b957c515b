"""The operations under JAX's transformations and compiler."""

import sys

import jax
import numpy as np
import pytest

from keras_logitclip import ops
from tests import oracle
from tests.cross_entropy_oracle import Case
from tests.cross_entropy_oracle import as_tensor
from tests.cross_entropy_oracle import assert_equal_the_oracle
from tests.cross_entropy_oracle import expected_loss_and_gradient
from tests.cross_entropy_oracle import fused
from tests.cross_entropy_oracle import wild_logits
from tests.oracle import assert_rows_close
from tests.running import double_precision
from tests.running import to_tensor
from tests.samples import ROWS
from tests.samples import logits
from tests.samples import some_labels
from tests.subprocesses import environment
from tests.subprocesses import run_well

# More than JAX adds up well as one row, in equal pieces. `tests.test_cross_entropy` has
# 40,009, a prime number.
CLASSES = 40_000


@pytest.mark.parametrize(
    ("mode", "kind", "z"),
    [
        ("eager", "sparse", logits(ROWS, CLASSES)),
        ("jit", "sparse", logits(ROWS, CLASSES)),
        ("jit", "soft", wild_logits(CLASSES)),
    ],
    ids=("eager", "jit", "jit-wild"),
)
def test_long_rows(mode, kind, z):
    cases = {kind: Case(some_labels(kind, classes=CLASSES))}
    assert_equal_the_oracle(cases, z, mode, np.arange(1.0, ROWS + 1))


@pytest.mark.parametrize("shape", [(), (2, 3)], ids=("one-row", "sequences"))
def test_clipping_of_long_rows(shape):
    z, upstream = (logits(*shape, CLASSES, seed=seed) for seed in range(2))
    value, vjp = jax.vjp(jax.jit(lambda z: ops.logit_clip(z, 2.0)), to_tensor(z))
    assert_rows_close(value, oracle.clip(z, 2.0, 2), 1e-6)
    expected = oracle.clip_vjp(z, upstream, 2.0, 2)
    assert_rows_close(vjp(to_tensor(upstream))[0], expected, 1e-6)


@pytest.mark.parametrize("shape", [(), (2, 3)], ids=("one-row", "sequences"))
def test_second_derivatives_of_long_rows(shape):
    """Forward over reverse, beside formulas that JAX differentiates itself."""
    z, direction = (logits(*shape, CLASSES, seed=seed) for seed in range(2))
    ids = some_labels("sparse", shape or (1,), CLASSES).given.reshape(shape)

    def loss(z):
        clipped = ops.logit_clip(z, 2.0)
        return jax.numpy.sum(clipped[..., 0]) + jax.numpy.sum(fused(ids, 1.0)(z))

    def plain_clip(z, tau):
        norm = jax.numpy.sqrt(jax.numpy.sum(z**2, -1, keepdims=True))
        return z * jax.numpy.minimum(1.0, tau / norm)

    def plain_loss(z):
        log_p = jax.nn.log_softmax(plain_clip(z, 1.0))
        losses = -jax.numpy.take_along_axis(log_p, ids[..., None], -1)
        return jax.numpy.sum(plain_clip(z, 2.0)[..., 0]) + jax.numpy.sum(losses)

    def derivatives(loss, z, direction):
        return jax.jit(lambda *x: jax.jvp(jax.grad(loss), x[:1], x[1:]))(z, direction)

    found = derivatives(loss, z, direction)
    with double_precision("float64"):
        expected = derivatives(plain_loss, *(x.astype(float) for x in (z, direction)))
    for ours, plain, rtol in zip(found, expected, (2e-6, 1e-4), strict=True):
        assert_rows_close(ours, plain, rtol)


@pytest.mark.parametrize("classes", [10, CLASSES])
def test_transformations(classes):
    z, labels = to_tensor(logits(4, classes)), some_labels("sparse", (4,), classes)
    ids = jax.numpy.asarray(labels.given)
    _, expected = expected_loss_and_gradient(labels.weights, z, 1.0, np.ones(4))

    def one(row, label):
        return fused(label[None], 1.0)(row[None])[0]

    def scanned(z):
        def step(total, row_and_label):
            return total + one(*row_and_label), None

        return jax.lax.scan(step, 0.0, (z, ids))[0]

    vmapped = jax.jit(jax.vmap(jax.grad(one)))(z, ids)
    assert_rows_close(vmapped, expected, 2e-6)
    assert_rows_close(jax.jit(jax.grad(scanned))(z), expected, 2e-6)


@pytest.mark.skipif(
    jax.__version_info__ < (0, 10),
    reason="older compilers write more to memory",
)
@pytest.mark.parametrize("kind", ["sparse", "soft"])
@pytest.mark.parametrize("classes", [1000, 32_000, 128_000])
def test_compiled_loss_and_gradient_need_no_memory(classes, kind):
    z, labels = to_tensor(logits(64, classes)), some_labels(kind, (64,), classes)

    def loss(y_true, z):
        return fused(y_true, 1.0)(z)

    def loss_and_gradient(y_true, z):
        losses, vjp = jax.vjp(lambda z: loss(y_true, z), z)
        return losses, vjp(jax.numpy.ones(64))[0]

    functions = [loss_and_gradient]
    if kind == "sparse":  # With weights, the compiler writes the unit to memory.
        functions.append(loss)
    for function in functions:
        compiled = jax.jit(function).lower(as_tensor(labels.given), z).compile()
        temporary = compiled.memory_analysis().temp_size_in_bytes
        numbers_per_row = 32
        assert temporary <= 4 * 64 * (numbers_per_row + 8)


@pytest.mark.skipif(
    jax.__version_info__ < (0, 6),
    reason="barriers could not be differentiated",
)
@pytest.mark.parametrize(("classes", "in_pieces"), [(1000, False), (CLASSES, True)])
def test_long_rows_are_summed_in_pieces(classes, in_pieces):
    """Barriers keep the compiler from joining them again."""
    loss = fused(np.array([0, 1, 2]), 1.0)
    traced = str(jax.make_jaxpr(loss)(to_tensor(logits(3, classes))))
    assert ("optimization_barrier" in traced) == in_pieces


@pytest.mark.parametrize("classes", [17, CLASSES])  # No other test has these shapes.
def test_nothing_is_compiled_again_outside_of_compiled_functions(classes, caplog):
    z, ids = to_tensor(logits(3, classes)), np.array([0, 1, 2])

    def compute(tau):
        jax.grad(lambda z: fused(ids, tau)(z).sum())(z)
        jax.grad(lambda z: ops.logit_clip(z, tau).sum())(z)

    with jax.log_compiles():
        compute(1.0)
        assert "Compiling" in caplog.text
        caplog.clear()
        compute(2.0)
    assert "Compiling" not in caplog.text


@pytest.mark.skipif(not hasattr(jax, "set_mesh"), reason="older versions lack it")
@pytest.mark.parametrize("devices", [1, 4])
def test_explicit_sharding(devices):
    flags = f"--xla_force_host_platform_device_count={devices}"
    command = [sys.executable, "-m", "tests.explicit_sharding"]
    output = run_well(command, env=environment("jax", XLA_FLAGS=flags))
    assert output.count(f"{devices} devices") == 24


@pytest.fixture
def stop_at_nan_and_infinity():
    for name in ("jax_debug_nans", "jax_debug_infs"):
        jax.config.update(name, True)
    yield
    for name in ("jax_debug_nans", "jax_debug_infs"):
        jax.config.update(name, False)


@pytest.mark.usefixtures("stop_at_nan_and_infinity")
@pytest.mark.parametrize("classes", [10, CLASSES])
def test_nothing_is_nan_or_infinite_on_the_way(classes):
    z = wild_logits(classes)
    z[4] = logits(classes)  # In place of a row that may become NaN.
    z, labels = to_tensor(z), some_labels("sparse", classes=classes).given

    def total(z):
        values = [
            jax.numpy.sum(function)
            for p, tau in ((2, 1.0), (1, 1.0), (1.5, 1.0), (oracle.INF, 1.0), (2, 60.0))
            for function in (
                ops.logit_clip(z, tau, p), fused(labels, tau, p=p)(z),
                ops.logit_norm(z, p) / 1e30,
            )
        ]  # fmt: skip
        return sum(values)

    jax.jit(jax.value_and_grad(total))(z)
    if classes == 10:
        jax.jit(jax.hessian(total))(z)
    with pytest.raises(FloatingPointError):
        jax.block_until_ready(jax.jit(total)(z.at[5, 0].set(float("nan"))))


@pytest.mark.parametrize("p", [2, 3])
def test_checkpoints_and_hessians(p):
    z, labels = to_tensor(logits(4, 5)), some_labels("soft", (4,), 5)

    def loss(z):
        return jax.numpy.sum(fused(labels.given, 1.5, p=p)(z))

    def gradient(z):
        return expected_loss_and_gradient(labels.weights, z, 1.5, np.ones(4), p)[1]

    found = jax.jit(jax.grad(jax.checkpoint(loss)))(z)
    assert_rows_close(found, gradient(z), 2e-6)
    direction = logits(4, 5, seed=1)
    along = jax.numpy.tensordot(jax.jit(jax.hessian(loss))(z), direction, 2)
    expected = oracle.slopes(
        lambda z: (direction * gradient(z)).sum(), np.asarray(z, "float64")
    )
    np.testing.assert_allclose(along, expected, atol=2e-5)
