"""What the backward pass needs of each row, and the loss that follows from it."""

import math
from collections import namedtuple

import torch

from keras_logitclip._kernels.torch.rows import in_compute_dtype
from keras_logitclip._kernels.torch.rows import row_sum
from keras_logitclip._labels import are_class_ids

# PyTorch's exp2 takes a fraction of the time of its exp, on CPUs.
LOG2_E = 1 / math.log(2)

# Of each row; `multiplier` is s in `unit`s, and `shift` is a logit, in such units:
# subtracted before the multiplication by s, where the difference is exact. So is
# `target`, of logits less their shift. `projection` is u . (s z) / tau^2, or 0 where
# nothing is clipped. `weight` is `None` for class ids, whose `total` is NaN for what
# is no class.
Residuals = namedtuple("Residuals", "multiplier shift total weight target projection")


def make_residuals(labels, multiplier, shift, total, dot, target, tau, unit):
    """Returns the residuals, given `target` and `dot` in terms of shifted rows."""
    if are_class_ids(labels):
        weight = None
        total = total.masked_fill(labels[:, None] < 0, float("nan"))
        along = multiplier * (dot / total - target)
    else:
        weight = row_sum(labels)
        along = multiplier * (weight * (dot / total) - target)
    projection = torch.where(multiplier * unit < 1, along / tau**2, 0.0)
    return Residuals(multiplier, shift, total, weight, target, projection)


def at_ids(rows, ids):
    return rows.gather(-1, ids[:, None].clamp(min=0))


def losses_of(residuals, tau):
    multiplier, shift, total, weight, target, _ = residuals
    if weight is None:
        reference = target
    else:  # As in `cross_entropy._weighted_negative_log`.
        longest = 2 * tau / multiplier
        reference = target / torch.where(weight == 0, 1.0, weight)
        reference = reference.clamp(-longest, longest)
    if shift is None:
        losses = torch.log(total / torch.exp(reference * multiplier))
    else:
        losses = torch.log(total) - reference * multiplier
    if weight is not None:
        losses = weight * losses + (weight * reference - target) * multiplier
    return losses.squeeze(-1)


def shifted(rows, shift, factor, out=None):
    """Returns the exponents of rows, `factor` times their distance from a shift."""
    if shift is None:
        return torch.mul(rows, factor, out=out)
    return torch.sub(rows, shift, out=out).mul_(factor)


def factor_of_softmax(pull, weight, total):
    return (pull if weight is None else pull * weight) / total


def label_gradient(logits, residuals, upstream, unit):
    multiplier, shift, total, *_ = residuals
    exponents = shifted(in_compute_dtype(logits) * unit, shift, multiplier)
    return upstream[:, None] * (torch.log(total) - exponents)
