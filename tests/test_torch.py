"""What PyTorch's autograd and compiler make of the operations."""

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from keras_logitclip import ops
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
from tests.running import to_numpy
from tests.running import to_tensor
from tests.running import value_and_vjp
from tests.running import value_and_vjp_each
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
    """Collects the storage of each result that it has not seen before."""

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
def test_eager_tensors_are_chunks(shape, kind):
    z = to_tensor(logits(*shape)).requires_grad_()
    given = as_tensor(some_labels(kind, shape[:1], shape[1]).given)
    with NewStorages(z, given) as new:
        losses = fused(given, 1.0)(z)
        forward, new.sizes = new.sizes, []
        losses.backward(torch.ones_like(losses))
    backward = new.sizes
    gradient_size = 4 * z.numel()
    assert (forward + backward).count(gradient_size) == 1
    # Before there is a gradient, up to half of its size is free.
    without = gradient_size not in forward
    allowed = {"forward": 1 / 2 if without else 1 / 10, "backward": 1 / 10}
    for name, sizes in (("forward", forward), ("backward", backward)):
        others = [size for size in sizes if size != gradient_size]
        assert max(others) <= gradient_size * allowed[name], name


@pytest.mark.parametrize("kind", ["sparse", "soft"])
@pytest.mark.parametrize("shape", [(2048, 1000), (64, 32_000)], ids=str)
def test_values_of_chunks(shape, kind):
    """As many rows as make more than one chunk."""
    z, labels = logits(*shape), some_labels(kind, shape[:1], shape[1])
    upstream = np.random.default_rng(1).normal(size=shape[0])
    losses, gradient = value_and_vjp(
        fused(as_tensor(labels.given), 1.0), z, upstream, "eager"
    )
    expected = expected_loss_and_gradient(labels.weights, z, 1.0, upstream)
    assert_losses_close(losses, expected[0], 1.0)
    assert_gradients_close(gradient, expected[1], z, 1.0, upstream)


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


@pytest.mark.parametrize("again", [False, True], ids=("once", "twice"))
def test_backward_of_a_retained_graph(again):
    z = torch.tensor(logits(4, 10), requires_grad=True)
    losses = fused(torch.tensor([0, 1, 2, 3]), 1.0)(z).sum()
    (first,) = torch.autograd.grad(losses, z, retain_graph=True, create_graph=again)
    (second,) = torch.autograd.grad(losses, z)
    torch.testing.assert_close(first.detach(), second, rtol=1e-6, atol=1e-7)
