"""Checks before any training starts."""

import pickle
import sys
from collections.abc import Iterable

import keras
import numpy as np

from keras_logitclip._arguments import check_count
from keras_logitclip._check.model import check_model
from keras_logitclip._jobs import arrays
from keras_logitclip._labels import check_class_ids
from keras_logitclip._remedies import are_several


def check_pair(name: str, data) -> tuple | None:
    """Returns inputs and labels as arrays, or `None`."""
    if data is None:
        return None
    if not isinstance(data, tuple | list) or len(data) != 2:
        raise ValueError(
            f"Invalid value for argument `{name}`: expected a pair of inputs and "
            f"labels. Received: an object of type {type(data).__name__}"
        )
    return check_data(*data, x_name=f"{name}[0]", y_name=f"{name}[1]")


def check_data(x, y, x_name: str = "x", y_name: str = "y") -> tuple:
    """Returns inputs and labels as arrays, if the labels are class ids."""
    arrays.refuse_batches(x, x_name)  # Batches may contain the labels, too.
    table = arrays.as_array(y)
    if table.ndim == 2 and table.shape[1] > 1 and are_several(table):
        raise ValueError(
            f"Invalid value for argument `{y_name}`: expected one label per sample, "
            "because trainings are compared by accuracy. For several labels, compare "
            'your own trainings with `LogitClipLoss("binary_crossentropy", tau)`. '
            f"Received: {table.shape[1]} labels per sample"
        )
    labels = check_class_ids(y, np.inf, y_name)
    if labels.min() == labels.max():
        raise ValueError(
            f"Invalid value for argument `{y_name}`: expected class ids of at least "
            f"two classes. Received: {len(labels)} labels of class {labels[0]}"
        )
    inputs = arrays.check_inputs(x, len(labels), x_name)
    return inputs, labels.astype("int32")


def check_task(task, loss, *data: tuple | None, workers: int, grace_period: int):
    """Returns the task of trainings, its arguments checked, if these can start.

    Args:
        task: A named tuple with `build_model`, `loss`, `optimizer`, `callbacks`,
            `epochs`, `batch_size` and `seed`.
        loss: What a model is trained with: the loss of the task, clipped.
        *data: Pairs of inputs and labels, or `None`.
        workers: Number of processes.
        grace_period: Seconds after which a training counts as crashed.
    """
    task = task._replace(
        callbacks=_check_callbacks(task.callbacks),
        epochs=check_count("epochs", task.epochs),
        batch_size=check_count("batch_size", task.batch_size),
    )
    check_count("grace_period", grace_period)
    if check_count("workers", workers) > 1:
        _check_pickles(task)
    _check_built_model(task.build_model, loss, task.seed, *data)
    return task


def _check_callbacks(callbacks):
    """Returns callbacks as a list."""
    is_list = isinstance(callbacks, Iterable)
    given = list(callbacks) if is_list else [None]
    if not all(isinstance(one, keras.callbacks.Callback) for one in given):
        raise ValueError(
            "Invalid value for argument `callbacks`: expected a list of Keras "
            f"callbacks. Received: callbacks={given if is_list else callbacks!r}"
        )
    return given


def _check_built_model(build_model, loss, seed, *data):
    """Raises an error for a model of anything but logits, or a loss that fails."""
    if not callable(build_model) or isinstance(build_model, keras.Model):
        raise ValueError(
            "Invalid value for argument `build_model`: expected a function that "
            "returns a new model for each training. "
            f"Received: an object of type {type(build_model).__name__}"
        )
    keras.utils.set_random_seed(seed)
    model = build_model()
    if not isinstance(model, keras.Model):
        raise _unexpected("a Keras model", f"an object of type {type(model).__name__}")
    if model.compiled:
        remedy = "each training compiles it, with `optimizer` and the clipped loss"
        raise _unexpected(f"one that is not compiled: {remedy}", "a compiled model")
    model.compile(loss=loss)
    for inputs, labels in filter(None, data):
        report = check_model(model, inputs, labels, samples=32)
        report.raise_if_wrong()
        if report.kind == "one logit":
            remedy = "Let it end in `keras.layers.Dense(2)`"
            raise _unexpected("an output for each class", f"one logit. {remedy}")


def _unexpected(expected, received):
    message = f"Expected `build_model` to return {expected}. Received: {received}"
    return ValueError(message)


def _check_pickles(task):
    """Raises an error if worker processes could not import an argument."""
    is_script = hasattr(sys.modules["__main__"], "__file__")
    for name in ("build_model", "loss", "optimizer", "callbacks"):
        value = getattr(task, name)
        try:
            pickle.dumps(value)
            found = is_script or getattr(value, "__module__", None) != "__main__"
        except (pickle.PicklingError, AttributeError, TypeError):
            found = False
        if not found:
            raise ValueError(
                f"Invalid value for argument `{name}`: expected something that worker "
                "processes can import, such as a function at the top level of a module "
                f"or script, because `workers` is above 1. Received: {name}={value!r}"
            )
