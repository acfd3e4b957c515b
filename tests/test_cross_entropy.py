from collections import namedtuple

import keras
import numpy as np
import pytest

from keras_logitclip import LogitClipLoss
from keras_logitclip import _kernels
from keras_logitclip import ops
from keras_logitclip._kernels import compilers
from keras_logitclip._kernels import cross_entropy
from keras_logitclip._kernels import reductions
from tests import oracle
from tests.conftest import BACKEND
from tests.conftest import COMPILED_MODES
from tests.conftest import INFERENCE_ONLY
from tests.conftest import MODES
from tests.oracle import INF
from tests.running import apply
from tests.running import double_precision
from tests.running import gradient_along
from tests.running import to_numpy
from tests.running import to_tensor
from tests.running import value_and_vjp
from tests.running import xla_functions_in

TAUS = (0.01, 1.0, 10.0, 200.0)
INVALID_IDS = (-1, 10, 11, 1_000_000, -1_000_000)


def logits(*shape, scale=3.0, seed=0):
    return scale * np.random.default_rng(seed).normal(size=shape).astype("float32")


def wild_logits(classes):
    """Rows that are ordinary, zero, huge, tiny, huger, and sure of a class."""
    z = logits(6, classes)
    z[1] = 0
    z[2] *= 1e30
    z[3] /= 1000
    z[4] = 3e38 * np.sign(z[4])
    z[5, 0] = 300
    return z


Labels = namedtuple("Labels", "given weights")


def some_labels(kind, shape, classes, seed=0):
    """Labels as they are given, and the weight of each class that they mean."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, classes, shape)
    ids.flat[-1] = 0
    one_hot = (ids[..., None] == np.arange(classes)).astype("float32")
    if kind == "sparse":
        return Labels(ids.astype("int32"), one_hot)
    weights = {
        "one-hot": lambda: one_hot,
        "smooth": lambda: 0.9 * one_hot + 0.1 / classes,
        "soft": lambda: rng.dirichlet(np.ones(classes), shape),
        "unnormalized": lambda: rng.uniform(0, 0.3, (*shape, classes)),
        "zero": lambda: np.zeros((*shape, classes)),
    }[kind]().astype("float32")
    return Labels(weights, weights)


KINDS = ("sparse", "one-hot", "smooth", "soft", "unnormalized", "zero")


def expected_loss_and_gradient(weights, z, tau, upstream, p=2):
    clipped = oracle.clip(z, tau, p)
    gradient = oracle.weighted_cross_entropy_gradient(weights, clipped)
    gradient = oracle.clip_vjp(z, gradient * upstream[..., None], tau, p)
    return oracle.weighted_cross_entropy(weights, clipped), gradient


def assert_losses_close(actual, expected, tau, rtol=1e-6):
    """Up to the rounding of clipped logits of that length."""
    atol = rtol * max(1.0, tau / 5)
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=atol)


def assert_gradients_close(actual, expected, z, tau, upstream, p=2, rtol=1e-6):
    """Relative to the gradient of the largest magnitude that a row could have."""
    norm = np.maximum(oracle.norm(z, p), 1e-30)
    scale = np.abs(upstream) * np.minimum(1, tau / norm)
    # Below the smallest normal number there is no such precision.
    allowed = rtol * max(1.0, tau / 5) * scale + np.finfo("float32").tiny
    error = np.abs(np.asarray(actual, "float64") - expected).max(-1)
    assert (error <= allowed).all(), f"error {error}, allowed {allowed}"


def fused(labels, tau, **kwargs):
    return lambda z: ops.clipped_softmax_cross_entropy(labels, z, tau, **kwargs)


# All combinations in the plain mode, a few in those that compile.
SIZES = [
    (mode, classes, tau)
    for mode in COMPILED_MODES
    for classes, tau in (
        [
            *((classes, tau) for classes in (2, 10, 1000, 128_000) for tau in TAUS),
            (4096, 1.0),
            (40_009, 1.0),
        ]
        if mode == MODES[0]
        else [(2, 10.0), (100, 1.0), (1003, 200.0), (40_009, 1.0), (128_000, 1.0)]
    )
]


@pytest.mark.gradients
@pytest.mark.parametrize(("mode", "classes", "tau"), SIZES, ids=str)
def test_loss_and_gradient_equal_the_oracle(mode, classes, tau):
    z = wild_logits(classes)
    ids = np.random.default_rng(0).integers(0, classes, 6).astype("int32")
    ids[5] = 0
    upstream = np.random.default_rng(1).normal(size=6)
    losses, gradient = value_and_vjp(
        fused(to_tensor(ids, "int32"), tau), z, upstream, mode
    )
    clipped = oracle.clip(z, tau, 2)
    expected = np.exp(oracle.log_softmax(clipped))
    expected[np.arange(6), ids] -= 1
    expected = oracle.clip_vjp(z, expected * upstream[:, None], tau, 2)
    assert_losses_close(losses, oracle.cross_entropy(ids, clipped), tau)
    assert_gradients_close(gradient, expected, z, tau, upstream)


@pytest.mark.gradients
@pytest.mark.parametrize("tau", [1.0, 100.0])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_labels(kind, tau, mode):
    z, labels = wild_logits(100), some_labels(kind, (6,), 100)
    upstream = np.random.default_rng(1).normal(size=6)
    given = to_tensor(labels.given, labels.given.dtype.name)
    losses, gradient = value_and_vjp(fused(given, tau), z, upstream, mode)
    expected = expected_loss_and_gradient(labels.weights, z, tau, upstream)
    assert_losses_close(losses, expected[0], tau)
    largest = upstream * np.maximum(1, labels.weights.sum(-1))
    assert_gradients_close(gradient, expected[1], z, tau, largest)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("p", [1, 2, 3, INF])
def test_losses_for_every_order_of_the_norm(p, kind):
    z, labels = logits(6, 10), some_labels(kind, (6,), 10)
    losses = apply(fused(labels.given, 1.5, p=p), z)
    clipped = oracle.clip(z, 1.5, p)
    assert_losses_close(
        losses, oracle.weighted_cross_entropy(labels.weights, clipped), 1
    )


@pytest.mark.gradients
@pytest.mark.parametrize("p", [1, 3, INF])
def test_gradients_for_every_order_of_the_norm(p):
    z, labels, upstream = logits(6, 10), some_labels("sparse", (6,), 10), np.ones(6)
    _, gradient = value_and_vjp(fused(labels.given, 1.5, p=p), z, upstream, MODES[0])
    _, expected = expected_loss_and_gradient(labels.weights, z, 1.5, upstream, p)
    assert_gradients_close(gradient, expected, z, 1.5, upstream, p, rtol=2e-6)


@pytest.mark.gradients
@pytest.mark.parametrize(
    ("kind", "tau"), [("sparse", 1.0), ("sparse", 60.0), ("smooth", 60.0)]
)
def test_every_mode_and_dtype(kind, tau, compiled_run):
    mode, dtype = compiled_run
    z = to_numpy(to_tensor(logits(6, 100), dtype))
    labels, upstream = some_labels(kind, (6,), 100), np.arange(1.0, 7)
    with double_precision(dtype):
        given = to_tensor(labels.given, "int32" if kind == "sparse" else "float32")
    losses, gradient = value_and_vjp(fused(given, tau), z, upstream, mode, dtype)
    expected = expected_loss_and_gradient(labels.weights, z, tau, upstream)
    loss_rtol = 1e-14 if dtype == "float64" else 1e-6  # Half precision: in float32.
    rtol = {"float64": 1e-13, "float32": 1e-6, "float16": 5e-4, "bfloat16": 4e-3}[dtype]
    assert losses.dtype == ("float64" if dtype == "float64" else "float32")
    assert_losses_close(losses, expected[0], tau, loss_rtol)
    assert_gradients_close(gradient, expected[1], z, tau, upstream, rtol=rtol)


@pytest.mark.gradients
@pytest.mark.parametrize("magnitude", [1e3, 1e10, 1e15, 1e17, 1e19, 1e25])
def test_gradients_of_ever_longer_rows(magnitude, mode):
    z, labels = logits(6, 10) * np.float32(magnitude), some_labels("sparse", (6,), 10)
    upstream = np.full(6, 1e-3)
    given = to_tensor(labels.given, "int32")
    _, gradient = value_and_vjp(fused(given, 0.001), z, upstream, mode)
    _, expected = expected_loss_and_gradient(labels.weights, z, 0.001, upstream)
    assert_gradients_close(gradient, expected, z, 0.001, upstream)


@pytest.mark.gradients
@pytest.mark.parametrize("magnitude", [1e30, 1e200, 1e300])
def test_huge_float64_rows(magnitude, mode):
    z, labels = logits(6, 10).astype(float) * magnitude, some_labels("sparse", (6,), 10)
    with double_precision("float64"):
        given = to_tensor(labels.given, "int32")
    losses, gradient = value_and_vjp(fused(given, 1.0), z, np.ones(6), mode, "float64")
    unit = z / magnitude
    clipped = oracle.clip(unit, 1.0, 2)
    expected = oracle.weighted_cross_entropy(labels.weights, clipped)
    np.testing.assert_allclose(losses, expected, rtol=1e-12)
    _, expected = expected_loss_and_gradient(labels.weights, unit, 1.0, np.ones(6))
    np.testing.assert_allclose(gradient * magnitude, expected, atol=1e-12)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_huge_half_precision_rows(dtype):
    z = to_numpy(to_tensor(1e4 * np.sign(logits(6, 1000)), dtype))
    labels = some_labels("sparse", (6,), 1000)
    losses = apply(fused(labels.given, 100.0), z, dtype=dtype)
    clipped = oracle.clip(z, 100.0, 2)
    np.testing.assert_allclose(
        losses, oracle.weighted_cross_entropy(labels.weights, clipped), rtol=1e-6
    )


Layout = namedtuple("Layout", "shape axis")
LAYOUTS = {
    "one-row": Layout((10,), 0),
    "two-classes": Layout((6, 2), -1),
    "sequence": Layout((2, 5, 10), -1),
    "image": Layout((2, 3, 4, 10), 3),
    "channels-first": Layout((2, 10, 3, 4), 1),
}
if BACKEND != "openvino":  # Which aborts the process on empty tensors.
    LAYOUTS["empty-batch"] = Layout((0, 10), -1)


@pytest.mark.parametrize("keep_axis", [False, True], ids=("flat", "size-one"))
@pytest.mark.parametrize("kind", ["sparse", "soft"])
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_layouts(layout, kind, keep_axis):
    shape, axis = layout
    z = logits(*shape)
    moved = np.moveaxis(z, axis, -1)
    if z.size == 0:
        labels = Labels(np.zeros((0,), "int32"), np.zeros((0, 10)))
    else:
        labels = some_labels(kind, moved.shape[:-1], moved.shape[-1])
    given = labels.given
    if kind == "soft":
        given = np.moveaxis(given, -1, axis) if z.size else labels.weights
    elif keep_axis:
        given = np.expand_dims(given, axis)
    losses = apply(fused(given, 1.5, axis=axis), z)
    clipped = oracle.clip(moved, 1.5, 2)
    expected = oracle.weighted_cross_entropy(labels.weights, clipped)
    assert losses.shape == expected.shape
    assert_losses_close(losses, expected, 1.5)


@pytest.mark.gradients
def test_gradient_along_another_axis(mode):
    z, labels = logits(2, 10, 3), some_labels("sparse", (2, 3), 10)
    upstream = np.random.default_rng(1).normal(size=(2, 3))
    given = to_tensor(labels.given, "int32")
    _, gradient = value_and_vjp(fused(given, 1.5, axis=1), z, upstream, mode)
    moved = np.moveaxis(z, 1, -1)
    _, expected = expected_loss_and_gradient(labels.weights, moved, 1.5, upstream)
    gradient = np.moveaxis(gradient, 1, -1)
    assert_gradients_close(
        gradient.reshape(-1, 10), expected.reshape(-1, 10), moved.reshape(-1, 10), 1.5,
        upstream.ravel(),
    )  # fmt: skip


def test_infinite_tau_is_plain_cross_entropy():
    z, labels = logits(6, 10, scale=100.0), some_labels("sparse", (6,), 10)
    plain = keras.losses.sparse_categorical_crossentropy(
        labels.given, to_tensor(z), from_logits=True
    )
    np.testing.assert_array_equal(apply(fused(labels.given, INF), z), to_numpy(plain))


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_rows_without_a_norm_become_nan(mode):
    z, labels = logits(5, 10), some_labels("sparse", (5,), 10)
    z[0, 3], z[1, 0], z[2, 9], z[3] = np.nan, np.inf, -np.inf, np.inf
    losses = apply(fused(to_tensor(labels.given, "int32"), 1.0), z, mode)
    assert np.isnan(losses[:4]).all()
    clipped = oracle.clip(z[4:], 1.0, 2)
    expected = oracle.weighted_cross_entropy(labels.weights[4:], clipped)
    assert_losses_close(losses[4:], expected, 1.0)


@pytest.mark.gradients
def test_rows_without_a_norm_have_no_finite_gradient(mode):
    z, labels = logits(3, 10), some_labels("sparse", (3,), 10)
    z[0, 3], z[1, 0] = np.nan, np.inf
    function = fused(to_tensor(labels.given, "int32"), 1.0)
    _, gradient = value_and_vjp(function, z, np.ones(3), mode)
    assert np.isnan(gradient[:2]).all()
    assert np.isfinite(gradient[2]).all()


# Labels that are no class.


@pytest.mark.parametrize("tau", [1.0, INF])
@pytest.mark.parametrize("p", [2, 3])
@pytest.mark.parametrize("dtype", ["int32", "int64", "float32"])
def test_invalid_class_ids_give_nan(dtype, p, tau, mode):
    ids = np.array([3, *INVALID_IDS, 9], dtype)
    losses = apply(fused(to_tensor(ids, dtype), tau, p=p), logits(7, 10), mode)
    np.testing.assert_array_equal(np.isnan(losses), [False] + 5 * [True] + [False])


def test_ids_that_are_no_whole_numbers_give_nan():
    ids = np.array([0.5, np.nan, np.inf, 1e20, -0.0, 9.0], "float32")
    losses = apply(fused(ids, 1.0), logits(6, 10))
    np.testing.assert_array_equal(np.isnan(losses), 4 * [True] + 2 * [False])


@pytest.mark.gradients
@pytest.mark.parametrize("ids", [[3, -1, 9], [3, 10, 9]], ids=("negative", "too-large"))
def test_invalid_class_ids_have_no_finite_gradient(ids, mode):
    function = fused(to_tensor(ids, "int32"), 1.0)
    _, gradient = value_and_vjp(function, logits(3, 10), np.ones(3), mode)
    np.testing.assert_array_equal(np.isnan(gradient).all(-1), [False, True, False])
    assert np.isfinite(gradient[[0, 2]]).all()


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int64"])
def test_dtypes_of_class_ids(dtype):
    ids = np.array([0, 99, 50], dtype)
    np.testing.assert_array_equal(
        apply(fused(ids, 1.0), logits(3, 1000)),
        apply(fused(ids.astype("int32"), 1.0), logits(3, 1000)),
    )


BAD_LABELS = {
    "too-few": (4,),
    "too-many": (6,),
    "wrong-classes": (5, 9),
    "wrong-rank": (5, 10, 1),
    "scalar": (),
}


@pytest.mark.parametrize("symbolic", [False, True], ids=("tensor", "symbolic"))
@pytest.mark.parametrize("shape", BAD_LABELS.values(), ids=BAD_LABELS)
def test_labels_of_the_wrong_shape(shape, symbolic):
    z = keras.Input(batch_shape=(5, 10)) if symbolic else logits(5, 10)
    with pytest.raises(ValueError, match="Expected labels.*Received: y_true.shape="):
        ops.clipped_softmax_cross_entropy(np.zeros(shape, "int32"), z, 1.0)


@pytest.mark.parametrize(
    ("name", "value"),
    [("tau", 0), ("tau", None), ("p", 0.5), ("axis", 1.0), ("axis", 2)],
)
def test_bad_arguments(name, value):
    arguments = {"tau": 1.0, name: value}
    with pytest.raises(ValueError, match=f"`{name}`: expected .* Received: {name}="):
        ops.clipped_softmax_cross_entropy([0, 0], logits(2, 3), **arguments)


def test_logits_that_are_no_floats():
    with pytest.raises(ValueError, match="expected floating.*dtype=int32"):
        ops.clipped_softmax_cross_entropy([0, 0], np.ones((2, 3), "int32"), 1.0)


# Derivatives beyond the logits' first.


@pytest.mark.gradients
@pytest.mark.parametrize("tau", [1.5, 60.0])
@pytest.mark.parametrize("magnitude", [1.0, 1e25])
def test_gradient_of_the_labels(magnitude, tau, mode):
    z, labels = logits(6, 10), some_labels("soft", (6,), 10)
    upstream = np.random.default_rng(1).normal(size=6)
    rows = to_tensor(z * np.float32(magnitude))
    _, gradient = value_and_vjp(
        lambda y: ops.clipped_softmax_cross_entropy(y, rows, tau),
        labels.given,
        upstream,
        mode,
    )
    clipped = oracle.clip(z * magnitude, tau, 2)
    expected = -upstream[:, None] * oracle.log_softmax(clipped)
    np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-6 * tau)


@pytest.mark.gradients
@pytest.mark.parametrize("tau", [1.5, 60.0])
@pytest.mark.parametrize("kind", ["sparse", "soft"])
def test_second_derivatives(kind, tau):
    z, direction = logits(4, 5), logits(4, 5, seed=2)
    z[0] *= 100
    z[2] /= 100
    z[3] = 0
    labels, upstream = some_labels(kind, (4,), 5), np.arange(1.0, 5)
    second = gradient_along(fused(labels.given, tau), z, upstream, direction)

    def along(z):
        gradient = expected_loss_and_gradient(labels.weights, z, tau, upstream)[1]
        return (direction * gradient).sum()

    steps = 1e-5 * np.eye(z.size).reshape(-1, *z.shape)
    slopes = [(along(z + step) - along(z - step)) / 2e-5 for step in steps]
    np.testing.assert_allclose(second, np.reshape(slopes, z.shape), atol=2e-5)


# As a node of a functional model.


@pytest.mark.parametrize("classes", [None, 10], ids=("any-classes", "ten-classes"))
def test_symbolic_shape_and_dtype(classes):
    outputs = ops.clipped_softmax_cross_entropy(
        keras.Input((7,), dtype="int32"),
        keras.Input((7, classes), dtype="float16"),
        1.0,
    )
    assert outputs.shape == (None, 7)
    assert outputs.dtype == "float32"


def test_functional_model_survives_saving(tmp_path):
    y_true, y_pred = keras.Input((), dtype="int32"), keras.Input((10,))
    losses = ops.clipped_softmax_cross_entropy(y_true, y_pred, tau=1.5)
    model = keras.Model([y_true, y_pred], losses)
    model.save(tmp_path / "model.keras")
    reloaded = keras.models.load_model(tmp_path / "model.keras")
    z, labels = logits(6, 10), some_labels("sparse", (6,), 10)
    clipped = oracle.clip(z, 1.5, 2)
    expected = oracle.weighted_cross_entropy(labels.weights, clipped)
    inputs = [to_tensor(labels.given, "int32"), to_tensor(z)]
    for each in (model, reloaded):
        np.testing.assert_allclose(to_numpy(each(inputs)), expected, rtol=1e-6)


# Which form is taken.


def sparse(**kwargs):
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True, **kwargs)


def categorical(**kwargs):
    return keras.losses.CategoricalCrossentropy(from_logits=True, **kwargs)


@keras.saving.register_keras_serializable(package="tests")
class HalvedCrossentropy(keras.losses.SparseCategoricalCrossentropy):
    def call(self, y_true, y_pred):
        return super().call(y_true, y_pred) / 2


Z = logits(6, 10)
IDS = some_labels("sparse", (6,), 10).given
SOFT = some_labels("soft", (6,), 10).given
IMAGES, IMAGE_LABELS = (np.stack([x, x[::-1]], -1) for x in (Z, SOFT))
Taken = namedtuple("Taken", "loss labels logits kwargs", defaults=(Z, {}))
FUSED = {
    "name": Taken("sparse_categorical_crossentropy", IDS),
    "sparse": Taken(sparse(), IDS),
    "column": Taken(sparse(), IDS[:, None]),
    "tokens": Taken(sparse(), IDS.reshape(3, 2), Z.reshape(3, 2, 10)),
    "ignore-class": Taken(sparse(ignore_class=-1), IDS),
    "categorical": Taken(categorical(), SOFT),
    "smoothing": Taken(categorical(label_smoothing=0.1), SOFT),
    "channels-first": Taken(categorical(axis=1), IMAGE_LABELS, IMAGES, {"axis": 1}),
}
UNFUSED = {
    "order-3": Taken(sparse(), IDS, Z, {"p": 3}),
    "tiny-tau": Taken(sparse(), IDS, Z, {"tau": 1e-9}),
    "no-clipping": Taken(sparse(), IDS, Z, {"tau": INF}),
}
LEFT_TO_THE_LOSS = {
    "subclass": Taken(HalvedCrossentropy(from_logits=True), IDS),
    "focal": Taken("categorical_focal_crossentropy", SOFT),
    "softmax": Taken(
        keras.losses.CategoricalCrossentropy(), SOFT, Z, {"activation": "softmax"}
    ),
    "function": Taken(keras.losses.categorical_hinge, SOFT),
    # Keras's smoothing divides by the last axis, and stays as it is.
    "smoothing-channels-first": Taken(
        categorical(axis=1, label_smoothing=0.1),
        IMAGE_LABELS,
        IMAGES,
        {"axis": 1},
    ),
}


def calls_of(monkeypatch, module, name):
    calls, original = [], getattr(module, name)

    def spy(*args, **kwargs):
        calls.append(args)
        return original(*args, **kwargs)

    monkeypatch.setattr(module, name, spy)
    return calls


@pytest.mark.parametrize(
    ("case", "through_ops", "in_two_steps"),
    [
        *((case, 1, INFERENCE_ONLY) for case in FUSED.values()),
        *((case, 1, 1) for case in UNFUSED.values()),
        *((case, 0, 0) for case in LEFT_TO_THE_LOSS.values()),
    ],
    ids=[*FUSED, *UNFUSED, *LEFT_TO_THE_LOSS],
)
def test_the_form_that_the_loss_takes(case, through_ops, in_two_steps, monkeypatch):
    fusions = calls_of(monkeypatch, _kernels, "clipped_cross_entropy")
    two_steps = calls_of(monkeypatch, cross_entropy, "clip_then_cross_entropy")
    loss = LogitClipLoss(case.loss, **{"tau": 1.0, **case.kwargs})
    assert np.isfinite(to_numpy(loss(case.labels, case.logits)))
    assert (len(fusions), len(two_steps)) == (through_ops, in_two_steps)


@pytest.mark.gradients
@pytest.mark.parametrize("tau", [0.01, 1.0, 200.0])
@pytest.mark.parametrize("name", FUSED)
def test_nobody_can_tell_from_values(name, tau, monkeypatch):
    case = FUSED[name]
    loss = LogitClipLoss(case.loss, **{**case.kwargs, "tau": tau})
    z = case.logits.copy()
    z[1] = 0
    z[2] *= 1e30

    def run():
        function = lambda x: loss(case.labels, x)  # noqa: E731
        return value_and_vjp(function, z, np.ones(()), MODES[0])

    fused_run = run()
    monkeypatch.setattr("keras_logitclip.losses.logit_clip.can_fuse", lambda *_: False)
    plain_run = run()
    assert_losses_close(fused_run[0], plain_run[0], tau)
    np.testing.assert_allclose(
        fused_run[1], plain_run[1], rtol=0, atol=1e-6 * max(1.0, tau / 5)
    )


if BACKEND == "jax":
    import jax

    @pytest.mark.skipif(
        tuple(map(int, jax.__version__.split(".")[:2])) < (0, 10),
        reason="older compilers write more to memory",
    )
    @pytest.mark.parametrize("kind", ["sparse", "soft"])
    @pytest.mark.parametrize("classes", [1000, 32_000, 128_000])
    def test_compiled_loss_and_gradient_need_no_memory(classes, kind):
        z, labels = to_tensor(logits(64, classes)), some_labels(kind, (64,), classes)

        def loss(y_true, z):
            return fused(y_true, 1.0)(z)

        def loss_and_gradient(y_true, z):
            losses, vjp = jax.vjp(lambda z: loss(y_true, z), z)
            return losses, vjp(jax.numpy.ones(64))[0]

        given = to_tensor(labels.given, labels.given.dtype.name)
        functions = [loss_and_gradient]
        if kind == "sparse":  # With weights, the compiler writes the unit to memory.
            functions.append(loss)
        for function in functions:
            compiled = jax.jit(function).lower(given, z).compile()
            temporary = compiled.memory_analysis().temp_size_in_bytes
            numbers_per_row = 32
            assert temporary <= 4 * 64 * (numbers_per_row + 8)

    @pytest.mark.parametrize("classes", [10, 40_000])
    def test_nothing_is_compiled_again_outside_of_compiled_functions(classes, caplog):
        z, ids = to_tensor(logits(3, classes)), np.array([0, 1, 2])

        def compute(tau):
            jax.grad(lambda z: fused(ids, tau)(z).sum())(z)
            jax.grad(lambda z: ops.logit_clip(z, tau).sum())(z)

        with jax.log_compiles():
            compute(1.0)
            assert "Compiling" in caplog.text
            caplog.clear()
            compute(2.0)
        assert "Compiling" not in caplog.text

    @pytest.mark.parametrize("longest", [4, 10], ids=("cut-rows", "whole-rows"))
    def test_transformations(longest, monkeypatch):
        monkeypatch.setattr(reductions, "MAX_SINGLE_SUM", longest)
        z, ids = to_tensor(logits(4, 10)), some_labels("sparse", (4,), 10).given
        whole = jax.grad(lambda z: fused(ids, 1.0)(z).sum())(z)

        def one(row, label):
            return fused(label[None], 1.0)(row[None])[0]

        vmapped = jax.vmap(jax.grad(one))(z, jax.numpy.asarray(ids))
        np.testing.assert_allclose(vmapped, whole, atol=1e-7)

        def scanned(z):
            def step(total, row_and_label):
                return total + one(*row_and_label), None

            return jax.lax.scan(step, 0.0, (z, jax.numpy.asarray(ids)))[0]

        np.testing.assert_allclose(jax.grad(scanned)(z), whole, atol=1e-7)

    @pytest.mark.parametrize("shape", [(10,), (4, 10), (2, 3, 10)], ids=str)
    def test_cut_rows_have_the_derivatives_of_whole_ones(shape, monkeypatch):
        z, direction = to_tensor(logits(*shape)), to_tensor(logits(*shape, seed=1))
        ids = some_labels("sparse", shape[:-1], 10).given if shape[:-1] else 3

        def loss(z):
            clipped = ops.logit_clip(z, 2.0)
            return jax.numpy.sum(clipped[..., 0]) + jax.numpy.sum(fused(ids, 1.0)(z))

        def derivatives():
            return jax.jvp(jax.grad(loss), (z,), (direction,))

        whole = derivatives()
        monkeypatch.setattr(reductions, "MAX_SINGLE_SUM", 4)
        for found, expected in zip(derivatives(), whole, strict=True):
            np.testing.assert_allclose(found, expected, atol=1e-6)


if BACKEND == "tensorflow":
    import tensorflow as tf

    @pytest.fixture
    def all_are_large(monkeypatch):
        monkeypatch.setattr(compilers, "MIN_COMPILED", 1)
        monkeypatch.setattr(reductions, "MIN_RECOMPUTED", 1)

    @pytest.mark.parametrize("tau", [1.0, 100.0])
    @pytest.mark.parametrize("mode", ["graph", "xla"])
    @pytest.mark.parametrize("kind", KINDS)
    def test_large_batches(kind, mode, tau, all_are_large):
        z, labels = wild_logits(100), some_labels(kind, (6,), 100)
        upstream = np.random.default_rng(1).normal(size=6)
        given = to_tensor(labels.given, labels.given.dtype.name)
        losses, gradient = value_and_vjp(fused(given, tau), z, upstream, mode)
        expected = expected_loss_and_gradient(labels.weights, z, tau, upstream)
        assert_losses_close(losses, expected[0], tau)
        largest = upstream * np.maximum(1, labels.weights.sum(-1))
        assert_gradients_close(gradient, expected[1], z, tau, largest)

    @pytest.mark.parametrize("dtype", ["float32", "float16"])
    def test_gradients_of_large_batches(dtype, all_are_large):
        """Of labels, of half precision, and of second order, as those of small ones."""
        z, y = to_tensor(logits(6, 100), dtype), to_tensor(logits(6, 100, seed=1))
        expected = gradients_and_second_derivative(fused, z, y)
        found = tf.function(gradients_and_second_derivative)(fused, z, y)
        rtol = {"float32": 2e-6, "float16": 1e-3}[dtype]
        for ours, theirs in zip(found, expected, strict=True):
            assert ours.dtype == theirs.dtype
            atol = rtol * np.abs(to_numpy(theirs)).max()
            np.testing.assert_allclose(to_numpy(ours), to_numpy(theirs), 0, atol)

    def gradients_and_second_derivative(loss, z, y):
        with tf.GradientTape() as outer:
            outer.watch(z)
            with tf.GradientTape() as inner:
                inner.watch([z, y])
                losses = loss(y, 1.0)(z)
            first = inner.gradient(losses, [z, y])
        return [*first, outer.gradient(first[0], z)]

    @pytest.mark.parametrize(
        ("rows", "least_bytes", "compiled"),
        [(2, 800, 2), (2, 801, 0), (None, 1, 0)],
        ids=("large", "small", "any"),
    )
    def test_which_batches_are_compiled(rows, least_bytes, compiled, monkeypatch):
        monkeypatch.setattr(compilers, "MIN_COMPILED", least_bytes)

        @tf.function(input_signature=[tf.TensorSpec((rows, 100))])
        def gradient(z):
            ids = keras.ops.zeros(keras.ops.shape(z)[0], "int32")
            return tf.gradients(fused(ids, 1.0)(z), z)[0]

        graph = gradient.get_concrete_function().graph
        assert xla_functions_in(graph) == compiled
        assert np.isfinite(gradient(logits(2, 100))).all()


if BACKEND == "torch":

    @pytest.mark.parametrize("kind", ["sparse", "soft"])
    @pytest.mark.parametrize("shape", [(2048, 1000), (64, 32_000)], ids=str)
    def test_eager_tensors_are_chunks(shape, kind):
        import torch
        from torch.utils._python_dispatch import TorchDispatchMode

        storages = {}

        class Record(TorchDispatchMode):
            def __torch_dispatch__(self, function, types, args=(), kwargs=None):
                result = function(*args, **(kwargs or {}))
                for x in result if isinstance(result, tuple | list) else [result]:
                    if isinstance(x, torch.Tensor):
                        # Kept, or another one could get its address.
                        storage = x.untyped_storage()
                        storages.setdefault(storage.data_ptr(), storage)
                return result

        def new_sizes():
            sizes = [x.nbytes() for key, x in storages.items() if key not in known]
            known.update(storages)
            return sizes

        z = to_tensor(logits(*shape)).requires_grad_()
        labels = some_labels(kind, shape[:1], shape[1])
        given = to_tensor(labels.given, labels.given.dtype.name)
        known = {x.untyped_storage().data_ptr() for x in (z, given)}
        with Record():
            losses = fused(given, 1.0)(z)
            forward = new_sizes()
            losses.backward(torch.ones_like(losses))
            backward = new_sizes()
        gradient_size = 4 * z.numel()
        assert (forward + backward).count(gradient_size) == 1
        # Before there is a gradient, up to half of its size is free.
        without = gradient_size not in forward
        allowed = {"forward": 1 / 2 if without else 1 / 10, "backward": 1 / 10}
        for name, sizes in (("forward", forward), ("backward", backward)):
            others = [size for size in sizes if size != gradient_size]
            assert max(others) <= gradient_size * allowed[name], name

    def test_changing_logits_in_place_is_noticed():
        import torch

        z = torch.ones(2, 3, requires_grad=True) * 2
        losses = fused(torch.tensor([0, 1]), 1.0)(z)
        z.add_(1)
        with pytest.raises(RuntimeError, match="inplace operation"):
            losses.sum().backward()

    @pytest.mark.parametrize("again", [False, True], ids=("once", "twice"))
    def test_backward_of_a_retained_graph(again):
        import torch

        z = torch.tensor(logits(4, 10), requires_grad=True)
        losses = fused(torch.tensor([0, 1, 2, 3]), 1.0)(z).sum()
        (first,) = torch.autograd.grad(losses, z, retain_graph=True, create_graph=again)
        (second,) = torch.autograd.grad(losses, z)
        torch.testing.assert_close(first.detach(), second, rtol=1e-6, atol=1e-7)
