"""Losses that wrap another loss or add two losses."""

import keras
import numpy as np
import pytest

from keras_logitclip import LogitClipLoss
from keras_logitclip import losses
from tests import loss_cases
from tests import oracle
from tests.oracle import INF
from tests.running import apply
from tests.running import apply_each
from tests.running import double_precision
from tests.running import to_numpy
from tests.running import to_tensor
from tests.running import with_labels
from tests.samples import KINDS
from tests.samples import logits
from tests.samples import some_labels

Z = logits()
IDS, ONE_HOT = some_labels("sparse").given, some_labels("one-hot").given


@keras.saving.register_keras_serializable(package="tests")
def squared_error(y_true, y_pred):
    return keras.ops.mean(keras.ops.square(y_true - y_pred), -1)


def unregistered(y_true, y_pred):
    return squared_error(y_true, y_pred)


CE = losses.CrossEntropy
WRAPPERS = {
    "value-clip": lambda loss, **kwargs: losses.LogitValueClip(loss, 1.5, **kwargs),
    "norm-penalty": lambda loss, **kwargs: losses.NormPenalty(loss, 0.1, **kwargs),
    "active": lambda loss, **kwargs: losses.ActivePassive(loss, CE(), **kwargs),
    "passive": lambda loss, **kwargs: losses.ActivePassive(CE(), loss, **kwargs),
}
every_wrapper = pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
# What each of them makes of a loss of logits.
EXPECTED = {
    "value-clip": lambda loss: loss(np.clip(Z, -1.5, 1.5)),
    "norm-penalty": lambda loss: loss(Z) + 0.1 * oracle.norm(Z, 2),
    "active": lambda loss: loss(Z) + oracle.cross_entropy(IDS, Z),
    "passive": lambda loss: loss(Z) + oracle.cross_entropy(IDS, Z),
}


def cross_entropy_of_ids(z):
    return oracle.cross_entropy(IDS, z)


INNER = {
    "ours": (CE(), cross_entropy_of_ids),
    "keras": (
        keras.losses.CategoricalCrossentropy(from_logits=True),
        cross_entropy_of_ids,
    ),
    "name": ("categorical_crossentropy", cross_entropy_of_ids),
    "function": (squared_error, lambda z: ((ONE_HOT - z) ** 2).mean(-1)),
    "clipped": (
        LogitClipLoss(CE(), 1.0),
        lambda z: cross_entropy_of_ids(oracle.clip(z, 1.0, 2)),
    ),
}
PAIRS = {(outer, inner): INNER[inner] for outer in WRAPPERS for inner in INNER}


def test_any_loss_can_be_wrapped():
    values = apply_each(
        {
            pair: with_labels(WRAPPERS[pair[0]](inner, reduction="none"), ONE_HOT)
            for pair, (inner, _) in PAIRS.items()
        },
        Z,
    )
    for pair, (_, inner) in PAIRS.items():
        np.testing.assert_allclose(
            values[pair],
            EXPECTED[pair[0]](inner),
            rtol=1e-5,
            atol=1e-5,
            err_msg=str(pair),
        )


@pytest.mark.once
@every_wrapper
@pytest.mark.parametrize("inner", [loss for loss, _ in INNER.values()], ids=INNER)
def test_any_loss_can_be_saved_in_another(wrap, inner):
    loss = wrap(inner, reduction="sum", name="named", dtype="float64")
    config = keras.saving.serialize_keras_object(loss)
    clone = keras.saving.deserialize_keras_object(config)
    assert type(clone) is type(loss)
    assert clone.get_config() == loss.get_config()
    assert (clone.name, clone.reduction, clone.dtype) == ("named", "sum", "float64")
    with double_precision("float64"):
        values = [to_numpy(each(ONE_HOT, Z)) for each in (loss, clone)]
    assert np.isfinite(values[0])
    assert values[0] == values[1]


@pytest.mark.once
@every_wrapper
def test_functions_that_are_saved_by_their_names(wrap):
    with pytest.warns(UserWarning, match="unregistered .*register_keras_serializable"):
        wrap(unregistered).get_config()


@pytest.mark.once
@every_wrapper
@pytest.mark.parametrize(
    ("inner", "message"),
    [
        (keras.losses.CategoricalCrossentropy(), "takes probabilities"),
        (CE(from_logits=False), "takes probabilities"),
        ("crossentropi", "the name of a Keras loss"),
        (None, "expected a loss instance"),
        (CE(reduction="sum"), "default `reduction`"),
        (CE(dtype="float16"), "default `dtype`"),
    ],
)
def test_losses_that_cannot_be_wrapped(wrap, inner, message):
    with pytest.raises(ValueError, match=message):
        wrap(inner)


@pytest.mark.once
@every_wrapper
def test_the_wrapped_loss_has_to_agree_on_the_axis(wrap):
    with pytest.raises(ValueError, match="same class axis .* Received: axis=2"):
        wrap(CE(axis=1))(np.zeros((2, 4), "int32"), logits(2, 4, 10))


@every_wrapper
def test_class_ids_that_the_dtype_cannot_hold(wrap):
    loss = wrap(CE(), dtype="bfloat16")
    with pytest.raises(ValueError, match="more than 256 classes"):
        loss(to_tensor(np.zeros(2), "bfloat16"), np.zeros((2, 257), "float32"))


@pytest.mark.parametrize("name", ["value-clip", "norm-penalty"])
def test_an_activation_for_losses_of_probabilities(name):
    loss = WRAPPERS[name](keras.losses.CategoricalCrossentropy(), activation="softmax")
    plain = WRAPPERS[name](CE())
    np.testing.assert_allclose(
        to_numpy(loss(ONE_HOT, Z)), to_numpy(plain(ONE_HOT, Z)), rtol=1e-5
    )


def test_value_clip_of_half_precision_keeps_infinite_limits():
    loss = losses.LogitValueClip(CE(), oracle.INF)
    values = apply(lambda z: loss.call(to_tensor(IDS), z), Z, dtype="float16")
    assert np.isfinite(values).all()


def test_the_penalty_is_the_norm_of_its_order():
    labels = some_labels("sparse")
    for p in (1, 3, INF):
        loss = losses.NormPenalty(losses.CrossEntropy(), 0.1, p=p, reduction="none")
        expected = oracle.weighted_cross_entropy(labels.weights, Z)
        expected = expected + 0.1 * oracle.norm(Z, p)
        value = apply(with_labels(loss, labels.given), Z)
        np.testing.assert_allclose(value, expected, 1e-6, err_msg=f"p={p}")


@pytest.mark.once
def test_values_of_different_shapes_are_not_added():
    with pytest.raises(ValueError, match="same shape.*Received: shapes"):
        losses.ActivePassive(CE(axis=1), "mse", axis=1)(
            np.zeros((2, 10, 3), "float32"), logits(2, 10, 3)
        )
    column = losses.NormPenalty(lambda y, z: squared_error(y, z)[:, None], 0.1)
    with pytest.raises(ValueError, match=r"Received: shapes \(6, 1\) and \(6,\)"):
        column(ONE_HOT, Z)


# Masks.


def ignoring(class_id):
    return keras.losses.SparseCategoricalCrossentropy(True, ignore_class=class_id)


def penalized(y, z):
    return loss_cases.penalized_cross_entropy(y, z, weight=0.1)


def with_bootstrap(y, z):
    return loss_cases.cross_entropy(y, z) + loss_cases.bootstrap(y, z, beta=0.6)


# The loss, the classes that it ignores, and the values of the others.
MASKED = {
    "norm-penalty": (losses.NormPenalty(ignoring(2), 0.1), [2], penalized),
    "active": (
        losses.ActivePassive(ignoring(2), losses.Bootstrap(0.6)),
        [2],
        with_bootstrap,
    ),
    "both": (
        losses.ActivePassive(ignoring(2), ignoring(2)),
        [2],
        lambda y, z: 2 * loss_cases.cross_entropy(y, z),
    ),
}


@pytest.mark.parametrize(
    ("loss", "ignored", "expected"), MASKED.values(), ids=MASKED.keys()
)
def test_ignored_classes_stay_ignored(loss, ignored, expected):
    ids = np.arange(6, dtype="int32")
    kept = ~np.isin(ids, ignored)
    values = loss_cases.value(expected, np.eye(10)[ids], Z)
    np.testing.assert_allclose(to_numpy(loss(ids, Z)), values[kept].mean(), rtol=1e-5)


# Cross-entropy may be computed together with the clipping.


@keras.saving.register_keras_serializable(package="tests")
class Halved(CE):
    def call(self, y_true, y_pred):
        return super().call(y_true, y_pred) / 2


def as_function(y_true, y_pred):
    return CE(reduction="none")(y_true, y_pred)


@pytest.mark.parametrize("kind", KINDS)
def test_clipped_cross_entropy_is_that_of_clipped_logits(kind):
    """Subclasses and functions may compute anything, so they are not fused."""
    labels = some_labels(kind)
    values = apply_each(
        {
            loss: with_labels(LogitClipLoss(inner, 1.0, reduction="none"), labels.given)
            for loss, inner in {
                "whole": CE(),
                "half": Halved(),
                "function": as_function,
            }.items()
        },
        Z,
    )
    expected = oracle.weighted_cross_entropy(labels.weights, oracle.clip(Z, 1.0, 2))
    np.testing.assert_allclose(values["whole"], expected, rtol=2e-6)
    np.testing.assert_allclose(values["whole"], values["function"], rtol=2e-6)
    np.testing.assert_allclose(values["whole"], 2 * values["half"], rtol=2e-6)


class Doubled(losses.GeneralizedCrossEntropy):
    """Defines `call`, as Keras's losses do."""

    def call(self, y_true, y_pred):
        return 2 * super().call(y_true, y_pred)


@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: LogitClipLoss(x, INF)])
def test_subclasses_that_define_call(wrap):
    weights = np.array([1, 0, 2, 1, 0, 1], "float32")
    ids = np.where(weights > 0, IDS, -1)
    plain = losses.GeneralizedCrossEntropy()
    expected = 2 * to_numpy(plain(IDS, Z, weights))
    np.testing.assert_allclose(to_numpy(wrap(Doubled())(ids, Z, weights)), expected)
    values = 2 * to_numpy(plain.call(IDS, Z))
    np.testing.assert_allclose(to_numpy(wrap(Doubled()).call(IDS, Z)), values)
