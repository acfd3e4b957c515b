"""The processes that `test_distribution` starts on JAX.

python -m tests.distribution.distribution_jax FOLDER devices          on eight devices
python -m tests.distribution.distribution_jax FOLDER processes PORT ID   one of two
"""

import sys
from pathlib import Path

import jax
import keras
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec

from tests.distribution.test_distribution import BATCH_SIZE
from tests.distribution.test_distribution import HLO_CLASSES
from tests.distribution.test_distribution import HLO_ROWS
from tests.distribution.test_distribution import LOSSES
from tests.distribution.test_distribution import NOISY
from tests.distribution.test_distribution import PROCESSES
from tests.distribution.test_distribution import TRAINED
from tests.distribution.test_distribution import fit
from tests.distribution.test_distribution import labels_for
from tests.distribution.test_distribution import local_part
from tests.distribution.test_distribution import prepare
from tests.distribution.test_distribution import prepare_normalized
from tests.distribution.test_distribution import save
from tests.distribution.test_distribution import save_normalized
from tests.distribution.test_distribution import weights_of
from tests.distribution.worker import INPUTS
from tests.distribution.worker import LOSSES as LOSS_FUNCTIONS

AXES = ("batch", "model")


def train(distribution, x=INPUTS, part=lambda labels: labels, **options):
    results = {}
    for loss in TRAINED:
        keras.utils.clear_session()  # The layout map knows layers by their names.
        keras.distribution.set_distribution(distribution)
        model = prepare(loss)
        results[loss] = fit(model, x, part(labels_for(loss)), **options)
        if isinstance(distribution, keras.distribution.ModelParallel):
            sharding = model.layers[1].kernel.value.sharding
            assert sharding.spec == PartitionSpec(None, "model"), sharding
    keras.distribution.set_distribution(None)
    return results


def model_parallel():
    """Shards the classes over four devices, and the batch over two."""
    mesh = keras.distribution.DeviceMesh((2, 4), AXES)
    layouts = keras.distribution.LayoutMap(mesh)
    layouts[".*dense_1/kernel"] = (None, "model")
    layouts[".*dense_1/output"] = AXES
    return keras.distribution.ModelParallel(layout_map=layouts)


def devices(folder):
    assert jax.device_count() == 8
    save(folder, "single", train(None))
    save(folder, "data-parallel", train(keras.distribution.DataParallel()))
    save(folder, "model-parallel", train(model_parallel()))
    save_normalized(folder, normalized_step())
    compile_losses(folder)


def normalized_step():
    keras.distribution.set_distribution(keras.distribution.DataParallel())
    model = prepare_normalized()
    labels = NOISY.labels[:BATCH_SIZE]
    model.fit(INPUTS[:BATCH_SIZE], labels, BATCH_SIZE, shuffle=False, verbose=0)
    keras.distribution.set_distribution(None)
    return weights_of(model)


def processes(folder, port, process):
    keras.distribution.initialize(f"127.0.0.1:{port}", PROCESSES, process)
    assert jax.process_count() == PROCESSES
    assert jax.device_count() > PROCESSES
    # Each process has its own part of each batch.
    distribution = keras.distribution.DataParallel(auto_shard_dataset=False)
    results = train(
        distribution,
        local_part(INPUTS, process),
        lambda labels: local_part(labels, process),
        batch_size=BATCH_SIZE // PROCESSES,
    )
    save(folder, f"processes-{process}", results)


def compile_losses(folder):
    """Writes what XLA makes of losses whose logits are sharded along the classes."""
    rng = np.random.default_rng(0)
    logits = 3 * rng.normal(size=(HLO_ROWS, HLO_CLASSES)).astype("float32")
    ids = rng.integers(0, HLO_CLASSES, HLO_ROWS)
    mesh = keras.distribution.DeviceMesh((2, 4), AXES).backend_mesh
    sharded = NamedSharding(mesh, PartitionSpec(*AXES))
    by_rows = NamedSharding(mesh, PartitionSpec("batch"))
    results = {"sharded": {}, "unsharded": {}}
    for name in LOSSES:
        labels = labels_for(name, ids, HLO_CLASSES)
        function = jax.jit(jax.value_and_grad(flipped(LOSS_FUNCTIONS[name])))
        layout = by_rows if labels.ndim == 1 else sharded
        for kind, scale in (("", 1.0), (" huge", scale_first_row(1e20))):
            inputs = (logits * scale, labels)
            placed = [
                jax.device_put(x, s)
                for x, s in zip(inputs, (sharded, layout), strict=True)
            ]
            compiled = function.lower(*placed).compile()
            (folder / f"{name}.hlo").write_text(compiled.as_text())
            loss, gradient = compiled(*placed)
            assert gradient.sharding.is_equivalent_to(sharded, 2), gradient.sharding
            results["sharded"][name + kind] = {"loss": loss, "gradient": gradient}
            loss, gradient = function(*inputs)
            results["unsharded"][name + kind] = {"loss": loss, "gradient": gradient}
    for run, values in results.items():
        save(folder, run, values)
    write_gathering(folder, jax.device_put(logits, sharded), by_rows)


def write_gathering(folder, logits, by_rows):
    """Writes what XLA makes of functions that need whole rows."""
    for name, function in {
        "gathered": lambda z: jax.lax.with_sharding_constraint(z, by_rows),
        "sorted": lambda z: jax.numpy.sort(z, -1),
    }.items():
        compiled = jax.jit(function).lower(logits).compile()
        (folder / f"{name}.hlo").write_text(compiled.as_text())


def flipped(loss):
    return lambda logits, labels: loss(labels, logits)


def scale_first_row(factor):
    scale = np.ones((HLO_ROWS, 1), "float32")
    scale[0] = factor
    return scale


if __name__ == "__main__":
    folder, what, *numbers = sys.argv[1:]
    {"devices": devices, "processes": processes}[what](Path(folder), *map(int, numbers))
