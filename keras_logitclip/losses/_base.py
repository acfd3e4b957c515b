"""Base classes of the losses, which hide samples, read labels and check logits."""

import re
from typing import Any

import keras
from keras import ops

from keras_logitclip._arguments import check_axis
from keras_logitclip._arguments import check_flag
from keras_logitclip._arguments import check_ignore_class
from keras_logitclip._arguments import resolve_class_axis
from keras_logitclip._labels import are_class_ids
from keras_logitclip._labels import as_class_ids
from keras_logitclip._labels import as_column
from keras_logitclip._labels import as_labels
from keras_logitclip._labels import counted_values
from keras_logitclip._labels import from_rows
from keras_logitclip._labels import hide
from keras_logitclip._labels import is_kept
from keras_logitclip._labels import mark_invalid
from keras_logitclip._labels import mask_of
from keras_logitclip._labels import nan_without_class
from keras_logitclip._labels import refuse_probabilities
from keras_logitclip._labels import set_masks
from keras_logitclip._labels import to_rows
from keras_logitclip._labels import without_axis
from keras_logitclip._numerics import at_least
from keras_logitclip._numerics import compute_dtype_of
from keras_logitclip._numerics import finite_log
from keras_logitclip._settings import FixedOnceCalled

_MEANS = ("sum_over_batch_size", "mean", "mean_with_sample_weight")


class LogitsLoss(FixedOnceCalled, keras.losses.Loss):
    """Computes one value per sample from labels and logits. The base of all losses.

    A subclass defines `of_rows(labels, logits)`. It inherits the kinds of labels, the
    class axis, masks and the checks. A mask, a sample weight of zero or `ignore_class`
    hides a sample. Label and logits of a hidden sample have no influence, whatever
    their values.

    Args:
        axis: Integer, the class axis. Defaults to `-1`.
        ignore_class: Class id of samples to hide, such as 255 for void pixels, or
            `None`. The model should not have this class, or never learn it. Defaults to
            `None`.
        reduction: As in `keras.losses.Loss`. Defaults to `"sum_over_batch_size"`.
        name: Name of the loss. Defaults to the name of the class in snake case.
        dtype: The dtype of the loss's computations, as in `keras.losses.Loss`.
            Defaults to `None`, which means `keras.config.floatx()`.

    Call arguments:
        y_true: Class ids, of the shape of `y_pred` without `axis` or with size 1 there;
            or one-hot or soft labels of the shape of `y_pred`. The loss of a soft label
            is the weighted mean over the classes, unless the documentation of the loss
            says otherwise. The loss of an invalid class id is NaN, unless the sample is
            hidden.
        y_pred: Logits of shape `(batch, ..., classes)`.

    Raises:
        ValueError: If an argument is out of range. When called, if the labels do not
            fit, if there is only one class, or if `y_pred` is the output of a softmax
            or sigmoid, which is not detected under JAX.
    """

    # The losses that wrap another loss read this, as they do for Keras's losses.
    from_logits = True
    # For `bounds` and the table of losses: whether the loss treats all classes except
    # the label alike; whether it depends only on the probability of the label and falls
    # with it; and whether its sum over all labels is constant.
    treats_other_classes_alike = False
    falls_with_probability = False
    is_symmetric = False

    def __init__(
        self,
        axis: int = -1,
        ignore_class: int | None = None,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = None,
        dtype=None,
    ):
        name = name or snake_case(type(self).__name__)
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.axis = check_axis(axis)
        self.ignore_class = check_ignore_class(ignore_class)
        self._reduce = _Reduction(name=name, reduction=reduction, dtype=dtype)

    def __call__(self, y_true, y_pred, sample_weight=None) -> Any:
        self.fix_settings()
        # Checked before any cast, which would lose the mask and the mark of a softmax.
        self._check_logits(y_pred)
        mask = mask_of(y_pred)
        y_true = as_labels(y_true)
        y_pred = self._convert_logits(y_pred)
        counted = None
        if mask is not None or sample_weight is not None:
            axis = resolve_class_axis(self.axis, y_pred.shape)
            shape = without_axis(ops.shape(y_pred), axis)
            counted = counted_values(shape, mask, sample_weight)
        # A subclass can define `call`, as in Keras.
        is_defined_by_call = type(self).call is not LogitsLoss.call
        compute = self._compute_by_call if is_defined_by_call else self.compute
        losses = self._per_sample(compute, y_true, y_pred, counted)
        set_masks(losses, mask, mask_of(losses))
        if self._is_plain_mean(losses, sample_weight):
            # Not `ops.mean`, which computes float64 in float32.
            return ops.cast(losses, self.dtype).mean()
        if sample_weight is not None:
            # On torch, Keras multiplies the mask into this tensor in place.
            sample_weight = ops.copy(ops.convert_to_tensor(sample_weight))
        return self._reduce((), losses, sample_weight)

    def call(self, y_true, y_pred) -> Any:
        self.fix_settings()
        self._check_logits(y_pred)
        y_true, y_pred = as_labels(y_true), ops.convert_to_tensor(y_pred)
        return self._per_sample(self.compute, y_true, y_pred, None)

    def of_rows(self, labels, logits):
        """Computes the loss of each row.

        Args:
            labels: Class ids of shape `(N,)` and dtype int32, -1 in place of invalid
                ones; or class weights of shape `(N, K)`.
            logits: Logits of shape `(N, K)`, float32 or float64.

        Returns:
            The losses, of shape `(N,)`.
        """
        raise NotImplementedError

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "axis": self.axis,
            "ignore_class": self.ignore_class,
            "dtype": self.dtype,
        }

    def compute(self, y_true, y_pred, axis: int, counted):
        """Computes one value per sample, after hidden samples were replaced.

        Args:
            y_true: Tensor of labels.
            y_pred: Tensor of logits.
            axis: The class axis, counted from the front.
            counted: Boolean tensor of the shape of `y_pred` without `axis`, which is
                true for samples that are not hidden; `None` if none is hidden.
        """
        labels, rows = to_rows(y_true, y_pred, axis)
        if are_class_ids(labels):
            ids = mark_invalid(as_column(labels, rows), ops.shape(rows)[-1])
            labels = ops.squeeze(ids, -1)
        rows = ops.cast(rows, compute_dtype_of(rows))
        losses = self.of_rows(labels, self._inputs_of_rows(rows))
        return from_rows(losses, y_pred, axis)

    def _convert_logits(self, y_pred):
        return ops.convert_to_tensor(y_pred, dtype=self.dtype)

    def _inputs_of_rows(self, rows):
        return rows

    def _compute_by_call(self, y_true, y_pred, axis, counted):
        return self.call(y_true, y_pred)

    def _per_sample(self, compute, y_true, y_pred, counted):
        axis = resolve_class_axis(self.axis, y_pred.shape)
        kept = None
        if self.ignore_class is not None:
            reason = "the loss has an `ignore_class`"
            y_true = as_class_ids(y_true, y_pred, axis, reason)
            kept = is_kept(y_true, y_pred, axis, self.ignore_class)
            counted = kept if counted is None else ops.logical_and(kept, counted)
        if counted is None:
            return compute(y_true, y_pred, axis, None)
        y_true, y_pred = hide(y_true, y_pred, axis, counted)
        losses = compute(y_true, y_pred, axis, counted)
        mask = mask_of(losses)
        if len(losses.shape) == 0:
            raise ValueError(
                "Expected a loss that returns one value per sample, because a mask, "
                "sample weights or `ignore_class` hide some samples. Received: one "
                "value for all samples"
            )
        if len(losses.shape) == len(counted.shape):
            losses = ops.where(counted, losses, ops.zeros_like(losses))
        set_masks(losses, kept, mask)
        return losses

    def _is_plain_mean(self, losses, sample_weight) -> bool:
        """Returns whether the reduction is a mean that torch computes in one operation.

        Keras takes a dozen operations, half of the time of a small batch in eager mode.
        """
        return (
            keras.config.backend() == "torch"
            and self.reduction in _MEANS
            and sample_weight is None
            and mask_of(losses) is None
            # Keras returns 0 for an empty batch, and a scalar unchanged.
            and losses.ndim > 0
            and losses.numel() > 0
        )

    def _check_logits(self, y_pred):
        refuse_probabilities(y_pred, remedy="this loss takes the logits themselves.")


class ClassificationLoss(LogitsLoss):
    """Computes one value per sample from labels and probabilities.

    A subclass defines `of_label(log_probability)` if the loss depends only on the
    probability of the label, and `of_rows(labels, log_probabilities)` otherwise.

    Args:
        from_logits: Whether `y_pred` are logits, not probabilities. Defaults to
            `True`.
        **kwargs: The arguments of `LogitsLoss`: `axis`, `ignore_class`,
            `reduction`, `name` and `dtype`.
    """

    def __init__(self, from_logits: bool = True, **kwargs):
        super().__init__(**kwargs)
        self.from_logits = check_flag(
            "from_logits", from_logits, "`True` for logits or `False` for probabilities"
        )

    def of_label(self, log_probability):
        """Computes the loss from the logarithm of the label's probability.

        The result has to be finite for every finite logarithm.
        """
        raise NotImplementedError

    def of_rows(self, labels, log_probabilities):
        """Computes the loss of each row, by default a weighted mean of `of_label`."""
        if are_class_ids(labels):
            losses = self.of_label(pick(log_probabilities, labels))
            return nan_without_class(labels >= 0, losses)
        return ops.sum(labels * self.of_label(log_probabilities), -1)

    def get_config(self) -> dict:
        return {**super().get_config(), "from_logits": self.from_logits}

    def _inputs_of_rows(self, rows):
        if self.from_logits:
            return ops.log_softmax(rows, -1)
        log_probabilities = finite_log(rows)
        # A softmax can return slightly more than 1, and 1 - p must not be negative.
        excess = ops.stop_gradient(at_least(log_probabilities, 0.0))
        return log_probabilities - excess

    def _check_logits(self, y_pred):
        if self.from_logits:
            refuse_probabilities(y_pred, remedy="or give the loss `from_logits=False`.")


class _Reduction(keras.losses.Loss):
    """Weights and reduces the values that are passed as predictions."""

    def call(self, y_true, y_pred):
        return y_pred


def mean_over_labels(labels, losses):
    """Returns the loss of each row's label, or the weighted mean for class weights."""
    if are_class_ids(labels):
        return nan_without_class(labels >= 0, pick(losses, labels))
    return ops.sum(labels * losses, -1)


def pick(values, ids):
    """Returns the entry of each row at its class id, at 0 for invalid ids."""
    ids = ops.maximum(ids, 0)[:, None]
    return ops.squeeze(ops.take_along_axis(values, ids, -1), -1)


def snake_case(name: str) -> str:
    """Returns the name of a class in snake case."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()
