"""`LogitClipLoss`, which clips the logits before any loss."""

from collections.abc import Callable

import keras

from keras_logitclip import ops
from keras_logitclip._validation import check_axis
from keras_logitclip._validation import check_p
from keras_logitclip._validation import check_tau
from keras_logitclip._validation import holds_class_ids
from keras_logitclip._validation import refuse_probabilities
from keras_logitclip._validation import resolve_axis
from keras_logitclip._validation import resolve_class_axis
from keras_logitclip.losses._fused import can_fuse
from keras_logitclip.losses._fused import fused_cross_entropy
from keras_logitclip.losses._inner import call_inner_loss
from keras_logitclip.losses._inner import check_reloadable
from keras_logitclip.losses._inner import standardize_inner_loss

# Numbers of classes up to which a dtype represents every class id. Keras
# casts integer labels to the dtype of the loss before the loss sees them.
_MAX_CLASSES = {"bfloat16": 256, "float16": 2048}


@keras.saving.register_keras_serializable(package="keras_logitclip")
class LogitClipLoss(keras.losses.Loss):
    """Clips the norm of the logits at `tau`, then computes another loss.

    The clipped logits are bounded, and with them every loss that is
    continuous in the logits: a wrong label cannot pull without limit. The
    model itself, its predicted classes and its raw logits stay as they are.

    Label smoothing, `ignore_class`, focal weights and the like are set on the
    wrapped loss; `reduction` and `dtype` are set here. Sample weights, class
    weights and masks work as with every Keras loss.

    Formula:

    ```python
    clipped = y_pred * minimum(1, tau / norm(y_pred, p, axis))
    loss = wrapped_loss(y_true, activation(clipped))
    ```

    Args:
        loss: The loss to compute on the clipped logits: a loss instance that
            takes logits, the name of a Keras loss (it becomes an instance that
            takes logits), or a function `(y_true, y_pred)` that returns one
            value per sample. A loss without notion of logits, such as
            `"mean_absolute_error"`, compares the labels with the clipped
            logits themselves unless `activation` is given.
        tau: Threshold of the norm, a number greater than zero;
            `float("inf")` for no clipping.
        p: Order of the norm, a number of at least 1; `float("inf")` is the
            maximum norm. Defaults to `2`.
        axis: Integer, the class axis. Defaults to `-1`.
        activation: `None`, `"softmax"` (along `axis`) or `"sigmoid"`: applied
            to the clipped logits for a loss that takes probabilities.
            Defaults to `None`.
        reduction: As in `keras.losses.Loss`: `"sum_over_batch_size"`,
            `"sum"`, `"mean"`, `"mean_with_sample_weight"`, `"none"` or
            `None`. Defaults to `"sum_over_batch_size"`.
        name: Name of the loss. Defaults to `"logit_clip"`.
        dtype: The dtype of the loss's computations, as in
            `keras.losses.Loss`. Defaults to `None`, which means
            `keras.config.floatx()`.

    Raises:
        ValueError: If an argument is out of range; if the wrapped loss is
            unknown, has a reduction or dtype of its own, or takes
            probabilities without an `activation`; and, when called, if the
            labels do not fit or `y_pred` came out of a softmax or sigmoid
            (unnoticed under JAX, where Keras leaves no mark of it).

    Example:

    >>> import keras
    >>> from keras_logitclip import LogitClipLoss
    >>> model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(10)])
    >>> model.compile(
    ...     optimizer="sgd",
    ...     loss=LogitClipLoss("sparse_categorical_crossentropy", tau=1.0),
    ...     metrics=["accuracy"],
    ... )

    References:
        - [Wei et al., 2023](https://arxiv.org/abs/2212.04055)
    """

    # Read by a `LogitClipLoss` around this one, like that of Keras's losses.
    from_logits = True

    def __init__(
        self,
        loss: keras.losses.Loss | str | Callable,
        tau: float,
        p: float = 2,
        axis: int = -1,
        activation: str | None = None,
        reduction: str | None = "sum_over_batch_size",
        name: str = "logit_clip",
        dtype=None,
    ):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.tau = check_tau(tau)
        self.p = check_p(p)
        self.axis = check_axis(axis)
        self.activation = _check_activation_name(activation)
        self.loss = standardize_inner_loss(loss, activation, self.axis)
        self._check_nothing_is_ignored()

    def call(self, y_true, y_pred):
        y_true = keras.ops.convert_to_tensor(y_true)
        axis = resolve_class_axis(self.axis, y_pred.shape)
        refuse_probabilities(
            y_pred,
            remedy="if the wrapped loss needs probabilities, pass "
            '`activation="softmax"` (or "sigmoid") to `LogitClipLoss`.',
        )
        self._check_inner_axis(axis, len(y_pred.shape))
        self._check_class_ids(y_true, y_pred, axis)
        if can_fuse(self.loss, y_true, y_pred, axis):
            return fused_cross_entropy(
                self.loss, y_true, y_pred, self.tau, self.p, axis
            )
        outputs = ops.logit_clip(y_pred, self.tau, self.p, axis)
        if self.activation == "softmax":
            outputs = keras.ops.softmax(outputs, axis)
        elif self.activation == "sigmoid":
            outputs = keras.ops.sigmoid(outputs)
        losses = call_inner_loss(self.loss, y_true, outputs)
        _check_per_sample(losses, y_true, y_pred, axis)
        return losses

    def get_config(self):
        if not isinstance(self.loss, keras.losses.Loss):
            check_reloadable(self.loss)
        config = super().get_config()
        config.update(
            {
                "loss": keras.saving.serialize_keras_object(self.loss),
                "tau": self.tau,
                "p": self.p,
                "axis": self.axis,
                "activation": self.activation,
                "dtype": self.dtype,
            }
        )
        return config

    @classmethod
    def from_config(cls, config):
        loss = keras.saving.deserialize_keras_object(config["loss"])
        return cls(**{**config, "loss": loss})

    def _check_nothing_is_ignored(self):
        """Refuses settings of the wrapped loss that would have no effect."""
        if not isinstance(self.loss, keras.losses.Loss):
            return
        if self.loss.reduction != "sum_over_batch_size":
            raise ValueError(
                "The wrapped loss has a `reduction` of its own, which would be "
                "ignored. Expected the default there and the reduction as an "
                "argument of `LogitClipLoss`. "
                f"Received: loss.reduction={self.loss.reduction!r}"
            )
        if self.loss.dtype not in (self.dtype, keras.config.floatx()):
            raise ValueError(
                "The wrapped loss has a `dtype` of its own, which would be "
                "ignored. Expected the default there and the dtype as an "
                "argument of `LogitClipLoss`. "
                f"Received: loss.dtype={self.loss.dtype!r}, dtype={self.dtype!r}"
            )

    def _check_inner_axis(self, axis, rank):
        inner_axis = getattr(self.loss, "axis", None)
        if isinstance(inner_axis, int) and resolve_axis(inner_axis, rank) != axis:
            raise ValueError(
                "Expected the wrapped loss and `LogitClipLoss` to have the same "
                f"class axis. Received: axis={self.axis}, loss.axis={inner_axis} "
                f"for logits of rank {rank}"
            )

    def _check_class_ids(self, y_true, y_pred, axis):
        limit = _MAX_CLASSES.get(self.dtype)
        classes = y_pred.shape[axis]
        if limit and classes > limit and holds_class_ids(y_true, y_pred, axis):
            raise ValueError(
                f"Class ids of more than {limit} classes cannot be represented "
                f"in {self.dtype}, and Keras casts labels to the dtype of the "
                'loss. Expected `dtype="float32"` in `LogitClipLoss`, or one-hot '
                f"labels. Received: {classes} classes, dtype={self.dtype!r}"
            )


def _check_activation_name(activation):
    if activation not in (None, "softmax", "sigmoid"):
        raise ValueError(
            "Invalid value for argument `activation`: expected `None`, "
            f'"softmax" or "sigmoid". Received: activation={activation!r}'
        )
    return activation


def _check_per_sample(losses, y_true, y_pred, axis):
    """Refuses what a loss that broadcasts class ids against samples returns."""
    too_large = len(losses.shape) >= len(y_pred.shape)
    if too_large and holds_class_ids(y_true, y_pred, axis):
        raise ValueError(
            "Expected the wrapped loss to return one value per sample. "
            f"Received: values of shape {tuple(losses.shape)} for labels of shape "
            f"{tuple(y_true.shape)} and logits of shape {tuple(y_pred.shape)}. "
            "Give the labels the shape that this loss expects, often "
            "`(batch,)` or one-hot."
        )
