"""A training of a search."""

import gc
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

import keras

from keras_logitclip._jobs import arrays
from keras_logitclip._jobs.training import count_steps
from keras_logitclip._jobs.training import fit
from keras_logitclip._jobs.training import make_optimizer
from keras_logitclip.losses import LogitClipLoss
from keras_logitclip.tuning._plan import Training


class Task(NamedTuple):
    """Holds what all trainings share. Data are pairs of inputs and labels."""

    build_model: Callable
    training_data: tuple
    validation_data: tuple
    clean_data: tuple | None
    loss: Any
    p: float
    optimizer: Any
    callbacks: Sequence
    epochs: int
    batch_size: int
    seed: int

    def make_optimizer(self, learning_rate: float | None) -> keras.optimizers.Optimizer:
        """Returns a new optimizer, with its own learning rate for `None`."""
        steps = count_steps(self, len(self.training_data[1]))
        return make_optimizer(self.optimizer, steps, learning_rate)


def train(task: Task, training: Training, on_epoch_end: Callable):
    """Trains a new model and returns its noisy and its clean accuracy.

    The noisy accuracy is the mean of the last epochs on held-out noisy labels. The
    clean accuracy is `None` without clean data. `on_epoch_end` is called with the
    number of epochs so far and the noisy accuracy.
    """
    seed = task.seed + training.seed
    model, history = fit(
        task,
        task.training_data,
        task.make_optimizer(training.learning_rate),
        LogitClipLoss(task.loss, training.tau, task.p),
        seed,
        lambda epoch, logs: on_epoch_end(epoch, logs["val_accuracy"]),
        validation_data=task.validation_data,
        validation_batch_size=task.batch_size,
    )
    accuracy = arrays.mean_of_last_epochs(history["val_accuracy"])
    clean_accuracy = None
    if task.clean_data is not None:
        options = {"batch_size": task.batch_size, "verbose": 0, "return_dict": True}
        clean_accuracy = float(model.evaluate(*task.clean_data, **options)["accuracy"])
    del model
    gc.collect()  # Compiled functions refer to the model, and it to them.
    return accuracy, clean_accuracy
