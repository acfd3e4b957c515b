"""A training step equals NumPy's for outputs of all shapes."""

from dataclasses import dataclass
from dataclasses import field

import keras
import numpy as np
import pytest

from keras_logitclip import LogitClip
from keras_logitclip import LogitClipLoss
from tests import oracle

pytestmark = pytest.mark.gradients

TAU = 1.5
FEATURES = 6
CLASSES = 5
VOCABULARY = 32_000

sparse = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

rng = np.random.default_rng(0)


def features(*shape):
    return rng.normal(size=(*shape, FEATURES)).astype("float32")


def cross_entropy(labels, z):
    gradients = np.exp(oracle.log_softmax(z))
    at_label = np.take_along_axis(gradients, labels[..., None], -1)
    np.put_along_axis(gradients, labels[..., None], at_label - 1, -1)
    return oracle.cross_entropy(labels, z), gradients


def binary_cross_entropy(labels, z):
    losses = np.logaddexp(0, z) - labels * z
    gradients = 1 / (1 + np.exp(-z)) - labels
    return losses.mean(axis=-1), gradients / z.shape[-1]


def expected_step(case, kernel):
    """The loss, and the gradient of the last layer's kernel."""
    z = case.x.astype("float64") @ kernel
    losses, gradients = case.reference(case.labels, oracle.clip(z, TAU, 2))
    # Keras divides by the number of positions that are not masked.
    weights = case.weights / case.valid.sum() * case.valid
    upstream = weights[..., None] * gradients
    to_logits = oracle.clip_vjp(z, upstream, TAU, 2)
    axes = list(range(z.ndim - 1))
    gradient = np.tensordot(case.x.astype("float64"), to_logits, (axes, axes))
    return (weights * losses).sum(), gradient


@dataclass
class Case:
    """Logits on the last axis, from `x`; `y` is what Keras gets for `labels`."""

    x: np.ndarray
    labels: np.ndarray
    loss: keras.losses.Loss = sparse
    reference: object = cross_entropy
    classes: int = CLASSES
    y: np.ndarray = None
    before: list = field(default_factory=list)
    after: list = field(default_factory=list)
    axis: int = -1
    valid: np.ndarray = True
    weights: np.ndarray = 1.0
    arguments: dict = field(default_factory=dict)

    def __post_init__(self):
        positions = self.x.shape[:-1]
        self.y = self.labels if self.y is None else self.y
        self.valid = np.broadcast_to(self.valid, positions)
        self.weights = np.broadcast_to(self.weights, positions)


def labels_of(*shape, classes=CLASSES):
    return rng.integers(0, classes, shape)


def segmentation(channels_first):
    labels = labels_of(2, 4, 3)
    one_hot = np.eye(CLASSES, dtype="float32")[labels]
    axis = 1 if channels_first else -1
    return Case(
        x=features(2, 4, 3),
        labels=labels,
        y=np.moveaxis(one_hot, -1, axis),
        loss=keras.losses.CategoricalCrossentropy(from_logits=True, axis=axis),
        after=[keras.layers.Permute((3, 1, 2))] if channels_first else [],
        axis=axis,
    )


def tokens(weighted):
    lengths = np.array([7, 4, 1])
    valid = np.arange(7) < lengths[:, None]
    weights = rng.uniform(0.5, 2, (3, 7)).astype("float32") if weighted else 1.0
    return Case(
        x=features(3, 7) * valid[..., None],
        labels=labels_of(3, 7),
        before=[keras.layers.Masking()],
        valid=valid,
        weights=weights,
        arguments={"sample_weight": weights} if weighted else {},
    )


def class_weights():
    weight_of = {0: 0.5, 1: 1.0, 2: 2.0, 3: 0.0, 4: 3.0}
    labels = labels_of(12)
    return Case(
        x=features(12),
        labels=labels,
        weights=np.array([weight_of[label] for label in labels]),
        arguments={"class_weight": weight_of},
    )


def temporal_weights():
    weights = rng.uniform(0, 2, (3, 7)).astype("float32")
    return Case(
        x=features(3, 7),
        labels=labels_of(3, 7),
        weights=weights,
        arguments={"sample_weight": weights},
    )


def multi_label():
    labels = labels_of(8, CLASSES, classes=2).astype("float32")
    return Case(
        x=features(8),
        labels=labels,
        loss=keras.losses.BinaryCrossentropy(from_logits=True),
        reference=binary_cross_entropy,
    )


def next_token():
    labels = labels_of(2, 5, classes=VOCABULARY)
    return Case(x=features(2, 5), labels=labels, classes=VOCABULARY)


CASES = {
    "multi-label": multi_label(),
    "segmentation": segmentation(channels_first=False),
    "segmentation-channels-first": segmentation(channels_first=True),
    "tokens-with-masks": tokens(weighted=False),
    "tokens-with-masks-and-weights": tokens(weighted=True),
    "next-token": next_token(),
    "class-weights": class_weights(),
    "temporal-weights": temporal_weights(),
}


def with_loss(case):
    return case.after, LogitClipLoss(case.loss, TAU, axis=case.axis)


def with_layer(case):
    return [*case.after, LogitClip(TAU, axis=case.axis)], case.loss


# The layer, where an axis or a mask passes through it. Otherwise training with the
# layer equals training with the loss, as `tests.test_logit_clip_loss` shows.
WITH_LAYER = ("segmentation-channels-first", "tokens-with-masks-and-weights")


@pytest.mark.parametrize(
    ("name", "place"),
    [
        *((name, with_loss) for name in CASES),
        *((name, with_layer) for name in WITH_LAYER),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_one_step_of_training(name, place):
    case = CASES[name]
    after, loss = place(case)
    dense = keras.layers.Dense(case.classes, use_bias=False)
    model = keras.Sequential(
        [keras.Input(case.x.shape[1:]), *case.before, dense, *after]
    )
    model.compile(keras.optimizers.SGD(1.0), loss)
    kernel = dense.get_weights()[0]
    expected, gradient = expected_step(case, kernel.astype("float64"))

    actual = model.train_on_batch(case.x, case.y, **case.arguments)

    np.testing.assert_allclose(actual, expected, rtol=1e-5)
    moved = kernel - dense.get_weights()[0]
    scale = np.abs(gradient).max()
    np.testing.assert_allclose(moved, gradient, rtol=0, atol=1e-5 * scale)


def test_two_heads():
    """Each output has its own tau."""
    x = features(10)
    heads = {"species": (4, 0.5, 1.0), "color": (3, 2.0, 0.25)}
    labels = {name: labels_of(10, classes=k) for name, (k, _, _) in heads.items()}
    inputs = keras.Input((FEATURES,))
    layers = {
        name: keras.layers.Dense(classes, use_bias=False, name=name)
        for name, (classes, _, _) in heads.items()
    }
    model = keras.Model(inputs, {name: layers[name](inputs) for name in heads})
    model.compile(
        keras.optimizers.SGD(1.0),
        loss={name: LogitClipLoss(sparse, tau) for name, (_, tau, _) in heads.items()},
        loss_weights={name: weight for name, (_, _, weight) in heads.items()},
    )
    kernels = {name: layers[name].get_weights()[0] for name in heads}

    actual = model.train_on_batch(x, labels, return_dict=True)

    total = 0
    for name, (_, tau, weight) in heads.items():
        z = x.astype("float64") @ kernels[name]
        losses, gradients = cross_entropy(labels[name], oracle.clip(z, tau, 2))
        gradient = x.T @ oracle.clip_vjp(z, gradients / len(x), tau, 2)
        moved = kernels[name] - layers[name].get_weights()[0]
        np.testing.assert_allclose(moved, weight * gradient, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(actual[f"{name}_loss"], losses.mean(), rtol=1e-5)
        total += weight * losses.mean()
    np.testing.assert_allclose(actual["loss"], total, rtol=1e-5)
