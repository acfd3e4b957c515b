"""Under `torch.compile`: whole tensors, whose passes the compiler fuses."""

import torch

from keras_logitclip._kernels.cross_entropy import needs_maximum
from keras_logitclip._kernels.multiplier import range_of
from keras_logitclip._kernels.torch.residuals import LOG2_E
from keras_logitclip._kernels.torch.residuals import at_ids
from keras_logitclip._kernels.torch.residuals import factor_of_softmax
from keras_logitclip._kernels.torch.residuals import make_residuals
from keras_logitclip._kernels.torch.residuals import shifted
from keras_logitclip._kernels.torch.rows import in_compute_dtype
from keras_logitclip._kernels.torch.rows import row_sum
from keras_logitclip._labels import are_class_ids


def compiled_clip_vjp(logits, multiplier, tau, upstream):
    rows = in_compute_dtype(logits)
    shrink = range_of(rows).shrink
    factor = multiplier * shrink
    clipped, pull = rows * shrink * multiplier, in_compute_dtype(upstream)
    along = row_sum(pull * clipped) / tau**2
    # Also where the factor is NaN.
    along = torch.where(factor == 1, 0.0, along)
    return ((pull - clipped * along) * factor).to(logits.dtype)


def compiled_residuals(labels, logits, tau):
    rows, multiplier = compiled_multiplier(logits, tau)
    shift = None
    if needs_maximum(tau, rows.shape[-1]):
        shift = rows.amax(-1, keepdim=True)
        rows = rows - shift
    exponentials = torch.exp2(rows * (multiplier * LOG2_E))
    total, dot = row_sum(exponentials), row_sum(exponentials * rows)
    target = at_ids(rows, labels) if are_class_ids(labels) else row_sum(labels * rows)
    unit = range_of(rows).shrink
    return make_residuals(labels, multiplier, shift, total, dot, target, tau, unit)


def compiled_gradient(labels, logits, residuals, upstream):
    multiplier, shift, total, weight, _, projection = residuals
    rows = in_compute_dtype(logits)
    shrink = range_of(rows).shrink
    pull = upstream[:, None] * (multiplier * shrink)
    rows = rows * shrink
    exponentials = torch.exp2(shifted(rows, shift, multiplier * LOG2_E))
    result = exponentials * factor_of_softmax(pull, weight, total)
    result = result - rows * multiplier * (pull * projection)
    if are_class_ids(labels):
        classes = torch.arange(rows.shape[-1], device=rows.device)
        labels = (classes == labels[:, None]).to(rows.dtype)
    return (result - labels * pull).to(logits.dtype)


def compiled_multiplier(logits, tau):
    """Returns the rows multiplied by `shrink`, and s / shrink of each."""
    rows = in_compute_dtype(logits)
    max_norm, shrink = range_of(rows)
    square = row_sum(rows * rows)
    rows = rows * shrink
    shrunk_norm = row_sum(rows * rows).sqrt()
    norm = torch.where(square < max_norm**2, square.sqrt() * shrink, shrunk_norm)
    norm = torch.where(norm.isfinite(), norm, float("nan"))
    return rows, _row_multiplier(norm, tau, shrink)


def _row_multiplier(norm, tau, unit):
    return torch.where(norm <= tau * unit, 1 / unit, tau / norm)  # NaN for NaN.
