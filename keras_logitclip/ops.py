"""Norm and clipping of logits, as pure functions of backend tensors."""

import keras
import numpy as np
from keras import ops

from keras_logitclip._validation import check_axis
from keras_logitclip._validation import check_p
from keras_logitclip._validation import check_tau
from keras_logitclip._validation import resolve_axis


def logit_norm(logits, p: float = 2, axis: int = -1, keepdims: bool = False):
    """Computes the p-norm of each logit vector.

    The gradient is analytic: zero at zero rows, where automatic
    differentiation gives NaN on most backends, and correct for rows whose
    sum of squares overflows or underflows.

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
        The norms: the shape of `logits` without `axis`. They are float32
        where `logits` are float16 or bfloat16, which cannot hold the norm of
        a large row, and of the dtype of `logits` elsewhere.

    Raises:
        ValueError: If `p` or `axis` is out of range or `logits` are integers.

    Example:

    >>> from keras_logitclip import ops
    >>> print([float(norm) for norm in ops.logit_norm([[3.0, 4.0], [0.0, 0.0]])])
    [5.0, 0.0]
    """
    arguments = {"p": check_p(p), "axis": check_axis(axis), "keepdims": keepdims}
    if isinstance(logits, keras.KerasTensor):
        return _LogitNormOperation(**arguments)(logits)
    return _logit_norm(logits, **arguments)


def logit_clip(logits, tau: float, p: float = 2, axis: int = -1):
    """Clips the p-norm of each logit vector at `tau`.

    A vector whose norm is at most `tau` comes back bit for bit; a longer one
    is scaled down to norm `tau` and keeps its direction, so the predicted
    class never changes. A vector with a NaN or an infinite entry becomes NaN.
    Half precision is computed in float32 and rounded once, at the end.

    Where some classes are masked by large negative logits, mask after
    clipping: a single -1e9 is nearly the whole norm.

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
    >>> print(keras.ops.convert_to_numpy(clipped))
    [[3.  4. ]
     [0.3 0.4]]

    References:
        - [Wei et al., 2023](https://arxiv.org/abs/2212.04055)
    """
    arguments = {"tau": check_tau(tau), "p": check_p(p), "axis": check_axis(axis)}
    if isinstance(logits, keras.KerasTensor):
        return _LogitClipOperation(**arguments)(logits)
    return _logit_clip(logits, **arguments)


@keras.saving.register_keras_serializable(package="keras_logitclip")
class _LogitNormOperation(keras.Operation):
    """`logit_norm` as a node of a functional model."""

    def __init__(self, p, axis, keepdims, name=None):
        super().__init__(name=name)
        self.p = p
        self.axis = axis
        self.keepdims = keepdims

    def call(self, logits):
        return _logit_norm(logits, self.p, self.axis, self.keepdims)

    def compute_output_spec(self, logits):
        axis = resolve_axis(self.axis, len(logits.shape))
        shape = list(logits.shape)
        shape[axis : axis + 1] = [1] if self.keepdims else []
        return keras.KerasTensor(shape, dtype=_compute_dtype(logits))

    def get_config(self):
        return {
            "name": self.name,
            "p": self.p,
            "axis": self.axis,
            "keepdims": self.keepdims,
        }


@keras.saving.register_keras_serializable(package="keras_logitclip")
class _LogitClipOperation(keras.Operation):
    """`logit_clip` as a node of a functional model."""

    def __init__(self, tau, p, axis, name=None):
        super().__init__(name=name)
        self.tau = tau
        self.p = p
        self.axis = axis

    def call(self, logits):
        return _logit_clip(logits, self.tau, self.p, self.axis)

    def compute_output_spec(self, logits):
        _compute_dtype(logits)
        resolve_axis(self.axis, len(logits.shape))
        return keras.KerasTensor(logits.shape, dtype=logits.dtype)

    def get_config(self):
        return {"name": self.name, "tau": self.tau, "p": self.p, "axis": self.axis}


def _logit_norm(logits, p, axis, keepdims):
    logits = ops.convert_to_tensor(logits)
    axis = resolve_axis(axis, len(logits.shape))
    compute_dtype = _compute_dtype(logits)

    def value(logits):
        _, scale, root = _factored_norm(ops.cast(logits, compute_dtype), p, axis)
        norm = scale * root
        return norm if keepdims else ops.squeeze(norm, axis)

    def vjp(logits, upstream):
        rows = ops.cast(logits, compute_dtype)
        scaled, _, root = _factored_norm(rows, p, axis)
        upstream = ops.reshape(upstream, ops.shape(root))
        gradient = upstream * _norm_gradient(scaled, root, p, axis)
        return ops.cast(gradient, logits.dtype)

    return _differentiate_with_vjp(value, vjp, logits)


def _logit_clip(logits, tau, p, axis):
    logits = ops.convert_to_tensor(logits)
    axis = resolve_axis(axis, len(logits.shape))
    compute_dtype = _compute_dtype(logits)
    if tau == float("inf"):
        return logits

    def value(logits):
        rows = ops.cast(logits, compute_dtype)
        scaled, scale, root = _factored_norm(rows, p, axis)
        clipped = scaled * (tau / _nonzero(root))
        # Selected, not multiplied by 1: shorter rows come back bit for bit.
        clipped = ops.where(_is_unclipped(scale, root, tau), rows, clipped)
        return ops.cast(clipped, logits.dtype)

    def vjp(logits, upstream):
        # With n the norm and s = tau / n, the Jacobian of s z is
        # s (I - (z / n) (dn/dz)^T) on clipped rows and I on the others.
        rows = ops.cast(logits, compute_dtype)
        upstream = ops.cast(upstream, compute_dtype)
        scaled, scale, root = _factored_norm(rows, p, axis)
        along_row = ops.sum(upstream * scaled, axis, keepdims=True) / _nonzero(root)
        across = upstream - along_row * _norm_gradient(scaled, root, p, axis)
        # `tau / (scale * root)` would overflow in the divisor for huge rows.
        gradient = across * (tau / _nonzero(root) / scale)
        gradient = ops.where(_is_unclipped(scale, root, tau), upstream, gradient)
        return ops.cast(gradient, logits.dtype)

    return _differentiate_with_vjp(value, vjp, logits)


def _is_unclipped(scale, root, tau):
    # Not `norm > tau`: of the two, only this one is false for NaN, and rows
    # that have no norm must not pass as unclipped.
    return scale * root <= tau


def _differentiate_with_vjp(value, vjp, logits):
    """Applies `value(logits)`, with `vjp(logits, upstream)` as its gradient.

    Both are functions of the logits and share nothing else: on torch, what
    `vjp` took over from `value` would count as a constant in derivatives of
    second order, which would silently be wrong.
    """
    # Keras's NumPy and OpenVINO backends only infer, and their
    # `custom_gradient` warns of that at every call.
    if keras.config.backend() in ("numpy", "openvino"):
        return value(logits)

    @ops.custom_gradient
    def differentiable(logits):
        def gradient(*args, upstream=None):
            # TensorFlow and JAX call `gradient(upstream)`, torch
            # `gradient(logits, upstream=upstream)` with a copy of the logits
            # that it protects from in-place changes.
            if upstream is None:
                return vjp(logits, *args)
            return vjp(*args, upstream)

        return value(logits), gradient

    return differentiable(logits)


def _compute_dtype(logits) -> str:
    """The dtype to compute in: float32, or float64 for float64 logits."""
    dtype = keras.backend.standardize_dtype(logits.dtype)
    if "float" not in dtype:
        raise ValueError(
            "Invalid dtype for argument `logits`: expected floating-point "
            "logits. Cast them, for example with "
            f'`keras.ops.cast(logits, "float32")`. Received: dtype={dtype}'
        )
    # OpenVINO has no float64 arithmetic: it computes in float32 unasked.
    double = dtype == "float64" and keras.config.backend() != "openvino"
    return "float64" if double else "float32"


def _factored_norm(rows, p, axis):
    """Returns `rows / scale`, and the norm of each row as `scale * root`.

    `scale` is the largest magnitude in the row and `root` the norm of the row
    divided by it, which lies in [1, K]: no power overflows or underflows, for
    rows as far out as 1e30 or 1e-30 in float32. A row of zeros has `scale` 1
    and `root` 0.

    `scale` stays within the numbers whose reciprocal is a normal number, too:
    compilers turn the division into a multiplication by the reciprocal, and
    flush that to zero otherwise. At the ends of the range this lets `root`
    leave [1, K] by a factor of 4.
    """
    tiny = float(np.finfo(keras.backend.standardize_dtype(rows.dtype)).tiny)
    magnitude = ops.abs(rows)
    scale = _nonzero(_row_maximum(magnitude, axis))
    scale = ops.clip(scale, _constant(tiny, scale), _constant(1 / tiny, scale))
    scaled = rows / scale
    if p == 2:
        root = _root(ops.sum(scaled * scaled, axis, keepdims=True), 2)
    else:
        root = _norm_of_magnitude(magnitude / scale, p, axis)
    root = ops.where(ops.isfinite(root), root, _constant(float("nan"), root))
    return scaled, scale, root


def _norm_of_magnitude(magnitude, p, axis):
    if p == 1:
        return ops.sum(magnitude, axis, keepdims=True)
    peak = _row_maximum(magnitude, axis)
    if p == float("inf"):
        # Backends differ in whether a maximum notices NaN; a sum does.
        noticed = ops.isnan(ops.sum(magnitude, axis, keepdims=True))
        return ops.where(noticed, _constant(float("nan"), peak), peak)
    total = ops.sum(_power(magnitude / _nonzero(peak), p), axis, keepdims=True)
    return peak * _root(total, p)


def _row_maximum(magnitude, axis):
    """Maximum of each row of magnitudes, also of a batch without rows.

    On torch, torch.compile cannot trace Keras's `max` inside a custom
    gradient; elsewhere, Keras's `amax` raises where a batch is empty.
    """
    if keras.config.backend() == "torch":
        return ops.amax(magnitude, axis, keepdims=True)
    return ops.max(magnitude, axis, keepdims=True, initial=0.0)


def _norm_gradient(scaled, root, p, axis):
    """Returns the gradient of the norm: sign(z) (|z| / norm)^(p - 1).

    At entries where the norm is not differentiable this is the sub-gradient
    of the smallest magnitude for p = 1 (zero at zero entries) and the mean
    over the largest entries for p = inf.
    """
    if p == 2:
        return scaled / _nonzero(root)
    if p == 1:
        return ops.sign(scaled)
    magnitude = ops.abs(scaled)
    if p == float("inf"):
        largest = magnitude == _row_maximum(magnitude, axis)
        largest = ops.cast(largest, scaled.dtype)
        count = ops.sum(largest, axis, keepdims=True)
        return ops.sign(scaled) * largest / count
    return ops.sign(scaled) * _power(magnitude / _nonzero(root), p - 1)


def _root(total, p):
    """The p-th root, with a finite derivative (zero) where the total is zero.

    The derivative reaches the user in derivatives of second order only.
    """
    nonzero = _nonzero(total)
    root = ops.sqrt(nonzero) if p == 2 else _power(nonzero, 1 / p)
    return ops.where(total == 0, total, root)


def _power(base, exponent):
    return ops.power(base, _constant(exponent, base))


def _nonzero(x):
    """Replaces zero by one, so that `0 / x` is 0 where it would be NaN."""
    return ops.where(x == 0, _constant(1.0, x), x)


def _constant(value, like):
    """A number as a tensor of the dtype of `like`.

    Given a Python number and a float64 tensor, several of Keras's functions
    compute in float32.
    """
    return ops.convert_to_tensor(value, dtype=like.dtype)
