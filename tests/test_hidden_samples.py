"""Samples that a mask, a weight of zero or `ignore_class` hides have no influence."""

from collections import namedtuple

import keras
import numpy as np
import pytest

from keras_logitclip import LogitClipLoss
from keras_logitclip import losses
from tests.conftest import QUICKEST
from tests.running import TAKES_MASKS
from tests.running import to_numpy
from tests.running import to_tensor
from tests.running import value_and_vjp_each
from tests.samples import CLASSES
from tests.samples import ROWS
from tests.samples import logits
from tests.samples import some_labels

Z = logits()
IDS, ONE_HOT = some_labels("sparse")
HIDDEN = np.array([False, True, False, False, True, False])


@keras.saving.register_keras_serializable(package="tests")
def square(y_true, y_pred):
    return keras.ops.mean(keras.ops.square(y_true - y_pred), -1)


def sparse(**kwargs):
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True, **kwargs)


def wild(z):
    z = z.copy()
    z[1, 0], z[4] = np.nan, np.inf
    return z


CE, GCE = losses.CrossEntropy, losses.GeneralizedCrossEntropy
Case = namedtuple("Case", "make labels", defaults=("ids",))
CASES = {
    "sparse": Case(lambda **k: LogitClipLoss(sparse(), 1.0, **k)),
    "ours": Case(lambda **k: LogitClipLoss(CE(), 1.0, **k)),
    "not-fused": Case(lambda **k: LogitClipLoss(GCE(), 1.0, **k)),
    "order-1": Case(lambda **k: LogitClipLoss(sparse(), 1.0, p=1, **k)),
    "nested": Case(lambda **k: LogitClipLoss(LogitClipLoss(CE(), 3.0), 1.0, **k)),
    "value-clip": Case(lambda **k: losses.LogitValueClip(CE(), 1.0, **k)),
    "norm-penalty": Case(lambda **k: losses.NormPenalty(CE(), 0.1, **k)),
    "active-passive": Case(lambda **k: losses.ActivePassive(CE(), GCE(), **k)),
    "one-hot": Case(lambda **k: LogitClipLoss(CE(), 1.0, **k), "one-hot"),
    "function": Case(lambda **k: LogitClipLoss(square, 1.0, **k), "one-hot"),
}


def scalar(loss, labels, **kwargs):
    labels = to_tensor(labels, labels.dtype.name)
    return lambda z: keras.ops.reshape(loss(labels, z, **kwargs), (1,))


def hidden_labels(case, label):
    if case.labels == "ids":
        return np.where(HIDDEN, label, IDS).astype("int32")
    return np.where(HIDDEN[:, None], np.float32("nan"), ONE_HOT)


def assert_hides(make_function, mode, labels=(-1,), cases=CASES):
    """Compares with only the samples that are kept."""
    functions = {
        f"{name}, {label}": make_function(case, label)
        for name, case in cases.items()
        for label in labels
    }
    alone = {
        f"{name}, {label}": scalar(
            case.make(reduction="sum"), hidden_labels(case, 255)[~HIDDEN]
        )
        for name, case in cases.items()
        for label in labels
    }
    expected = value_and_vjp_each(alone, Z[~HIDDEN], QUICKEST)
    for name, part in value_and_vjp_each(functions, wild(Z), mode).items():
        value, gradient = expected[name]
        np.testing.assert_allclose(part.value, value, 1e-5, err_msg=name)
        if gradient is not None:
            np.testing.assert_array_equal(part.gradient[HIDDEN], 0, name)
            kept = part.gradient[~HIDDEN]
            np.testing.assert_allclose(kept, gradient, 1e-5, 1e-6, err_msg=name)


def test_weights_of_zero(mode):
    weights = to_tensor(~HIDDEN)

    def weighted(case, label):
        loss, labels = case.make(reduction="sum"), hidden_labels(case, label)
        shape = (-1, 1) if label == -100 else (-1,)
        given = keras.ops.reshape(weights, shape)
        return scalar(loss, labels, sample_weight=given)

    labels = (-1, -100, 255) if mode == QUICKEST else (-1,)
    assert_hides(weighted, mode, labels)


@pytest.mark.skipif(not TAKES_MASKS, reason="this Keras has no masks on NumPy")
def test_masks(mode):
    mask = to_tensor(~HIDDEN, "bool")

    def masked(case, label):
        function = scalar(case.make(reduction="sum"), hidden_labels(case, label))

        def of_marked(z):
            z = z + 0  # A tensor of its own to mark.
            keras.src.backend.set_keras_mask(z, mask)
            return function(z)

        return of_marked

    assert_hides(masked, mode)


def test_ignore_class(mode):
    def ignoring(case, label):
        loss = case.make(reduction="sum", ignore_class=label)
        return scalar(loss, hidden_labels(case, label))

    of_ids = {name: case for name, case in CASES.items() if case.labels == "ids"}
    labels = (-1, 255) if mode == QUICKEST else (-1,)
    assert_hides(ignoring, mode, labels, of_ids)


@pytest.mark.skipif(not TAKES_MASKS, reason="this Keras has no masks on NumPy")
def test_each_way_hides_samples_of_its_own():
    ids, z, rows = IDS.copy(), wild(Z), np.arange(ROWS)
    ids[[1, 3, 4]], z[3] = (-1, 255, -1), np.nan
    z = to_tensor(z)
    keras.src.backend.set_keras_mask(z, to_tensor(rows != 1, "bool"))
    loss = LogitClipLoss(sparse(), 1.0, ignore_class=255, reduction="sum")
    value = loss(ids, z, (rows != 4).astype("float32"))
    kept = ~np.isin(rows, [1, 3, 4])
    expected = LogitClipLoss(sparse(), 1.0, reduction="sum")(IDS[kept], Z[kept])
    np.testing.assert_allclose(to_numpy(value), to_numpy(expected), 1e-6)


def test_values_of_what_is_ignored_are_zero_without_a_reduction():
    loss = LogitClipLoss(sparse(), 1.0, ignore_class=255)
    values = loss.call(hidden_labels(CASES["sparse"], 255), to_tensor(wild(Z)))
    np.testing.assert_array_equal(to_numpy(values) == 0, HIDDEN)


def test_the_mean_is_over_what_is_not_ignored():
    ids = hidden_labels(CASES["sparse"], 255)
    loss = LogitClipLoss(sparse(), 1.0, ignore_class=255)
    expected = to_numpy(LogitClipLoss(sparse(), 1.0)(IDS[~HIDDEN], Z[~HIDDEN]))
    np.testing.assert_allclose(to_numpy(loss(ids, wild(Z))), expected, 1e-6)


def test_a_class_of_the_model_can_be_ignored():
    ids = np.where(HIDDEN, 0, np.maximum(IDS, 1))
    loss = LogitClipLoss(sparse(), 1.0, ignore_class=0, reduction="sum")
    expected = LogitClipLoss(sparse(), 1.0, reduction="sum")(ids[~HIDDEN], Z[~HIDDEN])
    np.testing.assert_allclose(to_numpy(loss(ids, wild(Z))), to_numpy(expected), 1e-6)


def test_the_ignored_class_of_the_wrapped_loss_counts():
    ids = hidden_labels(CASES["sparse"], 255)
    values = {
        "outside": LogitClipLoss(sparse(), 1.0, ignore_class=255),
        "inside": LogitClipLoss(sparse(ignore_class=255), 1.0),
        "both": LogitClipLoss(CE(ignore_class=255), 1.0, ignore_class=255),
        "one of two": losses.ActivePassive(CE(ignore_class=255), sparse(), 0.0, 1.0),
    }
    results = {name: to_numpy(loss(ids, wild(Z))) for name, loss in values.items()}
    expected = to_numpy(LogitClipLoss(sparse(), 1.0)(IDS[~HIDDEN], Z[~HIDDEN]))
    plain = to_numpy(sparse()(IDS[~HIDDEN], Z[~HIDDEN]))
    np.testing.assert_allclose(results.pop("one of two"), plain, 1e-6)
    for name, value in results.items():
        np.testing.assert_allclose(value, expected, 1e-6, err_msg=name)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # NumPy.
def test_ids_of_small_integers_are_compared_as_numbers():
    """In int8, 255 would become -1."""
    ids = np.where(HIDDEN, -1, IDS).astype("int8")
    loss = LogitClipLoss(sparse(), 1.0, ignore_class=255)
    assert np.isnan(to_numpy(loss(ids, Z)))
    assert np.isfinite(to_numpy(LogitClipLoss(sparse(), 1.0, ignore_class=-1)(ids, Z)))


def test_weights_stay_as_they_are():
    weights = to_tensor(np.linspace(1, 2, ROWS))
    loss = LogitClipLoss(sparse(), 1.0, ignore_class=int(IDS[0]))
    values = [to_numpy(loss(IDS, Z, weights)) for _ in range(2)]
    assert values[0] == values[1]
    np.testing.assert_allclose(to_numpy(weights), np.linspace(1, 2, ROWS), 1e-6)


def test_sequences_of_one_token_take_weights_of_samples():
    loss = LogitClipLoss(sparse(), 1.0)
    weights = np.linspace(0, 1, ROWS, dtype="float32")
    value = loss(IDS[:, None], Z[:, None], weights)
    np.testing.assert_allclose(to_numpy(value), to_numpy(loss(IDS, Z, weights)), 1e-6)


def test_hidden_probabilities():
    """They are replaced by a distribution, because this loss of zeros is 0 / 0."""
    probabilities = np.exp(Z) / np.exp(Z).sum(-1, keepdims=True)
    loss = losses.NormalizedNegativeCrossEntropy(from_logits=False, reduction="sum")
    value = loss(IDS, wild(probabilities), (~HIDDEN).astype("float32"))
    expected = loss(IDS[~HIDDEN], probabilities[~HIDDEN])
    np.testing.assert_allclose(to_numpy(value), to_numpy(expected), 1e-5)


def test_segmentation_with_void_pixels_of_small_integers(mode):
    z = logits(2, 3, 4, CLASSES)
    ids = np.random.default_rng(0).integers(0, CLASSES, (2, 3, 4)).astype("uint8")
    ids[0, 1:] = 255
    loss = LogitClipLoss(GCE(), 1.0, ignore_class=255)
    labels = to_tensor(ids, "uint8")
    functions = {"void": lambda z: keras.ops.reshape(loss(labels, z), (1,))}
    part = value_and_vjp_each(functions, z, mode)["void"]
    kept = ids != 255
    expected = to_numpy(LogitClipLoss(GCE(), 1.0)(ids[kept], z[kept]))
    np.testing.assert_allclose(part.value, [expected], 1e-5)
    if part.gradient is not None:
        np.testing.assert_array_equal(part.gradient[~kept], 0)
        assert np.abs(part.gradient[kept]).max() > 0


@pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning")  # NumPy.
def test_nothing_counts():
    loss = LogitClipLoss(sparse(), 1.0, ignore_class=-1)
    assert to_numpy(loss(np.full(ROWS, -1), wild(Z))) == 0
    assert to_numpy(LogitClipLoss(CE(), 1.0)(IDS, wild(Z), np.zeros(ROWS))) == 0


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # NumPy.
def test_an_id_outside_of_the_classes_that_nothing_hides_gives_nan(mode):
    functions = {
        name: scalar(case.make(reduction="sum"), hidden_labels(case, CLASSES))
        for name, case in CASES.items()
        if case.labels == "ids"
    }
    for name, part in value_and_vjp_each(functions, Z, mode).items():
        assert np.isnan(part.value).all(), name
        if part.gradient is not None:
            assert np.isnan(part.gradient[HIDDEN]).any(-1).all(), name
            assert np.isfinite(part.gradient[~HIDDEN]).all(), name


@pytest.mark.once
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ignore_class": 1.5}, "`ignore_class`: expected a class id"),
        ({"ignore_class": "void"}, "`ignore_class`: expected a class id"),
    ],
    ids=str,
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        LogitClipLoss(sparse(), 1.0, **arguments)


@pytest.mark.once
def test_calls_that_cannot_be_right():
    with pytest.raises(ValueError, match="Expected class ids as labels"):
        LogitClipLoss("categorical_crossentropy", 1.0, ignore_class=0)(ONE_HOT, Z)
    with pytest.raises(ValueError, match="same `ignore_class`"):
        LogitClipLoss(sparse(ignore_class=1), 1.0, ignore_class=2)
    with pytest.raises(ValueError, match="`sample_weight`: expected a shape"):
        LogitClipLoss(sparse(), 1.0)(IDS, Z, np.ones(ROWS - 1))


@pytest.mark.once
def test_a_mean_over_all_samples_cannot_leave_any_out():
    loss = LogitClipLoss(lambda y, z: keras.ops.mean(square(y, z)), 1.0)
    assert np.isfinite(to_numpy(loss(ONE_HOT, Z)))
    with pytest.raises(ValueError, match="one value per sample"):
        loss(ONE_HOT, Z, (~HIDDEN).astype("float32"))


@pytest.mark.gradients
def test_padded_tokens_leave_the_weights_of_a_model_finite():
    model = keras.Sequential(
        [keras.layers.Embedding(5, 6, mask_zero=True), keras.layers.Dense(CLASSES)]
    )
    tokens = np.array([[1, 2, 0], [3, 0, 0]])
    labels = np.array([[1, 2, -1], [3, -100, -100]])
    model.compile("sgd", LogitClipLoss(sparse(), 1.0))
    history = model.fit(tokens, labels, epochs=2, verbose=0).history["loss"]
    assert history[1] < history[0]
    model.fit(tokens, labels, sample_weight=(tokens > 0) * 1.0, verbose=0)
    assert all(np.isfinite(weight).all() for weight in model.get_weights())
