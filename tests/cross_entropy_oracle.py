"""Compares the cross-entropy of clipped logits with the oracle."""

from collections import namedtuple

import keras
import numpy as np

from keras_logitclip import ops
from tests import oracle
from tests.running import value_and_vjp_each
from tests.samples import ROWS
from tests.samples import logits


def wild_logits(classes, rows=ROWS):
    """Returns rows that are zero, huge, tiny, huger, confident, and ordinary."""
    z = logits(rows, classes)
    z[1] = 0
    z[2] *= 1e30
    z[3] /= 1000
    z[4] = 3e38 * np.sign(z[4])
    z[5, 0] = 300
    return z


def allow_nan_in_longest_rows(actual, expected, z, tau):
    """Returns what is expected for rows that are NaN and too long for float32."""
    norm = np.expand_dims(oracle.norm(z, 2), tuple(range(z.ndim - 1, actual.ndim)))
    allowed = np.isnan(actual) & (norm > 1e33 * min(1.0, tau))
    return np.where(allowed, expected, actual)


def fused(labels, tau, **kwargs):
    return lambda z: ops.clipped_softmax_cross_entropy(labels, z, tau, **kwargs)


def as_tensor(labels):
    return keras.ops.convert_to_tensor(labels)


def expected_loss_and_gradient(weights, z, tau, upstream, p=2):
    clipped = oracle.clip(z, tau, p)
    gradient = oracle.weighted_cross_entropy_gradient(weights, clipped)
    gradient = oracle.clip_vjp(z, gradient * upstream[..., None], tau, p)
    return oracle.weighted_cross_entropy(weights, clipped), gradient


def assert_losses_close(actual, expected, tau, rtol=1e-6, name=""):
    """Returns the rounding error of clipped logits of this length."""
    atol = rtol * max(1.0, tau / 5)
    np.testing.assert_allclose(actual, expected, rtol, atol, err_msg=name)


def assert_gradients_close(actual, expected, z, tau, upstream, p=2, rtol=1e-6, name=""):
    """Compares gradients relative to the largest possible gradient of a row."""
    norm = np.maximum(oracle.norm(z, p), 1e-30)
    scale = np.abs(upstream) * np.minimum(1, tau / norm)
    # Subnormal numbers may be flushed to zero: each of three terms, and the factor of
    # clipped logits.
    allowed = rtol * max(1.0, tau / 5) * scale
    allowed = allowed + max(3.0, tau / 5) * np.finfo("float32").tiny
    error = np.abs(np.asarray(actual, "float64") - expected).max(-1)
    assert (error <= allowed).all(), f"{name}: error {error}, allowed {allowed}"


# Each function is described by its case: weights, tau and order.
Case = namedtuple("Case", "labels tau p", defaults=(1.0, 2))


def assert_equal_the_oracle(cases, z, mode, upstream, rtol=1e-6):
    """Computes all cases as one function of the logits `z`, common ones or by name."""
    functions = {
        name: fused(as_tensor(labels.given), tau, p=p)
        for name, (labels, tau, p) in cases.items()
    }
    parts = value_and_vjp_each(functions, z, mode, upstream=upstream)
    for name, ((_, weights), tau, p) in cases.items():
        rows = z[name] if isinstance(z, dict) else z
        losses, gradient = expected_loss_and_gradient(weights, rows, tau, upstream, p)
        found = allow_nan_in_longest_rows(parts[name].value, losses, rows, tau)
        assert_losses_close(found, losses, tau, name=name)
        if parts[name].gradient is not None:
            largest = upstream * np.maximum(1, weights.sum(-1))
            found = parts[name].gradient
            found = allow_nan_in_longest_rows(found, gradient, rows, tau)
            assert_gradients_close(found, gradient, rows, tau, largest, p, rtol, name)
