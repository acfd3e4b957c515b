"""Clipping in the norm of order 2 and softmax cross-entropy, as one function.

With z a row of logits, n its norm and s = min(1, tau / n), the loss and its
gradient for the weights y of the classes (one-hot for a class id) are

    loss = sum_k y_k (log sum_j exp(s z_j) - s z_k)
    u = sum(y) softmax(s z) - y
    gradient = s (u - (u . z / n) z / n)    where n > tau, and u elsewhere

Clipped logits lie in [-tau, tau], so the softmax needs no maximum of the row:
the sum of squares takes the place of that pass. The gradient is rebuilt from
the logits and a few numbers per row. This is the form for TensorFlow and JAX;
`_kernels.torch` has another.
"""

import math
from collections import namedtuple

from keras import ops

from keras_logitclip._kernels import reductions
from keras_logitclip._kernels.clip import logit_clip
from keras_logitclip._kernels.multiplier import is_unclipped
from keras_logitclip._kernels.multiplier import range_of
from keras_logitclip._kernels.multiplier import row_multiplier
from keras_logitclip._kernels.numerics import compute_dtype_of
from keras_logitclip._kernels.numerics import constant
from keras_logitclip._kernels.numerics import nonzero

# The largest sum of exponentials, as an exponent.
MAX_EXPONENT = 40.0

# What the gradient needs beside the logits. `unit` is 1 or `shrink`, and
# `multiplier` is s / unit: s alone may be too small for the dtype. Of each row,
# `shift` is subtracted from the exponents s z (`None` for nothing), `total` is
# the sum of their exponentials, `weight` that of the labels' weights, `target`
# that of the weighted exponents, and `projection` is u . (s z) / tau^2 where the
# row is clipped, and 0 elsewhere. The `exponentials` themselves are kept on
# TensorFlow only, where no compiler decides whether to compute them again.
Residuals = namedtuple(
    "Residuals", "unit multiplier shift total weight target projection exponentials"
)


def clipped_cross_entropy(labels, logits, tau: float):
    """Computes the loss of each row, for a `tau` in the range of `multiplier`."""
    compute_dtype = compute_dtype_of(logits)

    # The labels are an argument, too: JAX traces them into loops only then.
    @ops.custom_gradient
    def differentiable(labels, logits):
        parts = reductions.parts_of_rows(logits)

        def part_of(rows):
            part = reductions.take(logits, rows)
            return reductions.take(labels, rows), ops.cast(part, compute_dtype)

        computed = [_forward(*part_of(rows), tau) for rows in parts]
        losses, residuals = zip(*computed, strict=True)

        def gradients(upstream):
            ours = [
                _backward(*part_of(rows), kept, reductions.take(upstream, rows))
                for rows, kept in zip(parts, residuals, strict=True)
            ]
            of_labels, of_logits = zip(*ours, strict=True)
            of_logits = [ops.cast(part, logits.dtype) for part in of_logits]
            of_labels = None if are_class_ids(labels) else reductions.join(of_labels)
            return of_labels, reductions.join(of_logits)

        return reductions.join(losses), gradients

    return differentiable(labels, logits)


def clip_then_cross_entropy(labels, logits, tau: float, p: float):
    """Computes the same in two steps, for any order and threshold."""
    rows = ops.cast(logits, compute_dtype_of(logits))
    clipped = logit_clip(rows, tau, p, axis=-1)
    if are_class_ids(labels):
        losses = ops.sparse_categorical_crossentropy(
            ops.maximum(labels, 0), clipped, from_logits=True
        )
        # A factor, not a selected value: the gradient becomes NaN, too.
        return losses * weight_of_ids(labels, losses)
    return ops.categorical_crossentropy(labels, clipped, from_logits=True)


def are_class_ids(labels) -> bool:
    return len(labels.shape) == 1


def weight_of_ids(labels, like):
    """Returns the weight of each label: 1, and NaN for what is no class."""
    nan = constant(float("nan"), like)
    return ops.where(labels < 0, nan, constant(1.0, like))


def needs_maximum(tau: float, classes: int | None) -> bool:
    """Whether the maximum of the row has to be subtracted from the exponents."""
    return classes is None or tau + math.log(max(classes, 1)) > MAX_EXPONENT


def _forward(labels, logits, tau):
    unit, multiplier = row_multiplier(logits, tau)
    rescaled = reductions.rescale(logits, unit)
    exponents = rescaled * multiplier
    shift = None
    if needs_maximum(tau, logits.shape[-1]):
        shift = ops.max(exponents, -1, keepdims=True)
        exponents = exponents - shift
    exponentials = ops.exp(exponents)
    total, dot = _sum_and_dot(exponentials, logits, rescaled, unit)
    mean = multiplier * dot / total
    weight, target = _weigh(labels, rescaled)
    target = multiplier * target
    projection = (weight * mean - target) / tau**2
    projection = ops.where(is_unclipped(unit, multiplier), 0.0, projection)
    if reductions.fused_by_compiler():
        exponentials = None
    residuals = Residuals(
        unit, multiplier, shift, total, weight, target, projection, exponentials
    )
    losses = _weighted_negative_log(residuals, tau)
    return ops.squeeze(losses, -1), residuals


def _sum_and_dot(exponentials, logits, rescaled, unit):
    """Returns the sum of each row of the exponentials, and their dot product with
    that of `rescaled`.

    Compilers would write `rescaled` to memory for it. Multiplied by a constant
    instead, which keeps the sum finite, too, the logits are only read.
    """
    if not reductions.fused_by_compiler():
        return reductions.row_sum_and_dot(exponentials, rescaled)
    shrink = range_of(logits).shrink
    total, dot = reductions.row_sum_and_dot(exponentials, logits * shrink)
    return total, dot * (unit / shrink)


def _weigh(labels, rescaled):
    """Returns the sums of the labels' weights and of the weighted logits."""
    if are_class_ids(labels):
        ids = labels[:, None]
        target = ops.take_along_axis(rescaled, ops.maximum(ids, 0), -1)
        return weight_of_ids(ids, target), target
    weight = reductions.row_sum(labels)
    return weight, reductions.row_dot(labels, rescaled)


def _weighted_negative_log(residuals, tau):
    """Returns weight * (log(total) + shift) - target, to small absolute error.

    Near zero, the difference of the logarithm and the target would be the
    rounding error of both; the logarithm of the quotient is not.
    """
    _, _, shift, total, weight, target, _, _ = residuals
    reference = ops.clip(target / nonzero(weight), -tau, tau)
    if shift is None:
        negative_log = ops.log(total / ops.exp(reference))
    else:
        negative_log = ops.log(total) - (reference - shift)
    return weight * negative_log + (weight * reference - target)


def _backward(labels, logits, residuals, upstream):
    """Returns the gradients of the labels (`None` for class ids) and logits."""
    unit, multiplier, shift, total, weight, target, projection, _ = residuals
    upstream = upstream[:, None]
    pull = upstream * (multiplier * unit)
    softmax_factor = pull * weight / total
    projection_factor = pull * projection
    gradient = _exponentials(logits, residuals) * softmax_factor
    gradient = gradient - reductions.rescale(
        logits, unit, multiplier, projection_factor
    )
    if not are_class_ids(labels):
        log_total = ops.log(total) + (0.0 if shift is None else shift)
        exponents = reductions.rescale(logits, unit, multiplier)
        return upstream * (log_total - exponents), gradient - labels * pull

    shifted_target = target if shift is None else target - shift
    at_label = ops.exp(shifted_target) * softmax_factor
    at_label = at_label - target * projection_factor - pull
    # Writing the label's entry takes no pass over the logits; comparing every
    # class with the label would.
    ids = ops.maximum(labels, 0)
    indices = ops.stack([ops.arange(ops.shape(ids)[0]), ids], -1)
    return None, ops.scatter_update(gradient, indices, ops.squeeze(at_label, -1))


def _exponentials(logits, residuals):
    if residuals.exponentials is not None:
        return residuals.exponentials
    exponents = reductions.rescale(logits, residuals.unit, residuals.multiplier)
    if residuals.shift is not None:
        exponents = exponents - residuals.shift
    return ops.exp(exponents)
