"""Compares the results of a mesh of all devices with those of one device."""

import jax
import numpy as np
from jax.sharding import PartitionSpec

from keras_logitclip import LogitClipLoss
from keras_logitclip import ops
from keras_logitclip._kernels import clipped_cross_entropy
from tests.samples import logits
from tests.samples import some_labels

ROWS = 8
LONG = 40_000  # Classes that are summed in pieces.


def losses(tau, p):
    loss = LogitClipLoss("sparse_categorical_crossentropy", tau=tau, p=p)
    return {
        "clip": lambda z, ids, soft, counted: ops.logit_clip(z, tau, p),
        "norm": lambda z, ids, soft, counted: ops.logit_norm(z, p),
        "ids": lambda z, ids, soft, counted: ops.clipped_softmax_cross_entropy(
            ids, z, tau, p
        ),
        "weights": lambda z, ids, soft, counted: ops.clipped_softmax_cross_entropy(
            soft, z, tau, p
        ),
        "counted": lambda z, ids, soft, counted: clipped_cross_entropy(
            ids, z, tau, p, counted
        ),
        "loss": lambda z, ids, soft, counted: loss(ids, z),
    }


def value_and_gradient(function, *arguments):
    return jax.jit(jax.value_and_grad(lambda *x: jax.numpy.sum(function(*x) ** 2) / 2))(
        *arguments
    )


def main():
    mesh = jax.make_mesh(
        (jax.device_count(),), ("batch",), axis_types=(jax.sharding.AxisType.Explicit,)
    )
    for classes, tau, p in ((10, 1.0, 2), (10, 1.0, 3), (10, 60.0, 2), (LONG, 1.0, 2)):
        ids, soft = (
            some_labels(kind, (ROWS,), classes).given for kind in ("sparse", "soft")
        )
        arguments = logits(ROWS, classes), ids, soft, np.arange(ROWS) % 3 > 0
        for name, function in losses(tau, p).items():
            expected = value_and_gradient(function, *arguments)
            with jax.set_mesh(mesh):
                sharded = [
                    jax.device_put(x, PartitionSpec("batch", *(x.ndim - 1) * [None]))
                    for x in arguments
                ]
                found = value_and_gradient(function, *sharded)
            name = f"{name}, {classes} classes, tau={tau}, p={p}"
            for ours, alone in zip(found, expected, strict=True):
                np.testing.assert_allclose(ours, alone, 1e-5, 1e-6, err_msg=name)
            print(f"{name}, {jax.device_count()} devices")


if __name__ == "__main__":
    main()
