"""What is checked before any training starts."""

import math
import pickle
import sys

import keras
import numpy as np

from keras_logitclip._arguments import check_tau
from keras_logitclip._jobs.batches import take
from keras_logitclip._labels import look_like_probabilities
from keras_logitclip.losses import LogitClipLoss
from keras_logitclip.tuning._training import Task
from keras_logitclip.tuning._training import make_optimizer

# Those of the paper.
DEFAULT_TAUS = tuple(1 / inverse for inverse in (0.1, *np.arange(0.5, 5.5, 0.5)))


def check_taus(taus) -> list[float]:
    """Returns the grid in ascending order, each value once."""
    grid = sorted({check_tau(tau) for tau in (DEFAULT_TAUS if taus is None else taus)})
    if not grid or math.isinf(grid[-1]):
        raise ValueError(
            "Invalid value for argument `taus`: expected at least one threshold, and "
            f"finite ones. Received: taus={taus!r}"
        )
    return grid


def check_labels(y) -> np.ndarray:
    """Returns the labels as an array if they are class ids of two classes or more."""
    labels = np.asarray(y)
    received = f"Received: y of dtype {labels.dtype} and shape {labels.shape}"
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        remedies = {"column": "y.ravel()", "one-hot": "y.argmax(-1)"}
        kind = "column" if labels.shape[1:] == (1,) else "one-hot"
        remedy = f" Make them so with `{remedies[kind]}`." if labels.ndim == 2 else ""
        raise ValueError(
            "Invalid value for argument `y`: expected the noisy labels as class ids, "
            f"integers of shape `(samples,)`.{remedy} {received}"
        )
    if labels.size and labels.min() < 0:
        raise ValueError(
            "Invalid value for argument `y`: expected class ids of at least 0. "
            f"Received: {labels.min()} at position {labels.argmin()}"
        )
    if len(np.unique(labels)) < 2:
        raise ValueError(
            "Invalid value for argument `y`: expected labels of at least two classes. "
            f"{received}, {len(np.unique(labels))} classes"
        )
    return labels


def split(labels, validation_split, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns positions to train on and to hold out: that share of each class."""
    is_share = isinstance(validation_split, float) and 0 < validation_split < 1
    if not is_share:
        raise ValueError(
            "Invalid value for argument `validation_split`: expected a number between "
            f"0 and 1. Received: validation_split={validation_split!r}"
        )
    rng = np.random.default_rng(seed)
    held_out = []
    for label, samples in zip(*np.unique(labels, return_counts=True), strict=True):
        count = round(samples * validation_split)
        if not 0 < count < samples:
            raise ValueError(
                "Invalid value for argument `validation_split`: expected a share that "
                "leaves samples of each class both to train on and to hold out. "
                f"Received: validation_split={validation_split}, which holds out "
                f"{count} of the {samples} samples with label {label}"
            )
        members = rng.permutation(np.flatnonzero(labels == label))
        held_out.append(members[:count])
    validation = np.sort(np.concatenate(held_out))
    return np.setdiff1d(np.arange(len(labels)), validation), validation


def check_optimizer(optimizer) -> None:
    """Raises if this is nothing to make an optimizer from."""
    known = isinstance(optimizer, str | keras.optimizers.Optimizer)
    if not known and (isinstance(optimizer, type) or not callable(optimizer)):
        raise ValueError(
            "Invalid value for argument `optimizer`: expected the name of a Keras "
            "optimizer, an instance, or a function from the number of training steps "
            f"to an instance. Received: optimizer={optimizer!r}"
        )
    make_optimizer(optimizer, 1)


def check_model(task: Task) -> int:
    """Builds a model and computes the loss once.

    Returns:
        The number of its parameters.

    Raises:
        ValueError: If it is compiled, or returns probabilities or anything else but
            logits of the classes.
    """
    keras.utils.set_random_seed(task.seed)
    model = task.build_model()
    if not isinstance(model, keras.Model):
        raise ValueError(
            "Expected `build_model` to return a Keras model. "
            f"Received: an object of type {type(model).__name__}"
        )
    if model.compiled:
        raise ValueError(
            "Expected `build_model` to return a model that is not compiled: the search "
            "compiles it, with a loss for each threshold and the argument `optimizer`. "
            "Received: a compiled model"
        )
    rows = task.train[:32]
    outputs = model.predict_on_batch(take(task.inputs, rows))
    _check_logits(outputs, int(task.labels.max()) + 1)
    if _ends_in_probabilities(model) or look_like_probabilities(outputs):
        raise ValueError(
            "Expected `build_model` to return a model that returns logits. "
            "Received: one that returns probabilities. Remove the softmax or sigmoid "
            "from its last layer"
        )
    LogitClipLoss(task.loss, 1.0, task.p)(task.labels[rows], outputs)
    return model.count_params()


def check_clean_data(clean_data) -> tuple | None:
    """Returns inputs and labels to compare with, if there are any."""
    if clean_data is None:
        return None
    if not isinstance(clean_data, tuple | list) or len(clean_data) != 2:
        raise ValueError(
            "Invalid value for argument `clean_data`: expected a pair of inputs and "
            f"labels. Received: an object of type {type(clean_data).__name__}"
        )
    return tuple(clean_data)


def check_pickles(task: Task) -> None:
    """Raises if worker processes could not find what they need."""
    for name in ("build_model", "loss", "optimizer"):
        value = getattr(task, name)
        try:
            pickle.dumps(value)
            found = _is_importable(value)
        except (pickle.PicklingError, AttributeError, TypeError):
            found = False
        if not found:
            raise ValueError(
                f"Invalid value for argument `{name}`: expected something that worker "
                "processes can import, such as a function at the top level of a module "
                "or script, because of `workers` above 1. "
                f"Received: {name}={value!r}"
            )


def _is_importable(value):
    """Whether a new process finds the script that defines a function."""
    if getattr(value, "__module__", None) != "__main__":
        return True
    return hasattr(sys.modules["__main__"], "__file__")


def _check_logits(outputs, num_classes):
    shapes = keras.tree.map_structure(np.shape, outputs)
    fits = isinstance(outputs, np.ndarray) and outputs.ndim == 2
    if not fits or outputs.shape[1] < num_classes:
        raise ValueError(
            "Expected `build_model` to return a model with one output of shape "
            f"`(batch, classes)`, at least {num_classes} classes for the labels. "
            f"Received: outputs of shape {shapes}"
        )


def _ends_in_probabilities(model):
    last = model
    while isinstance(last, keras.Model) and last.layers:
        last = last.layers[-1]
    probabilities = (keras.activations.softmax, keras.activations.sigmoid)
    is_softmax = isinstance(last, keras.layers.Softmax)
    return is_softmax or getattr(last, "activation", None) in probabilities
