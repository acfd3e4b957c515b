from collections import namedtuple

import keras
import numpy as np
import pytest

from keras_logitclip import LogitClip
from keras_logitclip import metrics
from keras_logitclip import ops
from tests import oracle
from tests.conftest import BACKEND
from tests.running import TAKES_MASKS
from tests.running import apply
from tests.running import to_numpy
from tests.running import to_tensor
from tests.samples import CLASSES
from tests.samples import logits

TAU = 5.0
INF = float("inf")
rng = np.random.default_rng(0)
LOGITS = logits(12, CLASSES)
SEQUENCES = rng.uniform(0, 4, (12, 4, 1)) * rng.normal(size=(12, 4, 10))
IMAGES = logits(3, CLASSES, 4, 5)
WEIGHTS = rng.uniform(0.1, 2, (12, 4)).astype("float32")
SINGLE_WEIGHT = np.array([[0.0]] * 5 + [[2.0]] + [[0.0]] * 6)
MASK = rng.random((12, 4)) < 0.6

Case = namedtuple("Case", "logits weights axis p", defaults=(None, -1, 2))
CASES = {
    "plain": Case(LOGITS),
    "weighted": Case(LOGITS, WEIGHTS[:, 0]),
    "one-weight": Case(LOGITS, SINGLE_WEIGHT),
    "p1": Case(LOGITS, p=1),
    "p3": Case(LOGITS, p=3),
    "p-inf": Case(LOGITS, p=INF),
    "sequences": Case(SEQUENCES),
    "sequences-weighted": Case(SEQUENCES, WEIGHTS),
    "samples-of-sequences-weighted": Case(SEQUENCES, WEIGHTS[:, 0]),
    "images": Case(IMAGES, axis=1),
    "images-weighted": Case(IMAGES, WEIGHTS[:3, :1, None], axis=1),
    "huge": Case(LOGITS * np.float32(1e30)),
    "tiny": Case(LOGITS * np.float32(1e-30)),
    "zero": Case(np.zeros((3, 10))),
    "one-class": Case(LOGITS[:, :1]),
}


def make_norm(case):
    return metrics.MeanLogitNorm(case.p, case.axis)


def make_fraction(case):
    return metrics.ClippedFraction(TAU, case.p, case.axis)


def norms_of(case):
    return oracle.norm(case.logits.astype("float32"), case.p, case.axis)


def fractions_of(case):
    return norms_of(case) > TAU


def weighted_mean(values, weights):
    weights = np.ones(()) if weights is None else np.asarray(weights, "float64")
    if weights.shape != (len(values), 1) or values.ndim > 1:
        weights = weights.reshape(weights.shape + (1,) * (values.ndim - weights.ndim))
    else:
        weights = weights[:, 0]
    weights = np.broadcast_to(weights, values.shape)
    return (values * weights).sum() / weights.sum()


KINDS = {"norm": (make_norm, norms_of), "fraction": (make_fraction, fractions_of)}
both_kinds = pytest.mark.parametrize(
    ("make", "values_of"), KINDS.values(), ids=KINDS.keys()
)


# NumPy warns of norms that float32 cannot hold.
@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
@both_kinds
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_values(case, make, values_of):
    metric = make(case)
    metric.update_state(None, to_tensor(case.logits), case.weights)
    expected = weighted_mean(values_of(case), case.weights)
    np.testing.assert_allclose(float(metric.result()), expected, rtol=1e-5)


@both_kinds
def test_batches_are_counted_by_their_samples(make, values_of):
    case = CASES["plain"]
    metric = make(case)
    for rows in (slice(0, 2), slice(2, 3), slice(3, 12)):
        metric.update_state(None, to_tensor(case.logits[rows]))
    assert float(metric.result()) == pytest.approx(values_of(case).mean(), rel=1e-5)
    metric.reset_state()
    metric.update_state(None, to_tensor(case.logits[:2]))
    expected = values_of(case._replace(logits=case.logits[:2])).mean()
    assert float(metric.result()) == pytest.approx(expected, rel=1e-5)


@both_kinds
def test_every_mode_and_dtype(make, values_of, run):
    mode, dtype = run
    scale = 1000 if dtype == "float16" else 1
    rounded = "float32" if dtype == "bfloat16" else dtype
    case = Case((LOGITS * scale).astype(rounded))
    metric = make(case)

    def update(z):
        state = metric.stateless_update_state(metric.variables, None, z)
        return metric.stateless_result(state)

    actual = apply(update, case.logits, mode, dtype)
    expected = values_of(case).mean()
    np.testing.assert_allclose(actual, expected, rtol=1e-2 if "b" in dtype else 1e-5)


@both_kinds
@pytest.mark.skipif(not TAKES_MASKS, reason="this Keras has no masks on NumPy")
@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=("unweighted", "weighted"))
def test_masked_positions_are_left_out(weights, make, values_of):
    """The logits come out of a layer that masks: 0 is the padding."""
    case = CASES["sequences"]
    positions = 1 + np.arange(MASK.size).reshape(MASK.shape)
    embedding = keras.layers.Embedding(1 + MASK.size, CLASSES, mask_zero=True)
    embedding.build()
    of_padding = np.full((1, CLASSES), 1e9)
    embedding.set_weights([np.concatenate([of_padding, *case.logits])])
    metric = make(case)
    metric.update_state(None, embedding(np.where(MASK, positions, 0)), weights)
    weights = MASK if weights is None else MASK * weights
    expected = weighted_mean(values_of(case), weights)
    np.testing.assert_allclose(float(metric.result()), expected, rtol=1e-5)


@both_kinds
@pytest.mark.parametrize("bad", [np.nan, INF])
def test_what_is_hidden_has_no_influence(bad, make, values_of):
    z = logits(4, 10)
    z[1, 2] = bad
    metric = make(Case(z))
    metric.update_state(None, to_tensor(z), to_tensor([1.0, 0.0, 1.0, 1.0]))
    expected = values_of(Case(z[[0, 2, 3]])).mean()
    np.testing.assert_allclose(to_numpy(metric.result()), expected, 1e-5)


@both_kinds
@pytest.mark.parametrize("bad", [np.nan, INF, -INF])
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_a_row_without_a_norm_shows(bad, make, values_of):
    z = LOGITS.copy()
    z[3, 4] = bad
    metric = make(CASES["plain"])
    metric.update_state(None, to_tensor(z))
    assert np.isnan(float(metric.result()))


@pytest.mark.parametrize(
    ("tau", "expected"),
    [(5.0, 0.5), (4.999, 1.0), (13.0, 0.0), (1e-60, 1.0), (INF, 0.0)],
)
def test_a_norm_of_exactly_tau_is_not_clipped(tau, expected):
    metric = metrics.ClippedFraction(tau)
    assert float(metric(None, to_tensor([[3.0, 4.0], [5.0, 12.0]]))) == expected


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("shape", [(200, 10), (200, 1000), (4, 40_000)], ids=str)
def test_nothing_is_clipped_behind_a_layer_that_clips(shape, dtype):
    clipped = LogitClip(TAU, dtype=dtype)(to_tensor(logits(*shape, scale=30.0), dtype))
    metric = metrics.ClippedFraction(TAU)
    metric.update_state(None, clipped)
    assert to_numpy(metric.result()) == 0
    metric.update_state(None, 1.02 * to_numpy(clipped))
    assert to_numpy(metric.result()) == 0.5


def test_the_clipped_share_is_that_of_the_operation():
    z = to_tensor(LOGITS)
    changed = (to_numpy(ops.logit_clip(z, 9.0)) != to_numpy(z)).any(-1)
    assert 0 < changed.mean() < 1
    assert float(metrics.ClippedFraction(9.0)(None, z)) == pytest.approx(changed.mean())


@keras.saving.register_keras_serializable(package="tests")
def plain_loss(y_true, y_pred):
    return keras.losses.sparse_categorical_crossentropy(y_true, y_pred, True)


def build_model(policy="float32", **compiling):
    keras.config.set_dtype_policy(policy)
    model = keras.Sequential([keras.Input((CLASSES,)), keras.layers.Rescaling(1.0)])
    model.compile(
        "sgd",
        plain_loss,
        metrics=[metrics.MeanLogitNorm(), metrics.ClippedFraction(TAU)],
        weighted_metrics=[metrics.MeanLogitNorm(p=1, name="weighted")],
        **compiling,
    )
    return model


def expected_logs(z, weights):
    norms = oracle.norm(z, 2)
    return {
        "mean_logit_norm": norms.mean(),
        "clipped_fraction": (norms > TAU).mean(),
        "weighted": np.average(oracle.norm(z, 1), weights=weights),
    }


COMPILING = {"default": {}, "eager": {"run_eagerly": True}}
if BACKEND in ("tensorflow", "jax"):
    COMPILING["compiled"] = {"jit_compile": True}


@pytest.mark.gradients
@pytest.mark.parametrize(
    ("compiling", "policy"),
    [
        *((name, "float32") for name in COMPILING),
        ("default", "mixed_float16"),
        ("default", "mixed_bfloat16"),
    ],
)
def test_in_a_compiled_model(compiling, policy):
    model = build_model(policy, **COMPILING[compiling])
    scale = 100 if policy == "mixed_float16" else 1  # Whose squares overflow.
    z, labels, weights = LOGITS * scale, np.zeros(12, "int32"), WEIGHTS[:, 0]
    logs = model.evaluate(
        z, labels, batch_size=5, sample_weight=weights, verbose=0, return_dict=True
    )
    for name, value in expected_logs(z, weights).items():
        tolerance = 1e-5 if policy == "float32" else 1e-2
        assert logs[name] == pytest.approx(value, rel=tolerance), name


@pytest.mark.gradients
def test_masks_in_a_compiled_model():
    tokens = rng.integers(0, 4, (12, 6))
    embedding = keras.layers.Embedding(4, CLASSES, mask_zero=True)
    model = keras.Sequential([keras.Input((6,), dtype="int32"), embedding])
    table = np.linspace([0] * CLASSES, [3] * CLASSES, 4)
    table[0] = 1e9
    embedding.set_weights([table])
    both = [metrics.MeanLogitNorm(), metrics.ClippedFraction(TAU)]
    model.compile("sgd", plain_loss, metrics=both)
    logs = model.evaluate(tokens, tokens, batch_size=5, verbose=0, return_dict=True)
    expected = oracle.norm(table, 2)[tokens[tokens > 0]]
    assert logs["mean_logit_norm"] == pytest.approx(expected.mean(), rel=1e-5)
    assert logs["clipped_fraction"] == pytest.approx((expected > TAU).mean(), rel=1e-5)


# Because it only rescales.
@pytest.mark.filterwarnings("ignore:The model does not have any trainable weights")
@pytest.mark.gradients
def test_a_reloaded_model_goes_on(tmp_path):
    model = build_model()
    model.fit(LOGITS, np.zeros(12), verbose=0)
    model.save(tmp_path / "model.keras")
    reloaded = keras.models.load_model(tmp_path / "model.keras")
    logs = reloaded.evaluate(LOGITS, np.zeros(12), verbose=0, return_dict=True)
    for name, value in expected_logs(LOGITS, None).items():
        assert logs[name] == pytest.approx(value, rel=1e-5)


METRICS = {
    "norm": metrics.MeanLogitNorm(1.5, axis=1, name="n", dtype="float16"),
    "fraction": metrics.ClippedFraction(0.1, INF, axis=2, name="f"),
}


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_config_round_trip(metric):
    config = keras.saving.serialize_keras_object(metric)
    clone = keras.saving.deserialize_keras_object(config)
    assert type(clone) is type(metric)
    assert clone.get_config() == metric.get_config()
    assert (clone.p, clone.axis, clone.name) == (metric.p, metric.axis, metric.name)
    z = to_tensor(IMAGES)
    assert float(clone(None, z)) == float(metric(None, z)) > 0


BAD_ARGUMENTS = {
    "tau": lambda: metrics.ClippedFraction(0),
    "p": lambda: metrics.MeanLogitNorm(0.5),
    "axis": lambda: metrics.MeanLogitNorm(axis=1.0),
}


@pytest.mark.once
@pytest.mark.parametrize("name", BAD_ARGUMENTS)
def test_bad_arguments(name):
    """One of each; `tests.test_ops` has all bad values."""
    with pytest.raises(ValueError, match=f"`{name}`: expected .* Received: {name}="):
        BAD_ARGUMENTS[name]()


@pytest.mark.once
@both_kinds
def test_bad_logits(make, values_of):
    metric = make(CASES["plain"])
    with pytest.raises(ValueError, match="expected floating-point"):
        metric.update_state(None, to_tensor([[1, 2]], "int32"))
    with pytest.raises(ValueError, match="batch axis and a class axis"):
        metric.update_state(None, to_tensor([1.0, 2.0]))


@both_kinds
def test_probabilities_are_refused_where_keras_marks_them(make, values_of):
    probabilities = keras.activations.softmax(to_tensor(LOGITS))
    if not hasattr(probabilities, "_keras_logits"):
        assert BACKEND in ("jax", "numpy")  # Whose tensors take no attributes.
        return
    with pytest.raises(ValueError, match="Expected logits. Received: probabilities"):
        make(CASES["plain"]).update_state(None, probabilities)
