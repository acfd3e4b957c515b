"""Checks of the outputs of a model."""

import keras
import numpy as np

from keras_logitclip._check.report import Problem
from keras_logitclip._labels import activation_behind
from keras_logitclip._labels import look_like_probabilities
from keras_logitclip._labels import mask_of

# With this many classes, some logits are negative. The logits of a few classes can all
# be positive in an untrained model.
_ENOUGH_OUTPUTS = 10


def predict_batch(model: keras.Model, batch):
    """Returns the predictions of a model for a batch of inputs.

    `predict` would take longer than an epoch of a small model, print a progress bar and
    call callbacks.
    """
    # Under a strategy of TensorFlow, each replica predicts the whole batch, and Keras
    # concatenates the results.
    rows = len(keras.tree.flatten(batch)[0])
    outputs = model.predict_on_batch(batch)
    return keras.tree.map_structure(lambda array: array[:rows], outputs)


def call(model: keras.Model, inputs) -> tuple[np.ndarray, np.ndarray | None]:
    """Returns the output of a model and its mask, or `None`.

    Raises:
        ValueError: If the model has several outputs.
    """
    inputs = keras.tree.map_structure(keras.ops.convert_to_tensor, inputs)
    outputs = model(inputs, training=False)
    if not keras.ops.is_tensor(outputs) or len(outputs.shape) < 2:
        shapes = keras.tree.map_structure(lambda x: tuple(x.shape), outputs)
        raise ValueError(
            "Expected a model with one output of shape `(batch, ..., classes)`. Make a "
            "model of each of several outputs: "
            "`keras.Model(model.input, model.outputs[0])`. Received: outputs of shapes "
            f"{shapes}"
        )
    mask = mask_of(outputs)
    mask = None if mask is None else keras.ops.convert_to_numpy(mask)
    return keras.ops.convert_to_numpy(outputs), mask


def entry_of(structure, key: str | int | None):
    """Returns the entry of a list or dictionary, or the structure without one."""
    if key is None:
        return structure
    try:
        return structure[key]
    except (KeyError, IndexError, TypeError):
        return structure


def wrong_shape(outputs, classes: int) -> Problem | None:
    """Returns the problem of a model without an output for each class."""
    is_matrix = isinstance(outputs, np.ndarray) and outputs.ndim == 2
    if is_matrix and outputs.shape[1] >= classes:
        return None
    shapes = keras.tree.map_structure(np.shape, outputs)
    return Problem(
        "a model with one output of shape `(batch, classes)`, at least "
        f"{classes} classes for the labels",
        f"outputs of shape {shapes}",
        f"Let it end in `keras.layers.Dense({classes})`",
    )


def wrong_values(outputs: np.ndarray) -> Problem | None:
    """Returns the problem of outputs that are not finite."""
    if np.isfinite(outputs).all():
        return None
    share = 1 - np.isfinite(outputs).all(-1).mean()
    return Problem(
        "finite logits",
        f"NaN or infinity in {share:.0%} of them",
        "Look for them in the inputs first, then in `model.get_weights()`: too large a "
        "learning rate leaves them there",
    )


def probabilities(model: keras.Model, outputs: np.ndarray) -> Problem | None:
    """Returns the problem of a model that returns probabilities."""
    activation = _activation_of(model, outputs)
    if activation not in ("softmax", "sigmoid"):
        return None
    return Problem(
        "a model that returns logits",
        "one that returns probabilities",
        f"Remove the {activation} from its last layer: "
        f"`keras.layers.Dense({outputs.shape[-1]})`",
    )


def log_probabilities(model: keras.Model, outputs: np.ndarray) -> Problem | None:
    """Returns what is wrong with log-probabilities, for a loss that clips them.

    Their softmax is that of the logits, but their norm is the smallest where all
    classes are alike, and not 0 there.
    """
    if _activation_of(model, outputs) != "log_softmax":
        return None
    classes = outputs.shape[-1]
    return Problem(
        "a model that returns logits",
        "one that returns log-probabilities, which are as good without clipping. "
        f"Clipped, they are not: those of {classes} classes have a Euclidean norm of "
        f"at least {np.sqrt(classes) * np.log(classes):.3g}, however unsure a model is",
        f"Remove the log_softmax from its end: `keras.layers.Dense({classes})`",
    )


def never_negative(model: keras.Model, outputs: np.ndarray) -> Problem | None:
    """Returns the hint that outputs could come out of a ReLU or a sigmoid."""
    values = finite_rows(outputs)
    if _is_linear(_last_operation(model)) or (values < 0).any() or not values.any():
        return None
    return Problem(
        "logits, some of which are negative",
        f"outputs from {values.min():.3g} to {values.max():.3g}",
        "If there is a ReLU or a sigmoid at the end of the model, remove it",
    )


def finite_rows(outputs: np.ndarray) -> np.ndarray:
    """Returns the finite rows of the outputs, one row for each label."""
    rows = outputs.reshape(-1, outputs.shape[-1]).astype("float64")
    return rows[np.isfinite(rows).all(-1)]


def _activation_of(model: keras.Model, outputs: np.ndarray) -> str | None:
    """Returns "softmax", "log_softmax" or "sigmoid" if the outputs come out of one.

    It uses the last layer of a functional or sequential model. Otherwise it uses the
    values: for a softmax with any model, for a sigmoid only if the last operation is
    unknown, because a mean over positions of outputs of a ReLU looks like a sigmoid,
    too.
    """
    last = _last_operation(model)
    if _is_linear(last):
        return None
    activation = activation_behind(last)
    if activation is not None:
        return activation
    values = finite_rows(outputs)
    if values.shape[-1] > 1 and look_like_probabilities(values):
        return "softmax"
    if values.shape[-1] > 1 and _are_log_probabilities(values):
        return "log_softmax"
    has_enough = last is None and values.shape[-1] >= _ENOUGH_OUTPUTS
    return "sigmoid" if has_enough and _may_be_probabilities(values) else None


def _last_operation(model):
    """Returns the operation that computes the output of a model, if it is known."""
    operation = model
    while isinstance(operation, keras.Model):
        (output, *_) = getattr(operation, "outputs", None) or [None]
        operation = getattr(output, "_keras_history", (None,))[0]
    return operation


def _is_linear(operation):
    return getattr(operation, "activation", None) is keras.activations.linear


def _are_log_probabilities(values):
    return bool((values <= 0).all()) and look_like_probabilities(np.exp(values))


def _may_be_probabilities(values):
    return bool(values.size and ((values > 0) & (values <= 1)).all())
