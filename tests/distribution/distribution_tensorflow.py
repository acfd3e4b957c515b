"""The processes that `test_distribution` starts on TensorFlow.

python -m tests.distribution.distribution_tensorflow FOLDER devices   on two devices
python -m tests.distribution.distribution_tensorflow FOLDER processes   one of two

The second one reads its rank from TF_CONFIG.
"""

import contextlib
import json
import os
import sys
from pathlib import Path

import keras
import tensorflow as tf

from tests.distribution.test_distribution import BATCH_SIZE
from tests.distribution.test_distribution import EPOCHS
from tests.distribution.test_distribution import NOISY
from tests.distribution.test_distribution import PROCESSES
from tests.distribution.test_distribution import TRAINED
from tests.distribution.test_distribution import fit
from tests.distribution.test_distribution import labels_for
from tests.distribution.test_distribution import local_part
from tests.distribution.test_distribution import make_metrics
from tests.distribution.test_distribution import monitor_once
from tests.distribution.test_distribution import prepare
from tests.distribution.test_distribution import prepare_normalized
from tests.distribution.test_distribution import save
from tests.distribution.test_distribution import save_normalized
from tests.distribution.test_distribution import weights_of
from tests.distribution.worker import INPUTS
from tests.distribution.worker import LOSSES as LOSS_FUNCTIONS


def devices(folder):
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(
        cpu, 2 * [tf.config.LogicalDeviceConfiguration()]
    )
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    assert strategy.num_replicas_in_sync == 2
    for run, scope in (
        ("single", contextlib.nullcontext),
        ("mirrored", strategy.scope),
    ):
        results = {}
        for loss in TRAINED:
            with scope():
                model = prepare(loss)
            results[loss] = fit(model, INPUTS, labels_for(loss))
        save(folder, run, results)
    with strategy.scope():
        model = prepare_normalized()
    labels = NOISY.labels[:BATCH_SIZE]
    model.fit(INPUTS[:BATCH_SIZE], labels, BATCH_SIZE, shuffle=False, verbose=0)
    save_normalized(folder, weights_of(model))


def processes(folder):
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    assert strategy.num_replicas_in_sync == PROCESSES
    process = json.loads(os.environ["TF_CONFIG"])["task"]["index"]
    results = {loss: train(strategy, loss, process) for loss in TRAINED}
    save(folder, f"multi-worker-{process}", results)
    (folder / f"fit-{process}.txt").write_text(error_of_fit(strategy))


def train(strategy, loss, process):
    """Trains in a custom loop, because `fit` fails here."""
    labels = local_part(labels_for(loss), process)
    data = tf.data.Dataset.from_tensor_slices((local_part(INPUTS, process), labels))
    batches = data.batch(BATCH_SIZE // PROCESSES)
    with strategy.scope():
        model = prepare(loss)
        metrics = make_metrics()

    @tf.function
    def distributed_step(x, y):
        def step(x, y):
            with tf.GradientTape() as tape:
                logits = model(x, training=True)
                # Keras divides by the number of replicas, because gradients are summed.
                value = LOSS_FUNCTIONS[loss](y, logits)
            gradients = tape.gradient(value, model.trainable_variables)
            model.optimizer.apply(gradients, model.trainable_variables)
            for metric in metrics:
                metric.update_state(y, logits)
            return value

        losses = strategy.run(step, (x, y))
        return strategy.reduce("SUM", losses, axis=None)

    history = {}
    for _ in range(EPOCHS):
        for metric in metrics:
            metric.reset_state()
        steps = [float(distributed_step(x, y)) for x, y in batches]
        logs = {"loss": sum(steps) / len(steps), **monitor_once(model)}
        logs |= {metric.name: float(metric.result()) for metric in metrics}
        for name, value in logs.items():
            history.setdefault(name, []).append(value)
    return {**history, **weights_of(model)}


def error_of_fit(strategy):
    with strategy.scope():
        model = prepare("sparse")
    try:
        model.fit(INPUTS, labels_for("sparse"), batch_size=BATCH_SIZE, verbose=0)
    except ValueError as error:
        return str(error)
    return ""


if __name__ == "__main__":
    folder, what = sys.argv[1:]
    keras.utils.set_random_seed(0)
    {"devices": devices, "processes": processes}[what](Path(folder))
