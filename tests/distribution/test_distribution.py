"""Training on several devices or in several processes equals training on one.

Every backend has to be installed; the current one does not matter. Here are the
cases, the functions that the workers `distribution_jax`, `distribution_tensorflow`
and `distribution_torch` share, and the comparisons.
"""

import json
import re

import keras
import numpy as np
import pytest

from keras_logitclip import LogitClipLoss
from keras_logitclip import callbacks
from keras_logitclip import metrics
from keras_logitclip import noise
from tests.distribution.worker import INPUTS
from tests.distribution.worker import LOSSES as LOSS_FUNCTIONS
from tests.distribution.worker import TARGETS
from tests.distribution.worker import build_model
from tests.running import KERAS_VERSION
from tests.subprocesses import environment
from tests.subprocesses import free_port
from tests.subprocesses import run_together

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        KERAS_VERSION < (3, 15),
        reason="JAX 0.4.35, of the oldest Keras, lacks processes on a CPU",
    ),
]

PROCESSES = 2

# In each pair, the first is computed together with the clipping.
TRAINED = ("sparse", "sparse-p3")
LOSSES = (*TRAINED, "one-hot", "focal")
CLASSES = 20
BATCH_SIZE = 32
EPOCHS = 2
NOISY = noise.symmetric(TARGETS, 0.4, CLASSES, seed=0)

# Few rows of many classes, so that no collective operation is as large as one row
# unless it moves logits.
HLO_ROWS, HLO_CLASSES = 16, 512

# Of the largest number. What differs is the order in which sums are rounded: after
# twenty steps, 3e-7 have been seen.
TOLERANCE = 1e-6
MONITORED = {"memorized", "recovered", "clean_accuracy"}
NAMES = {"loss", "mean_logit_norm", "clipped_fraction", "weights 0", "weights 1"}
RUNS = {
    "jax": ("data-parallel", "model-parallel", "processes-0", "processes-1"),
    "tensorflow": ("mirrored", "multi-worker-0", "multi-worker-1"),
    "torch": ("data-parallel-0", "data-parallel-1", "fully-sharded"),
}
CASES = [(engine, run) for engine in RUNS for run in RUNS[engine]]
EXAMPLES = {
    "jax": ("on 8 devices", "P(None, 'classes')"),
    "tensorflow": ("on 2 devices", "clipped logits: "),
    "torch": ("in 2 processes",),
}

_COLLECTIVE = re.compile(
    r" = (.*?) (all-(?:reduce|gather|to-all)|reduce-scatter|collective-permute)"
    r"(?:-start)?\("
)
_SHAPE = re.compile(r"\w+\[([\d,]*)\]")


def labels_for(loss, ids=NOISY.labels, classes=CLASSES):
    return ids if loss.startswith("sparse") else np.eye(classes, dtype="float32")[ids]


def local_part(x, process):
    """Returns the part of each batch that one of the processes gets."""
    batches = x.reshape(-1, PROCESSES, BATCH_SIZE // PROCESSES, *x.shape[1:])
    return batches[:, process].reshape(-1, *x.shape[1:])


def make_metrics():
    return [metrics.MeanLogitNorm(), metrics.ClippedFraction(tau=4.0)]


def make_monitor():
    # In three batches.
    return callbacks.MemorizationMonitor(INPUTS, NOISY, sample_size=90, batch_size=32)


def prepare(loss):
    """Returns a model with a `LogitClip` layer, compiled."""
    model = build_model()
    model.compile(
        keras.optimizers.SGD(0.1), LOSS_FUNCTIONS[loss], metrics=make_metrics()
    )
    return model


def fit(model, x, labels, batch_size=BATCH_SIZE):
    fitted = model.fit(
        x,
        labels,
        batch_size=batch_size,
        epochs=EPOCHS,
        shuffle=False,
        verbose=0,
        callbacks=[make_monitor()],
    )
    return {**fitted.history, **weights_of(model)}


def weights_of(model):
    return {f"weights {i}": w for i, w in enumerate(model.get_weights())}


def monitor_once(model):
    """Returns the report of the monitor in a custom training loop."""
    monitor, logs = make_monitor(), {}
    monitor.set_model(model)
    monitor.on_epoch_end(0, logs)
    return logs


def halves(x):
    """Returns the parts of a batch that two processes or devices get."""
    return np.split(x[:BATCH_SIZE], PROCESSES)


def prepare_normalized():
    """Returns a model to train with a normalized gradient."""
    model = build_model()
    loss = LogitClipLoss(
        "sparse_categorical_crossentropy", tau=0.5, normalize_gradient=True
    )
    model.compile(keras.optimizers.SGD(0.1), loss)
    return model


def step_with(*batches):
    """Returns the weights after a step with each batch, their mean."""
    steps = []
    for x, labels in batches:
        model = prepare_normalized()
        model.train_on_batch(x, labels)
        steps.append(weights_of(model))
    return {name: np.mean([step[name] for step in steps], 0) for name in steps[0]}


def save_normalized(folder, found):
    """Saves the weights after a parallel step, and the expected weights."""
    batch = INPUTS[:BATCH_SIZE], NOISY.labels[:BATCH_SIZE]
    parts = zip(halves(INPUTS), halves(NOISY.labels), strict=True)
    results = {"found": found, "global": step_with(batch), "local": step_with(*parts)}
    save(folder, "normalized", results)


def save(folder, run, results):
    arrays = {
        f"{case}: {name}": np.asarray(value)
        for case, values in results.items()
        for name, value in values.items()
    }
    np.savez(folder / f"{run}.npz", **arrays)


def load(folder, run):
    """Returns the results of each case, by their names."""
    results = {}
    for key, value in np.load(folder / f"{run}.npz").items():
        case, _, name = key.partition(": ")
        results.setdefault(case, {})[name] = value
    return results


def environment_of(backend, **variables):
    return environment(backend, CUDA_VISIBLE_DEVICES="-1", **variables)


def start_jax(folder):
    worker = ("-m", "tests.distribution.distribution_jax", str(folder))
    port = str(free_port())
    flags = "--xla_force_host_platform_device_count="
    run_together(
        [(*worker, "devices")],
        [environment_of("jax", JAX_PLATFORMS="cpu", XLA_FLAGS=f"{flags}8")],
        folder,
    )
    run_together(
        [(*worker, "processes", port, str(i)) for i in range(PROCESSES)],
        PROCESSES * [environment_of("jax", JAX_PLATFORMS="cpu", XLA_FLAGS=f"{flags}2")],
        folder,
    )


def start_tensorflow(folder):
    worker = ("-m", "tests.distribution.distribution_tensorflow", str(folder))
    run_together([(*worker, "devices")], [environment_of("tensorflow")], folder)
    cluster = {"worker": [f"127.0.0.1:{free_port()}" for _ in range(PROCESSES)]}
    tasks = [{"type": "worker", "index": i} for i in range(PROCESSES)]
    run_together(
        PROCESSES * [(*worker, "processes")],
        [
            environment_of(
                "tensorflow", TF_CONFIG=json.dumps({"cluster": cluster, "task": task})
            )
            for task in tasks
        ],
        folder,
    )


def start_torch(folder):
    port = str(free_port())
    run_together(
        PROCESSES * [("-m", "tests.distribution.distribution_torch", str(folder))],
        [
            environment_of(
                "torch",
                MASTER_ADDR="127.0.0.1",
                MASTER_PORT=port,
                WORLD_SIZE=str(PROCESSES),
                RANK=str(rank),
            )
            for rank in range(PROCESSES)
        ],
        folder,
    )


@pytest.fixture(scope="module")
def jax_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("jax")
    start_jax(folder)
    return folder


@pytest.fixture(scope="module")
def tensorflow_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tensorflow")
    start_tensorflow(folder)
    return folder


@pytest.fixture(scope="module")
def torch_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("torch")
    start_torch(folder)
    return folder


def assert_same(found, expected, name):
    scale = np.abs(expected).max()
    np.testing.assert_allclose(
        found, expected, rtol=0, atol=TOLERANCE * scale, err_msg=name
    )


@pytest.mark.parametrize("loss", TRAINED)
@pytest.mark.parametrize(("engine", "run"), CASES)
def test_training(request, engine, run, loss):
    folder = request.getfixturevalue(f"{engine}_folder")
    expected, found = load(folder, "single")[loss], load(folder, run)[loss]
    assert expected["loss"][1] < expected["loss"][0]
    assert 0 < expected["clipped_fraction"][1] < 1
    assert expected.keys() == NAMES | MONITORED
    for name in NAMES:
        assert_same(found[name], expected[name], name)


@pytest.mark.parametrize(
    ("engine", "mean", "other"),
    [
        ("jax", "global", "local"),
        ("tensorflow", "local", "global"),
        ("torch", "local", "global"),
    ],
)
def test_normalized_gradients(request, engine, mean, other):
    """The mean is over the samples that one step of a device computes."""
    results = load(request.getfixturevalue(f"{engine}_folder"), "normalized")
    difference = 0.0
    for name, found in results["found"].items():
        assert_same(found, results[mean][name], name)
        difference = max(difference, np.abs(found - results[other][name]).max())
    assert difference > 1e-4


# Not of PyTorch's own modules, because the monitor watches Keras models.
@pytest.mark.parametrize("loss", TRAINED)
@pytest.mark.parametrize(
    ("engine", "run"), [case for case in CASES if case[1] != "fully-sharded"]
)
def test_monitor(request, engine, run, loss):
    folder = request.getfixturevalue(f"{engine}_folder")
    expected, found = load(folder, "single")[loss], load(folder, run)[loss]
    assert max(expected["memorized"]) > 0
    for name in MONITORED:
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)


@pytest.mark.parametrize("size", ["", " huge"], ids=["usual", "huge"])
@pytest.mark.parametrize("loss", LOSSES)
def test_logits_sharded_along_the_classes(jax_folder, loss, size):
    """Also if the sum of squares of a row overflows."""
    case = loss + size
    found = load(jax_folder, "sharded")[case]
    expected = load(jax_folder, "unsharded")[case]
    for name in ("loss", "gradient"):
        assert np.abs(expected[name]).max() > 0
        assert_same(found[name], expected[name], name)


def collectives(text):
    """Returns the names of XLA's collective operations, and how many numbers each
    of them results in."""
    found = []
    for result, name in _COLLECTIVE.findall(text):
        shapes = [[int(n) for n in s.split(",") if n] for s in _SHAPE.findall(result)]
        found.append((name, sum(int(np.prod(shape)) for shape in shapes)))
    return found


@pytest.mark.parametrize("loss", LOSSES)
def test_no_device_gathers_sharded_logits(jax_folder, loss):
    found = collectives((jax_folder / f"{loss}.hlo").read_text())
    assert "all-reduce" in {name for name, _ in found}
    # Numbers of the rows, such as their norms or labels, and not of the classes.
    assert max(size for _, size in found) < HLO_CLASSES, found


@pytest.mark.parametrize("function", ["gathered", "sorted"])
def test_gathered_logits_would_be_noticed(jax_folder, function):
    found = collectives((jax_folder / f"{function}.hlo").read_text())
    assert max(size for _, size in found) >= HLO_CLASSES, found


def test_fit_of_tensorflow_with_several_processes(tensorflow_folder):
    """`fit` fails in Keras 3.15, so the worker has a custom loop."""
    for process in range(PROCESSES):
        message = (tensorflow_folder / f"fit-{process}.txt").read_text()
        assert message.startswith("Attempt to convert a value (PerReplica:")


def test_fully_shard_does_not_see_the_variables_of_keras(torch_folder):
    """Keras 3.15 computes with the parameters that PyTorch 2.13 has replaced.

    Each process goes on with the gradient of its own data. Shard modules of PyTorch,
    as `fully-sharded` above does, or replicate a Keras model.
    """
    results = [load(torch_folder, f"keras-fully-sharded-{i}") for i in range(2)]
    for result in results:
        values = result["sparse"]
        assert values["sharded parameters"] == 2
        assert values["sharded parameters with a gradient"] == 0
        np.testing.assert_array_equal(values["gradient"], values["own gradient"])
    one, other = (result["sparse"]["gradient"] for result in results)
    assert np.abs(one - other).max() > 0.01 * np.abs(one).max()


@pytest.mark.parametrize("engine", EXAMPLES)
def test_examples_run(engine, tmp_path):
    command = (f"examples/distributed_{engine}.py", "--epochs", "2")
    # The examples choose their backends themselves.
    (output,) = run_together([command], [environment_of(None)], tmp_path)
    assert all(text in output for text in EXAMPLES[engine]), output
    accuracy = re.search(r"test accuracy: ([\d.]+)%", output)
    assert accuracy, output
    assert float(accuracy[1]) > 50
