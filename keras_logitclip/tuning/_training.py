"""One training of a search."""

import copy
import gc
from collections.abc import Callable
from typing import Any
from typing import NamedTuple

import keras

from keras_logitclip._jobs import arrays
from keras_logitclip.losses import LogitClipLoss
from keras_logitclip.tuning._plan import Training


class Task(NamedTuple):
    """All that trainings have in common; data are pairs of inputs and labels."""

    build_model: Callable
    training_data: tuple
    validation_data: tuple
    clean_data: tuple | None
    loss: Any
    p: float
    optimizer: Any
    callbacks: list
    epochs: int
    batch_size: int
    seed: int

    def make_optimizer(self, learning_rate: float | None) -> keras.optimizers.Optimizer:
        """Returns a new optimizer; `None` leaves it the learning rate that it has."""
        given = self.optimizer
        steps = self.epochs * -(-len(self.training_data[1]) // self.batch_size)
        arguments = (steps,) if learning_rate is None else (steps, learning_rate)
        try:
            if isinstance(given, str | keras.optimizers.Optimizer):
                is_name = isinstance(given, str)
                config = given if is_name else keras.optimizers.serialize(given)
                made = keras.optimizers.get(config)
                if learning_rate is not None:
                    made.learning_rate = learning_rate
            else:
                made = None if isinstance(given, type) else given(*arguments)
            if not isinstance(made, keras.optimizers.Optimizer):
                raise TypeError(f"{made!r} is no optimizer of Keras's")
        except TypeError as error:
            names = "steps" if learning_rate is None else "steps, learning_rate"
            raise ValueError(
                "Invalid value for argument `optimizer`: expected the name of a Keras "
                "optimizer, an instance (with `learning_rates` one whose learning rate "
                f"is no schedule), or a function `({names})` that returns one. "
                f"Received: optimizer={given!r}. {error}"
            ) from error
        return made


def train(task: Task, training: Training, on_epoch_end: Callable):
    """Returns the accuracies of a new model on held-out noisy labels and on clean data.

    The former is the mean of the last epochs, the latter `None` without such data.
    `on_epoch_end` is called with the number of epochs so far and the former.
    """
    seed = task.seed + training.seed
    keras.utils.set_random_seed(seed)
    model = task.build_model()
    model.compile(
        optimizer=task.make_optimizer(training.learning_rate),
        loss=LogitClipLoss(task.loss, training.tau, task.p),
        metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
    )
    reporting = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: on_epoch_end(epoch + 1, logs["val_accuracy"])
    )
    fitted = model.fit(
        arrays.ShuffledBatches(*task.training_data, task.batch_size, seed),
        epochs=task.epochs,
        validation_data=task.validation_data,
        validation_batch_size=task.batch_size,
        callbacks=[*copy.deepcopy(task.callbacks), reporting],
        verbose=0,
    )
    accuracy = arrays.mean_of_last_epochs(fitted.history["val_accuracy"])
    clean_accuracy = None
    if task.clean_data is not None:
        options = {"batch_size": task.batch_size, "verbose": 0, "return_dict": True}
        clean_accuracy = float(model.evaluate(*task.clean_data, **options)["accuracy"])
    del model, fitted
    gc.collect()  # Compiled functions refer to the model, and it to them.
    return accuracy, clean_accuracy
