"""What is checked before any training starts."""

import pickle
import sys
from collections.abc import Iterable

import keras
import numpy as np

from keras_logitclip._jobs import arrays
from keras_logitclip._labels import check_class_ids
from keras_logitclip._labels import look_like_probabilities
from keras_logitclip.losses import LogitClipLoss
from keras_logitclip.tuning._training import Task


def check_pair(name: str, data) -> tuple | None:
    """Returns inputs and labels as arrays, if there are any."""
    if data is None:
        return None
    if not isinstance(data, tuple | list) or len(data) != 2:
        raise ValueError(
            f"Invalid value for argument `{name}`: expected a pair of inputs and "
            f"labels. Received: an object of type {type(data).__name__}"
        )
    return check_data(*data, x_name=name, y_name=name)


def check_data(x, y, x_name: str = "x", y_name: str = "y") -> tuple:
    """Returns inputs and labels as arrays, if the labels are class ids."""
    labels = check_class_ids(y, np.inf, y_name)
    if labels.min() == labels.max():
        raise ValueError(
            f"Invalid value for argument `{y_name}`: expected class ids of two classes "
            f"or more. Received: {labels}"
        )
    inputs = arrays.check_inputs(x, len(labels), x_name)
    are_texts = any(array.dtype == object for array in keras.tree.flatten(inputs))
    if are_texts and keras.config.backend() != "tensorflow":
        raise ValueError(
            f"Invalid value for argument `{x_name}`: expected numbers. Keras trains on "
            "texts with TensorFlow only; `keras.layers.TextVectorization` makes "
            f"numbers of them. Received: texts, on {keras.config.backend()}"
        )
    return inputs, labels.astype("int32")


def check_callbacks(callbacks) -> list:
    """Returns callbacks as a list."""
    is_list = isinstance(callbacks, Iterable)
    given = list(callbacks) if is_list else [None]
    if not all(isinstance(one, keras.callbacks.Callback) for one in given):
        raise ValueError(
            "Invalid value for argument `callbacks`: expected a list of Keras "
            f"callbacks. Received: callbacks={given if is_list else callbacks!r}"
        )
    return given


def check_model(task: Task) -> None:
    """Raises an error for a model of anything but logits, or a loss that fails."""
    keras.utils.set_random_seed(task.seed)
    model = task.build_model()
    if not isinstance(model, keras.Model):
        raise _unexpected("a Keras model", f"an object of type {type(model).__name__}")
    if model.compiled:
        remedy = "the search compiles it, with `optimizer` and a loss for each `tau`"
        raise _unexpected(f"one that is not compiled: {remedy}", "a compiled model")
    classes = 1 + max(task.training_data[1].max(), task.validation_data[1].max())
    data = (task.training_data, task.validation_data, task.clean_data)
    for inputs, labels in filter(None, data):
        outputs = model.predict_on_batch(arrays.take(inputs, slice(32)))
        fits = isinstance(outputs, np.ndarray) and outputs.ndim == 2
        if not fits or outputs.shape[1] < classes:
            shapes = keras.tree.map_structure(np.shape, outputs)
            raise _unexpected(
                "a model with one output of shape `(batch, classes)`, at least "
                f"{classes} classes for the labels",
                f"outputs of shape {shapes}",
            )
        if not np.isfinite(outputs).all():
            remedy = "Look for them in the inputs first"
            raise _unexpected("finite logits", f"NaN or infinity. {remedy}")
        if _ends_in_sigmoid(model) or look_like_probabilities(outputs):
            remedy = "Remove the softmax or sigmoid from its last layer"
            raise _unexpected("logits", f"a model that returns probabilities. {remedy}")
        LogitClipLoss(task.loss, 1.0, task.p)(labels[:32], outputs)


def _unexpected(expected, received):
    message = f"Expected `build_model` to return {expected}. Received: {received}"
    return ValueError(message)


def _ends_in_sigmoid(model):
    last = model
    while isinstance(last, keras.Model) and last.layers:
        last = last.layers[-1]
    return getattr(last, "activation", None) is keras.activations.sigmoid


def check_pickles(task: Task) -> None:
    """Raises an error if worker processes could not find what they need."""
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
                f"or script, because of `workers` above 1. Received: {name}={value!r}"
            )
