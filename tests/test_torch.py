"""The operations under PyTorch's autograd and compiler."""

import math
from collections import namedtuple

import keras
import numpy as np
import pytest
import torch
from torch.autograd import forward_ad
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from keras_logitclip import LogitClip
from keras_logitclip import LogitClipLoss
from keras_logitclip import losses
from keras_logitclip import ops
from keras_logitclip._kernels import torch as kernel
from keras_logitclip._kernels.torch import clipped_cross_entropy
from tests import oracle
from tests.conftest import COMPILED
from tests.cross_entropy_oracle import Case
from tests.cross_entropy_oracle import as_tensor
from tests.cross_entropy_oracle import assert_equal_the_oracle
from tests.cross_entropy_oracle import assert_gradients_close
from tests.cross_entropy_oracle import assert_losses_close
from tests.cross_entropy_oracle import expected_loss_and_gradient
from tests.cross_entropy_oracle import fused
from tests.cross_entropy_oracle import wild_logits
from tests.oracle import assert_rows_close
from tests.running import KERAS_VERSION
from tests.running import TORCH_COMPILES_FULL_GRAPHS as FULL_GRAPHS
from tests.running import to_numpy
from tests.running import to_tensor
from tests.running import value_and_vjp
from tests.running import value_and_vjp_each
from tests.samples import CLASSES
from tests.samples import ROWS
from tests.samples import logits
from tests.samples import some_labels

UPSTREAM = np.arange(1.0, ROWS + 1)
# Elsewhere "aot_eager" is enough: to translate a function to C++ takes seconds.
inductor = pytest.mark.skipif(COMPILED != "inductor", reason="no C++ compiler")


@inductor
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_clipping_by_inductor(dtype):
    """Of rows that are long, short and huge."""
    z, upstream = (to_numpy(to_tensor(logits(8, 1003, seed=i), dtype)) for i in (0, 1))
    z[4:6] /= 1000
    if dtype == "float32":
        z[6:] *= 1e30
    value, gradient = value_and_vjp(
        lambda z: ops.logit_clip(z, 2.5), z, upstream, "inductor", dtype
    )
    rtol = {"float32": 1e-6, "float16": 5e-4}[dtype]
    assert_rows_close(value, oracle.clip(z, 2.5, 2), rtol)
    assert_rows_close(gradient, oracle.clip_vjp(z, upstream, 2.5, 2), rtol)
    np.testing.assert_array_equal(value[4:6], z[4:6])
    np.testing.assert_array_equal(gradient[4:6], upstream[4:6])


@inductor
def test_generic_forms_by_inductor():
    """Norms, and clipping by another norm than that of order 2."""
    z = logits(8, 101)
    functions = {
        "clip": lambda z: ops.logit_clip(z, 2.5, p=3)[..., 0],
        "norm": ops.logit_norm,
        "norm of order 3": lambda z: ops.logit_norm(z, p=3),
    }
    parts = value_and_vjp_each(functions, z, "inductor")
    first = np.eye(101)[[0] * 8]
    expected = {
        "clip": (oracle.clip(z, 2.5, 3)[..., 0], oracle.clip_vjp(z, first, 2.5, 3)),
        "norm": (oracle.norm(z, 2), oracle.norm_gradient(z, 2)),
        "norm of order 3": (oracle.norm(z, 3), oracle.norm_gradient(z, 3)),
    }
    for name, (value, gradient) in expected.items():
        np.testing.assert_allclose(parts[name].value, value, 1e-6, 1e-6, err_msg=name)
        assert_rows_close(parts[name].gradient, gradient, 1e-6, name=name)


@inductor
@pytest.mark.parametrize(
    ("kind", "classes", "tau"),
    [("sparse", 128_000, 1.0), ("soft", 1003, 200.0)],
    ids=("sparse", "soft"),
)
def test_cross_entropy_by_inductor(kind, classes, tau):
    cases = {kind: Case(some_labels(kind, classes=classes), tau)}
    assert_equal_the_oracle(cases, wild_logits(classes), "inductor", UPSTREAM)


@inductor
def test_half_precision_by_inductor():
    z = to_numpy(to_tensor(logits(ROWS, 100), "float16"))
    labels = some_labels("sparse", classes=100)
    losses, gradient = value_and_vjp(
        fused(as_tensor(labels.given), 60.0), z, UPSTREAM, "inductor", "float16"
    )
    expected = expected_loss_and_gradient(labels.weights, z, 60.0, UPSTREAM)
    assert losses.dtype == "float32"
    assert_losses_close(losses, expected[0], 60.0)
    assert_gradients_close(gradient, expected[1], z, 60.0, UPSTREAM, rtol=5e-4)


class NewStorages(TorchDispatchMode):
    """Collects the storage of each new result."""

    def __init__(self, *known):
        super().__init__()
        self.storages = {x.untyped_storage().data_ptr(): x for x in known}
        self.sizes = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for x in result if isinstance(result, tuple | list) else [result]:
            if isinstance(x, torch.Tensor):
                storage = x.untyped_storage()
                if storage.data_ptr() not in self.storages:
                    # Kept, or another one could get its address.
                    self.storages[storage.data_ptr()] = storage
                    self.sizes.append(storage.nbytes())
        return result


@pytest.mark.parametrize("kind", ["sparse", "soft"])
@pytest.mark.parametrize("shape", [(2048, 1000), (64, 32_000)], ids=str)
def test_one_tensor_has_the_size_of_the_logits(shape, kind):
    z = to_tensor(logits(*shape)).requires_grad_()
    given = as_tensor(some_labels(kind, shape[:1], shape[1]).given)
    with NewStorages(z, given) as new:
        losses = fused(given, 1.0)(z)
        forward, new.sizes = new.sizes, []
        losses.backward(torch.ones_like(losses))
    gradient_size = 4 * z.numel()
    assert (forward + new.sizes).count(gradient_size) == 1
    others = [size for size in forward + new.sizes if size != gradient_size]
    assert max(others) <= gradient_size * 0.07


@pytest.mark.parametrize("kind", ["sparse", "soft"])
def test_half_precision_is_widened_by_chunks(kind):
    z = to_tensor(logits(512, 32_000), "bfloat16").requires_grad_()
    given = as_tensor(some_labels(kind, (512,), 32_000).given)
    with NewStorages(z, given) as new:
        losses = fused(given, 1.0)(z)
        losses.backward(torch.ones_like(losses))
    gradient_size = 2 * z.numel()
    assert new.sizes.count(gradient_size) == 1
    others = [size for size in new.sizes if size != gradient_size]
    assert max(others) <= gradient_size * 0.04


class NoSynchronization(TorchDispatchMode):
    """Raises an error if a GPU would have to be synchronized."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        assert function is not torch.ops.aten._local_scalar_dense.default
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("kind", ["sparse", "soft"])
def test_nothing_waits_for_a_number(kind):
    z = to_tensor(logits(300, 1000)).requires_grad_()
    given = as_tensor(some_labels(kind, (300,), 1000).given)
    with NoSynchronization():
        fused(given, 1.0)(z).sum().backward()
        ops.logit_clip(z, 1.0).sum().backward()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", ["sparse", "soft"])
@pytest.mark.parametrize("shape", [(2048, 1000), (64, 32_000)], ids=str)
def test_values_of_chunks(shape, kind, dtype):
    """Returns enough rows for more than one chunk."""
    z = to_numpy(to_tensor(logits(*shape), dtype))
    labels = some_labels(kind, shape[:1], shape[1])
    upstream = np.random.default_rng(1).normal(size=shape[0])
    losses, gradient = value_and_vjp(
        fused(as_tensor(labels.given), 1.0), z, upstream, "eager", dtype
    )
    expected = expected_loss_and_gradient(labels.weights, z, 1.0, upstream)
    assert_losses_close(losses, expected[0], 1.0)
    rtol = {"float32": 1e-6, "bfloat16": 4e-3}[dtype]
    assert_gradients_close(gradient, expected[1], z, 1.0, upstream, rtol=rtol)


FUNCTIONS = {
    "clip": lambda z: ops.logit_clip(z, 1.0),
    "cross-entropy": lambda z: fused(torch.tensor([0, 1]), 1.0)(z),
}


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
def test_changing_logits_in_place_is_noticed(function):
    z = torch.ones(2, 3, requires_grad=True) * 2
    value = function(z)
    z.add_(1)
    with pytest.raises(RuntimeError, match="inplace operation"):
        value.sum().backward()


# Derivatives by PyTorch compared with formulas in float64.

TAU = 1.5
DIRECTION = torch.tensor(logits(4, 5, seed=2)).double()
WEIGHTS = torch.tensor(some_labels("soft", (4,), 5).given).double()


def ordinary_rows():
    """Two that are clipped, one that is not, and zeros."""
    z = torch.tensor(logits(4, 5)).double()
    z[2] /= 100
    z[3] = 0
    return z


def plain_clip(z):
    square = z.square().sum(-1, keepdim=True)
    norm = torch.where(square > TAU**2, square, TAU**2).sqrt()
    return z * (TAU / norm)


def plain_loss(weights, z):
    return -(weights * torch.log_softmax(plain_clip(z), -1)).sum(-1)


def some_class_ids():
    ids = torch.tensor([1, 0, 4, 2])
    return ids, torch.nn.functional.one_hot(ids, 5).double()


def test_the_mean_of_a_batch_in_float64():
    """Keras computes it in float32."""
    z = torch.randn(6, 5, dtype=torch.float64, generator=torch.manual_seed(0))
    ids = torch.arange(6) % 5
    loss = LogitClipLoss("sparse_categorical_crossentropy", TAU, dtype="float64")
    each = LogitClipLoss(loss.loss, TAU, reduction="none", dtype="float64")(ids, z)
    mean = loss(ids, z)
    assert mean.dtype == torch.float64
    torch.testing.assert_close(mean, each.mean(), rtol=1e-14, atol=0)


Pair = namedtuple("Pair", "function plain")


def pairs():
    """Functions of logits of shape `(4, 5)` beside plain ones."""
    ids, one_hot = some_class_ids()
    loss = LogitClipLoss("sparse_categorical_crossentropy", TAU, dtype="float64")
    soft_loss = LogitClipLoss("categorical_crossentropy", TAU, dtype="float64")
    penalty, logit_norm = (
        losses.NormPenalty(losses.CrossEntropy(), 0.1, dtype="float64"),
        losses.LogitNormCrossEntropy(temperature=0.5, dtype="float64"),
    )
    layer = LogitClip(TAU, dtype="float64")

    def shifted(z):
        return z + 0.1  # A norm of zero has no second derivative.

    def norm(z):
        return z.norm(dim=-1, keepdim=True)

    def cross_entropy(z):
        return -(one_hot * torch.log_softmax(z, -1)).sum(-1).mean()

    return {
        "layer": Pair(layer, plain_clip),
        "order 1": Pair(
            lambda z: ops.logit_clip(z, TAU, p=1),
            lambda z: z * (TAU / z.abs().sum(-1, keepdim=True).clamp(min=TAU)),
        ),
        "penalty object": Pair(
            lambda z: penalty(ids, shifted(z)),
            lambda z: cross_entropy(shifted(z)) + 0.1 * norm(shifted(z)).mean(),
        ),
        "unit norm object": Pair(
            lambda z: logit_norm(ids, shifted(z)),
            lambda z: cross_entropy(2 * shifted(z) / (norm(shifted(z)) + 1e-7)),
        ),
        "clip": Pair(lambda z: ops.logit_clip(z, TAU), plain_clip),
        "sparse": Pair(fused(ids, TAU), lambda z: plain_loss(one_hot, z)),
        "soft": Pair(fused(WEIGHTS, TAU), lambda z: plain_loss(WEIGHTS, z)),
        "labels": Pair(
            lambda y: ops.clipped_softmax_cross_entropy(y, ordinary_rows(), TAU),
            lambda y: plain_loss(y, ordinary_rows()),
        ),
        "sparse object": Pair(
            lambda z: loss(ids, z), lambda z: plain_loss(one_hot, z).mean()
        ),
        "soft object": Pair(
            lambda z: soft_loss(WEIGHTS, z), lambda z: plain_loss(WEIGHTS, z).mean()
        ),
    }


def squares(function):
    return lambda z: function(z).square().sum()


def of_two(function, **kwargs):
    """Vectorized over two batches, along the second axis of a tensor."""
    return lambda z: torch.vmap(function, 1, **kwargs)(torch.stack([z, 2 * z], 1))


def dual(function):
    def tangent(z):
        with forward_ad.dual_level():
            return forward_ad.unpack_dual(
                function(forward_ad.make_dual(z, DIRECTION))
            ).tangent

    return tangent


def third_derivative(function):
    def along(z):
        z = z.clone().requires_grad_()
        derivative = squares(function)(z)
        for _ in range(3):
            (gradient,) = torch.autograd.grad(derivative, z, create_graph=True)
            derivative = (gradient * DIRECTION).sum()
        return derivative.detach()

    return along


jacobian = torch.autograd.functional.jacobian
TRANSFORMATIONS = {
    "grad": lambda f: torch.func.grad(squares(f)),
    "jvp": lambda f: lambda z: torch.func.jvp(f, (z,), (DIRECTION,)),
    "vjp": lambda f: lambda z: torch.func.vjp(f, z)[1](torch.ones_like(f(z))),
    "jacrev": torch.func.jacrev,
    "jacfwd": torch.func.jacfwd,
    "hessian": lambda f: torch.func.hessian(squares(f)),
    "forward over forward": lambda f: torch.func.jacfwd(torch.func.jacfwd(squares(f))),
    "reverse over reverse": lambda f: torch.func.jacrev(torch.func.jacrev(squares(f))),
    "vmap": of_two,
    "vmap of grad": lambda f: of_two(torch.func.grad(squares(f))),
    "vmap of grad by chunks": lambda f: of_two(
        torch.func.grad(squares(f)), chunk_size=1
    ),
    "grad of vmap": lambda f: torch.func.grad(squares(of_two(f))),
    "dual numbers": dual,
    "vectorized jacobian": lambda f: lambda z: jacobian(f, z, vectorize=True),
    "third derivative": third_derivative,
}


@pytest.mark.parametrize("transform", TRANSFORMATIONS.values(), ids=TRANSFORMATIONS)
@pytest.mark.parametrize("name", pairs())
def test_transformations(name, transform):
    function, plain = pairs()[name]
    x = WEIGHTS if name == "labels" else ordinary_rows()
    # Keras reduces losses in float32.
    tolerance = 1e-6 if "object" in name else 1e-9
    torch.testing.assert_close(
        transform(function)(x), transform(plain)(x),
        rtol=tolerance, atol=tolerance, check_dtype="object" not in name,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["clip", "sparse", "soft", "labels"])
def test_gradcheck(name):
    function = pairs()[name].function
    x = WEIGHTS if name == "labels" else ordinary_rows() + 0.01
    x = x.clone().requires_grad_()
    assert torch.autograd.gradcheck(function, x, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(function, x)


@pytest.mark.parametrize("kind", ["sparse", "soft"])
def test_gradients_of_samples(kind):
    """Gradients of single samples of a Keras model, as for differential privacy."""
    if kind == "sparse" and KERAS_VERSION < (3, 15):
        pytest.skip("Older versions of Keras ask for the value of class ids.")
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(CLASSES)])
    loss = LogitClipLoss(
        {"sparse": "sparse_", "soft": ""}[kind] + "categorical_crossentropy", TAU
    )
    x, y = torch.tensor(logits(ROWS, 3)), as_tensor(some_labels(kind).given)

    def loss_of_sample(parameters, x, y):
        y_pred, _ = model.stateless_call(parameters, [], x[None])
        return loss(y[None], y_pred)

    parameters = [variable.value for variable in model.trainable_variables]
    each = torch.vmap(torch.func.grad(loss_of_sample), (None, 0, 0))(parameters, x, y)
    loss(y, model(x)).backward()
    for parameter, gradients in zip(parameters, each, strict=True):
        torch.testing.assert_close(gradients.mean(0), parameter.grad)


@pytest.mark.parametrize("kind", ["sparse", "soft"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("again", [False, True], ids=("once", "twice"))
def test_backward_of_a_retained_graph(again, dtype, kind):
    z = to_tensor(logits(4, 10), dtype).requires_grad_()
    given = as_tensor(some_labels(kind, (4,)).given)
    losses = fused(given, 1.0)(z).sum()
    (first,) = torch.autograd.grad(losses, z, retain_graph=True, create_graph=again)
    first = first.detach().clone()
    for _ in range(2):
        (second,) = torch.autograd.grad(losses, z, retain_graph=True)
        rtol = {"float32": 1e-6, "bfloat16": 8e-3}[dtype]
        torch.testing.assert_close(second, first, rtol=rtol, atol=1e-7)


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing(reentrant):
    z = torch.tensor(logits(), requires_grad=True)
    loss = fused(as_tensor(some_labels("sparse").given), 1.0)
    (expected,) = torch.autograd.grad(loss(z).sum(), z)
    again = checkpoint(loss, z, use_reentrant=reentrant)
    again.sum().backward()
    torch.testing.assert_close(z.grad, expected, rtol=1e-6, atol=1e-7)


def test_autocast():
    z = torch.tensor(logits(), requires_grad=True)
    loss = fused(as_tensor(some_labels("sparse").given), 1.0)
    expected = loss(z)
    (gradient,) = torch.autograd.grad(expected.sum(), z)
    with torch.autocast("cpu", torch.bfloat16):
        losses = loss(z)
        losses.sum().backward()
    torch.testing.assert_close(losses, expected, rtol=0, atol=0)
    torch.testing.assert_close(z.grad, gradient, rtol=0, atol=0)


@pytest.mark.parametrize("compiled", [False, True])
def test_anomaly_detection(compiled):
    """Anomaly detection finds the NaN of an invalid id, and no other."""
    z = torch.tensor(wild_logits(10)[:4], requires_grad=True)
    function = ops.clipped_softmax_cross_entropy
    if compiled:
        torch._dynamo.reset()
        function = torch.compile(function, backend="aot_eager", fullgraph=FULL_GRAPHS)
    with torch.autograd.set_detect_anomaly(True):
        function(torch.tensor([1, 2, 3, 4]), z, 1.0).sum().backward()
        assert z.grad.isfinite().all()
        with pytest.raises(RuntimeError, match="returned nan values"):
            function(torch.tensor([1, 2, 3, -1]), z, 1.0).sum().backward()


# Gradients divided by the mean factor of the counted rows.


@pytest.mark.parametrize("mode", ["eager", "aot_eager", "functorch", "again"])
@pytest.mark.parametrize("kind", ["sparse", "soft"])
def test_counted_rows(kind, mode):
    z = torch.tensor(logits())
    z[0], z[1], z[2, 3] = z[0] / 100, 0, math.nan
    counted = torch.tensor([True, True, True, True, False, False])
    labels = as_tensor(some_labels(kind).given)
    mean = (TAU / z[[0, 1, 3]].norm(dim=-1)).clamp(max=1.0).mean()

    def losses_and_gradient(counted):
        def loss(z):
            return clipped_cross_entropy(labels, z, TAU, counted)

        if mode == "functorch":
            losses, vjp = torch.func.vjp(loss, z)
            return losses, vjp(torch.ones_like(losses))[0]
        if mode == "aot_eager":
            torch._dynamo.reset()
            loss = torch.compile(loss, backend=mode, fullgraph=True)
        x = z.clone().requires_grad_()
        losses = loss(x)
        grad = torch.autograd.grad
        again = mode == "again"
        return losses.detach(), grad(losses.sum(), x, create_graph=again)[0].detach()

    losses, gradient = losses_and_gradient(None)
    same, divided = losses_and_gradient(counted)
    torch.testing.assert_close(same, losses, rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(divided, gradient / mean, equal_nan=True)
    _, undivided = losses_and_gradient(torch.zeros(ROWS, dtype=torch.bool))
    torch.testing.assert_close(undivided, gradient, equal_nan=True)


# One compilation for all shapes.


@pytest.mark.parametrize("kind", ["sparse", "soft"])
def test_dynamic_shapes(kind):
    torch._dynamo.reset()
    name = {"sparse": "sparse_", "soft": ""}[kind] + "categorical_crossentropy"
    loss = LogitClipLoss(name, 1.0, reduction=None)
    compiled = torch.compile(
        loss, backend="aot_eager", fullgraph=FULL_GRAPHS, dynamic=True
    )
    for rows, classes in ((6, 10), (7, 100), (3, 5000)):
        z, labels = logits(rows, classes), some_labels(kind, (rows,), classes)
        given = as_tensor(labels.given)
        losses, gradient = value_and_vjp(
            lambda z, given=given: compiled(given, z), z, np.ones(rows), "eager"
        )
        expected = expected_loss_and_gradient(labels.weights, z, 1.0, np.ones(rows))
        assert_losses_close(losses, expected[0], 1.0)
        assert_gradients_close(gradient, expected[1], z, 1.0, np.ones(rows))


def test_dynamic_clipping():
    torch._dynamo.reset()
    clip = torch.compile(
        lambda z: ops.logit_clip(z, 1.0), backend="aot_eager", fullgraph=FULL_GRAPHS,
        dynamic=True,
    )  # fmt: skip
    for shape in ((6, 10), (7, 100), (2, 3, 50)):
        z = logits(*shape)
        value, gradient = value_and_vjp(clip, z, z[..., ::-1].copy(), "eager")
        assert_rows_close(value, oracle.clip(z, 1.0, 2), 1e-6)
        assert_rows_close(gradient, oracle.clip_vjp(z, z[..., ::-1], 1.0, 2), 1e-6)


# Large logits on a GPU, for which each function is compiled.


@pytest.fixture
def compiles(monkeypatch):
    """Makes CPUs compile, too. The test may replace the compiler afterwards."""
    torch._dynamo.reset()
    kernel._compiled.cache_clear()
    monkeypatch.setattr(
        kernel, "_fused", lambda function, _: kernel._compiled(function)
    )
    yield
    kernel._compiled.cache_clear()


@inductor
@pytest.mark.parametrize("kind", ["sparse", "soft"])
def test_compiled_cross_entropy(kind, compiles):
    """For thresholds and numbers of rows that change."""
    for rows, tau in ((6, 1.0), (6, 0.5), (7, 3.0)):
        z, upstream = logits(rows, 1000), np.arange(1.0, rows + 1)
        z[:3] *= [[0], [1e30], [1e-3]]
        labels = some_labels(kind, (rows,), 1000)
        losses, gradient = value_and_vjp(
            fused(as_tensor(labels.given), tau), z, upstream, "eager"
        )
        expected = expected_loss_and_gradient(labels.weights, z, tau, upstream)
        assert_losses_close(losses, expected[0], tau)
        assert_gradients_close(gradient, expected[1], z, tau, upstream)


@inductor
def test_compiled_clipping(compiles):
    for shape, tau in (((6, 100), 1.0), ((7, 100), 0.5), ((2, 3, 100), 3.0)):
        z = logits(*shape)
        value, gradient = value_and_vjp(
            lambda z, tau=tau: ops.logit_clip(z, tau), z, z[..., ::-1].copy(), "eager"
        )
        assert_rows_close(value, oracle.clip(z, tau, 2), 1e-6)
        assert_rows_close(gradient, oracle.clip_vjp(z, z[..., ::-1], tau, 2), 1e-6)


@pytest.mark.parametrize("failing", ["_forward", "_gradient", "both"])
def test_failing_compiler(failing, compiles, monkeypatch):
    """Warns once for each function that fails, and computes."""
    torch_compile = torch.compile

    def compiler(function):
        def compiled(*arguments):
            if failing in (function.__name__, "both"):
                raise torch._dynamo.exc.InternalTorchDynamoError("no C compiler")
            return torch_compile(function, backend="aot_eager")(*arguments)

        return compiled

    monkeypatch.setattr(torch, "compile", compiler)
    labels, z = torch.tensor([0, 1]), torch.tensor(logits(2, 10), requires_grad=True)
    with pytest.warns(UserWarning, match="cannot compile .*: no C compiler") as caught:
        clipped_cross_entropy(labels, z, 1.0).sum().backward()
    assert len(caught) == (2 if failing == "both" else 1)
    clipped_cross_entropy(labels, z, 1.0).sum().backward()
    _, gradient = expected_loss_and_gradient(
        np.eye(10)[:2], to_numpy(z), 1.0, np.ones(2)
    )
    assert_gradients_close(to_numpy(z.grad) / 2, gradient, to_numpy(z), 1.0, np.ones(2))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("rows", [64, 2048])
def test_no_gpu_is_waited_for(rows, dtype):
    z = torch.tensor(logits(rows, 32_000), device="cuda").to(getattr(torch, dtype))
    z, labels = z.requires_grad_(), torch.arange(rows, device="cuda")

    def loss_and_gradient():
        loss = LogitClipLoss("sparse_categorical_crossentropy", 1.0)(labels, z)
        return loss, *torch.autograd.grad(loss, z)

    kernel._compiled.cache_clear()
    loss_and_gradient()
    assert (kernel._compiled.cache_info().currsize > 0) == (rows == 2048)
    try:
        torch.cuda.set_sync_debug_mode("error")
        loss, gradient = loss_and_gradient()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    weights = np.eye(32_000, dtype="float32")[:rows]
    upstream = np.full(rows, 1 / rows)
    z = to_numpy(z)
    losses, expected = expected_loss_and_gradient(weights, z, 1.0, upstream)
    np.testing.assert_allclose(loss.item(), losses.mean(), 1e-6)
    rtol = {"float32": 1e-6, "bfloat16": 4e-3}[dtype]
    assert_gradients_close(to_numpy(gradient), expected, z, 1.0, upstream, rtol=rtol)
