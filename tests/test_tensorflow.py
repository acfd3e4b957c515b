"""TensorFlow's graphs with batches that are large enough to be compiled."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_logitclip import LogitClipLoss
from keras_logitclip import losses
from keras_logitclip import ops
from tests import oracle
from tests.cross_entropy_oracle import Case
from tests.cross_entropy_oracle import assert_equal_the_oracle
from tests.cross_entropy_oracle import expected_loss_and_gradient
from tests.cross_entropy_oracle import fused
from tests.cross_entropy_oracle import wild_logits
from tests.oracle import assert_rows_close
from tests.running import to_numpy
from tests.running import to_tensor
from tests.running import value_and_vjp
from tests.samples import logits
from tests.samples import some_labels

# More than 2**20 logits, from which on it pays to compile a known shape.
LARGE = (24, 50_000)
# And more than 16 MiB, from which on it may pay to compute terms twice.
VERY_LARGE = (34, 128_000)


@pytest.mark.parametrize("rows", ["ordinary", "wild"])
def test_large_batches(rows):
    z = logits(*LARGE) if rows == "ordinary" else wild_logits(LARGE[1], LARGE[0])
    cases = {f"{kind}, tau={tau}": Case(some_labels(kind, LARGE[:1], LARGE[1]), tau)
             for kind, tau in (("sparse", 1.0), ("sparse", 100.0), ("soft", 1.0),
                               ("unnormalized", 100.0))}  # fmt: skip
    for name, case in cases.items():  # One after the other: together they are larger.
        upstream = np.random.default_rng(1).normal(size=LARGE[0])
        assert_equal_the_oracle({name: case}, z, "graph", upstream)


@pytest.mark.parametrize("mode", ["graph", "xla"])
@pytest.mark.parametrize("kind", ["sparse", "soft"])
def test_very_large_batches(kind, mode):
    cases = {kind: Case(some_labels(kind, VERY_LARGE[:1], VERY_LARGE[1]), 1.0)}
    upstream = np.random.default_rng(1).normal(size=VERY_LARGE[0])
    z = wild_logits(VERY_LARGE[1], VERY_LARGE[0])
    assert_equal_the_oracle(cases, z, mode, upstream)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_clipping_of_large_batches(dtype):
    z, upstream = (to_numpy(to_tensor(logits(*LARGE, seed=i), dtype)) for i in (0, 1))
    z[1] /= 1000
    value, gradient = value_and_vjp(
        lambda z: ops.logit_clip(z, 2.5), z, upstream, "graph", dtype
    )
    rtol = {"float32": 1e-6, "float16": 5e-4}[dtype]
    spacing = {"float32": 0, "float16": 2.0**-24}[dtype]  # Of its subnormal numbers.
    assert_rows_close(value, oracle.clip(z, 2.5, 2), rtol, atol=spacing)
    expected = oracle.clip_vjp(z, upstream, 2.5, 2)
    assert_rows_close(gradient, expected, rtol, atol=spacing)
    np.testing.assert_array_equal(gradient[1], upstream[1])


def xla_functions_in(function, rows=LARGE[0]):
    """Returns the number of functions of a graph that XLA compiles."""
    concrete = function.get_concrete_function(tf.TensorSpec((rows, LARGE[1])))
    functions = concrete.graph.as_graph_def().library.function
    return sum(function.attr["_XlaMustCompile"].b for function in functions)


def test_only_gradients_are_compiled_inside_of_graphs():
    """Clipped values are not compiled, because some export formats refuse that."""

    @tf.function
    def clip(z):
        return ops.logit_clip(z, 2.5)

    @tf.function
    def gradient(z):
        return tf.gradients(ops.logit_clip(z, 2.5), z)

    assert xla_functions_in(clip) == 0
    assert xla_functions_in(gradient) > 0


FUNCTIONS = {
    "clip": lambda z, y: y * keras.ops.cast(ops.logit_clip(z, 1.5), "float32"),
    "cross-entropy": lambda z, y: fused(y, 1.0)(z),
}


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
def test_derivatives_of_large_batches(function, dtype):
    """Gradients of labels, of half precision and of second order equal eager ones."""
    z, y = to_tensor(logits(*LARGE), dtype), to_tensor(logits(*LARGE, seed=1))

    def derivatives(z, y):
        with tf.GradientTape() as outer:
            outer.watch(z)
            with tf.GradientTape() as inner:
                inner.watch([z, y])
                total = keras.ops.sum(function(z, y))
            gradients = inner.gradient(total, [z, y])
        return [*gradients, outer.gradient(gradients[0], z)]

    expected = derivatives(z, y)
    rtol = {"float32": 2e-6, "float16": 1e-3}[dtype]
    for ours, eager in zip(tf.function(derivatives)(z, y), expected, strict=True):
        assert ours.dtype == eager.dtype
        assert np.isfinite(to_numpy(eager)).all()
        atol = rtol * np.abs(to_numpy(eager)).max()
        np.testing.assert_allclose(to_numpy(ours), to_numpy(eager), 0, atol)


@pytest.mark.parametrize("rows", [24, None], ids=("known", "unknown"))
def test_graphs_of_any_batch_size(rows):
    """A graph with an unknown batch size works for every batch."""

    @tf.function(input_signature=[tf.TensorSpec((rows, LARGE[1]))])
    def gradient(z):
        ids = keras.ops.zeros(keras.ops.shape(z)[0], "int32")
        return tf.gradients(fused(ids, 1.0)(z), z)[0]

    # Otherwise each size would be compiled, even if the user disabled that.
    assert (xla_functions_in(gradient, rows) > 0) == (rows is not None)
    for size in (rows,) if rows else (24, 3):
        z = logits(size, LARGE[1])
        weights = np.zeros_like(z)
        weights[:, 0] = 1
        _, expected = expected_loss_and_gradient(weights, z, 1.0, np.ones(size))
        assert_rows_close(to_numpy(gradient(to_tensor(z))), expected, 1e-6)


# A generator whose signature leaves sizes open: graphs do not know them.

CLASSES = 5
Z = logits(4, CLASSES)
IDS = np.array([1, 4, 0, 2], "int32")
ONE_HOT = np.eye(CLASSES, dtype="float32")[IDS]
UNKNOWN = {
    "ids in a column": IDS[:, None],
    "one-hot labels": ONE_HOT,
    "integers": ONE_HOT.astype("int32"),
    "soft labels": 0.9 * ONE_HOT + 0.1 / CLASSES,
}
OF_UNKNOWN = {
    "fused": LogitClipLoss(losses.CrossEntropy(), 1.0),
    "robust": losses.GeneralizedCrossEntropy(),
    "of logits": losses.BiTempered(),
    "clipped": LogitClipLoss(losses.SymmetricCrossEntropy(), 1.0),
    "sum": losses.preset("NCE+RCE", CLASSES),
}


def in_graph(loss, labels, label_shape, z_shape=(None, CLASSES), jit_compile=False):
    signature = (tf.TensorSpec(label_shape, labels.dtype), tf.TensorSpec(z_shape))
    graph = tf.function(loss, input_signature=signature, jit_compile=jit_compile)
    return to_numpy(graph(labels, Z))


@pytest.mark.parametrize("jit_compile", [False, True], ids=["graph", "xla"])
@pytest.mark.parametrize("kind", UNKNOWN)
def test_labels_whose_size_the_graph_does_not_know(kind, jit_compile):
    labels = UNKNOWN[kind]
    for name, loss in OF_UNKNOWN.items():
        for z_shape in ((None, CLASSES), (None, None)):
            value = in_graph(loss, labels, (None, None), z_shape, jit_compile)
            expected = to_numpy(loss(labels, Z))
            np.testing.assert_allclose(value, expected, 1e-5, err_msg=name)


OF_IDS = {
    "fused": LogitClipLoss("sparse_categorical_crossentropy", 1.0),
    "ignoring": LogitClipLoss("sparse_categorical_crossentropy", 1.0, ignore_class=9),
    "robust": losses.GeneralizedCrossEntropy(ignore_class=9),
}


@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_ids_of_classes_that_the_graph_does_not_know(dtype):
    for name, loss in OF_IDS.items():
        for ids, shape in ((IDS, (None,)), (IDS[:, None], (None, None))):
            value = in_graph(loss, ids.astype(dtype), shape, (None, None))
            np.testing.assert_allclose(
                value, to_numpy(loss(IDS, Z)), 1e-6, err_msg=name
            )


def test_ids_where_one_weight_per_class_is_due_are_refused():
    inner = keras.losses.CategoricalCrossentropy(True, label_smoothing=0.1)
    ids = IDS[:, None].astype("float32")
    with pytest.raises(tf.errors.InvalidArgumentError):
        in_graph(LogitClipLoss(inner, 1.0), ids, (None, None))


def test_an_id_that_is_no_class_in_a_column_of_unknown_size_is_nan():
    labels = np.array([[1], [-1], [9], [2]], "int32")
    loss = losses.GeneralizedCrossEntropy(reduction="none")
    values = in_graph(loss, labels, (None, None))
    np.testing.assert_array_equal(np.isnan(values), [False, True, True, False])


def test_labels_of_a_wrong_size_are_refused_when_the_graph_runs():
    for loss in OF_UNKNOWN.values():
        with pytest.raises(tf.errors.InvalidArgumentError, match="3"):
            in_graph(loss, ONE_HOT[:, :3].copy(), (None, None))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_label_smoothing_without_a_known_number_of_classes(smoothing):
    inner = keras.losses.CategoricalCrossentropy(
        from_logits=True, label_smoothing=smoothing
    )
    loss = LogitClipLoss(inner, 1.0)
    value = in_graph(loss, ONE_HOT, (None, None), (None, None))
    np.testing.assert_allclose(value, to_numpy(loss(ONE_HOT, Z)), 1e-6)


@pytest.mark.parametrize("loss", OF_UNKNOWN.values(), ids=OF_UNKNOWN)
def test_a_generator_with_an_open_signature_trains_as_arrays_do(loss):
    x = np.random.default_rng(0).normal(size=(4, 3)).astype("float32")
    batches = tf.data.Dataset.from_generator(
        lambda: zip(x, IDS[:, None], strict=True),
        output_signature=(tf.TensorSpec((3,)), tf.TensorSpec((None,), "int32")),
    )
    histories = []
    for data in ((batches.batch(2).repeat(),), (x, IDS, 2)):
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(CLASSES)])
        model.compile("sgd", type(loss).from_config(loss.get_config()))
        history = model.fit(
            *data, epochs=2, steps_per_epoch=2, shuffle=False, verbose=0
        )
        histories.append(history.history["loss"])
    np.testing.assert_allclose(*histories, 1e-5)


@pytest.fixture
def stop_at_nan_and_infinity():
    tf.debugging.enable_check_numerics()
    yield
    tf.debugging.disable_check_numerics()


@pytest.mark.usefixtures("stop_at_nan_and_infinity")
@pytest.mark.parametrize("shape", [(6, 10), LARGE], ids=("small", "large"))
@pytest.mark.parametrize("p", [2, 1, 1.5, oracle.INF])
def test_nothing_is_nan_or_infinite_on_the_way(p, shape):
    z = wild_logits(shape[1], shape[0])
    z[4] = logits(shape[1])  # In place of a row that may become NaN.
    ids = some_labels("sparse", shape[:1], shape[1]).given

    @tf.function
    def gradients(z):
        results = []
        for function in (fused(ids, 1.0, p=p), lambda z: ops.logit_clip(z, 1.0, p)):
            with tf.GradientTape() as tape:
                tape.watch(z)
                value = tf.reduce_sum(function(z))
            results.append(tape.gradient(value, z))
        return results

    for gradient in gradients(to_tensor(z)):
        assert np.isfinite(to_numpy(gradient)).all()
    z[5, 1] = np.nan
    with pytest.raises(tf.errors.InvalidArgumentError, match="NaN"):
        gradients(to_tensor(z))


@pytest.mark.usefixtures("stop_at_nan_and_infinity")
def test_training_under_a_search_for_nan():
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(10)])
    loss = LogitClipLoss("sparse_categorical_crossentropy", tau=1.0)
    model.compile("sgd", loss, jit_compile=False)
    history = model.fit(
        logits(32, 5), some_labels("sparse", (32,)).given, batch_size=16, verbose=0
    )
    assert np.isfinite(history.history["loss"]).all()


@pytest.mark.parametrize("mode", ["graph", "xla"])
@pytest.mark.parametrize("shape", [(3, 10), (22, 50_000)], ids=("small", "large"))
def test_jacobians(shape, mode):
    z = to_tensor(logits(*shape))
    labels = some_labels("sparse", shape[:1], shape[1])

    @tf.function(jit_compile=mode == "xla")
    def jacobian(z):
        with tf.GradientTape() as tape:
            tape.watch(z)
            losses = fused(labels.given, 1.0)(z)
        return tape.jacobian(losses, z)

    _, expected = expected_loss_and_gradient(labels.weights, z, 1.0, np.ones(shape[0]))
    found = to_numpy(jacobian(z))
    rows = np.arange(shape[0])
    assert_rows_close(found[rows, rows], expected, 2e-6)
    found[rows, rows] = 0
    assert not found.any()


@pytest.mark.parametrize("labels", [(None,), (None, 1), (None, None)], ids=str)
@pytest.mark.parametrize("jit_compile", [False, True], ids=["graph", "xla"])
@pytest.mark.parametrize(
    "loss",
    [
        losses.CrossEntropy(),
        LogitClipLoss(losses.CrossEntropy(), 1.0),
        LogitClipLoss(losses.GeneralizedCrossEntropy(), 1.0),
        losses.GeneralizedCrossEntropy(),
    ],
    ids=["cross_entropy", "clipped", "clipped_robust", "robust"],
)
def test_one_label_of_unknown_size_is_not_that_of_all_rows(loss, jit_compile, labels):
    signature = [tf.TensorSpec(labels, tf.int32), tf.TensorSpec((None, 10))]
    step = tf.function(
        lambda y, z: loss(y, z), input_signature=signature, jit_compile=jit_compile
    )
    label = np.ones([1] * len(labels), "int32")
    with pytest.raises(tf.errors.InvalidArgumentError):
        step(label, logits())


@pytest.mark.parametrize("shape", [(None, None), (None, 10), (6, None)], ids=str)
def test_unknown_sizes(shape):
    labels = some_labels("sparse")

    @tf.function(input_signature=[tf.TensorSpec(shape)])
    def loss_and_gradient(z):
        losses = fused(labels.given, 1.0)(z)
        return losses, tf.gradients(losses, z)[0]

    z = logits()
    found = loss_and_gradient(to_tensor(z))
    expected = expected_loss_and_gradient(labels.weights, z, 1.0, np.ones(len(z)))
    np.testing.assert_allclose(found[0], expected[0], 1e-6)
    assert_rows_close(found[1], expected[1], 2e-6)
