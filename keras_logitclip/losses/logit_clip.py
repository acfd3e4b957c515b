"""`LogitClipLoss`, which clips the logits before any loss."""

from collections.abc import Callable

import keras

from keras_logitclip import ops
from keras_logitclip._arguments import check_flag
from keras_logitclip._arguments import check_p
from keras_logitclip._arguments import check_tau
from keras_logitclip._labels import as_class_ids
from keras_logitclip._labels import as_weights
from keras_logitclip._labels import check_several_classes
from keras_logitclip._numerics import compute_dtype_of
from keras_logitclip.losses._inner import check_inner_axis
from keras_logitclip.losses._inner import describe
from keras_logitclip.losses._wrapper import WrapperLoss
from keras_logitclip.losses.cross_entropy import CrossEntropy

# The losses that are fused with the clipping, and the check of their labels.
_CROSS_ENTROPIES = {
    CrossEntropy: None,
    keras.losses.SparseCategoricalCrossentropy: as_class_ids,
    keras.losses.CategoricalCrossentropy: as_weights,
}
_WHICH_LABELS = (
    "`SparseCategoricalCrossentropy` takes class ids and `CategoricalCrossentropy` "
    "one-hot or soft labels (`losses.CrossEntropy` of this package takes all)"
)


@keras.saving.register_keras_serializable(package="keras_logitclip")
class LogitClipLoss(WrapperLoss):
    """Clips the norm of the logits at `tau`, then computes another loss.

    Clipped logits are bounded, and so is every loss that is a continuous function of
    them. So a wrong label has a limited influence. The model, its predicted classes and
    its raw logits do not change.

    Set `reduction` and `dtype` here, and everything else, such as label smoothing, on
    the wrapped loss. Sample weights, class weights and masks work as with every Keras
    loss. Hidden samples have no influence.

    `tau` and the other settings are part of the compiled training step. To change them,
    compile the model again with a new loss.

    If you mask some classes with large negative logits, clip with the `LogitClip` layer
    and mask afterwards: a single -1e9 dominates the norm, and clipping would shrink the
    other logits to nearly zero.

    Formula:

    ```python
    clipped = y_pred * minimum(1, tau / norm(y_pred, p, axis))
    loss = wrapped_loss(y_true, activation(clipped))
    ```

    Args:
        loss: The loss of the clipped logits: a loss instance that takes logits, the
            name of a Keras loss (it becomes an instance that takes logits), or a
            function `(y_true, y_pred)` that returns one value per sample. Without
            `activation`, a loss such as `"mean_absolute_error"` compares the labels
            with the clipped logits themselves.
        tau: Threshold of the norm, a number greater than zero;
            `float("inf")` for no clipping. Defaults to `1.5`.
        p: Order of the norm, a number of at least 1; `float("inf")` is the
            maximum norm. Defaults to `2`.
        axis: Integer, the class axis. Defaults to `-1`.
        activation: `None`, `"softmax"` (along `axis`) or `"sigmoid"`. It is applied to
            the clipped logits, for a loss that takes probabilities. Defaults to `None`.
        ignore_class: Class id of samples to hide, such as 255 for void pixels. Defaults
            to `None`, which means the `ignore_class` of the wrapped loss, if it has
            one.
        normalize_gradient: Whether the gradient of the batch is divided by the mean of
            `minimum(1, tau / norm)` over the samples that are not hidden. Clipping then
            does not shrink the gradient. The values of the loss are the same. With
            several devices, the mean is over the global batch on JAX and over each
            replica's part elsewhere. Second derivatives treat it as a constant.
            Defaults to `False`, the gradient of the paper.
        reduction: As in `keras.losses.Loss`: `"sum_over_batch_size"`,
            `"sum"`, `"mean"`, `"mean_with_sample_weight"`, `"none"` or
            `None`. Defaults to `"sum_over_batch_size"`.
        name: Name of the loss. Defaults to `"logit_clip"`.
        dtype: The dtype of the loss's computations, as in
            `keras.losses.Loss`. Defaults to `None`, which means
            `keras.config.floatx()`.

    Raises:
        ValueError: If an argument is out of range, or if the wrapped loss is unknown,
            has its own reduction or dtype, or takes probabilities without an
            `activation`. When called, if the labels do not fit, or if `y_pred` is the
            output of a softmax or sigmoid, which is not detected under JAX.

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

    def __init__(
        self,
        loss: keras.losses.Loss | str | Callable,
        tau: float = 1.5,  # Measured in docs/choosing_tau.md.
        p: float = 2,
        axis: int = -1,
        activation: str | None = None,
        ignore_class: int | None = None,
        normalize_gradient: bool = False,
        reduction: str | None = "sum_over_batch_size",
        name: str = "logit_clip",
        dtype=None,
    ):
        super().__init__(
            loss,
            activation,
            axis=axis,
            ignore_class=ignore_class,
            reduction=reduction,
            name=name,
            dtype=dtype,
        )
        self.tau = check_tau(tau)
        self.p = check_p(p)
        self.normalize_gradient = check_flag("normalize_gradient", normalize_gradient)

    def compute(self, y_true, y_pred, axis: int, counted):
        over = None
        if self.normalize_gradient:
            over = True if counted is None else counted
        labels = _labels_to_fuse(self.loss, y_true, y_pred, axis)
        if labels is not None:
            return ops.compute_cross_entropy(
                labels, y_pred, self.tau, self.p, axis, over
            )
        clipped = ops.compute_clip(y_pred, self.tau, self.p, axis)
        losses = self.inner_losses(y_true, clipped, axis, counted)
        if over is None:
            return losses
        return ops.normalize_gradient(losses, y_pred, self.tau, self.p, axis, over)

    def _convert_logits(self, y_pred):
        """Leaves half precision to the fused form, which reads it without a copy."""
        y_pred = keras.ops.convert_to_tensor(y_pred)
        dtype = keras.backend.standardize_dtype(y_pred.dtype)
        is_half = self.dtype == "float32" and dtype in ("float16", "bfloat16")
        # Not in subclasses, which may call another loss.
        if is_half and type(self) is LogitClipLoss and _is_fused(self.loss):
            return y_pred
        return super()._convert_logits(y_pred)

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "tau": self.tau,
            "p": self.p,
            "normalize_gradient": self.normalize_gradient,
        }

    def __repr__(self):
        return f"<LogitClipLoss loss={describe(self.loss)}, tau={self.tau:g}>"


def _is_fused(loss) -> bool:
    """Returns whether the loss is fused with the clipping, whatever the labels."""
    is_cross_entropy = type(loss) in _CROSS_ENTROPIES and loss.from_logits
    return is_cross_entropy and not getattr(loss, "label_smoothing", 0)


def _labels_to_fuse(loss, y_true, y_pred, axis):
    """Returns the labels if the loss is a softmax cross-entropy that can be fused.

    Returns `None` for other losses, which are called themselves.
    """
    if type(loss) not in _CROSS_ENTROPIES or not loss.from_logits:
        return None
    check_inner_axis(loss, y_pred, axis)
    check_several_classes(y_pred, axis)
    of_one_kind = _CROSS_ENTROPIES[type(loss)]
    if of_one_kind is not None:
        y_true = of_one_kind(y_true, y_pred, axis, _WHICH_LABELS)
    smoothing = getattr(loss, "label_smoothing", 0)
    if not smoothing:
        return y_true
    if axis != len(y_pred.shape) - 1:
        # Keras smooths by the size of the last axis, not of the class axis.
        return None
    dtype = compute_dtype_of(y_pred)
    classes = keras.ops.cast(keras.ops.shape(y_pred)[axis], dtype)
    y_true = keras.ops.cast(y_true, dtype)
    return y_true * (1 - smoothing) + smoothing / classes
