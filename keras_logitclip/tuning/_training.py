"""One training of a search."""

import dataclasses
import gc
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_logitclip._jobs.batches import ShuffledBatches
from keras_logitclip._jobs.batches import take
from keras_logitclip.losses import LogitClipLoss
from keras_logitclip.tuning._plan import Training


@dataclasses.dataclass(frozen=True)
class Task:
    """All that trainings have in common. Worker processes get a copy."""

    build_model: Callable
    inputs: Any
    labels: np.ndarray
    train: np.ndarray
    validation: np.ndarray
    clean_data: tuple | None
    loss: Any
    p: float
    optimizer: Any
    epochs: int
    batch_size: int
    seed: int


def train(task: Task, training: Training, on_epoch_end: Callable):
    """Trains a new model.

    Args:
        task: What all trainings have in common.
        training: Threshold and seed of this one.
        on_epoch_end: Called with the number of epochs so far and the accuracy on
            the held-out noisy labels.

    Returns:
        That accuracy, as mean of the last epochs, a tenth of all; and the accuracy
        on the clean data, `None` without such data.
    """
    seed = task.seed + training.seed
    keras.utils.set_random_seed(seed)
    model = task.build_model()
    batches = ShuffledBatches(
        take(task.inputs, task.train), task.labels[task.train], task.batch_size, seed
    )
    model.compile(
        optimizer=make_optimizer(task.optimizer, task.epochs * len(batches)),
        loss=LogitClipLoss(task.loss, training.tau, task.p),
        metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
    )
    accuracies = []

    def note(epoch, logs):
        accuracies.append(float(logs["val_accuracy"]))
        on_epoch_end(epoch + 1, accuracies[-1])

    held_out = take(task.inputs, task.validation), task.labels[task.validation]
    model.fit(
        batches,
        epochs=task.epochs,
        validation_data=held_out,
        validation_batch_size=task.batch_size,
        callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=note)],
        verbose=0,
    )
    clean_accuracy = None
    if task.clean_data is not None:
        clean = model.evaluate(
            *task.clean_data, batch_size=task.batch_size, verbose=0, return_dict=True
        )
        clean_accuracy = float(clean["accuracy"])
    del model
    gc.collect()  # Compiled functions refer to the model, and it to them.
    last = max(1, task.epochs // 10)
    return float(np.mean(accuracies[-last:])), clean_accuracy


def make_optimizer(optimizer, steps: int) -> keras.optimizers.Optimizer:
    """Returns a new optimizer for a training of so many steps."""
    if isinstance(optimizer, keras.optimizers.Optimizer):
        config = keras.optimizers.serialize(optimizer)
        return keras.optimizers.deserialize(config)
    if isinstance(optimizer, str):
        return keras.optimizers.get(optimizer)
    made = optimizer(steps)
    if not isinstance(made, keras.optimizers.Optimizer):
        raise ValueError(
            "Expected the function `optimizer` to return a Keras optimizer. "
            f"Received: an object of type {type(made).__name__}"
        )
    return made
