"""In eager mode on a CPU, short rows: with PyTorch's own softmax.

Starting operations is what few short rows cost, and there are fewer: a softmax takes
the exponentials and their sums at once. Of the size of the logits is one tensor. The
forward pass starts the gradient in it, and the backward pass finishes it.
"""

from collections import namedtuple

import torch

from keras_logitclip._kernels.cross_entropy import needs_maximum
from keras_logitclip._kernels.torch.rows import MAX_FLOAT32_SUM
from keras_logitclip._kernels.torch.rows import chunks_of
from keras_logitclip._kernels.torch.rows import compute_dtype
from keras_logitclip._kernels.torch.rows import in_compute_dtype
from keras_logitclip._kernels.torch.rows import is_in_range
from keras_logitclip._kernels.torch.rows import measure
from keras_logitclip._kernels.torch.rows import new_columns
from keras_logitclip._kernels.torch.rows import new_norm
from keras_logitclip._kernels.torch.rows import row_sum
from keras_logitclip._labels import are_class_ids

# What the forward pass makes of the gradient: u, s, and the factor of the row that is
# added to u.
Started = namedtuple("Started", "u multiplier along")

# Elements of a product that is summed and dropped: small beside the logits of many
# rows, and in the cache.
MAX_PRODUCT = 2**17

# Elements of half precision up to which a copy in float32 is a small thing.
MAX_WIDENED = 2**20


def are_short_rows(logits, tau) -> bool:
    """Whether PyTorch's own softmax serves: on CPUs, for sums that float32 holds."""
    classes = logits.shape[-1]
    in_place = logits.dtype == compute_dtype(logits)
    return (
        logits.device.type == "cpu"
        and 0 < classes <= MAX_FLOAT32_SUM
        and not needs_maximum(tau, classes)
        and (in_place or logits.numel() <= MAX_WIDENED)
    )


def losses_of_short_rows(labels, logits, tau, starts_gradient):
    """Returns the losses and a `Started` gradient; `None` if a norm is out of range."""
    rows = in_compute_dtype(logits)
    norm, multiplier = new_norm(rows), new_columns(rows, 1)[0]
    measure(rows, tau, norm, multiplier)
    if not is_in_range(norm, multiplier):
        return None, None
    softmax = rows * multiplier
    torch.softmax(softmax, -1, out=softmax)
    if are_class_ids(labels):
        weight, ids = None, labels[:, None]
        # For what is no class, the gradient is NaN, too.
        invalid, ids = ids < 0, ids.clamp(min=0)
        multiplier = multiplier.masked_fill(invalid, float("nan"))
        target = rows.gather(-1, ids)
        losses = -softmax.gather(-1, ids).log()
        losses.masked_fill_(invalid, float("nan"))
    else:
        weight, ids = row_sum(labels), labels.argmax(-1, keepdim=True)
        target = _dot_of_rows(labels, rows)
        # log(total) - exponent, and what the weighted exponents are less; that is
        # zero for one-hot labels.
        losses = -weight * softmax.gather(-1, ids).log()
        losses += (weight * rows.gather(-1, ids) - target) * multiplier
    if not starts_gradient:
        return losses.squeeze(-1), None
    mean = _dot_of_rows(softmax, rows)
    if weight is None:
        along = target - mean
        softmax.scatter_add_(-1, ids, torch.full_like(target, -1.0))
    else:
        along = target - weight * mean
        softmax.mul_(weight).sub_(labels)
    along = torch.where(multiplier < 1, along * (multiplier / tau).square(), 0.0)
    return losses.squeeze(-1), Started(softmax, multiplier, along)


def finish_gradient(started, logits, upstream):
    gradient, multiplier, along = started
    pull = upstream[:, None] * multiplier
    gradient.mul_(pull).addcmul_(in_compute_dtype(logits), pull * along)
    return gradient.to(logits.dtype)


def _dot_of_rows(a, b):
    """Returns the dot product of each row, with size 1, and keeps no product."""
    step = max(1, MAX_PRODUCT // a.shape[-1])
    dots = [(x * y).sum(-1, keepdim=True) for x, y in chunks_of(step, a, b)]
    return torch.cat(dots)
