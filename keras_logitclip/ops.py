"""Norm and clipping of logits, as pure functions of backend tensors."""

import keras

from keras_logitclip._kernels import clip
from keras_logitclip._kernels.numerics import compute_dtype_of
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
    return clip.logit_norm(logits, **arguments)


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
    return clip.logit_clip(logits, **arguments)


@keras.saving.register_keras_serializable(package="keras_logitclip")
class _LogitNormOperation(keras.Operation):
    """`logit_norm` as a node of a functional model."""

    def __init__(self, p, axis, keepdims, name=None):
        super().__init__(name=name)
        self.p = p
        self.axis = axis
        self.keepdims = keepdims

    def call(self, logits):
        return clip.logit_norm(logits, self.p, self.axis, self.keepdims)

    def compute_output_spec(self, logits):
        axis = resolve_axis(self.axis, len(logits.shape))
        shape = list(logits.shape)
        shape[axis : axis + 1] = [1] if self.keepdims else []
        return keras.KerasTensor(shape, dtype=compute_dtype_of(logits))

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
        return clip.logit_clip(logits, self.tau, self.p, self.axis)

    def compute_output_spec(self, logits):
        compute_dtype_of(logits)
        resolve_axis(self.axis, len(logits.shape))
        return keras.KerasTensor(logits.shape, dtype=logits.dtype)

    def get_config(self):
        return {"name": self.name, "tau": self.tau, "p": self.p, "axis": self.axis}
