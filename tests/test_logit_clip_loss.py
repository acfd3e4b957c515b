from collections import namedtuple
from functools import partial

import keras
import numpy as np
import pytest

from keras_logitclip import LogitClip
from keras_logitclip import LogitClipLoss
from keras_logitclip import ops
from tests import oracle
from tests.conftest import BACKEND
from tests.oracle import assert_rows_close
from tests.running import apply
from tests.running import to_numpy
from tests.running import to_tensor
from tests.running import value_and_vjp

TAU = 1.5
INF = float("inf")
rng = np.random.default_rng(0)
LABELS = rng.integers(0, 10, 12)
LOGITS = 3 * rng.normal(size=(12, 10)).astype("float32")
SEQUENCE_LABELS = rng.integers(0, 10, (12, 4))
SEQUENCE_LOGITS = 3 * rng.normal(size=(12, 4, 10)).astype("float32")
IMAGE_LOGITS = 3 * rng.normal(size=(2, 10, 3, 4)).astype("float32")
WEIGHTS = rng.uniform(0.1, 2, 12).astype("float32")
SOFT = rng.dirichlet(np.ones(10), 12).astype("float32")
MULTI_LABEL = rng.integers(0, 2, (12, 10)).astype("float32")
ONE_HOT = np.eye(10, dtype="float32")


@keras.saving.register_keras_serializable(package="tests")
def squared_margin(y_true, y_pred):
    return keras.ops.mean(keras.ops.square(y_true - y_pred), -1)


def absolute_error(y_true, y_pred):
    return keras.ops.mean(keras.ops.abs(y_true - y_pred), -1)


def sparse_function(y_true, y_pred, from_logits=True):
    return keras.losses.sparse_categorical_crossentropy(y_true, y_pred, from_logits)


def focal(**kwargs):
    return keras.losses.CategoricalFocalCrossentropy(from_logits=True, **kwargs)


def sparse(**kwargs):
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True, **kwargs)


def categorical(**kwargs):
    return keras.losses.CategoricalCrossentropy(from_logits=True, **kwargs)


def binary(**kwargs):
    return keras.losses.BinaryCrossentropy(from_logits=True, **kwargs)


Case = namedtuple("Case", "loss labels logits axis", defaults=(LOGITS, -1))
CASES = {
    "sparse": Case(sparse(), LABELS),
    "sparse-column": Case(sparse(), LABELS[:, None]),
    "sparse-ignore-class": Case(sparse(ignore_class=3), LABELS),
    "sparse-ignore-minus-1": Case(
        sparse(ignore_class=-1), np.where(LABELS < 3, -1, LABELS)
    ),
    "sparse-sequence": Case(sparse(), SEQUENCE_LABELS, SEQUENCE_LOGITS),
    "one-hot": Case(categorical(), ONE_HOT[LABELS]),
    "label-smoothing": Case(categorical(label_smoothing=0.1), ONE_HOT[LABELS]),
    "soft": Case(categorical(), SOFT),
    "one-hot-sequence": Case(categorical(), ONE_HOT[SEQUENCE_LABELS], SEQUENCE_LOGITS),
    "channels-first": Case(
        categorical(axis=1),
        np.moveaxis(ONE_HOT[rng.integers(0, 10, (2, 3, 4))], -1, 1),
        IMAGE_LOGITS,
        1,
    ),
    "multi-label": Case(binary(), MULTI_LABEL),
    "multi-label-smoothing": Case(binary(label_smoothing=0.2), MULTI_LABEL),
    "binary": Case(binary(), MULTI_LABEL[:, :1], LOGITS[:, :1]),
    "binary-flat-labels": Case(binary(), MULTI_LABEL[:, 0], LOGITS[:, :1]),
    "binary-focal": Case(
        keras.losses.BinaryFocalCrossentropy(from_logits=True), MULTI_LABEL
    ),
    "focal": Case(focal(gamma=1.0), ONE_HOT[LABELS]),
    "hinge": Case(keras.losses.CategoricalHinge(), ONE_HOT[LABELS]),
    "function": Case(squared_margin, ONE_HOT[LABELS]),
    "keras-function": Case(keras.losses.categorical_hinge, ONE_HOT[LABELS]),
    "function-flat-labels": Case(squared_margin, MULTI_LABEL[:, 0], LOGITS[:, :1]),
    "function-column-labels": Case(sparse_function, LABELS[:, None]),
    "partial": Case(
        partial(keras.losses.categorical_crossentropy, from_logits=True), SOFT
    ),
}
REDUCTIONS = (
    "sum_over_batch_size",
    "sum",
    "mean",
    "mean_with_sample_weight",
    "none",
    None,
)


def clip_then_loss(case, reduction, sample_weight, p=2):
    """What the wrapper stands for, with a Keras loss that reduces by itself."""
    clipped = oracle.clip(case.logits, TAU, p, case.axis).astype("float32")
    if isinstance(case.loss, keras.losses.Loss):
        config = {**case.loss.get_config(), "reduction": reduction}
        loss = type(case.loss).from_config(config)
    else:
        from keras.src.losses.losses import LossFunctionWrapper

        loss = LossFunctionWrapper(case.loss, reduction=reduction)
    return to_numpy(loss(case.labels, clipped, sample_weight=sample_weight))


def per_sample_weights(case):
    """One weight for each loss value: `WEIGHTS`, repeated over other axes."""
    shape = np.delete(case.logits.shape, case.axis)
    weights = WEIGHTS[: shape[0]].reshape(-1, *[1] * (len(shape) - 1))
    return np.broadcast_to(weights, shape)


@pytest.mark.parametrize("weighted", [False, True], ids=("unweighted", "weighted"))
@pytest.mark.parametrize("reduction", REDUCTIONS, ids=str)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_value_equals_clip_then_loss(case, reduction, weighted):
    sample_weight = per_sample_weights(case) if weighted else None
    loss = LogitClipLoss(case.loss, TAU, axis=case.axis, reduction=reduction)
    value = to_numpy(loss(case.labels, case.logits, sample_weight=sample_weight))
    expected = clip_then_loss(case, reduction, sample_weight)
    assert value.shape == expected.shape
    np.testing.assert_allclose(value, expected, rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("p", [1, 2, 3, INF])
def test_value_equals_the_oracle(p, run):
    mode, dtype = run
    loss = LogitClipLoss(sparse(), TAU, p=p, reduction="none", dtype=dtype)
    labels = to_tensor(LABELS, "int32")
    values = apply(lambda z: loss(labels, z), LOGITS, mode, dtype)
    expected = oracle.cross_entropy(LABELS, oracle.clip(LOGITS, TAU, p))
    rtol = {"float64": 1e-6, "float32": 1e-6, "float16": 2e-3, "bfloat16": 2e-2}[dtype]
    np.testing.assert_allclose(values, expected, rtol=rtol)


@pytest.mark.gradients
@pytest.mark.parametrize("p", [1, 2, 3, INF])
@pytest.mark.parametrize("labels", [LABELS, ONE_HOT[LABELS]], ids=("sparse", "one-hot"))
def test_gradient_equals_the_oracle(labels, p, mode):
    inner = sparse() if labels.ndim == 1 else categorical()
    loss = LogitClipLoss(inner, TAU, p=p, reduction="sum")
    targets = to_tensor(labels)
    _, gradient = value_and_vjp(lambda z: loss(targets, z), LOGITS, np.ones(()), mode)
    clipped = oracle.clip(LOGITS, TAU, p)
    expected = oracle.clip_vjp(
        LOGITS, oracle.cross_entropy_gradient(LABELS, clipped), TAU, p
    )
    assert_rows_close(gradient, expected, 2e-6)


def test_infinite_tau_is_the_plain_loss():
    loss = LogitClipLoss(sparse(), INF)
    np.testing.assert_array_equal(
        to_numpy(loss(LABELS, LOGITS)), to_numpy(sparse()(LABELS, LOGITS))
    )


def test_nesting():
    nested = LogitClipLoss(LogitClipLoss(sparse(), 3.0, p=INF), 1.0)
    clipped = oracle.clip(oracle.clip(LOGITS, 1.0, 2), 3.0, INF)
    np.testing.assert_allclose(
        to_numpy(nested(LABELS, LOGITS)),
        oracle.cross_entropy(LABELS, clipped).mean(),
        rtol=1e-6,
    )


# Activations.

ACTIVATIONS = {
    "softmax": (keras.losses.CategoricalCrossentropy(), ONE_HOT[LABELS]),
    "softmax-mae": (keras.losses.MeanAbsoluteError(), ONE_HOT[LABELS]),
    "softmax-kld": (keras.losses.KLDivergence(), SOFT),
    "softmax-function": (keras.losses.categorical_crossentropy, ONE_HOT[LABELS]),
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
    labels = np.moveaxis(ONE_HOT[np.zeros((2, 3, 4), int)], -1, 1)
    probabilities = LogitClipLoss(
        "categorical_crossentropy", TAU, axis=1, activation="softmax"
    )
    logits = LogitClipLoss("categorical_crossentropy", TAU, axis=1)
    np.testing.assert_allclose(
        to_numpy(probabilities(labels, IMAGE_LOGITS)),
        to_numpy(logits(labels, IMAGE_LOGITS)),
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


@pytest.mark.parametrize("name", NAMES)
def test_names_become_instances_that_take_logits(name):
    inner = LogitClipLoss(name, 1.0).loss
    assert type(inner) is NAMES[name]
    assert getattr(inner, "from_logits", True)


@pytest.mark.parametrize("name", ["kl_divergence", "kld", "poisson", "dice"])
def test_names_of_losses_on_probabilities_need_an_activation(name):
    with pytest.raises(ValueError, match="Expected a loss that takes logits"):
        LogitClipLoss(name, 1.0)
    assert LogitClipLoss(name, 1.0, activation="softmax").activation == "softmax"


def test_a_name_with_activation_becomes_an_instance_that_takes_probabilities():
    assert not LogitClipLoss("bce", 1.0, activation="sigmoid").loss.from_logits


@pytest.mark.parametrize("name", ["crossentropi", "Loss", "LossFunctionWrapper"])
def test_unknown_name_is_answered_with_the_known_ones(name):
    message = rf"one of \[.*'categorical_crossentropy'.*\]. Received: loss='{name}'"
    with pytest.raises(ValueError, match=message):
        LogitClipLoss(name, 1.0)


# In a model.


def build_model(*last, activation=None, seed=0):
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((8,)),
            keras.layers.Dense(16, "relu"),
            keras.layers.Dense(10, activation),
            *last,
        ]
    )


INPUTS = rng.normal(size=(12, 8)).astype("float32")

# How `compile` runs the training step: Keras leaves torch.compile out of it.
STEPS = {"eager": {"run_eagerly": True}, "graph": {"jit_compile": False}}
if BACKEND in ("tensorflow", "jax"):
    STEPS["compiled"] = {"jit_compile": True}


@pytest.mark.gradients
@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_training_with_the_loss_equals_training_with_the_layer(step):
    histories = []
    for last, loss in (
        ((), LogitClipLoss(sparse(), 0.7)),
        ((LogitClip(0.7),), sparse()),
    ):
        model = build_model(*last)
        model.compile(keras.optimizers.SGD(0.5), loss, **step)
        history = model.fit(INPUTS, LABELS, 5, epochs=5, verbose=0, shuffle=False)
        histories.append(history.history["loss"])
    assert histories[0][-1] < histories[0][0]
    np.testing.assert_allclose(histories[0], histories[1], rtol=1e-5)


@pytest.mark.gradients
def test_class_weights():
    class_weight = {k: 0.1 * (k + 1) for k in range(10)}
    model = build_model()
    clipped = oracle.clip(model.predict(INPUTS, verbose=0), 0.3, 2)
    weights = np.array([class_weight[k] for k in LABELS])
    expected = (weights * oracle.cross_entropy(LABELS, clipped)).mean()
    model.compile("sgd", LogitClipLoss(sparse(), 0.3))
    value = model.train_on_batch(INPUTS, LABELS, class_weight=class_weight)
    np.testing.assert_allclose(value, expected, rtol=1e-5)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("ignore_class", [None, 3])
def test_masks(ignore_class, weighted):
    tokens = np.tile([[1, 2, 3, 0], [2, 1, 0, 0], [1, 1, 1, 1]], (4, 1))
    weights = np.resize(WEIGHTS, tokens.shape) if weighted else np.ones(tokens.shape)
    model = keras.Sequential(
        [keras.layers.Embedding(5, 6, mask_zero=True), keras.layers.Dense(10)]
    )
    clipped = oracle.clip(model.predict(tokens, verbose=0), 0.05, 2)
    kept = (tokens != 0) & (ignore_class != SEQUENCE_LABELS)
    losses = weights * oracle.cross_entropy(SEQUENCE_LABELS, clipped)
    model.compile(loss=LogitClipLoss(sparse(ignore_class=ignore_class), 0.05))
    value = model.evaluate(
        tokens, SEQUENCE_LABELS, sample_weight=weights if weighted else None,
        verbose=0, batch_size=12,
    )  # fmt: skip
    np.testing.assert_allclose(value, losses[kept].sum() / kept.sum(), rtol=1e-5)


@pytest.mark.gradients
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision(policy):
    keras.config.set_dtype_policy(policy)
    model = build_model()
    model.compile(keras.optimizers.SGD(0.5), LogitClipLoss(sparse(), 1.0))
    history = model.fit(INPUTS, LABELS, epochs=20, verbose=0).history["loss"]
    assert np.isfinite(history).all()
    assert history[-1] < history[0]


@pytest.mark.gradients
@pytest.mark.parametrize("labels", ["sparse", "one-hot"])
@pytest.mark.parametrize("place", ["loss", "layer", "both"])
def test_compiled_model_is_saved_and_reloaded_in_safe_mode(place, labels, tmp_path):
    inner = sparse() if labels == "sparse" else categorical(label_smoothing=0.1)
    targets = LABELS if labels == "sparse" else ONE_HOT[LABELS]
    loss = inner if place == "layer" else LogitClipLoss(inner, 0.7, p=INF)
    model = build_model(*(() if place == "loss" else (LogitClip(0.5),)))
    model.compile("sgd", loss, metrics=["accuracy"])
    model.fit(INPUTS, targets, verbose=0)
    model.save(tmp_path / "model.keras")
    reloaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    assert type(reloaded.loss) is type(loss)
    assert reloaded.loss.get_config() == loss.get_config()
    np.testing.assert_allclose(
        reloaded.evaluate(INPUTS, targets, verbose=0),
        model.evaluate(INPUTS, targets, verbose=0),
        rtol=1e-6,
    )
    reloaded.fit(INPUTS, targets, verbose=0)


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


@pytest.mark.parametrize(
    "function", [absolute_error, lambda y_true, y_pred: y_pred], ids=("named", "lambda")
)
def test_unregistered_functions_cannot_be_saved(function, tmp_path):
    loss = LogitClipLoss(function, 1.0)
    with pytest.raises(
        ValueError, match="register_keras_serializable.*Received: loss="
    ):
        loss.get_config()
    model = build_model()
    model.compile("sgd", loss)
    with pytest.raises(
        ValueError, match="register_keras_serializable.*Received: loss="
    ):
        model.save(tmp_path / "model.keras")


# Bad input.

BAD_ARGUMENTS = {
    "tau": (
        {"tau": 0},
        {"tau": -1},
        {"tau": float("nan")},
        {"tau": True},
        {"tau": "1"},
    ),
    "p": ({"p": 0.5}, {"p": float("nan")}),
    "axis": ({"axis": 1.5}, {"axis": (0, 1)}),
    "activation": ({"activation": "relu"}, {"activation": len}),
    "loss": ({"loss": None}, {"loss": 1}, {"loss": keras.losses.Huber}, {"loss": ""}),
    "reduction": ({"reduction": "average"},),
}


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


@pytest.mark.parametrize("loss", PROBABILITY_LOSSES.values(), ids=PROBABILITY_LOSSES)
def test_inner_losses_on_probabilities_name_both_ways_out(loss):
    with pytest.raises(ValueError, match="`from_logits=True`.*`activation=") as error:
        LogitClipLoss(loss, 1.0)
    assert "Received one that takes probabilities: loss=" in str(error.value)


@pytest.mark.parametrize("loss", [sparse(), LogitClipLoss(sparse(), 1.0)], ids=str)
def test_inner_losses_on_logits_take_no_activation(loss):
    with pytest.raises(ValueError, match="`activation`: expected `None`"):
        LogitClipLoss(loss, 1.0, activation="softmax")


@pytest.mark.parametrize("reduction", ["sum", "none", None, "mean_with_sample_weight"])
def test_inner_reduction_would_be_ignored(reduction):
    with pytest.raises(ValueError, match="`reduction` of its own.*Received"):
        LogitClipLoss(sparse(reduction=reduction), 1.0)


def test_inner_dtype_would_be_ignored():
    with pytest.raises(ValueError, match="`dtype` of its own.*Received"):
        LogitClipLoss(sparse(dtype="float16"), 1.0)
    assert (
        LogitClipLoss(sparse(dtype="float16"), 1.0, dtype="float16").dtype == "float16"
    )


def test_inner_axis_has_to_agree():
    loss = LogitClipLoss(categorical(axis=1), 1.0)
    labels = np.moveaxis(ONE_HOT[np.zeros((2, 3, 4), int)], -1, 1)
    with pytest.raises(
        ValueError, match="same class axis. Received: axis=-1, loss.axis=1"
    ):
        loss(labels, IMAGE_LOGITS)


@pytest.mark.parametrize(("dtype", "limit"), [("bfloat16", 256), ("float16", 2048)])
def test_class_ids_that_the_dtype_cannot_hold(dtype, limit):
    loss = LogitClipLoss(sparse(), 1.0, dtype=dtype)
    z = np.zeros((2, limit + 1), "float32")
    for labels in (np.array([0, limit]), np.array([[0], [limit]])):
        with pytest.raises(ValueError, match=f"more than {limit} classes"):
            loss(labels, z)
    assert np.isfinite(to_numpy(loss(np.array([0, limit - 1]), z[:, :limit])))


def test_one_hot_labels_fit_every_dtype():
    loss = LogitClipLoss(categorical(), 1.0, dtype="bfloat16")
    z = np.random.default_rng(0).normal(size=(2, 300)).astype("float32")
    value = to_numpy(loss(np.eye(300)[[257, 299]], z))
    clipped = oracle.clip(z, 1.0, 2)
    expected = oracle.cross_entropy(np.array([257, 299]), clipped).mean()
    np.testing.assert_allclose(value, expected, rtol=2e-2)


@pytest.mark.parametrize("axis", [2, -3])
def test_axis_out_of_range(axis):
    with pytest.raises(ValueError, match=rf"logits of rank 2. Received: axis={axis}"):
        LogitClipLoss(sparse(), 1.0, axis=axis)(LABELS, LOGITS)


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
    assert np.isfinite(to_numpy(loss(LABELS[:batch], LOGITS[:batch])))
    with pytest.raises(ValueError, match="one value per sample"):
        loss(LABELS[:batch, None], LOGITS[:batch])


@pytest.mark.gradients
def test_a_model_that_returns_probabilities_is_refused_where_keras_marks_them():
    model = build_model(activation="softmax")
    model.compile("sgd", LogitClipLoss(sparse(), 1.0))
    if BACKEND == "jax":  # Whose tensors take no attributes.
        model.fit(INPUTS, LABELS, verbose=0)
        return
    with pytest.raises(ValueError, match="Expected logits. Received: probabilities"):
        model.fit(INPUTS, LABELS, verbose=0)


def test_integer_logits_are_cast_like_in_every_keras_loss():
    loss = LogitClipLoss(sparse(), 1.0)
    np.testing.assert_array_equal(
        to_numpy(loss(LABELS, np.ones((12, 10), "int32"))),
        to_numpy(loss(LABELS, to_tensor(np.ones((12, 10))))),
    )


def test_the_loss_leaves_the_logits_as_they_are():
    z = to_tensor(LOGITS)
    LogitClipLoss(sparse(), 0.1)(LABELS, z)
    np.testing.assert_array_equal(to_numpy(z), LOGITS)
    assert to_numpy(ops.logit_norm(z)).max() > 0.1
