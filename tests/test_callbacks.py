import csv
import re

import keras
import numpy as np
import pytest

from keras_logitclip import LogitClipLoss
from keras_logitclip import noise
from keras_logitclip._jobs.arrays import ShuffledBatches
from keras_logitclip.callbacks import MemorizationMonitor
from tests.conftest import BACKEND

NAMES = ("memorized", "recovered", "clean_accuracy")
CLASSES = 5
rng = np.random.default_rng(0)
X = rng.normal(size=(130, 8)).astype("float32")
CLEAN = np.argmax(X[:, :CLASSES], -1)
NOISY = noise.symmetric(CLEAN, 0.4, CLASSES, seed=0)
ALL_RIGHT = noise.symmetric(CLEAN, 0.0, CLASSES, seed=0)
ALL_WRONG = noise.symmetric(CLEAN, 1.0, CLASSES, seed=0)


def build_model(*, policy="float32", **compiling):
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy(policy)
    model = keras.Sequential(
        [
            keras.Input((8,)),
            keras.layers.Dense(32, "relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.3),
            keras.layers.Dense(CLASSES),
        ]
    )
    compile_model(model, **compiling)
    return model


def compile_model(model, **compiling):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(
        keras.optimizers.SGD(0.2, momentum=0.9), loss, metrics=["acc"], **compiling
    )


def fit(model, *callbacks, x=X, noisy=NOISY, epochs=2, **arguments):
    arguments = {"verbose": 0, "batch_size": 32, "shuffle": False, **arguments}
    return model.fit(
        x, noisy.labels, epochs=epochs, callbacks=list(callbacks), **arguments
    ).history


def shares(model, x, noisy):
    """Computes the expected shares sample by sample."""
    predicted = np.argmax(model.predict_on_batch(x), -1)
    triples = list(zip(predicted, noisy.labels, noisy.clean, strict=True))
    wrong = [(p, label, clean) for p, label, clean in triples if label != clean]
    right = [(p, label) for p, label, clean in triples if label == clean]
    return {
        "memorized": mean_of([p == label for p, label, _ in wrong]),
        "recovered": mean_of([p == clean for p, _, clean in wrong]),
        "clean_accuracy": mean_of([p == label for p, label in right]),
    }


def mean_of(matches):
    return sum(matches) / len(matches) if matches else np.nan


class Reference(keras.callbacks.Callback):
    def __init__(self, noisy):
        super().__init__()
        self.noisy = noisy
        self.epochs = []

    def on_epoch_end(self, epoch, logs=None):
        self.epochs.append(shares(self.model, X, self.noisy))


def assert_history(history, epochs):
    for name in NAMES:
        expected = [epoch[name] for epoch in epochs]
        np.testing.assert_allclose(history[name], expected, rtol=1e-12)


COMPILING = {
    "default": {},
    "bfloat16": {"policy": "mixed_bfloat16"},
}
if BACKEND != "jax":  # Which compiles each operation of an eager step separately.
    COMPILING["eager"] = {"run_eagerly": True}
if BACKEND in ("tensorflow", "jax"):  # Elsewhere, Keras refuses or takes minutes.
    COMPILING["compiled"] = {"jit_compile": True}
    COMPILING["several-steps"] = {"steps_per_execution": 3}


@pytest.mark.gradients
@pytest.mark.parametrize("compiling", COMPILING.values(), ids=COMPILING)
def test_history_of_the_whole_data(compiling):
    monitor = MemorizationMonitor(X, NOISY, len(X), batch_size=50)
    reference = Reference(NOISY)
    history = fit(build_model(**compiling), monitor, reference, epochs=3)
    assert_history(history, reference.epochs)
    assert len({tuple(epoch.values()) for epoch in reference.epochs}) > 1


@pytest.mark.gradients
@pytest.mark.parametrize(
    ("noisy", "known"),
    [(ALL_RIGHT, {"clean_accuracy"}), (ALL_WRONG, {"memorized", "recovered"})],
    ids=("no-wrong-label", "no-right-label"),
)
def test_a_share_of_nothing_is_nan(noisy, known):
    reference = Reference(noisy)
    monitor = MemorizationMonitor(X, noisy, len(X))
    history = fit(build_model(), monitor, reference, noisy=noisy)
    assert_history(history, reference.epochs)
    assert {name for name in NAMES if np.isfinite(history[name]).all()} == known


@pytest.mark.gradients
def test_measuring_outside_of_fit():
    model = build_model()
    fit(model)
    monitor = MemorizationMonitor(X, NOISY, len(X), batch_size=50, prefix="train_")
    assert monitor.measure(model) == pytest.approx(shares(model, X, NOISY))


@pytest.mark.gradients
def test_training_is_not_disturbed():
    plain = build_model()
    expected = fit(plain, validation_data=(X, CLEAN))
    watched = build_model()
    monitor = MemorizationMonitor(X, NOISY, batch_size=5)
    history = fit(watched, monitor, validation_data=(X, CLEAN))
    assert {name: history[name] for name in expected} == expected
    assert set(history) - set(expected) == set(NAMES)
    for ours, theirs in zip(watched.variables, plain.variables, strict=True):
        np.testing.assert_array_equal(
            keras.ops.convert_to_numpy(ours), keras.ops.convert_to_numpy(theirs)
        )


@pytest.mark.gradients
def test_nothing_is_printed(capsys):
    model = build_model()
    fit(model, MemorizationMonitor(X, NOISY), epochs=1)
    assert capsys.readouterr().out == ""
    fit(model, MemorizationMonitor(X, NOISY), verbose=2, epochs=1)
    printed = capsys.readouterr().out
    assert all(name in printed for name in NAMES)
    assert printed.count("step") == 1


@pytest.mark.gradients
def test_callbacks_that_follow_see_it(tmp_path):
    path = tmp_path / "log.csv"
    history = fit(
        build_model(),
        MemorizationMonitor(X, NOISY, prefix="train_"),
        keras.callbacks.CSVLogger(path),
        keras.callbacks.EarlyStopping("train_recovered", mode="max", baseline=1.1),
        epochs=5,
    )
    names = [f"train_{name}" for name in NAMES]
    assert len(history["train_memorized"]) == 2  # The first epoch never stops.
    with path.open() as file:
        rows = list(csv.DictReader(file))
    for name in names:
        assert [float(row[name]) for row in rows] == history[name]


@pytest.mark.gradients
def test_training_that_is_stopped_stays_stopped():
    stop = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: setattr(stop.model, "stop_training", True)
    )
    history = fit(build_model(), stop, MemorizationMonitor(X, NOISY))
    assert len(history["memorized"]) == 1


@pytest.mark.gradients
def test_without_logs_nothing_happens():
    monitor = MemorizationMonitor(X, NOISY)
    monitor.set_model(build_model())
    monitor.on_epoch_end(0)
    monitor.on_epoch_end(0, logs := {})
    assert set(logs) == set(NAMES)


@pytest.mark.gradients
@pytest.mark.skipif(BACKEND == "torch", reason="runs eagerly")
def test_prediction_is_compiled_once():
    traces = []

    class Count(keras.layers.Layer):
        def call(self, inputs, training=None):
            if not training:
                traces.append(inputs.shape)
            return inputs

    model = keras.Sequential([keras.Input((8,)), Count(), keras.layers.Dense(CLASSES)])
    compile_model(model)
    monitor = MemorizationMonitor(X, NOISY, sample_size=100, batch_size=30)
    counts = []
    count = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: counts.append(len(traces))
    )
    fit(model, monitor, count)
    assert counts[0] == counts[-1] > 0


LEFT, RIGHT = X[:, :3], X[:, 3:]
INPUTS = {
    "list": [LEFT, RIGHT],
    "tuple": (LEFT, RIGHT),
    "dict": {"left": LEFT, "right": RIGHT},
}


@pytest.mark.gradients
@pytest.mark.parametrize("inputs", INPUTS.values(), ids=INPUTS)
def test_several_inputs(inputs):
    symbols = {
        "left": keras.Input((3,), name="left"),
        "right": keras.Input((5,), name="right"),
    }
    joined = keras.layers.Concatenate()([symbols["left"], symbols["right"]])
    given = symbols if isinstance(inputs, dict) else list(symbols.values())
    model = keras.Model(given, keras.layers.Dense(CLASSES)(joined))
    compile_model(model)
    if isinstance(inputs, dict):
        fit(model, MemorizationMonitor(inputs, NOISY, len(X)), x=inputs, epochs=1)
    monitor = MemorizationMonitor(inputs, NOISY, len(X))
    monitor.set_model(model)
    monitor.on_epoch_end(0, logs := {})
    assert logs == pytest.approx(shares(model, inputs, NOISY))


def two_heads(kind):
    x = keras.Input((8,))
    heads = {name: keras.layers.Dense(CLASSES, name=name)(x) for name in ("one", "two")}
    return keras.Model(x, heads if kind == "dict" else list(heads.values()))


@pytest.mark.gradients
@pytest.mark.parametrize(("kind", "keys"), [("dict", ("one", "two")), ("list", (0, 1))])
def test_each_of_two_heads_has_a_monitor(kind, keys):
    model = two_heads(kind)
    clipped = LogitClipLoss("sparse_categorical_crossentropy", 1.0)
    structure = dict if kind == "dict" else lambda pairs: [value for _, value in pairs]
    labels = (NOISY, ALL_WRONG)
    model.compile("sgd", structure((key, clipped) for key in keys))
    monitors = [
        MemorizationMonitor(X, noisy, len(X), prefix=f"{key}_", output=key)
        for key, noisy in zip(keys, labels, strict=True)
    ]
    y = structure((key, noisy.labels) for key, noisy in zip(keys, labels, strict=True))
    history = model.fit(X, y, epochs=1, callbacks=monitors, verbose=0).history
    outputs = model.predict_on_batch(X)
    for key, noisy in zip(keys, labels, strict=True):
        predicted = np.argmax(outputs[key], -1)
        wrong = noisy.flipped
        memorized = np.mean(predicted[wrong] == noisy.labels[wrong])
        assert history[f"{key}_memorized"] == [pytest.approx(memorized)]


@pytest.mark.gradients
def test_a_softmax_in_one_of_two_heads_is_noticed():
    x = keras.Input((8,))
    outputs = [keras.layers.Dense(CLASSES)(x) for _ in range(2)]
    model = keras.Model(x, [outputs[0], keras.layers.Softmax()(outputs[1])])
    clipped = LogitClipLoss("sparse_categorical_crossentropy", 1.0)
    other = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", [other, clipped])
    MemorizationMonitor(X, NOISY, output=0).measure(model)
    with pytest.raises(ValueError, match="returns probabilities. Remove the softmax"):
        MemorizationMonitor(X, NOISY, output=1).measure(model)


@pytest.mark.parametrize(
    ("kind", "output", "shapes"),
    [
        ("dict", None, r"{'one': \(13, 5\), 'two': \(13, 5\)}"),
        ("dict", "three", "{'one': "),
        ("dict", 0, "{'one': "),
        ("list", 2, r"\[\(13, 5\), \(13, 5\)\]"),
        ("list", "one", r"\[\(13, 5\)"),
    ],
)
def test_the_heads_that_there_are_are_told(kind, output, shapes):
    monitor = MemorizationMonitor(X, NOISY, output=output)
    message = f"as `output`. Received: outputs of shape {shapes}"
    with pytest.raises(ValueError, match=message):
        monitor.measure(two_heads(kind))


def test_a_softmax_in_another_head_is_none_of_this_one():
    x = keras.Input((8,))
    outputs = [keras.layers.Dense(CLASSES)(x) for _ in range(2)]
    model = keras.Model(x, [keras.layers.Softmax()(outputs[0]), outputs[1]])
    clipped = LogitClipLoss("sparse_categorical_crossentropy", 1.0)
    model.compile("sgd", ["sparse_categorical_crossentropy", clipped])
    for output in (0, 1):
        MemorizationMonitor(X, NOISY, output=output).measure(model)


def some_batches(kind):
    """Returns batches of inputs and labels in the usual form of the backend."""
    if kind == "PyDataset":
        return ShuffledBatches(X, CLEAN, 50, seed=0)
    if kind == "generator":
        return ((X[i : i + 50], CLEAN[i : i + 50]) for i in (0, 50, 100))
    if BACKEND == "tensorflow":
        import tensorflow as tf

        return tf.data.Dataset.from_tensor_slices((X, CLEAN)).batch(50)
    if BACKEND == "torch":
        from torch.utils.data import DataLoader
        from torch.utils.data import StackDataset

        return DataLoader(StackDataset(X, CLEAN), 50)
    pytest.skip("Arrays are what this backend has.")


@pytest.mark.parametrize("kind", ["PyDataset", "generator", "own"])
def test_batches_are_answered_with_what_makes_arrays_of_them(kind):
    x = some_batches(kind)
    with pytest.raises(ValueError, match="`x`: expected arrays, .* Received: ") as told:
        MemorizationMonitor(x, NOISY)
    assert f"an object of type {type(x).__name__}" in str(told.value)
    names = {"x": x, "np": np}
    exec(re.search("with `(.*)`. Received", str(told.value))[1], names)
    rows = np.lexsort(names["x"].T)
    np.testing.assert_array_equal(names["x"][rows], X[np.lexsort(X.T)])
    np.testing.assert_array_equal(names["y"][rows], CLEAN[np.lexsort(X.T)])


def sample_of(noisy, *args, **kwargs):
    """Returns the positions of the sample, from inputs that are their own positions."""
    positions = np.arange(len(noisy.labels))
    monitor = MemorizationMonitor(positions, noisy, *args, **kwargs)
    sample = np.concatenate(monitor.batches)[: len(monitor.labels)]
    np.testing.assert_array_equal(monitor.labels, noisy.labels[sample])
    np.testing.assert_array_equal(monitor.clean, noisy.clean[sample])
    return sample


def many(rate):
    return noise.symmetric(np.arange(60_000) % 10, rate, 10, exact=True, seed=0)


@pytest.mark.once
@pytest.mark.parametrize(
    ("noisy", "size", "expected"),
    [
        (many(0.4), None, (2500, 2500)),
        (many(0.01), None, (600, 4400)),
        (many(1.0), None, (5000, 0)),
        (many(0.999), 1000, (940, 60)),
        (many(0.0), 10, (0, 10)),
        (many(0.4), 10**6, (24_000, 36_000)),
        (many(0.4), 1, (0, 1)),
        (NOISY, None, (6, 7)),
    ],
    ids=lambda value: "" if isinstance(value, noise.NoisyLabels) else str(value),
)
def test_size_of_the_sample(noisy, size, expected):
    sample = sample_of(noisy, size)
    assert len(set(sample)) == len(sample)
    wrong = noisy.flipped[sample]
    assert (wrong.sum(), (~wrong).sum()) == expected


@pytest.mark.once
def test_the_seed_decides_the_sample():
    first, same = (sample_of(NOISY, 20, seed=3) for _ in range(2))
    np.testing.assert_array_equal(first, same)
    assert set(first) != set(sample_of(NOISY, 20, seed=4))


@pytest.mark.once
def test_batches_are_even_and_small_enough():
    shapes = [
        batch.shape
        for batch in MemorizationMonitor(X, NOISY, 100, batch_size=30).batches
    ]
    assert shapes == [(25, 8)] * 4


def test_tensors_and_lists_of_samples():
    tensor = keras.ops.convert_to_tensor(X)
    monitors = [MemorizationMonitor(x, NOISY, 20) for x in (X, tensor)]
    np.testing.assert_array_equal(*(monitor.batches for monitor in monitors))


def with_sample_size(size):
    return lambda: MemorizationMonitor(X, NOISY, sample_size=size)


BAD_ARGUMENTS = {
    "labels": (lambda: MemorizationMonitor(X, NOISY.labels), "`noisy`.*type ndarray"),
    "lengths": (lambda: MemorizationMonitor(X[:5], NOISY), r"\(5, 8\)., 130 labels"),
    "second-input": (lambda: MemorizationMonitor([X, X[:5]], NOISY), "`x`: expected"),
    "number": (lambda: MemorizationMonitor(1.0, NOISY), r"shapes \[\(\)\]"),
    "no-input": (lambda: MemorizationMonitor({}, NOISY), r"shapes \[\]"),
    "size-0": (with_sample_size(0), "`sample_size`.*at least 1.*sample_size=0"),
    "share": (with_sample_size(0.1), "`sample_size`.*an integer.*sample_size=0.1"),
    "bool": (with_sample_size(True), "`sample_size`.*Received: sample_size=True"),
    "batch": (lambda: MemorizationMonitor(X, NOISY, batch_size=0), "`batch_size`"),
    "seed": (lambda: MemorizationMonitor(X, NOISY, seed=-1), "`seed`.*at least 0"),
}


@pytest.mark.once
@pytest.mark.parametrize(("call", "message"), BAD_ARGUMENTS.values(), ids=BAD_ARGUMENTS)
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def model_with_output(shape):
    inputs = keras.Input((8,))
    outputs = keras.layers.Dense(int(np.prod(shape)))(inputs)
    return keras.Model(inputs, keras.layers.Reshape(shape)(outputs))


@pytest.mark.parametrize("shape", [(1,), (4,), (2, 5)], ids=str)
def test_models_that_return_no_classes(shape):
    monitor = MemorizationMonitor(X, NOISY)
    monitor.set_model(model_with_output(shape))
    with pytest.raises(ValueError, match="at least 5 classes.*Received: outputs of"):
        monitor.on_epoch_end(0, {})


ONE_OUTPUT = {
    "logit": (None, keras.losses.BinaryCrossentropy(from_logits=True)),
    "clipped": (None, LogitClipLoss("binary_crossentropy", 1.5)),
    "probability": ("sigmoid", "binary_crossentropy"),
}


@pytest.mark.parametrize(("columns", "label"), [(1, None), (1, 0), (5, 3)], ids=str)
@pytest.mark.parametrize(("activation", "loss"), ONE_OUTPUT.values(), ids=ONE_OUTPUT)
def test_one_output_for_two_classes(activation, loss, columns, label):
    noisy = noise.symmetric(CLEAN % 2, 0.4, 2, seed=0)
    outputs = keras.layers.Dense(columns, activation=activation)
    model = keras.Sequential([keras.Input((8,)), outputs])
    model.compile("sgd", loss)
    logit = X @ keras.ops.convert_to_numpy(outputs.kernel)[:, label or 0]
    predicted = (logit > 0).astype(int)
    wrong = noisy.flipped
    shares = MemorizationMonitor(X, noisy, len(X), label=label).measure(model)
    assert shares == {
        "memorized": (predicted == noisy.labels)[wrong].mean(),
        "recovered": (predicted == noisy.clean)[wrong].mean(),
        "clean_accuracy": (predicted == noisy.clean)[~wrong].mean(),
    }


@pytest.mark.parametrize("label", [None, 5], ids=str)
def test_several_labels_are_no_classes(label):
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(5)])
    model.compile("sgd", LogitClipLoss("binary_crossentropy", 1.5))
    noisy = noise.symmetric(CLEAN % 2, 0.4, 2, seed=0)
    monitor = MemorizationMonitor(X, noisy, label=label)
    with pytest.raises(ValueError, match=rf"`label`.*label={label}, .*\(\d+, 5\)"):
        monitor.measure(model)


@pytest.mark.parametrize("loss", [None, "mse"])
def test_one_output_that_could_be_anything(loss):
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(1)])
    model.compile("sgd", loss)
    monitor = MemorizationMonitor(X, noise.symmetric(CLEAN % 2, 0.4, 2, seed=0))
    with pytest.raises(ValueError, match=r"at least 2 .*`keras.layers.Dense\(2\)`"):
        monitor.measure(model)


def test_nan_is_no_class():
    monitor = MemorizationMonitor(X, NOISY, len(X))
    model = model_with_output((5,))
    model.set_weights([np.full((8, 5), np.nan), np.zeros(5)])
    monitor.set_model(model)
    monitor.on_epoch_end(0, logs := {})
    assert logs == dict.fromkeys(NAMES, 0.0)


@pytest.mark.gradients
def test_a_softmax_in_front_of_a_loss_of_logits_is_noticed():
    """On every backend, because the callback sees the values."""
    x = keras.Input((8,))
    outputs = keras.layers.Dense(CLASSES, activation="softmax")(x)
    # Probabilities of a layer whose activation cannot be detected.
    model = keras.Model(x, keras.layers.Reshape((CLASSES,))(outputs))
    model.compile("sgd", LogitClipLoss("sparse_categorical_crossentropy", 1.0))
    with pytest.raises(ValueError, match="returns probabilities. Remove the softmax"):
        fit(model, MemorizationMonitor(X, NOISY))
    model.compile("sgd", "sparse_categorical_crossentropy")  # Which takes them.
    assert set(NAMES) < set(fit(model, MemorizationMonitor(X, NOISY)))
