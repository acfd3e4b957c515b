"""Trainings of the user's model."""

import copy
from collections.abc import Callable

import keras

from keras_logitclip._jobs import arrays


def make_optimizer(
    given, steps: int, learning_rate: float | None = None
) -> keras.optimizers.Optimizer:
    """Returns a new optimizer, with its own learning rate for `None`.

    Args:
        given: Name of a Keras optimizer, an instance to copy, or a function.
        steps: Number of training steps.
        learning_rate: The learning rate. Defaults to `None`.
    """
    try:
        if isinstance(given, str | keras.optimizers.Optimizer):
            return _new(given, learning_rate)
        arguments = (steps,) if learning_rate is None else (steps, learning_rate)
        return _call(given, arguments)
    except TypeError as error:
        others = "an instance, or a function `(steps)`"
        if learning_rate is not None:
            others = (
                "an instance whose learning rate is no schedule, or a function "
                "`(steps, learning_rate)`"
            )
        raise ValueError(
            "Invalid value for argument `optimizer`: expected the name of a Keras "
            f"optimizer, {others} that returns one. "
            f"Received: optimizer={given!r}. {error}"
        ) from error


def _new(given, learning_rate):
    """Returns a new optimizer of that name, or like that instance."""
    is_name = isinstance(given, str)
    made = keras.optimizers.get(given if is_name else keras.optimizers.serialize(given))
    if learning_rate is not None:
        made.learning_rate = learning_rate
    return made


def _call(function, arguments):
    """Returns the optimizer that a function returns."""
    if isinstance(function, type):
        raise TypeError("It is a class")
    made = function(*arguments)
    if not isinstance(made, keras.optimizers.Optimizer):
        raise TypeError(f"{made!r} is no optimizer of Keras's")
    return made


def count_steps(task, samples: int) -> int:
    """Returns the number of training steps."""
    return task.epochs * -(-samples // task.batch_size)


def fit(
    task,
    data: tuple,
    optimizer: keras.optimizers.Optimizer,
    loss: keras.losses.Loss,
    seed: int,
    on_epoch_end: Callable,
    **options,
):
    """Trains a new model, and returns it with the history of the training.

    Args:
        task: A tuple with `build_model`, `callbacks`, `epochs` and `batch_size`.
        data: Inputs and labels.
        optimizer: A new optimizer.
        loss: The loss.
        seed: Seed of the weights and of the order of the samples.
        on_epoch_end: Function of the number of epochs so far and Keras's logs.
        **options: Further arguments of `fit`, such as `validation_data`.
    """
    keras.utils.set_random_seed(seed)
    model = task.build_model()
    accuracy = keras.metrics.SparseCategoricalAccuracy(name="accuracy")
    model.compile(optimizer=optimizer, loss=loss, metrics=[accuracy])
    reporting = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: on_epoch_end(epoch + 1, logs)
    )
    fitted = model.fit(
        arrays.ShuffledBatches(*data, task.batch_size, seed),
        epochs=task.epochs,
        callbacks=[*copy.deepcopy(task.callbacks), reporting],
        verbose=0,
        **options,
    )
    return model, fitted.history
