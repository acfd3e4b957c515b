"""How `LogitClipLoss` checks, calls and saves the wrapped loss."""

import warnings

import keras
import numpy as np
import pytest

from keras_logitclip import LogitClip
from keras_logitclip import LogitClipLoss
from keras_logitclip import bounds
from keras_logitclip import losses
from keras_logitclip import ops
from tests import oracle
from tests.oracle import INF
from tests.running import to_numpy
from tests.running import to_tensor
from tests.samples import CLASSES
from tests.samples import ROWS
from tests.samples import logits
from tests.samples import some_labels

TAU = 1.5
LOGITS, IMAGES = logits(), logits(2, CLASSES, 3, 4)
IDS, ONE_HOT = some_labels("sparse")
IMAGE_LABELS = np.moveaxis(some_labels("one-hot", (2, 3, 4)).given, -1, 1)
MULTI_LABEL = np.random.default_rng(0).integers(0, 2, (ROWS, CLASSES))


@keras.saving.register_keras_serializable(package="tests")
def squared_margin(y_true, y_pred):
    return keras.ops.mean(keras.ops.square(y_true - y_pred), -1)


def absolute_error(y_true, y_pred):
    return keras.ops.mean(keras.ops.abs(y_true - y_pred), -1)


def sparse(**kwargs):
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True, **kwargs)


def categorical(**kwargs):
    return keras.losses.CategoricalCrossentropy(from_logits=True, **kwargs)


def sparse_function(y_true, y_pred):
    return keras.losses.sparse_categorical_crossentropy(y_true, y_pred, True)


# The default threshold, that of docs/choosing_tau.md.


@pytest.mark.once
def test_default_tau():
    given = LogitClipLoss("sparse_categorical_crossentropy", 1.5)
    value = LogitClipLoss("sparse_categorical_crossentropy")(IDS, LOGITS)
    np.testing.assert_array_equal(to_numpy(value), to_numpy(given(IDS, LOGITS)))
    clipped = to_numpy(LogitClip()(LOGITS, training=True))
    np.testing.assert_array_equal(clipped, to_numpy(ops.logit_clip(LOGITS, 1.5)))


# Activations.

ACTIVATIONS = {
    "softmax": (keras.losses.CategoricalCrossentropy(), ONE_HOT),
    "softmax-mae": (keras.losses.MeanAbsoluteError(), ONE_HOT),
    "softmax-kld": (keras.losses.KLDivergence(), some_labels("soft").given),
    "softmax-function": (keras.losses.categorical_crossentropy, ONE_HOT),
    "sigmoid": (keras.losses.BinaryCrossentropy(), MULTI_LABEL),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation_is_applied_to_the_clipped_logits(name):
    inner, labels = ACTIVATIONS[name]
    activation = name.split("-")[0]
    clipped = oracle.clip(LOGITS, TAU, 2)
    outputs = (
        np.exp(oracle.log_softmax(clipped))
        if activation == "softmax"
        else 1 / (1 + np.exp(-clipped))
    ).astype("float32")
    value = LogitClipLoss(inner, TAU, activation=activation)(labels, LOGITS)
    expected = keras.ops.mean(inner(labels, outputs))
    np.testing.assert_allclose(to_numpy(value), to_numpy(expected), rtol=1e-5)


def test_softmax_is_along_the_class_axis():
    of_probabilities, of_logits = (
        LogitClipLoss("categorical_crossentropy", TAU, axis=1, activation=activation)
        for activation in ("softmax", None)
    )
    np.testing.assert_allclose(
        to_numpy(of_probabilities(IMAGE_LABELS, IMAGES)),
        to_numpy(of_logits(IMAGE_LABELS, IMAGES)),
        rtol=1e-5,
    )


# Names.

NAMES = {
    "sparse_categorical_crossentropy": keras.losses.SparseCategoricalCrossentropy,
    "SparseCategoricalCrossentropy": keras.losses.SparseCategoricalCrossentropy,
    "categorical_crossentropy": keras.losses.CategoricalCrossentropy,
    "binary_crossentropy": keras.losses.BinaryCrossentropy,
    "bce": keras.losses.BinaryCrossentropy,
    "binary_focal_crossentropy": keras.losses.BinaryFocalCrossentropy,
    "categorical_focal_crossentropy": keras.losses.CategoricalFocalCrossentropy,
    "mse": keras.losses.MeanSquaredError,
    "MAE": keras.losses.MeanAbsoluteError,
    "huber": keras.losses.Huber,
    "log_cosh": keras.losses.LogCosh,
    "categorical_hinge": keras.losses.CategoricalHinge,
}


@pytest.mark.once
@pytest.mark.parametrize("name", NAMES)
def test_names_become_instances_that_take_logits(name):
    inner = LogitClipLoss(name, 1.0).loss
    assert type(inner) is NAMES[name]
    assert getattr(inner, "from_logits", True)


@pytest.mark.once
@pytest.mark.parametrize("name", ["kl_divergence", "kld", "poisson", "dice"])
def test_names_of_losses_on_probabilities_need_an_activation(name):
    with pytest.raises(ValueError, match="Expected a loss that takes logits"):
        LogitClipLoss(name, 1.0)
    assert LogitClipLoss(name, 1.0, activation="softmax").activation == "softmax"


@pytest.mark.once
def test_a_name_with_activation_becomes_an_instance_that_takes_probabilities():
    assert not LogitClipLoss("bce", 1.0, activation="sigmoid").loss.from_logits


@pytest.mark.once
@pytest.mark.parametrize("name", ["crossentropi", "Loss", "LossFunctionWrapper"])
def test_unknown_name_is_answered_with_the_known_ones(name):
    message = rf"one of \[.*'categorical_crossentropy'.*\]. Received: loss='{name}'"
    with pytest.raises(ValueError, match=message):
        LogitClipLoss(name, 1.0)


# Classes instead of instances.

LINES = {
    "keras": (keras.losses.MeanSquaredError, r"`MeanSquaredError\(\)`"),
    "logits": (
        keras.losses.CategoricalCrossentropy,
        r"`CategoricalCrossentropy\(from_logits=True\)`",
    ),
    "own": (losses.JensenShannon, r"`JensenShannon\(\)`"),
    "no-loss": (keras.layers.Dense, "expected a loss instance such as"),
}


@pytest.mark.once
@pytest.mark.parametrize(("loss", "line"), LINES.values(), ids=LINES)
def test_a_class_is_answered_with_what_makes_an_instance(loss, line):
    for wrap in (
        lambda: LogitClipLoss(loss, 1.0),
        lambda: losses.ActivePassive("mse", loss),
        lambda: bounds.loss_bounds(loss, 1.0, 10),
    ):
        with pytest.raises(ValueError, match=f"{line}.* Received: loss=<class"):
            wrap()


# Configuration.

CONFIGURED = {
    "sparse": LogitClipLoss(sparse(ignore_class=3), 0.5),
    "categorical": LogitClipLoss(categorical(label_smoothing=0.1), 2, p=INF),
    "no-clipping": LogitClipLoss(categorical(), INF, p=1.5, name="plain"),
    "activation": LogitClipLoss("kld", 1.0, axis=1, activation="softmax"),
    "reduction": LogitClipLoss("bce", 1.0, reduction="sum", dtype="float64"),
    "unreduced": LogitClipLoss("bce", 1.0, reduction=None, dtype="bfloat16"),
    "nested": LogitClipLoss(LogitClipLoss("mse", 3.0), 1.0),
    "function": LogitClipLoss(squared_margin, 1.0),
    "keras-function": LogitClipLoss(keras.losses.categorical_hinge, 1.0),
    "generalized-ce": LogitClipLoss(
        keras.losses.CategoricalGeneralizedCrossEntropy(q=0.7),
        1.0,
        activation="softmax",
    )
    if hasattr(keras.losses, "CategoricalGeneralizedCrossEntropy")
    else LogitClipLoss("mse", 1.0),
}


@pytest.mark.once
@pytest.mark.parametrize("loss", CONFIGURED.values(), ids=CONFIGURED)
def test_config_round_trip(loss):
    config = keras.saving.serialize_keras_object(loss)
    clone = keras.saving.deserialize_keras_object(config)
    assert type(clone) is LogitClipLoss
    assert clone.get_config() == loss.get_config()
    assert (clone.tau, clone.p, clone.axis) == (loss.tau, loss.p, loss.axis)
    assert (clone.reduction, clone.dtype) == (loss.reduction, loss.dtype)
    assert (clone.activation, clone.name) == (loss.activation, loss.name)
    assert type(clone.loss) is type(loss.loss)
    if not isinstance(loss.loss, keras.losses.Loss):
        assert clone.loss is loss.loss


def closure():
    def inside(y_true, y_pred):
        return keras.ops.mean(keras.ops.abs(y_true - y_pred), -1)

    return inside


@pytest.mark.gradients
@pytest.mark.parametrize(
    "function", [absolute_error, closure()], ids=("unregistered", "closure")
)
def test_models_with_functions_are_saved_as_keras_saves_them(function, tmp_path):
    """Keras also warns. A checkpoint never ends a training."""
    path = tmp_path / "model.keras"
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(CLASSES)])
    model.compile("sgd", LogitClipLoss(function, 1.0))
    checkpoint = keras.callbacks.ModelCheckpoint(path)
    x, y = np.ones((2, 8)), np.eye(CLASSES)[:2]
    with pytest.warns(UserWarning, match="saved only by name.*custom_objects"):
        model.fit(x, y, epochs=2, callbacks=[checkpoint], verbose=0)
    for arguments in (
        {"compile": False},
        {"custom_objects": {function.__name__: function}},
    ):
        loaded = keras.saving.load_model(path, **arguments)
        np.testing.assert_allclose(
            loaded.predict(x, verbose=0), model.predict(x, verbose=0), 1e-6
        )
    assert loaded.loss.loss is function


@pytest.mark.once
def test_a_function_is_warned_of_once():
    loss = LogitClipLoss(absolute_error, 1.0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(3):
            loss.get_config()
    assert len(caught) == 1


# Bad input. `tests.test_ops` has all bad values of `tau`, `p` and `axis`.

BAD_ARGUMENTS = {
    "tau": ({"tau": 0},),
    "p": ({"p": 0.5},),
    "axis": ({"axis": 1.5}, {"axis": (0, 1)}),
    "activation": ({"activation": "relu"}, {"activation": len}),
    "loss": ({"loss": None}, {"loss": 1}, {"loss": keras.losses.Huber}, {"loss": ""}),
    "reduction": ({"reduction": "average"},),
}


@pytest.mark.once
@pytest.mark.parametrize(
    ("name", "arguments"),
    [(name, case) for name, cases in BAD_ARGUMENTS.items() for case in cases],
    ids=str,
)
def test_bad_arguments(name, arguments):
    with pytest.raises(
        ValueError, match=rf"`{name}`[:.] [Ee]xpected .*Received:\s+{name}="
    ):
        LogitClipLoss(**{"loss": sparse(), "tau": 1.0, **arguments})


PROBABILITY_LOSSES = {
    "sparse": keras.losses.SparseCategoricalCrossentropy(),
    "categorical": keras.losses.CategoricalCrossentropy(),
    "binary": keras.losses.BinaryCrossentropy(),
    "kld": keras.losses.KLDivergence(),
    "dice": keras.losses.Dice(),
    "function": keras.losses.sparse_categorical_crossentropy,
    "kld-function": keras.losses.kl_divergence,
}


@pytest.mark.once
@pytest.mark.parametrize("loss", PROBABILITY_LOSSES.values(), ids=PROBABILITY_LOSSES)
def test_inner_losses_on_probabilities_name_both_ways_out(loss):
    with pytest.raises(ValueError, match="`from_logits=True`.*`activation=") as error:
        LogitClipLoss(loss, 1.0)
    assert "Received: a loss that takes probabilities, loss=" in str(error.value)


@pytest.mark.once
@pytest.mark.parametrize("loss", [sparse(), LogitClipLoss(sparse(), 1.0)], ids=str)
def test_inner_losses_on_logits_take_no_activation(loss):
    with pytest.raises(ValueError, match="`activation`: expected `None`"):
        LogitClipLoss(loss, 1.0, activation="softmax")


@pytest.mark.once
@pytest.mark.parametrize("reduction", ["sum", "none", None, "mean_with_sample_weight"])
def test_inner_reduction_would_be_ignored(reduction):
    with pytest.raises(ValueError, match="default `reduction`.*Received"):
        LogitClipLoss(sparse(reduction=reduction), 1.0)


@pytest.mark.once
def test_inner_dtype_would_be_ignored():
    with pytest.raises(ValueError, match="default `dtype`.*Received"):
        LogitClipLoss(sparse(dtype="float16"), 1.0)
    assert (
        LogitClipLoss(sparse(dtype="float16"), 1.0, dtype="float16").dtype == "float16"
    )


@pytest.mark.once
def test_inner_axis_has_to_agree():
    loss = LogitClipLoss(categorical(axis=1), 1.0)
    with pytest.raises(
        ValueError, match="same class axis .* Received: axis=3, loss.axis=1"
    ):
        loss(IMAGE_LABELS, IMAGES)


@pytest.mark.parametrize("loss", [sparse(), sparse_function], ids=("fused", "function"))
@pytest.mark.parametrize(("dtype", "limit"), [("bfloat16", 256), ("float16", 2048)])
def test_class_ids_in_half_precision(dtype, limit, loss):
    """Integers stay exact; what was rounded before is refused."""
    loss = LogitClipLoss(loss, 10.0, dtype=dtype)
    z = np.zeros((2, limit + 2), "float32")
    z[:, limit + 1] = 8  # Or one class would be as good as another.
    ids = np.array([0, limit + 1])
    expected = oracle.cross_entropy(ids, z).mean()
    for labels in (ids, ids[:, None]):
        np.testing.assert_allclose(to_numpy(loss(labels, z)), expected, rtol=3e-2)
        with pytest.raises(ValueError, match=f"more than {limit} classes"):
            loss(to_tensor(labels, dtype), z)


@pytest.mark.parametrize("kind", ["sparse", "column", "one-hot", "soft"])
def test_labels_of_a_kind_that_the_wrapped_loss_does_not_take(kind):
    labels = some_labels("sparse" if kind == "column" else kind).given
    inner, expected = sparse(), "class ids"
    if kind in ("sparse", "column"):
        inner, expected = categorical(), "one weight per class"
    if kind == "column":
        labels = labels[:, None]
    message = (
        f"Expected {expected}.*`SparseCategorical.* takes class ids.*Received: .*, "
    )
    with pytest.raises(ValueError, match=message):
        LogitClipLoss(inner, 1.0)(labels, logits())


@pytest.mark.parametrize("labels", [None, np.array(["cat", "dog"]), ["cat", "dog"]])
def test_labels_that_are_no_numbers(labels):
    z = np.zeros((2, 3), "float32")
    message = "Expected labels as numbers.*return_inverse=True.*Received"
    for loss in (LogitClipLoss(sparse(), 1.0), losses.GeneralizedCrossEntropy()):
        with pytest.raises(ValueError, match=message):
            loss(labels, z)
        with pytest.raises(ValueError, match=message):
            loss.call(labels, z)
    with pytest.raises(ValueError, match=message):
        ops.clipped_softmax_cross_entropy(labels, z, 1.0)


def test_one_hot_labels_fit_every_dtype():
    loss = LogitClipLoss(categorical(), 1.0, dtype="bfloat16")
    z = logits(2, 300)
    value = to_numpy(loss(np.eye(300)[[257, 299]], z))
    clipped = oracle.clip(z, 1.0, 2)
    expected = oracle.cross_entropy(np.array([257, 299]), clipped).mean()
    np.testing.assert_allclose(value, expected, rtol=2e-2)


@pytest.mark.once
@pytest.mark.parametrize("axis", [2, -3])
def test_axis_out_of_range(axis):
    with pytest.raises(ValueError, match=rf"logits of rank 2. Received: axis={axis}"):
        LogitClipLoss(sparse(), 1.0, axis=axis)(IDS, LOGITS)


@pytest.mark.once
def test_the_batch_axis_is_no_class_axis():
    with pytest.raises(ValueError, match="batch axis and a class axis"):
        LogitClipLoss("bce", 1.0)(MULTI_LABEL[:, 0], LOGITS[:, 0])


@pytest.mark.skipif(
    not hasattr(keras.losses, "CategoricalGeneralizedCrossEntropy"),
    reason="this Keras has no generalized cross-entropy",
)
@pytest.mark.parametrize("batch", [12, 10], ids=("any-batch", "batch-equals-classes"))
def test_losses_that_broadcast_labels_against_samples_are_refused(batch):
    loss = LogitClipLoss(
        keras.losses.CategoricalGeneralizedCrossEntropy(), 1.0, activation="softmax"
    )
    z, labels = logits(batch, CLASSES), some_labels("sparse", (batch,)).given
    assert np.isfinite(to_numpy(loss(labels, z)))
    with pytest.raises(ValueError, match="one value per sample"):
        loss(labels[:, None], z)
