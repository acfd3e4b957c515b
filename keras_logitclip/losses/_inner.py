"""Checks, calls and serialization of wrapped losses."""

import inspect
import warnings
from collections.abc import Callable

import keras

from keras_logitclip._arguments import resolve_axis
from keras_logitclip._labels import check_class_ids_are_exact
from keras_logitclip._labels import holds_class_ids
from keras_logitclip.losses._base import LogitsLoss
from keras_logitclip.losses._base import snake_case

# Keras losses that take probabilities or rates but have no `from_logits` argument.
_PROBABILITY_LOSSES = (
    "CategoricalGeneralizedCrossEntropy",
    "Dice",
    "KLDivergence",
    "Poisson",
    "Tversky",
)


def standardize_inner_loss(
    loss, activation: str | None, axis: int
) -> keras.losses.Loss | Callable:
    """Returns the wrapped loss as an instance or a function.

    Args:
        loss: A loss instance, the name of a Keras loss, or a function
            `(y_true, y_pred)`.
        activation: The activation that is applied before the loss, or `None`.
        axis: The class axis of losses that are made from their name.

    Raises:
        ValueError: If the loss is none of these, if its name is unknown, or if it takes
            probabilities without an activation or logits with one.
    """
    if isinstance(loss, str):
        loss = _loss_from_name(loss, from_logits=activation is None, axis=axis)
    elif inspect.isclass(loss) and issubclass(loss, keras.losses.Loss):
        takes_both = "from_logits" in inspect.signature(loss).parameters
        raise ValueError(
            "Invalid value for argument `loss`: expected an instance of that class: "
            f"`{loss.__name__}({'from_logits=True' if takes_both else ''})`. "
            f"Received: loss={loss!r}"
        )
    elif inspect.isclass(loss) or not callable(loss):
        raise ValueError(
            "Invalid value for argument `loss`: expected a loss instance such "
            "as `keras.losses.CategoricalCrossentropy(from_logits=True)`, the "
            "name of a Keras loss, or a function `(y_true, y_pred)`. "
            f"Received: loss={loss!r}"
        )
    _check_activation(loss, activation)
    return loss


def serialize_inner_loss(loss: keras.losses.Loss | Callable):
    """Returns the configuration of a loss instance or function, as Keras saves it."""
    if not (_is_loss(loss) or _survives_serialization(loss)):
        warnings.warn(
            f"The function {describe(loss)} in a loss is saved only by name. To load "
            "the model, register the function with "
            '`@keras.saving.register_keras_serializable(package="...")`, pass it in '
            "`custom_objects`, or load with `compile=False`.",
            stacklevel=2,
        )
    return keras.saving.serialize_keras_object(loss)


def shared_ignore_class(own: int | None, *losses) -> int | None:
    """Returns the common `ignore_class` of a loss and its wrapped losses.

    Raises:
        ValueError: If they differ.
    """
    given = [own, *(getattr(loss, "ignore_class", None) for loss in losses)]
    different = {class_id for class_id in given if class_id is not None}
    if len(different) > 1:
        raise ValueError(
            "Expected the same `ignore_class` in the wrapped loss and the loss around "
            "it, or only one of them to have it. Received: "
            f"ignore_class={sorted(different)}"
        )
    return different.pop() if different else None


def check_inner_loss(loss: keras.losses.Loss | Callable, dtype: str) -> None:
    """Raises an error if settings of a wrapped loss would have no effect.

    Args:
        loss: The wrapped loss.
        dtype: The dtype of the loss around it.
    """
    if not _is_loss(loss):
        return
    if loss.reduction != "sum_over_batch_size":
        raise ValueError(
            "Expected the default `reduction` in the wrapped loss, because only the "
            "`reduction` of the loss around it has an effect. Set it there. Received: "
            f"loss.reduction={loss.reduction!r}"
        )
    if loss.dtype not in (dtype, keras.config.floatx()):
        raise ValueError(
            "Expected the default `dtype` in the wrapped loss, because only the "
            "`dtype` of the loss around it has an effect. Set it there. Received: "
            f"loss.dtype={loss.dtype!r}, dtype={dtype!r}"
        )


def fix_settings_of(*losses) -> None:
    """Refuses later changes of wrapped losses of this package."""
    for loss in losses:
        if isinstance(loss, LogitsLoss):
            loss.fix_settings()


def check_inner_axis(loss, y_pred, axis: int) -> None:
    """Raises an error if the class axis of a wrapped loss differs from `axis`."""
    inner_axis = getattr(loss, "axis", axis)
    rank = len(y_pred.shape)
    if isinstance(inner_axis, int) and resolve_axis(inner_axis, rank) != axis:
        raise ValueError(
            "Expected the same class axis in the wrapped loss and the loss around it. "
            f"Received: axis={axis}, loss.axis={inner_axis} for logits of rank {rank}"
        )


def call_inner_loss(
    loss: keras.losses.Loss | Callable, y_true, y_pred, axis: int, counted=None
):
    """Computes the per-sample values of a loss instance or function.

    It does not call an instance, because that would reduce the values before the
    wrapper can weight them. A mask of the values stays on them.
    """
    check_inner_axis(loss, y_pred, axis)
    if getattr(type(loss), "call", None) is LogitsLoss.call:
        return loss.compute(y_true, y_pred, axis, counted)
    if holds_class_ids(y_true, y_pred, axis):
        check_class_ids_are_exact(y_true, y_pred.shape[axis])
    y_true = _as_keras_gives_it(y_true, y_pred)
    if _is_loss(loss):
        losses = loss.call(y_true, y_pred)
    else:
        losses = loss(*_match_ranks(y_true, y_pred))
    _check_per_sample(losses, y_true, y_pred, axis)
    return losses


def check_same_shape(losses, others) -> None:
    """Raises an error if values to be added differ in shape."""
    sizes, other_sizes = tuple(losses.shape), tuple(others.shape)
    known = [pair for pair in zip(sizes, other_sizes, strict=False) if None not in pair]
    if len(sizes) != len(other_sizes) or any(a != b for a, b in known):
        raise ValueError(
            "Expected losses to be added to have the same shape, one value per sample. "
            f"Received: shapes {sizes} and {other_sizes}"
        )


def _check_per_sample(losses, y_true, y_pred, axis):
    """Refuses values of a loss that broadcasts class ids against samples."""
    too_large = len(losses.shape) >= len(y_pred.shape)
    if too_large and holds_class_ids(y_true, y_pred, axis):
        raise ValueError(
            "Expected the wrapped loss to return one value per sample. Give the labels "
            "the shape that this loss expects, often `(batch,)` or one-hot. "
            f"Received: values of shape {tuple(losses.shape)} for labels of shape "
            f"{tuple(y_true.shape)} and logits of shape {tuple(y_pred.shape)}"
        )


def _as_keras_gives_it(y_true, y_pred):
    """Returns labels in the dtype of the predictions if that is exact for class ids."""
    half = keras.backend.standardize_dtype(y_pred.dtype) in ("float16", "bfloat16")
    is_integer = "int" in keras.backend.standardize_dtype(y_true.dtype)
    return y_true if half and is_integer else keras.ops.cast(y_true, y_pred.dtype)


def _match_ranks(y_true, y_pred):
    """Gives labels the rank of the predictions, as Keras does for functions.

    Without it, `(batch,)` labels and `(batch, 1)` predictions would silently
    broadcast to `(batch, batch)`.
    """
    true_rank, pred_rank = len(y_true.shape), len(y_pred.shape)
    if true_rank == pred_rank - 1 and y_pred.shape[-1] == 1:
        y_true = keras.ops.expand_dims(y_true, -1)
    elif true_rank == pred_rank + 1 and y_true.shape[-1] == 1:
        y_true = keras.ops.squeeze(y_true, -1)
    return y_true, y_pred


def _loss_from_name(name: str, from_logits: bool, axis: int) -> keras.losses.Loss:
    classes = _keras_loss_classes()
    cls = classes.get(name) or classes.get(_unabbreviate(name))
    if cls is None:
        names = sorted(known for known in classes if known.islower())
        raise ValueError(
            "Invalid value for argument `loss`: expected the name of a Keras "
            f"loss, one of {names}. Received: loss={name!r}"
        )
    parameters = inspect.signature(cls).parameters
    arguments = {}
    if "from_logits" in parameters:
        arguments["from_logits"] = from_logits
    if "axis" in parameters and parameters["axis"].default == -1:
        arguments["axis"] = axis
    return cls(**arguments)


def _keras_loss_classes() -> dict[str, type]:
    """Returns Keras's loss classes by class name and by snake-case name.

    `keras.losses.get` would return functions that take probabilities for snake-case
    names, and lacks some of the classes.
    """
    classes = {}
    for name, value in vars(keras.losses).items():
        if inspect.isclass(value) and value is not keras.losses.Loss:
            classes[name] = classes[snake_case(name)] = value
    return classes


def _unabbreviate(name: str) -> str:
    """Returns the full name behind one of Keras's short ones, such as "mse"."""
    try:
        return getattr(keras.losses.get(name), "__name__", name)
    except (TypeError, ValueError):
        return name


def _check_activation(loss, activation: str | None) -> None:
    of_probabilities = takes_probabilities(loss)
    if of_probabilities and activation is None:
        raise ValueError(
            "Expected a loss that takes logits, because the loss around it does. Give "
            "it `from_logits=True` if it has that argument. Otherwise, give the loss "
            'around it `activation="softmax"` or "sigmoid", if it has that argument. '
            f"Received: a loss that takes probabilities, loss={describe(loss)}"
        )
    if of_probabilities is False and activation is not None:
        raise ValueError(
            "Invalid value for argument `activation`: expected `None`, because the "
            "wrapped loss takes logits and applies its own activation. "
            f"Received: activation={activation!r}, loss={describe(loss)}"
        )


def takes_probabilities(loss) -> bool | None:
    """Returns whether a loss takes probabilities, `None` if it is unknown."""
    from_logits = _declared_from_logits(loss)
    if from_logits is not None:
        return not from_logits
    name = describe(loss)
    module = type(loss).__module__ if _is_loss(loss) else loss.__module__
    known = _PROBABILITY_LOSSES + tuple(map(snake_case, _PROBABILITY_LOSSES))
    return True if name in known and module.startswith("keras.") else None


def _declared_from_logits(loss) -> bool | None:
    if _is_loss(loss):
        return getattr(loss, "from_logits", None)
    parameter = inspect.signature(loss).parameters.get("from_logits")
    return None if parameter is None else bool(parameter.default)


def describe(loss) -> str:
    """Returns the name of a loss instance or function."""
    return (
        type(loss).__name__ if _is_loss(loss) else getattr(loss, "__name__", repr(loss))
    )


def _is_loss(loss) -> bool:
    return isinstance(loss, keras.losses.Loss)


def _survives_serialization(function: Callable) -> bool:
    if getattr(function, "__name__", "<lambda>") == "<lambda>":
        return False
    try:
        config = keras.saving.serialize_keras_object(function)
        return keras.saving.deserialize_keras_object(config) is function
    except (TypeError, ValueError):
        return False
