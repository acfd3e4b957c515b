import keras
import numpy as np
import pytest

from keras_logitclip import LogitClip
from tests import oracle
from tests.conftest import BACKEND
from tests.running import KERAS_VERSION
from tests.running import to_numpy
from tests.running import to_tensor
from tests.samples import CLASSES
from tests.samples import ROWS
from tests.samples import logits


# Keras's own checks shuffle a generator, and train a model of this layer alone.
@pytest.mark.filterwarnings("ignore:`shuffle=True` was passed, but will be ignored")
@pytest.mark.filterwarnings("ignore:The model does not have any trainable weights")
@pytest.mark.gradients
@pytest.mark.parametrize(
    "arguments",
    [
        {"tau": 0.5, "p": 1.5, "training_only": True},
        {"tau": 0.5, "p": float("inf"), "axis": 1, "name": "clip"},
    ],
    ids=str,
)
def test_keras_layer_battery(arguments):
    # Keras's own checks of a layer: private, but the contract we want to keep.
    from keras.src.testing import TestCase

    TestCase().run_layer_test(
        LogitClip,
        init_kwargs=arguments,
        input_shape=(4, 3, 5),
        expected_output_shape=(4, 3, 5),
        expected_num_trainable_weights=0,
        expected_num_non_trainable_weights=0,
        expected_num_non_trainable_variables=0,
        expected_num_seed_generators=0,
        expected_num_losses=0,
        supports_masking=True,
    )


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.clip = LogitClip(1.5)

    def call(self, inputs):
        return self.clip(inputs)


def functional():
    inputs = keras.Input((CLASSES,))
    return keras.Model(inputs, LogitClip(1.5)(inputs))


MODELS = {
    "functional": functional,
    "sequential": lambda: keras.Sequential([LogitClip(1.5)]),
    "subclassed": Subclassed,
}


@pytest.mark.parametrize("build", MODELS.values(), ids=MODELS)
def test_values_in_every_kind_of_model(build):
    z = logits()
    np.testing.assert_allclose(to_numpy(build()(z)), oracle.clip(z, 1.5, 2), rtol=1e-6)


@pytest.mark.parametrize("training", [True, False, None])
@pytest.mark.parametrize("training_only", [True, False])
def test_training_only(training_only, training):
    z = logits()
    outputs = to_numpy(
        LogitClip(1.0, training_only=training_only)(z, training=training)
    )
    if training_only and not training:
        np.testing.assert_array_equal(outputs, z)
    else:
        np.testing.assert_allclose(outputs, oracle.clip(z, 1.0, 2), rtol=1e-6)


def test_without_clipping():
    layer = LogitClip(oracle.INF, p=1)
    clone = LogitClip.from_config(layer.get_config())
    assert clone.tau == oracle.INF
    np.testing.assert_array_equal(to_numpy(clone(logits())), logits())


def test_predicted_classes_are_those_of_the_raw_logits():
    z = logits(500, CLASSES)
    np.testing.assert_array_equal(to_numpy(LogitClip(0.1)(z)).argmax(1), z.argmax(1))


def test_masks_pass_through():
    tokens = np.array([[1, 2, 0], [3, 0, 0]])
    embedding = keras.layers.Embedding(5, 4, mask_zero=True)
    layer = LogitClip(1.0)
    mask = layer.compute_mask(None, embedding.compute_mask(tokens))
    np.testing.assert_array_equal(to_numpy(mask), tokens != 0)
    if BACKEND != "numpy":  # Whose arrays take no attributes.
        outputs = layer(embedding(tokens))
        np.testing.assert_array_equal(to_numpy(outputs._keras_mask), tokens != 0)


# JAX has no float64 unless told so.
@pytest.mark.filterwarnings("ignore:Explicitly requested dtype float64")
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float64"])
def test_dtype_policies(policy):
    layer = LogitClip(1.0, dtype=policy)
    outputs = layer(to_tensor(logits(), "float32"))
    compute_dtype = policy.removeprefix("mixed_")
    # They have no float64 unless told so, NumPy's backend in newer versions of Keras.
    without = ("jax", "numpy") if KERAS_VERSION >= (3, 15) else ("jax",)
    if BACKEND in without and policy == "float64":
        compute_dtype = "float32"
    assert keras.backend.standardize_dtype(outputs.dtype) == compute_dtype
    np.testing.assert_allclose(
        oracle.norm(to_numpy(outputs), 2), 1.0, rtol=4e-3, atol=0
    )


@pytest.mark.once
def test_config_round_trip():
    layer = LogitClip(
        0.5, p=3, axis=1, training_only=True, name="clip", dtype="float16"
    )
    clone = LogitClip.from_config(layer.get_config())
    assert clone.get_config() == layer.get_config()
    assert (clone.tau, clone.p, clone.axis) == (0.5, 3.0, 1)
    assert clone.training_only


BAD_ARGUMENTS = {
    "tau": {"tau": 0},
    "p": {"tau": 1, "p": 0.5},
    "axis": {"tau": 1, "axis": (0, 1)},
    "training_only": {"tau": 1, "training_only": "yes"},
}


@pytest.mark.once
@pytest.mark.parametrize("name", BAD_ARGUMENTS)
def test_bad_arguments(name):
    """One bad value of each; `tests.test_ops` has all for `tau`, `p` and `axis`."""
    with pytest.raises(ValueError, match=f"`{name}`: expected .* Received: {name}="):
        LogitClip(**BAD_ARGUMENTS[name])


@pytest.mark.once
@pytest.mark.parametrize("symbolic", [True, False], ids=("symbolic", "tensor"))
@pytest.mark.parametrize("axis", [3, -4])
def test_axis_out_of_range(axis, symbolic):
    z = keras.Input((4, 5)) if symbolic else logits(2, 4, 5)
    with pytest.raises(ValueError, match=rf"logits of rank 3. Received: axis={axis}"):
        LogitClip(1.0, axis=axis)(z)


@pytest.mark.once
@pytest.mark.parametrize("symbolic", [True, False], ids=("symbolic", "tensor"))
def test_the_batch_axis_is_no_class_axis(symbolic):
    z = keras.Input(()) if symbolic else logits(ROWS)
    with pytest.raises(ValueError, match="batch axis and a class axis"):
        LogitClip(1.0)(z)


@pytest.mark.once
def test_integer_logits():
    with pytest.raises(ValueError, match="expected floating-point logits"):
        LogitClip(1.0)(np.ones((2, 3), "int32"))


def test_probabilities_are_refused_where_keras_marks_them():
    probabilities = keras.activations.softmax(to_tensor(logits(2, 3)))
    if not hasattr(probabilities, "_keras_logits"):
        assert BACKEND in ("jax", "numpy")  # Whose tensors take no attributes.
        return
    with pytest.raises(ValueError, match="Expected logits. Received: probabilities"):
        LogitClip(1.0)(probabilities)


ACTIVATED = {
    "dense": keras.layers.Dense(3, activation="softmax"),
    "activation": keras.layers.Activation("sigmoid"),
    "softmax": keras.layers.Softmax(),
    "function": keras.ops.softmax,
}


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("last", ACTIVATED.values(), ids=ACTIVATED)
def test_a_symbolic_softmax_in_front_is_refused(last, policy):
    """On every backend, because a functional model knows where a tensor comes from."""
    probabilities = last(keras.Input((3,)))
    with pytest.raises(ValueError, match="Expected logits. Received: probabilities"):
        LogitClip(1.0, dtype=policy)(probabilities)


def test_other_activations_in_front_are_accepted():
    for last in (keras.layers.Dense(3, activation="relu"), keras.ops.tanh):
        assert LogitClip(1.0)(last(keras.Input((3,)))).shape == (None, 3)
