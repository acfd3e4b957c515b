from collections import namedtuple
from functools import partial

import keras
import numpy as np
import pytest

from keras_logitclip import LogitClip
from keras_logitclip import LogitClipLoss
from keras_logitclip import losses
from keras_logitclip import ops
from tests import oracle
from tests.conftest import BACKEND
from tests.oracle import INF
from tests.oracle import assert_rows_close
from tests.running import TAKES_MASKS
from tests.running import double_precision
from tests.running import to_numpy
from tests.running import to_tensor
from tests.running import value_and_vjp_each
from tests.samples import CLASSES
from tests.samples import ROWS
from tests.samples import logits
from tests.samples import some_labels

TAU = 1.5
LOGITS = logits()
SEQUENCES = logits(3, 2, CLASSES)
IMAGES = logits(2, CLASSES, 3, 4)
IDS, ONE_HOT = some_labels("sparse")
COLUMN = some_labels("column").given
SOFT = some_labels("soft").given
SEQUENCE_IDS, SEQUENCE_ONE_HOT = some_labels("sparse", (3, 2))
IMAGE_LABELS = np.moveaxis(some_labels("soft", (2, 3, 4)).given, -1, 1)
rng = np.random.default_rng(0)
WEIGHTS = rng.uniform(0.1, 2, ROWS).astype("float32")
MULTI_LABEL = rng.integers(0, 2, (ROWS, CLASSES)).astype("float32")


def mean_square(y_true, y_pred):
    return keras.ops.mean(keras.ops.square(y_true - y_pred), -1)


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


class HalvedCrossentropy(keras.losses.SparseCategoricalCrossentropy):
    def call(self, y_true, y_pred):
        return super().call(y_true, y_pred) / 2


# One loss of every kind, and all reductions for two of them.

Case = namedtuple("Case", "loss labels logits kwargs", defaults=(LOGITS, {}))
CASES = {
    "sparse": Case(sparse(), IDS),
    "sparse-column": Case(sparse(), COLUMN),
    "sparse-ignore-class": Case(sparse(ignore_class=IDS[0]), IDS),
    "sparse-ignore-minus-1": Case(
        sparse(ignore_class=-1), np.where(np.arange(ROWS) < 2, -1, IDS)
    ),
    "sparse-sequence": Case(sparse(), SEQUENCE_IDS, SEQUENCES),
    "one-hot": Case(categorical(), ONE_HOT),
    "label-smoothing": Case(categorical(label_smoothing=0.1), ONE_HOT),
    "soft": Case(categorical(), SOFT),
    "one-hot-sequence": Case(categorical(), SEQUENCE_ONE_HOT, SEQUENCES),
    "channels-first": Case(categorical(axis=1), IMAGE_LABELS, IMAGES, {"axis": 1}),
    # Keras's smoothing divides by the size of the last axis, which is kept.
    "smoothing-channels-first": Case(
        categorical(axis=1, label_smoothing=0.1), IMAGE_LABELS, IMAGES, {"axis": 1}
    ),
    "order-3": Case(sparse(), IDS, LOGITS, {"p": 3}),
    "tiny-tau": Case(sparse(), IDS, LOGITS, {"tau": 1e-9}),
    "no-clipping": Case(sparse(), IDS, LOGITS, {"tau": INF}),
    "subclass": Case(HalvedCrossentropy(from_logits=True), IDS),
    "multi-label": Case(binary(), MULTI_LABEL),
    "multi-label-smoothing": Case(binary(label_smoothing=0.2), MULTI_LABEL),
    "binary": Case(binary(), MULTI_LABEL[:, :1], LOGITS[:, :1]),
    "binary-flat-labels": Case(binary(), MULTI_LABEL[:, 0], LOGITS[:, :1]),
    "binary-focal": Case(
        keras.losses.BinaryFocalCrossentropy(from_logits=True), MULTI_LABEL
    ),
    "focal": Case(focal(gamma=1.0), ONE_HOT),
    "hinge": Case(keras.losses.CategoricalHinge(), ONE_HOT),
    "function": Case(mean_square, ONE_HOT),
    "keras-function": Case(keras.losses.categorical_hinge, ONE_HOT),
    "function-flat-labels": Case(mean_square, MULTI_LABEL[:, 0], LOGITS[:, :1]),
    "function-column-labels": Case(sparse_function, COLUMN),
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


def clip_then_loss(case, reduction, sample_weight):
    """Computes the expected value with a Keras loss that reduces by itself."""
    arguments = {"tau": TAU, "p": 2, "axis": -1, **case.kwargs}
    clipped = oracle.clip(case.logits, **arguments).astype("float32")
    if isinstance(case.loss, keras.losses.Loss):
        config = {**case.loss.get_config(), "reduction": reduction}
        loss = type(case.loss).from_config(config)
    else:
        from keras.src.losses.losses import LossFunctionWrapper

        loss = LossFunctionWrapper(case.loss, reduction=reduction)
    return to_numpy(loss(case.labels, clipped, sample_weight=sample_weight))


def per_sample_weights(case):
    """One weight for each loss value: `WEIGHTS`, repeated over other axes."""
    shape = np.delete(case.logits.shape, case.kwargs.get("axis", -1))
    weights = WEIGHTS[: shape[0]].reshape(-1, *[1] * (len(shape) - 1))
    return np.broadcast_to(weights, shape)


def assert_equals_clip_then_loss(case, reduction, weighted):
    sample_weight = per_sample_weights(case) if weighted else None
    arguments = {"tau": TAU, "reduction": reduction, **case.kwargs}
    loss = LogitClipLoss(case.loss, **arguments)
    value = to_numpy(loss(case.labels, case.logits, sample_weight=sample_weight))
    expected = clip_then_loss(case, reduction, sample_weight)
    assert value.shape == expected.shape
    np.testing.assert_allclose(value, expected, rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_value_equals_clip_then_loss(case):
    assert_equals_clip_then_loss(case, "none", weighted=True)


@pytest.mark.parametrize("weighted", [False, True], ids=("unweighted", "weighted"))
@pytest.mark.parametrize("reduction", REDUCTIONS, ids=str)
@pytest.mark.parametrize("name", ["sparse-ignore-class", "one-hot-sequence"])
def test_reductions_and_weights(name, reduction, weighted):
    assert_equals_clip_then_loss(CASES[name], reduction, weighted)


@pytest.mark.skipif(BACKEND == "openvino", reason="aborts on empty tensors")
@pytest.mark.parametrize("reduction", REDUCTIONS, ids=str)
def test_an_empty_batch_is_reduced_as_by_keras(reduction):
    inner = keras.losses.SparseCategoricalCrossentropy
    batch = np.zeros(0, "int32"), np.zeros((0, 3), "float32")
    expected = to_numpy(inner(from_logits=True, reduction=reduction)(*batch))
    found = to_numpy(LogitClipLoss(sparse(), TAU, reduction=reduction)(*batch))
    assert found.shape == expected.shape
    np.testing.assert_array_equal(found, expected)


def test_value_and_gradient_equal_the_oracle(run):
    mode, dtype = run
    cases = {
        f"p={p}, {name}": (p, inner, labels)
        for p in ((1, 2, 3, INF) if mode == "eager" else (2,))
        for name, inner, labels in (
            ("sparse", sparse(), IDS),
            ("one-hot", categorical(), ONE_HOT),
        )
    }
    functions = {
        name: partial(LogitClipLoss(inner, TAU, p=p, reduction="none", dtype=dtype),
                      to_tensor(labels, labels.dtype.name))
        for name, (p, inner, labels) in cases.items()
    }  # fmt: skip
    parts = value_and_vjp_each(functions, LOGITS, mode, dtype)
    rtol = {"float64": 1e-6, "float32": 1e-6, "float16": 2e-3, "bfloat16": 2e-2}[dtype]
    for name, (values, gradient) in parts.items():
        p = cases[name][0]
        clipped = oracle.clip(LOGITS, TAU, p)
        expected = oracle.cross_entropy(IDS, clipped)
        assert values.dtype == ("float32" if dtype == "bfloat16" else dtype)
        np.testing.assert_allclose(values, expected, rtol, err_msg=name)
        if gradient is not None:
            to_clipped = oracle.cross_entropy_gradient(IDS, clipped)
            expected = oracle.clip_vjp(LOGITS, to_clipped, TAU, p)
            assert_rows_close(gradient, expected, 2 * rtol, name=name)


class WithCall(LogitClipLoss):
    def call(self, y_true, y_pred):
        return keras.losses.categorical_crossentropy(y_true, y_pred, from_logits=True)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_computed_in_float32(dtype):
    """Also where the wrapped loss is called, which would compute in half precision."""
    half = to_numpy(to_tensor(LOGITS, dtype)).astype("float32")
    clip = partial(LogitClipLoss, tau=TAU, reduction=None)
    cases = {
        "sparse": (clip(sparse()), IDS),
        "normalized": (clip(sparse(), normalize_gradient=True), IDS),
        "soft": (clip(categorical()), SOFT),
        "soft, p=3": (clip(losses.CrossEntropy(), p=3), SOFT),
        "smoothed": (clip(categorical(label_smoothing=0.1)), ONE_HOT),
        "focal": (clip(focal()), ONE_HOT),
        "GCE": (clip(losses.GeneralizedCrossEntropy()), SOFT),
        "softmax": (clip("mse", activation="softmax"), SOFT),
        "function": (clip(mean_square), SOFT),
        "subclass": (WithCall(sparse(), TAU, reduction=None), SOFT),
    }
    functions = {name: partial(loss, to_tensor(labels, labels.dtype.name))
                 for name, (loss, labels) in cases.items()}  # fmt: skip
    found = value_and_vjp_each(functions, half, "eager", dtype)
    expected = value_and_vjp_each(functions, half, "eager", "float32")
    rtol = {"float16": 1e-3, "bfloat16": 8e-3}[dtype]
    for name, (value, gradient) in found.items():
        assert value.dtype == "float32"
        np.testing.assert_allclose(value, expected[name].value, 1e-6, err_msg=name)
        if gradient is not None:
            assert_rows_close(gradient, expected[name].gradient, rtol, name=name)


@pytest.mark.gradients
def test_float64_stays_inside_another_loss():
    """Whatever the dtype of the inner loss."""
    inner = LogitClipLoss(losses.GeneralizedCrossEntropy(), TAU)
    loss = losses.NormPenalty(inner, 0.1, dtype="float64", reduction=None)
    z = LOGITS.astype("float64")
    with double_precision("float64"):
        values = to_numpy(loss(to_tensor(ONE_HOT, "float64"), to_tensor(z, "float64")))
    label = np.exp(-oracle.cross_entropy(IDS, oracle.clip(z, TAU, 2)))
    q, penalty = inner.loss.q, 0.1 * oracle.norm(z, 2).ravel()
    np.testing.assert_allclose(values, (1 - label**q) / q + penalty, 1e-12)


def test_infinite_tau_is_the_plain_loss():
    loss = LogitClipLoss(sparse(), INF)
    np.testing.assert_array_equal(
        to_numpy(loss(IDS, LOGITS)), to_numpy(sparse()(IDS, LOGITS))
    )


def test_nesting():
    nested = LogitClipLoss(LogitClipLoss(sparse(), 3.0, p=INF), 1.0)
    clipped = oracle.clip(oracle.clip(LOGITS, 1.0, 2), 3.0, INF)
    np.testing.assert_allclose(
        to_numpy(nested(IDS, LOGITS)),
        oracle.cross_entropy(IDS, clipped).mean(),
        rtol=1e-6,
    )


# Cross-entropies may be computed together with the clipping.


class PlainSparse(keras.losses.SparseCategoricalCrossentropy):
    """Of a type that the library cannot know."""


class PlainCategorical(keras.losses.CategoricalCrossentropy):
    """Likewise."""


def plain(loss):
    if isinstance(loss, losses.CrossEntropy):
        return PlainSparse(from_logits=True)
    kind = {
        keras.losses.SparseCategoricalCrossentropy: PlainSparse,
        keras.losses.CategoricalCrossentropy: PlainCategorical,
    }[type(loss)]
    return kind.from_config(loss.get_config())


STACKED, STACKED_LABELS = (np.stack([x, x[::-1]], -1) for x in (LOGITS, SOFT))
FUSED = {
    "sparse": Case(sparse(), IDS),
    "column": Case(sparse(), COLUMN),
    "tokens": Case(sparse(), IDS.reshape(3, 2), LOGITS.reshape(3, 2, CLASSES)),
    "ignore-class": Case(sparse(ignore_class=IDS[0]), IDS),
    "categorical": Case(categorical(), SOFT),
    "smoothing": Case(categorical(label_smoothing=0.1), SOFT),
    "channels-first": Case(categorical(axis=1), STACKED_LABELS, STACKED, {"axis": 1}),
    "ours": Case(losses.CrossEntropy(), IDS),
}


def test_a_name_is_computed_as_the_loss_of_that_name():
    named = LogitClipLoss("sparse_categorical_crossentropy", TAU)
    expected = to_numpy(LogitClipLoss(sparse(), TAU)(IDS, LOGITS))
    np.testing.assert_array_equal(to_numpy(named(IDS, LOGITS)), expected)


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")  # NumPy, of the norm.
@pytest.mark.parametrize("case", FUSED.values(), ids=FUSED)
def test_nobody_can_tell_from_values(case):
    """The reduced value and its gradient equal those of an unfused Keras loss."""
    labels = to_tensor(case.labels, case.labels.dtype.name)
    wild = case.logits.copy()
    wild[1] = 0
    wild[2] *= 1e30
    rows = {1.0: case.logits, 0.01: wild, 200.0: wild}

    def reduced(inner, tau):
        loss = LogitClipLoss(inner, tau, **case.kwargs)
        return lambda z: keras.ops.reshape(loss(labels, z), (1,))

    parts = [
        value_and_vjp_each({tau: reduced(inner, tau) for tau in rows}, rows, "eager")
        for inner in (case.loss, plain(case.loss))
    ]
    for tau in rows:
        ours, theirs = (each[tau] for each in parts)
        atol = 1e-6 * max(1.0, tau / 5)
        name = f"tau={tau}"
        assert np.isfinite(ours.value).all(), name
        np.testing.assert_allclose(ours.value, theirs.value, 1e-6, atol, err_msg=name)
        if ours.gradient is not None:
            np.testing.assert_allclose(
                ours.gradient, theirs.gradient, 0, atol, err_msg=name
            )


# In a model.


def build_model(*last, activation=None):
    keras.utils.set_random_seed(0)
    dense = [
        keras.layers.Dense(16, "relu"),
        keras.layers.Dense(CLASSES, activation),
    ]
    return keras.Sequential([keras.Input((8,)), *dense, *last])


INPUTS = rng.normal(size=(ROWS, 8)).astype("float32")

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
        history = model.fit(INPUTS, IDS, ROWS, epochs=4, verbose=0)
        histories.append(history.history["loss"])
    assert histories[0][-1] < histories[0][0]
    np.testing.assert_allclose(histories[0], histories[1], rtol=1e-5)


@pytest.mark.skipif(not TAKES_MASKS, reason="this Keras has no masks on NumPy")
@pytest.mark.parametrize(
    ("ignore_class", "weighted"), [(None, False), (3, True)], ids=str
)
def test_masks(ignore_class, weighted):
    tokens = np.array([[1, 2, 3, 0], [2, 1, 0, 0], [1, 1, 1, 1]])
    labels = np.array([[3, 1, 2, 4], [5, 3, 0, 3], [9, 3, 1, 0]])
    weights = np.resize(WEIGHTS, tokens.shape) if weighted else np.ones(tokens.shape)
    model = keras.Sequential(
        [keras.layers.Embedding(5, 6, mask_zero=True), keras.layers.Dense(CLASSES)]
    )
    clipped = oracle.clip(to_numpy(model(tokens)), 0.05, 2)
    kept = (tokens != 0) & (ignore_class != labels)
    values = weights * oracle.cross_entropy(labels, clipped)
    model.compile(loss=LogitClipLoss(sparse(ignore_class=ignore_class), 0.05))
    value = model.evaluate(
        tokens, labels, sample_weight=weights if weighted else None, verbose=0
    )
    np.testing.assert_allclose(value, values[kept].sum() / kept.sum(), rtol=1e-5)


@pytest.mark.gradients
@pytest.mark.parametrize("place", ["loss", "layer", "both"])
def test_compiled_model_is_saved_and_reloaded_in_safe_mode(place, tmp_path):
    smooth = place != "loss"
    inner = categorical(label_smoothing=0.1) if smooth else sparse()
    targets = ONE_HOT if smooth else IDS
    loss = inner if place == "layer" else LogitClipLoss(inner, 0.7, p=INF)
    model = build_model(*(() if place == "loss" else (LogitClip(0.5),)))
    model.compile("sgd", loss, metrics=["accuracy"])
    model.train_on_batch(INPUTS, targets)
    model.save(tmp_path / "model.keras")
    reloaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    assert type(reloaded.loss) is type(loss)
    assert reloaded.loss.get_config() == loss.get_config()
    for each in (model, reloaded):
        each.reset_metrics()
    found, expected = (each.train_on_batch(INPUTS, targets)
                       for each in (reloaded, model))  # fmt: skip
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.filterwarnings("ignore:Explicitly requested dtype float64")
@pytest.mark.gradients
@pytest.mark.parametrize(
    ("policy", "dtype"),
    [
        ("float32", None),
        ("mixed_float16", None),
        ("mixed_bfloat16", None),
        ("float32", "float64"),
        ("float32", "bfloat16"),
    ],
    ids=str,
)
def test_a_model_that_returns_probabilities_is_refused(policy, dtype):
    """Also where Keras casts them, which takes its mark from them."""
    keras.config.set_dtype_policy(policy)
    model = build_model(activation="softmax")
    model.compile("sgd", LogitClipLoss(sparse(), 1.0, dtype=dtype))
    if BACKEND == "jax":  # Whose tensors take no mark; callbacks see the values.
        model.train_on_batch(INPUTS, IDS)
        return
    with pytest.raises(ValueError, match="Expected logits. Received: probabilities"):
        model.train_on_batch(INPUTS, IDS)


def test_integer_logits_are_cast_like_in_every_keras_loss():
    loss = LogitClipLoss(sparse(), 1.0)
    np.testing.assert_array_equal(
        to_numpy(loss(IDS, np.ones((ROWS, CLASSES), "int32"))),
        to_numpy(loss(IDS, to_tensor(np.ones((ROWS, CLASSES))))),
    )


def test_the_loss_leaves_the_logits_as_they_are():
    z = to_tensor(LOGITS)
    LogitClipLoss(sparse(), 0.1)(IDS, z)
    np.testing.assert_array_equal(to_numpy(z), LOGITS)
    assert to_numpy(ops.logit_norm(z)).max() > 0.1
