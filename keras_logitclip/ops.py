"""Norm and clipping of logits, as pure functions of backend tensors."""

from typing import Any

import keras
from keras import ops

from keras_logitclip import _kernels
from keras_logitclip._arguments import check_axis
from keras_logitclip._arguments import check_p
from keras_logitclip._arguments import check_tau
from keras_logitclip._arguments import resolve_axis
from keras_logitclip._labels import as_labels
from keras_logitclip._labels import check_labels
from keras_logitclip._labels import check_several_classes
from keras_logitclip._labels import from_rows
from keras_logitclip._labels import to_rows
from keras_logitclip._labels import without_axis
from keras_logitclip._numerics import compute_dtype_of
from keras_logitclip._numerics import inverse_mean

__all__ = ["clipped_softmax_cross_entropy", "logit_clip", "logit_norm"]


def __dir__():
    return __all__


def logit_norm(logits, p: float = 2, axis: int = -1, keepdims: bool = False) -> Any:
    """Computes the p-norm of each logit vector.

    The gradient of a zero row is zero, where automatic differentiation of the formula
    gives NaN on most backends. Values and gradients are correct for rows whose sum of
    squares overflows or underflows.

    Formula:

    ```python
    norm = sum(abs(logits) ** p, axis) ** (1 / p)
    ```

    Args:
        logits: Floating-point tensor of any rank.
        p: Order of the norm, a number of at least 1; `float("inf")` is the
            maximum norm. Defaults to `2`.
        axis: Integer, the class axis. Defaults to `-1`.
        keepdims: Boolean, whether the class axis stays, with size 1.
            Defaults to `False`.

    Returns:
        The norms, of the shape of `logits` without `axis`. They are float32 for float16
        and bfloat16, which cannot hold the norm of a large row. Otherwise they have the
        dtype of `logits`.

    Raises:
        ValueError: If `p` or `axis` is out of range, or if `logits` are integers.

    Example:

    >>> from keras_logitclip import ops
    >>> print([float(norm) for norm in ops.logit_norm([[3.0, 4.0], [0.0, 0.0]])])
    [5.0, 0.0]
    """
    arguments = {"p": check_p(p), "axis": check_axis(axis), "keepdims": keepdims}
    if isinstance(logits, keras.KerasTensor):
        return _LogitNormOperation(**arguments)(logits)
    return _kernels.logit_norm(logits, **arguments)


def logit_clip(logits, tau: float, p: float = 2, axis: int = -1) -> Any:
    """Clips the p-norm of each logit vector at `tau`.

    A vector whose norm is at most `tau` is returned bit for bit, except for subnormal
    numbers, which TensorFlow and JAX replace by zero. A longer vector is scaled down to
    norm `tau` and keeps its direction, so the predicted class never changes. A vector
    with a NaN or an infinite entry becomes NaN. One whose norm is above 1e33 tau may
    become NaN. Half precision is computed in float32 and rounded once, at the end.

    If you mask some classes with large negative logits, mask after clipping: a single
    -1e9 dominates the norm.

    Formula:

    ```python
    clipped = logits * minimum(1, tau / norm(logits, p, axis))
    ```

    Args:
        logits: Floating-point tensor of any rank.
        tau: Threshold of the norm, a number greater than zero;
            `float("inf")` returns the logits unchanged.
        p: Order of the norm, a number of at least 1; `float("inf")` is the
            maximum norm. Defaults to `2`.
        axis: Integer, the class axis. Defaults to `-1`.

    Returns:
        The clipped logits, of the shape and dtype of `logits`.

    Raises:
        ValueError: If `tau`, `p` or `axis` is out of range or `logits` are
            integers.

    Example:

    >>> from keras_logitclip import ops
    >>> clipped = ops.logit_clip([[30.0, 40.0], [0.3, 0.4]], tau=5.0)
    >>> print([[round(float(logit), 4) for logit in row] for row in clipped])
    [[3.0, 4.0], [0.3, 0.4]]

    References:
        - [Wei et al., 2023](https://arxiv.org/abs/2212.04055)
    """
    arguments = {"tau": check_tau(tau), "p": check_p(p), "axis": check_axis(axis)}
    if isinstance(logits, keras.KerasTensor):
        return _LogitClipOperation(**arguments)(logits)
    return compute_clip(ops.convert_to_tensor(logits), **arguments)


def clipped_softmax_cross_entropy(
    y_true, logits, tau: float, p: float = 2, axis: int = -1
) -> Any:
    """Computes the softmax cross-entropy of clipped logits, of each sample.

    The result is the same as that of `logit_clip` followed by the cross-entropy from
    logits. With `p=2`, it takes about the time of the cross-entropy alone and stores no
    tensor of clipped logits. Half precision is computed in float32.

    `LogitClipLoss` uses this function where possible. Call it yourself where no loss
    object fits, for example in a custom training loop.

    Formula:

    ```python
    clipped = logits * minimum(1, tau / norm(logits, p, axis))
    loss = -sum(y_true * log_softmax(clipped, axis), axis)
    ```

    Args:
        y_true: Class ids in [0, classes), of the shape of `logits` without `axis` or
            with size 1 there; or one-hot or soft labels of the shape of `logits`.
        logits: Floating-point tensor of any rank, with at least two classes.
        tau: Threshold of the norm, a number greater than zero;
            `float("inf")` for the plain cross-entropy.
        p: Order of the norm, a number of at least 1; `float("inf")` is the
            maximum norm. Defaults to `2`.
        axis: Integer, the class axis. Defaults to `-1`.

    Returns:
        The losses, of the shape of `logits` without `axis`: float64 for float64 logits,
        float32 for all others. Loss and gradient are NaN for a class id that is not a
        whole number in [0, classes). The gradient of a row whose norm times `exp(tau)`
        is above 1e38 may be infinite.

    Raises:
        ValueError: If `tau`, `p` or `axis` is out of range, if the labels are not
            numbers, if the shapes do not match, if there is only one class, or if
            `logits` are integers.

    Example:

    >>> import keras
    >>> from keras_logitclip import ops
    >>> logits = keras.ops.array([[30.0, 40.0], [0.0, 0.0]])
    >>> losses = ops.clipped_softmax_cross_entropy([1, 0], logits, tau=5.0)
    >>> print([round(float(loss), 4) for loss in losses])
    [0.3133, 0.6931]

    References:
        - [Wei et al., 2023](https://arxiv.org/abs/2212.04055)
    """
    arguments = {"tau": check_tau(tau), "p": check_p(p), "axis": check_axis(axis)}
    if any(isinstance(x, keras.KerasTensor) for x in (y_true, logits)):
        return _ClippedSoftmaxCrossEntropyOperation(**arguments)(y_true, logits)
    return compute_cross_entropy(
        as_labels(y_true), ops.convert_to_tensor(logits), **arguments
    )


@keras.saving.register_keras_serializable(package="keras_logitclip")
class _LogitNormOperation(keras.Operation):
    """Computes `logit_norm` as a node of a functional model."""

    def __init__(self, p, axis, keepdims, name=None):
        super().__init__(name=name)
        self.p = p
        self.axis = axis
        self.keepdims = keepdims

    def call(self, logits):
        return _kernels.logit_norm(logits, self.p, self.axis, self.keepdims)

    def compute_output_spec(self, logits):
        axis = resolve_axis(self.axis, len(logits.shape))
        shape = list(logits.shape)
        shape[axis : axis + 1] = [1] if self.keepdims else []
        return keras.KerasTensor(shape, dtype=compute_dtype_of(logits))

    def get_config(self) -> dict:
        return {
            "name": self.name,
            "p": self.p,
            "axis": self.axis,
            "keepdims": self.keepdims,
        }


class _ClippingOperation(keras.Operation):
    def __init__(self, tau, p, axis, name=None):
        super().__init__(name=name)
        self.tau = tau
        self.p = p
        self.axis = axis

    def get_config(self) -> dict:
        return {"name": self.name, "tau": self.tau, "p": self.p, "axis": self.axis}


@keras.saving.register_keras_serializable(package="keras_logitclip")
class _LogitClipOperation(_ClippingOperation):
    """Computes `logit_clip` as a node of a functional model."""

    def call(self, logits):
        return compute_clip(logits, self.tau, self.p, self.axis)

    def compute_output_spec(self, logits):
        compute_dtype_of(logits)
        resolve_axis(self.axis, len(logits.shape))
        return keras.KerasTensor(logits.shape, dtype=logits.dtype)


@keras.saving.register_keras_serializable(package="keras_logitclip")
class _ClippedSoftmaxCrossEntropyOperation(_ClippingOperation):
    """Computes `clipped_softmax_cross_entropy` as a node of a functional model."""

    def call(self, y_true, logits):
        return compute_cross_entropy(y_true, logits, self.tau, self.p, self.axis)

    def compute_output_spec(self, y_true, logits):
        axis = resolve_axis(self.axis, len(logits.shape))
        check_several_classes(logits, axis)
        check_labels(y_true, logits, axis)
        shape = without_axis(logits.shape, axis)
        return keras.KerasTensor(shape, dtype=compute_dtype_of(logits))


def compute_clip(logits, tau: float, p: float, axis: int):
    """Computes `logit_clip` of a tensor, with arguments that have been checked."""
    return _kernels.logit_clip(logits, tau, p, axis)


def compute_cross_entropy(
    y_true, logits, tau: float, p: float, axis: int, counted=None
):
    """Computes `clipped_softmax_cross_entropy` for tensors and checked arguments.

    Args:
        y_true: Labels.
        logits: Logits.
        tau: Threshold of the norm.
        p: Order of the norm.
        axis: The class axis.
        counted: As in `normalize_gradient`, or `None` for the exact gradient.
    """
    labels, rows = to_rows(y_true, logits, axis)
    if counted is not None and counted is not True:
        counted = ops.reshape(counted, (-1,))
    losses = _kernels.clipped_cross_entropy(labels, rows, tau, p, counted)
    return from_rows(losses, logits, axis)


def normalize_gradient(values, logits, tau: float, p: float, axis: int, counted):
    """Returns the values, with a gradient that clipping does not shrink.

    The gradient is divided by the mean of minimum(1, tau / norm), a constant.

    Args:
        values: Values that were computed from clipped logits.
        logits: The logits.
        tau: Threshold of the norm.
        p: Order of the norm.
        axis: The class axis.
        counted: The rows that are in the mean: `True` for all, or a boolean tensor of
            the shape of `logits` without `axis`.
    """
    if tau == float("inf"):
        return values
    norm = _kernels.logit_norm(ops.stop_gradient(logits), p, axis, keepdims=False)
    multiplier = tau / ops.where(norm <= tau, ops.full_like(norm, tau), norm)
    factor = inverse_mean(multiplier, counted)
    # Zero in the dtype of the factor, which could overflow in half precision.
    zero = ops.cast(values - ops.stop_gradient(values), factor.dtype)
    return values + ops.cast((factor - 1) * zero, values.dtype)
