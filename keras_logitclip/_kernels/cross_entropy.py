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

from keras_logitclip._kernels import compilers
from keras_logitclip._kernels import reductions
from keras_logitclip._kernels.clip import logit_clip
from keras_logitclip._kernels.multiplier import is_unclipped
from keras_logitclip._kernels.multiplier import range_of
from keras_logitclip._kernels.multiplier import row_multiplier
from keras_logitclip._labels import are_class_ids
from keras_logitclip._labels import nan_without_class
from keras_logitclip._numerics import compute_dtype_of
from keras_logitclip._numerics import nonzero

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

    def forward(labels, logits):
        return _forward(labels, ops.cast(logits, compute_dtype), tau)

    def backward(labels, logits, residuals, upstream):
        rows = ops.cast(logits, compute_dtype)
        gradient = _backward(labels, rows, residuals, upstream)
        return ops.cast(gradient, logits.dtype)

    # The labels are an argument, too: JAX traces them into loops only then.
    @ops.custom_gradient
    def differentiable(labels, logits):
        losses, residuals = compilers.with_compiler(forward, logits)(labels, logits)

        def gradients(upstream):
            compiled = compilers.with_compiler(backward, logits)
            of_logits = compiled(labels, logits, residuals, upstream)
            if are_class_ids(labels):
                return None, of_logits
            # Not compiled with the other: hardly anybody asks for it.
            rows = ops.cast(logits, compute_dtype)
            return _label_gradient(rows, residuals, upstream), of_logits

        return losses, gradients

    return differentiable(labels, logits)


def clip_then_cross_entropy(labels, logits, tau: float, p: float):
    """Computes the same in two steps, for any order and threshold."""
    rows = ops.cast(logits, compute_dtype_of(logits))
    clipped = logit_clip(rows, tau, p, axis=-1)
    if are_class_ids(labels):
        losses = ops.sparse_categorical_crossentropy(
            ops.maximum(labels, 0), clipped, from_logits=True
        )
        return nan_without_class(labels, losses)
    return ops.categorical_crossentropy(labels, clipped, from_logits=True)


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
    if compilers.fused_by_compiler():
        exponentials = None
        total, dot = _fused_sum_and_dot(logits, unit, multiplier, shift)
    else:
        exponentials = _exponentials(exponents, shift)
        total = reductions.row_sum(exponentials)
        dot = reductions.row_dot(exponentials, rescaled)
    mean = multiplier * dot / total
    weight, target = _weigh(labels, logits, unit)
    target = multiplier * target
    projection = (weight * mean - target) / tau**2
    projection = ops.where(is_unclipped(unit, multiplier), 0.0, projection)
    residuals = Residuals(
        unit, multiplier, shift, total, weight, target, projection, exponentials
    )
    losses = _weighted_negative_log(residuals, tau)
    return ops.squeeze(losses, -1), residuals


def _fused_sum_and_dot(logits, unit, multiplier, shift):
    """Returns the sum of each row of the exponentials, and their dot product with
    the rescaled logits.

    Compilers would write those to memory for it. Multiplied by a constant instead,
    which keeps the sum finite, too, the logits are only read.
    """
    shrink = range_of(logits).shrink

    def terms_of_sum(logits, unit, multiplier, *shift):
        return _exponentials(logits * unit * multiplier, *shift)

    def terms_of_dot(logits, *factors):
        return terms_of_sum(logits, *factors) * (logits * shrink)

    # The unit as one factor per row, like what the compiler must not take apart.
    factors = [ops.ones_like(multiplier) * unit, multiplier]
    if shift is not None:
        factors.append(shift)
    all_terms = (terms_of_sum, terms_of_dot)
    total, dot = reductions.fused_row_sums(all_terms, logits, *factors)
    return total, dot * (unit / shrink)


def _weigh(labels, logits, unit):
    """Returns the sums of the labels' weights and of the weighted logits, in `unit`."""
    if are_class_ids(labels):
        ids = labels[:, None]
        # Of the logits as they are: JAX would write all rescaled ones to memory.
        target = ops.take_along_axis(logits, ops.maximum(ids, 0), -1)
        return nan_without_class(ids, ops.ones_like(target)), reductions.rescale(
            target, unit
        )
    weight = reductions.row_sum(labels)
    return weight, reductions.row_dot(labels, reductions.rescale(logits, unit))


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
    """Returns the gradient of the logits."""
    unit, multiplier, shift, total, weight, target, projection, exponentials = residuals
    upstream = upstream[:, None]
    pull = upstream * (multiplier * unit)
    softmax_factor = pull * weight / total
    projection_factor = pull * projection
    if exponentials is None:
        exponents = reductions.rescale(logits, unit, multiplier)
        exponentials = _exponentials(exponents, shift)
    gradient = exponentials * softmax_factor
    gradient = gradient - reductions.rescale(
        logits, unit, multiplier, projection_factor
    )
    if not are_class_ids(labels):
        return gradient - labels * pull

    shifted_target = target if shift is None else target - shift
    at_label = ops.exp(shifted_target) * softmax_factor
    at_label = at_label - target * projection_factor - pull
    # Writing the label's entry takes no pass over the logits; comparing every
    # class with the label would.
    ids = ops.maximum(labels, 0)
    indices = ops.stack([ops.arange(ops.shape(ids)[0]), ids], -1)
    return ops.scatter_update(gradient, indices, ops.squeeze(at_label, -1))


def _label_gradient(logits, residuals, upstream):
    unit, multiplier, shift, total, *_ = residuals
    log_total = ops.log(total) + (0.0 if shift is None else shift)
    exponents = reductions.rescale(logits, unit, multiplier)
    return upstream[:, None] * (log_total - exponents)


def _exponentials(exponents, shift=None):
    return ops.exp(exponents if shift is None else exponents - shift)
