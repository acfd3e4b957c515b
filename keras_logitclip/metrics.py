"""Metrics of the norm of the logits, and of how much of it is clipped."""

from typing import Any

import keras

from keras_logitclip import ops
from keras_logitclip._arguments import check_axis
from keras_logitclip._arguments import check_p
from keras_logitclip._arguments import check_tau
from keras_logitclip._arguments import resolve_class_axis
from keras_logitclip._labels import counted_values
from keras_logitclip._labels import mask_of
from keras_logitclip._labels import refuse_probabilities
from keras_logitclip._labels import set_masks
from keras_logitclip._labels import without_axis
from keras_logitclip._numerics import constant
from keras_logitclip._settings import FixedOnceCalled

# Relative rounding error of the norm of a clipped row in float32. With up to 128,000
# logits, errors of up to 1.2e-6 were measured.
_SUM_ERROR = 4e-6

__all__ = ["ClippedFraction", "MeanLogitNorm"]


def __dir__():
    return __all__


class _MeanOfRows(FixedOnceCalled, keras.metrics.MeanMetricWrapper):
    """Base of the metrics with one value per logit vector."""

    def is_setting(self, name: str) -> bool:
        return name in ("tau", "p", "axis")

    def update_state(self, y_true, y_pred, sample_weight=None) -> Any:
        refuse_probabilities(y_pred, remedy="this metric takes the logits themselves.")
        mask, y_pred = mask_of(y_pred), keras.ops.convert_to_tensor(y_pred)
        axis = resolve_class_axis(self.axis, y_pred.shape)
        shape = without_axis(keras.ops.shape(y_pred), axis)
        weights = _with_trailing_axes(sample_weight, len(shape))
        counted = counted_values(shape, mask, weights)
        if counted is not None:
            # Hidden logits have no influence, even if they are NaN.
            hidden = keras.ops.logical_not(keras.ops.expand_dims(counted, axis))
            y_pred = keras.ops.where(hidden, keras.ops.zeros_like(y_pred), y_pred)
        if mask is not None:
            set_masks(y_pred, mask)
            if sample_weight is None:
                # Without weights, Keras before 3.15 ignores the mask.
                sample_weight = keras.ops.cast(mask, self.dtype)
        return super().update_state(y_true, y_pred, sample_weight)


@keras.saving.register_keras_serializable(package="keras_logitclip")
class MeanLogitNorm(_MeanOfRows):
    """Computes the mean norm of the logits.

    The norm of the logits grows while a network memorizes wrong labels. Compared with
    `tau`, it shows how much will be clipped. After a `LogitClip` layer, it is the norm
    of the clipped logits.

    Formula:

    ```python
    metric = mean(sum(abs(y_pred) ** p, axis) ** (1 / p))
    ```

    Args:
        p: Order of the norm, a number of at least 1; `float("inf")` is the
            maximum norm. Defaults to `2`.
        axis: Integer, the class axis. Defaults to `-1`.
        name: Name of the metric. Defaults to `"mean_logit_norm"`.
        dtype: The dtype of the mean, as in `keras.metrics.Metric`. Defaults to
            `None`, which means `keras.config.floatx()`.

    Call arguments:
        y_true: Labels, which are not used.
        y_pred: Logits of shape `(batch, ..., classes)`. Masked ones are left out.
        sample_weight: Weights of the norms, as in `keras.metrics.Mean`. Their shape
            broadcasts to the shape of `y_pred` without `axis`. Defaults to `None`.

    Raises:
        ValueError: If `p` or `axis` is out of range. When called, if `y_pred` has an
            integer dtype or is the output of a softmax or sigmoid, which is not
            detected under JAX.

    Example:

    >>> from keras_logitclip import metrics
    >>> metric = metrics.MeanLogitNorm()
    >>> metric.update_state(None, [[3.0, 4.0], [0.0, 1.0]])
    >>> print(float(metric.result()))
    3.0
    """

    def __init__(
        self, p: float = 2, axis: int = -1, name: str = "mean_logit_norm", dtype=None
    ):
        self.p = check_p(p)
        self.axis = check_axis(axis)
        super().__init__(_norm, name=name, dtype=dtype, p=self.p, axis=self.axis)
        self.fix_settings()

    def get_config(self) -> dict:
        return {
            "p": self.p,
            "axis": self.axis,
            "name": self.name,
            "dtype": self.dtype,
        }


@keras.saving.register_keras_serializable(package="keras_logitclip")
class ClippedFraction(_MeanOfRows):
    """Computes the share of the logit vectors that a threshold `tau` clips.

    Formula:

    ```python
    metric = mean(sum(abs(y_pred) ** p, axis) ** (1 / p) > tau)
    ```

    Args:
        tau: Threshold of the norm, a number greater than zero, as in
            `LogitClipLoss`.
        p: Order of the norm, a number of at least 1; `float("inf")` is the
            maximum norm. Defaults to `2`.
        axis: Integer, the class axis. Defaults to `-1`.
        name: Name of the metric. Defaults to `"clipped_fraction"`.
        dtype: The dtype of the mean, as in `keras.metrics.Metric`. Defaults to
            `None`, which means `keras.config.floatx()`.

    Call arguments:
        y_true: Labels, which are not used.
        y_pred: Logits of shape `(batch, ..., classes)`. Masked ones are left out. A
            vector with a NaN or an infinite entry makes the metric NaN.
        sample_weight: Weights of the vectors, as in `keras.metrics.Mean`. Their shape
            broadcasts to the shape of `y_pred` without `axis`. Defaults to `None`.

    Raises:
        ValueError: If `tau`, `p` or `axis` is out of range. When called, if `y_pred`
            has an integer dtype or is the output of a softmax or sigmoid, which is not
            detected under JAX.

    Example:

    >>> import keras
    >>> from keras_logitclip import LogitClipLoss
    >>> from keras_logitclip import metrics
    >>> model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(10)])
    >>> model.compile(
    ...     optimizer="sgd",
    ...     loss=LogitClipLoss("sparse_categorical_crossentropy", tau=1.0),
    ...     metrics=[metrics.MeanLogitNorm(), metrics.ClippedFraction(tau=1.0)],
    ... )
    """

    def __init__(
        self,
        tau: float,
        p: float = 2,
        axis: int = -1,
        name: str = "clipped_fraction",
        dtype=None,
    ):
        self.tau = check_tau(tau)
        self.p = check_p(p)
        self.axis = check_axis(axis)
        super().__init__(
            _is_clipped, name=name, dtype=dtype, tau=self.tau, p=self.p, axis=self.axis
        )
        self.fix_settings()

    def get_config(self) -> dict:
        return {
            "tau": self.tau,
            "p": self.p,
            "axis": self.axis,
            "name": self.name,
            "dtype": self.dtype,
        }


def _with_trailing_axes(sample_weight, rank):
    """Returns weights that broadcast from the first axis on, as Keras's metrics do."""
    if sample_weight is None:
        return None
    weights = keras.ops.convert_to_tensor(sample_weight)
    while 0 < len(weights.shape) < rank:
        weights = keras.ops.expand_dims(weights, -1)
    return weights


def _norm(y_true, y_pred, p, axis):
    return ops.logit_norm(y_pred, p, axis)


def _is_clipped(y_true, y_pred, tau, p, axis):
    norm = _norm(y_true, y_pred, p, axis)
    limit = constant(tau * (1 + _rounding_of(y_pred)), norm)
    clipped = keras.ops.cast(norm > limit, norm.dtype)
    return keras.ops.where(keras.ops.isnan(norm), norm, clipped)


def _rounding_of(y_pred) -> float:
    """Returns the relative rounding error of the norm of a clipped vector."""
    dtype = keras.backend.standardize_dtype(y_pred.dtype)
    return _SUM_ERROR + {"bfloat16": 2**-8, "float16": 2**-11}.get(dtype, 0)
