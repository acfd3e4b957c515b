"""Checkpoints, exported graphs and quantization of models with the layer."""

import functools
import logging
import sys
import warnings
from collections import namedtuple
from importlib.util import find_spec

import keras
import numpy as np
import pytest

from keras_logitclip import LogitClip
from keras_logitclip import LogitClipLoss
from keras_logitclip import metrics
from keras_logitclip import ops
from tests import oracle
from tests.running import BACKEND
from tests.running import KERAS_VERSION
from tests.subprocesses import environment
from tests.subprocesses import run_well

TAU = 1.5
INF = float("inf")
rng = np.random.default_rng(0)
INPUTS = rng.normal(size=(24, 8)).astype("float32")
LABELS = rng.integers(0, 5, 24)
# Long rows, short rows and a row of zeros.
ROWS = INPUTS * np.resize([3.0, 0.1, 0.0], (24, 1)).astype("float32")

# Of values out of two models. On some processors, Keras's OpenVINO backend
# multiplies matrices in bfloat16.
ATOL = 2e-2 if BACKEND == "openvino" else 1e-5


@pytest.fixture(autouse=True)
def no_statistics(monkeypatch):
    """Prevents OpenVINO's converter from forking this process to send statistics."""
    monkeypatch.setenv("CI", "true")


@pytest.fixture(autouse=True)
def level_of_the_root_logger():
    """OpenVINO's converter raises it, which would hide warnings from later tests."""
    level = logging.root.level
    yield
    logging.root.setLevel(level)


def build_model(*last, seed=0):
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((8,))
    outputs = keras.layers.Dense(16, use_bias=False)(inputs)
    outputs = keras.layers.Dense(5, use_bias=False)(outputs)
    for layer in last:
        outputs = layer(outputs)
    return keras.Model(inputs, outputs)


def predict(model, x=ROWS):
    return model.predict(x, verbose=0)


# Checkpoints.


def build_compiled(seed=0):
    model = build_model(LogitClip(2.0), seed=seed)
    model.compile(
        keras.optimizers.SGD(0.1, momentum=0.9),
        LogitClipLoss("sparse_categorical_crossentropy", TAU),
        metrics=[metrics.MeanLogitNorm(), metrics.ClippedFraction(TAU)],
    )
    return model


def fit(model, *callbacks, **arguments):
    return model.fit(
        INPUTS, LABELS, batch_size=8, epochs=4, shuffle=False, verbose=0,
        callbacks=list(callbacks), **arguments,
    ).history  # fmt: skip


def test_the_layer_leaves_the_file_of_weights_as_it_is(tmp_path):
    path = tmp_path / "model.weights.h5"
    clipping, plain = build_model(LogitClip(TAU)), build_model(seed=1)
    clipping.save_weights(path)
    plain.load_weights(path)
    expected = oracle.clip(predict(plain), TAU, 2)
    np.testing.assert_allclose(predict(clipping), expected, atol=ATOL)
    plain.save_weights(path)
    other = build_model(LogitClip(TAU), seed=2)
    other.load_weights(path)
    np.testing.assert_allclose(predict(other), expected, atol=ATOL)


@pytest.mark.gradients
def test_model_checkpoints_follow_metrics_of_the_logits(tmp_path):
    monitors = {
        name: keras.callbacks.ModelCheckpoint(
            tmp_path / f"{name}.keras", f"val_{name}", mode="max", save_best_only=True
        )
        for name in ("mean_logit_norm", "clipped_fraction")
    }
    validation = (ROWS[:12], LABELS[:12])
    history = fit(build_compiled(), *monitors.values(), validation_data=validation)
    for monitor in monitors:
        best = int(np.argmax(history[f"val_{monitor}"]))
        model = keras.models.load_model(tmp_path / f"{monitor}.keras")
        logs = model.evaluate(*validation, verbose=0, return_dict=True)
        assert set(logs) == {"loss", "mean_logit_norm", "clipped_fraction"}
        for name, value in logs.items():
            expected = history[f"val_{name}"][best]
            assert value == pytest.approx(expected, rel=1e-5), name


class Interruption(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 2:
            raise InterruptedError


@pytest.mark.gradients
def test_interrupted_training_resumes_from_the_backup(tmp_path):
    uninterrupted = build_compiled()
    history = fit(uninterrupted)
    with pytest.raises(InterruptedError):
        fit(
            build_compiled(), keras.callbacks.BackupAndRestore(tmp_path), Interruption()
        )
    resumed = build_compiled(seed=1)
    rest = fit(resumed, keras.callbacks.BackupAndRestore(tmp_path))
    for name, values in history.items():
        assert rest[name] == pytest.approx(values[2:], rel=1e-5), name
    for ours, theirs in zip(
        resumed.get_weights(), uninterrupted.get_weights(), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


# Exports. Each reader returns what a runtime computes from the exported file.


def read_saved_model(path, x):
    import tensorflow as tf

    reloaded = tf.saved_model.load(path)
    return reloaded.serve(x).numpy()


def read_onnx(path, x):
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def read_openvino(path, x):
    import openvino

    # Of itself, it may compute products of matrices in bfloat16, as it does under
    # Keras's OpenVINO backend.
    hint = {} if BACKEND == "openvino" else {"INFERENCE_PRECISION_HINT": "f32"}
    return openvino.compile_model(path, "CPU", hint)(x)[0]


def read_litert(path, x):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(path)
    position = interpreter.get_input_details()[0]["index"]
    interpreter.resize_tensor_input(position, x.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(position, x)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


def read_torch(path, x):
    import torch

    program = torch.export.load(path).module()
    return program(torch.tensor(x)).detach().numpy()


# `modules` are what Keras and the reader need; `since` is the version of Keras
# from which on these tests hold.
Format = namedtuple("Format", "suffix read modules since", defaults=((3, 15),))
FORMATS = {
    "tf_saved_model": Format("", read_saved_model, ["tensorflow"], (3, 10)),
    "onnx": Format(
        ".onnx",
        read_onnx,
        [
            "onnxruntime",
            {"tensorflow": "tf2onnx", "jax": "jax2onnx"}.get(BACKEND, "onnxscript"),
        ],
    ),
    "openvino": Format(".xml", read_openvino, ["openvino"]),
    "litert": Format(".tflite", read_litert, ["ai_edge_litert"]),
    "torch": Format(".pt2", read_torch, ["torch"]),
}
EXPORTS = {
    "tensorflow": ("tf_saved_model", "onnx", "openvino", "litert"),
    "jax": ("tf_saved_model", "onnx"),
    "torch": ("onnx", "openvino", "torch"),
    "openvino": ("openvino",),
    "numpy": (),
}[BACKEND]

REQUIRES_TORCH = (ValueError, "Torch export requires PyTorch backend")
REQUIRES_LITERT = (ValueError, "LiteRT export requires TensorFlow or PyTorch backend")
# Formats to which no model can be exported as of Keras 3.15.1, with the errors.
MISSING = {
    "tensorflow": {"torch": REQUIRES_TORCH},
    "jax": {
        "litert": REQUIRES_LITERT,
        "torch": REQUIRES_TORCH,
        # JAX 0.10 ignores `native_serialization=False`; OpenVINO is at 2026.4.
        "openvino": (Exception, "No conversion rule found .*XlaCallModule"),
    },
    "torch": {
        # From PyTorch 2.13.
        "tf_saved_model": (Exception, "mismatch .*`inputs` and `dynamic_shapes`")
    },
    "openvino": {
        "tf_saved_model": (AttributeError, "track_and_add_endpoint"),
        "onnx": (NotImplementedError, "only compatible with TensorFlow, JAX and Torch"),
        "litert": REQUIRES_LITERT,
        "torch": REQUIRES_TORCH,
    },
    "numpy": {
        "tf_saved_model": (AttributeError, "track_and_add_endpoint"),
        "onnx": (NotImplementedError, "only compatible with TensorFlow, JAX and Torch"),
        "openvino": (NotImplementedError, "only compatible with OpenVINO"),
        "litert": REQUIRES_LITERT,
        "torch": REQUIRES_TORCH,
    },
}[BACKEND]
if BACKEND == "torch" and not find_spec("litert_torch"):
    MISSING["litert"] = (ImportError, "litert[-_]torch")


def export(model, name, folder):
    """Exports for any size of batch, and returns the path."""
    file_format = FORMATS[name]
    if file_format.since > KERAS_VERSION:
        pytest.skip(f"written for exports of Keras {file_format.since} and later")
    for module in file_format.modules:
        pytest.importorskip(module)
    path = str(folder / f"model{file_format.suffix}")
    arguments = {}
    if name == "torch":
        from torch.export import Dim

        arguments["dynamic_shapes"] = {0: Dim("batch", min=1, max=1024)}
    model(ROWS)  # Which Keras asks for before some exports.
    with warnings.catch_warnings():
        # The exporters use what NumPy, JAX and PyTorch have deprecated, and PyTorch's
        # tracer warns of what it reads as a constant.
        warnings.simplefilter("ignore")
        model.export(path, format=name, verbose=False, **arguments)
    return path


CLIPPING = {
    "p=2": (2, LogitClip(TAU)),
    "p=1": (1, LogitClip(TAU, p=1)),
    "p=3": (3, LogitClip(TAU, p=3)),
    "p=inf": (INF, LogitClip(TAU, p=INF)),
    "function": (2, lambda logits: ops.logit_clip(logits, TAU)),
}


def clipping_for(name):
    """Returns what can be exported to the format."""
    # As of jax2onnx 0.17: it cannot broadcast powers of batches of unknown size.
    left_out = {("jax", "onnx"): ["p=3"]}.get((BACKEND, name), [])
    return {key: value for key, value in CLIPPING.items() if key not in left_out}


@functools.cache
def model_with_every_clipping(*names):
    """Returns one model with two outputs, logits and clipped logits, and predictions.

    One model, because an export takes seconds. The predictions are for batches of two
    sizes.
    """
    clipping = {name: CLIPPING[name] for name in names}
    model = build_model()
    (logits,) = model.outputs
    clipped = [clip(logits) for _, clip in clipping.values()]
    training_only = LogitClip(TAU, training_only=True)(logits)
    every = keras.layers.Concatenate()([logits, training_only, *clipped])
    model = keras.Model(model.inputs[0], every)
    return model, {len(rows): predict(model, rows) for rows in (ROWS, ROWS[:1])}


if EXPORTS:

    @pytest.mark.parametrize("name", EXPORTS)
    def test_export(name, tmp_path):
        clipping = clipping_for(name)
        model, expected = model_with_every_clipping(*clipping)
        path = export(model, name, tmp_path)
        for size, values in expected.items():
            outputs = FORMATS[name].read(path, ROWS[:size])
            np.testing.assert_allclose(outputs, values, atol=1e-5)
        outputs = FORMATS[name].read(path, ROWS)
        logits, training_only, *clipped = np.split(outputs, 2 + len(clipping), axis=-1)
        np.testing.assert_array_equal(training_only, logits)
        for (key, (p, _)), values in zip(clipping.items(), clipped, strict=True):
            norms = oracle.norm(logits, p)
            assert {"clipped", "short", "zero"} == set(
                np.select([norms > TAU, norms > 0], ["clipped", "short"], "zero")
            )
            np.testing.assert_allclose(
                values, oracle.clip(logits, TAU, p), atol=1e-5, err_msg=key
            )


if BACKEND == "jax":

    def test_order_that_jax2onnx_cannot_export(tmp_path):
        with pytest.raises(TypeError, match="_DimExpr"):
            export(build_model(LogitClip(TAU, p=3)), "onnx", tmp_path)


@pytest.mark.parametrize("name", MISSING)
def test_what_keras_itself_cannot_export(name, tmp_path):
    if KERAS_VERSION < (3, 15):
        pytest.skip("written for exports of Keras 3.15 and later")
    model = build_model()
    error, message = MISSING[name]
    with pytest.raises(error, match=f"(?s){message}"):
        export(model, name, tmp_path)


SERVE = """
import sys
import numpy as np
import tensorflow as tf

folder = sys.argv[1]
reloaded = tf.saved_model.load(folder + "/model")
outputs = reloaded.serve(np.load(folder + "/rows.npy"))
assert "keras_logitclip" not in sys.modules
np.save(folder + "/outputs.npy", outputs)
"""

if "tf_saved_model" in EXPORTS:

    def test_saved_model_serves_where_this_package_is_absent(tmp_path):
        model = build_model(LogitClip(TAU))
        expected = predict(model)
        path = export(model, "tf_saved_model", tmp_path)
        np.save(tmp_path / "rows.npy", ROWS)
        variables = environment()
        del variables["PYTHONPATH"]
        run_well([sys.executable, "-c", SERVE, tmp_path], env=variables, cwd=tmp_path)
        outputs = np.load(tmp_path / "outputs.npy")
        np.testing.assert_allclose(outputs, expected, atol=1e-5)
        if BACKEND == "tensorflow":
            layer = keras.layers.TFSMLayer(path, call_endpoint="serve")
            np.testing.assert_allclose(layer(ROWS), expected, atol=1e-5)


# Quantization.


# Keras's quantized layers have gradients of their own, which two backends leave out.
@pytest.mark.filterwarnings(
    "ignore:`custom_gradient` for the (openvino|numpy) backend:UserWarning"
)
@pytest.mark.parametrize("quantization", ["int8", "int4", "float8"])
def test_quantized(quantization, tmp_path):
    if quantization == "int4" and KERAS_VERSION < (3, 11):
        pytest.skip("Keras has int4 since 3.11")
    # Of another model: under OpenVINO, Keras 3.15 predicts with what it compiled
    # before the quantization.
    exact = predict(build_model(LogitClip(TAU)))
    model = build_model(LogitClip(TAU))
    # Keras warns of layers that have no weights.
    no_weights = "Layer (InputLayer|LogitClip) does not have a `quantize` method"
    with pytest.warns(UserWarning, match=no_weights) as warned:
        model.quantize(quantization)
    assert any("LogitClip" in str(warning.message) for warning in warned)
    unclipped = keras.Model(model.inputs, model.layers[-2].output)
    outputs, logits = predict(model), predict(unclipped)
    assert (outputs != exact).any()
    assert (oracle.norm(logits, 2) > TAU).any()
    assert (oracle.norm(outputs, 2) <= TAU * (1 + 1e-6)).all()
    np.testing.assert_array_equal(outputs.argmax(-1), logits.argmax(-1))
    np.testing.assert_allclose(outputs, oracle.clip(logits, TAU, 2), atol=ATOL)
    model.save(tmp_path / "model.keras")
    reloaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(predict(reloaded), outputs, atol=ATOL)
