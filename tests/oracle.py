"""The method in float64 NumPy, written only from its formulas."""

import numpy as np

INF = float("inf")


def norm(z, p, axis=-1):
    z = np.abs(np.asarray(z, "float64"))
    largest = z.max(axis, initial=0)
    if p == INF:
        return largest
    scale = np.where(largest > 0, largest, 1)  # So that no power overflows.
    return scale * ((z / np.expand_dims(scale, axis)) ** p).sum(axis) ** (1 / p)


def clip(z, tau, p, axis=-1):
    z = np.asarray(z, "float64")
    n = np.expand_dims(norm(z, p, axis), axis)
    return np.where(n > tau, z * tau / np.where(n > 0, n, 1), z)


def norm_gradient(z, p, axis=-1):
    z = np.asarray(z, "float64")
    n = np.expand_dims(norm(z, p, axis), axis)
    n = np.where(n > 0, n, 1)
    if p == INF:
        largest = np.abs(z) == n
        return np.sign(z) * largest / np.maximum(largest.sum(axis, keepdims=True), 1)
    if p == 1:
        return np.sign(z)
    return np.sign(z) * (np.abs(z) / n) ** (p - 1)


def clip_vjp(z, upstream, tau, p, axis=-1):
    z, upstream = np.asarray(z, "float64"), np.asarray(upstream, "float64")
    n = np.expand_dims(norm(z, p, axis), axis)
    safe = np.where(n > 0, n, 1)
    along = (upstream * z / safe).sum(axis, keepdims=True)
    clipped = tau / safe * (upstream - along * norm_gradient(z, p, axis))
    return np.where(n > tau, clipped, upstream)


def log_softmax(z, axis=-1):
    z = np.asarray(z, "float64")
    z = z - z.max(axis, keepdims=True)
    return z - np.log(np.exp(z).sum(axis, keepdims=True))


def cross_entropy(labels, z):
    """Returns the cross-entropy of integer labels on the last axis."""
    return -np.take_along_axis(log_softmax(z), labels[..., None], -1)[..., 0]


def cross_entropy_gradient(labels, z):
    return np.exp(log_softmax(z)) - np.eye(z.shape[-1])[labels]


def weighted_cross_entropy(weights, z):
    """Returns the cross-entropy of class weights on the last axis."""
    return -(np.asarray(weights, "float64") * log_softmax(z)).sum(-1)


def weighted_cross_entropy_gradient(weights, z):
    weights = np.asarray(weights, "float64")
    return np.exp(log_softmax(z)) * weights.sum(-1, keepdims=True) - weights


def assert_rows_close(actual, expected, rtol, axis=-1, atol=0.0, name=""):
    """Compares with a tolerance relative to the largest entry of each row."""
    actual, expected = np.asarray(actual, "float64"), np.asarray(expected, "float64")
    assert actual.shape == expected.shape
    error = np.abs(actual - expected).max(axis, initial=0)
    allowed = rtol * np.abs(expected).max(axis, initial=0) + atol
    assert (error <= allowed).all(), f"{name}: error {error}, allowed {allowed}"


def slopes(function, z, step=1e-5):
    """Returns the gradient of a scalar function of an array by central differences."""
    steps = step * np.eye(z.size).reshape(-1, *z.shape)
    return np.reshape(
        [(function(z + s) - function(z - s)) / (2 * step) for s in steps], z.shape
    )


def points_of_ball(tau, classes, p, seed, number=200):
    """Draws points of norm tau or less: normal, sparse, of few values, of signs."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(number, classes))
    kind = rng.integers(0, 5, (number, 1))
    z = np.where(kind == 1, z * rng.integers(0, 2, z.shape), z)
    few = rng.normal(size=(number, 3))
    few = np.take_along_axis(few, rng.integers(0, 3, z.shape), 1)
    z = np.where(kind == 2, few, z)
    z = np.where(kind == 3, np.sign(z), z)
    one_or_two = np.where(np.arange(classes) < 2, 5 * z, few[:, :1])
    z = np.where(kind == 4, one_or_two, z)
    largest = np.abs(z).max(1, keepdims=True)
    z = z / np.where(largest > 0, largest, 1)
    length = norm(z, p)[:, None]
    inside = np.where(rng.random((number, 1)) < 0.2, rng.random((number, 1)), 1)
    return tau * inside * z / np.where(length > 0, length, 1)
