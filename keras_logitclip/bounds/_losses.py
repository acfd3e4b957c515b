"""The range of any loss of logits of bounded norm, computed with Keras."""

import math
from collections.abc import Callable

import keras
import numpy as np

from keras_logitclip._arguments import check_num_classes
from keras_logitclip._arguments import check_p
from keras_logitclip._arguments import check_tau
from keras_logitclip._labels import mask_of
from keras_logitclip.bounds._cross_entropy import Bounds
from keras_logitclip.bounds._cross_entropy import cross_entropy_bounds
from keras_logitclip.bounds._few_valued import extreme_values
from keras_logitclip.bounds._few_valued import kinds_for_other_losses
from keras_logitclip.bounds._few_valued import kinds_for_symmetric_losses
from keras_logitclip.losses._inner import call_inner_loss
from keras_logitclip.losses._inner import standardize_inner_loss

# Number of logits to evaluate at a time.
_CHUNK = 2**21


def loss_bounds(
    loss: keras.losses.Loss | str | Callable, tau: float, num_classes: int, p: float = 2
) -> Bounds:
    """Computes the smallest and the largest value of a loss of clipped logits.

    The bounds are **exact** for losses that depend only on the probability of the label
    and fall with it (`falls_with_probability = True`): `CrossEntropy`,
    `GeneralizedCrossEntropy`, `Focal`, `JensenShannon` and others, and each
    `ActivePassive` of two of them. They follow from `cross_entropy_bounds`, for any
    number of classes.

    They are **numerical** for all other losses: a search finds them, and the true range
    can be a little wider. For losses that treat all classes except the label alike
    (`treats_other_classes_alike = True`), the search covers logits with at most four
    different values, where the extremes lie. Its time grows with the number of classes,
    to about half a minute for 100,000. For the rest, such as `ForwardCorrection` and
    your own functions, the search covers each label and all logits. It is slow and less
    accurate with more than a hundred classes.

    The loss is computed by the current backend: in float64 on TensorFlow and
    PyTorch, in float32 elsewhere.

    Args:
        loss: A loss that takes logits and class ids: an instance, the name of a Keras
            loss, or a function `(y_true, y_pred)`. Do not wrap it in a `LogitClipLoss`,
            because the other arguments describe the clipping.
        tau: Threshold of the norm, a finite number greater than zero.
        num_classes: Number of classes, at least 2.
        p: Order of the norm, a number of at least 1; `float("inf")` is the
            maximum norm. Defaults to `2`.

    Returns:
        `Bounds(lower, upper)`.

    Raises:
        ValueError: If an argument is out of range, or if the loss takes
            probabilities, ignores one of the classes or is NaN for some logits.

    Example:

    >>> from keras_logitclip import bounds
    >>> from keras_logitclip.losses import GeneralizedCrossEntropy
    >>> loss = GeneralizedCrossEntropy(q=0.7)
    >>> lower, upper = bounds.loss_bounds(loss, tau=1.0, num_classes=10)
    >>> print(f"{lower:.4f} to {upper:.4f}")
    0.8998 to 1.2857
    """
    tau, num_classes, p = check_tau(tau), check_num_classes(num_classes), check_p(p)
    if tau == math.inf:
        raise ValueError(
            "Invalid value for argument `tau`: expected a finite number, because many "
            f"losses of unclipped logits have no bounds. Received: tau={tau}"
        )
    loss = standardize_inner_loss(loss, activation=None, axis=-1)
    if getattr(loss, "falls_with_probability", False):
        return _bounds_from_cross_entropy(
            loss, cross_entropy_bounds(tau, num_classes, p)
        )
    return _search_bounds(loss, tau, num_classes, p)


def _bounds_from_cross_entropy(loss, cross_entropies) -> Bounds:
    # Two classes are enough: logits (x, 0) have the cross-entropy log(1 + exp(-x)).
    tiny = np.finfo("float64").tiny
    values = np.maximum(cross_entropies, tiny)
    x = -values - np.log(-np.expm1(-values))
    logits = np.stack([x, np.zeros(2)], -1)
    return Bounds(*(0.0 + _values(loss, np.zeros(2, "int32"), logits)).tolist())


def _search_bounds(loss, tau, num_classes, p) -> Bounds:
    symmetric = getattr(loss, "treats_other_classes_alike", False)
    kinds_for = kinds_for_symmetric_losses if symmetric else kinds_for_other_losses
    lower, upper = extreme_values(
        lambda labels, logits: _values(loss, labels, logits),
        kinds_for(num_classes),
        tau,
        p,
        at_once=max(_CHUNK // num_classes, 1),
    )
    return Bounds(float(lower), float(upper))


def _values(loss: Callable, labels, logits) -> np.ndarray:
    losses = call_inner_loss(
        loss,
        keras.ops.convert_to_tensor(labels),
        keras.ops.convert_to_tensor(logits),
        axis=1,
    )
    _check_all_count(losses)
    losses = keras.ops.convert_to_numpy(losses).astype("float64")
    if np.isnan(losses).any():
        first = int(np.isnan(losses).argmax())
        raise ValueError(
            "Expected a loss that is not NaN for any class id and clipped logits. "
            f"Received: NaN for class {labels[first]} and logits up to "
            f"{np.abs(logits[first]).max():.4g}"
        )
    return losses


def _check_all_count(losses) -> None:
    """Raises an error if the loss ignores a class, whose values are then unknown."""
    mask = mask_of(losses)
    if mask is not None and not keras.ops.convert_to_numpy(mask).all():
        raise ValueError(
            "Expected a loss that counts all classes. Received: a loss whose "
            "`ignore_class` is one of them"
        )
