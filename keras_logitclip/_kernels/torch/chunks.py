"""In eager mode: in place, and by chunks of rows.

Every operation is a pass over memory, so the rows are worked on in chunks that stay
in the processor's cache, in place where possible. Starting an operation costs as much
as some thousand numbers: what takes one number per row is done for all chunks at once.
"""

import torch

from keras_logitclip._kernels.cross_entropy import needs_maximum
from keras_logitclip._kernels.torch.residuals import LOG2_E
from keras_logitclip._kernels.torch.residuals import at_ids
from keras_logitclip._kernels.torch.residuals import factor_of_softmax
from keras_logitclip._kernels.torch.residuals import make_residuals
from keras_logitclip._kernels.torch.residuals import shifted
from keras_logitclip._kernels.torch.rows import as_matrix
from keras_logitclip._kernels.torch.rows import chunks_of
from keras_logitclip._kernels.torch.rows import compute_dtype
from keras_logitclip._kernels.torch.rows import in_compute_dtype
from keras_logitclip._kernels.torch.rows import is_in_range
from keras_logitclip._kernels.torch.rows import measure
from keras_logitclip._kernels.torch.rows import new_columns
from keras_logitclip._kernels.torch.rows import new_norm
from keras_logitclip._kernels.torch.rows import row_sum
from keras_logitclip._labels import are_class_ids

# Elements of a chunk: enough to outweigh the cost of starting operations, and few
# enough for the cache. A GPU has far more to start, and no such cache.
MAX_CHUNK = {"cpu": 2**20, "cuda": 2**28}
MIN_CHUNK = 2**16
# The largest chunk as a share of all logits. What a chunk needs in the forward pass
# is gone before there is a gradient; in the backward pass it computes in the
# gradient itself, but for half precision, which takes two buffers of twice its size.
MAX_SHARE, MAX_HALF_SHARE = 1 / 2, 1 / 12


def clip_by_chunks(logits, tau):
    """Returns the clipped logits and s, or `None` if a norm is out of range."""
    rows, clipped = as_matrix(logits), _contiguous_like(logits)
    norm, multiplier = new_norm(rows), new_columns(rows, 1)[0]
    step = _rows_per_chunk(rows)
    chunks = chunks_of(step, rows, as_matrix(clipped), norm, multiplier)
    for rows, out, row_norm, factor in chunks:
        rows = in_compute_dtype(rows)
        measure(rows, tau, row_norm, factor)
        _store(torch.mul(rows, factor, out=_buffer(out, rows)), out)
    return (clipped, multiplier) if is_in_range(norm, multiplier) else (None, None)


def clip_vjp(logits, multiplier, tau, upstream):
    gradient = _contiguous_like(logits)
    matrices = [as_matrix(x) for x in (logits, upstream, gradient)]
    step = _rows_per_chunk(matrices[0])
    for rows, pull, out, factor in chunks_of(step, *matrices, multiplier):
        rows, pull = in_compute_dtype(rows), in_compute_dtype(pull)
        buffer = _buffer(out, rows)
        along = torch.mul(pull, rows, out=buffer).sum(-1, keepdim=True)
        # Of the unit vector along the row, divided by the norm: tau / factor.
        along = torch.where(factor < 1, along * (factor / tau).square(), 0.0)
        result = torch.mul(pull, factor, out=buffer)
        _store(result.addcmul_(rows, -factor * along), out)
    return gradient


def residuals_by_chunks(labels, logits, tau):
    """Returns the residuals, or `None` if a norm is beyond the safe range."""
    norm, columns = new_norm(logits), new_columns(logits, 5)
    step = _rows_per_chunk(logits)
    buffer = columns.new_empty((min(step, len(logits)), logits.shape[-1]))
    for rows, *rest in chunks_of(step, logits, labels, norm, *columns):
        _add_up(in_compute_dtype(rows), *rest, tau, buffer[: len(rows)])
    multiplier, shift, total, dot, target = columns
    if not is_in_range(norm, multiplier):
        return None
    if not needs_maximum(tau, logits.shape[-1]):
        shift = None
    if are_class_ids(labels):
        target = at_ids(logits, labels).to(columns.dtype)
    if shift is not None:
        dot = dot - shift * total
        target = target - shift * (1 if are_class_ids(labels) else row_sum(labels))
    return make_residuals(labels, multiplier, shift, total, dot, target, tau, unit=1.0)


def _add_up(rows, labels, norm, multiplier, shift, total, dot, target, tau, buffer):
    """Writes the norm, s and the sums of each row; `target` of weights only."""
    measure(rows, tau, norm, multiplier)
    if needs_maximum(tau, rows.shape[-1]):
        torch.amax(rows, -1, keepdim=True, out=shift)
    else:
        shift = None
    exponents = shifted(rows, shift, multiplier * LOG2_E, buffer)
    torch.sum(exponents.exp2_(), -1, keepdim=True, out=total)
    torch.sum(exponents.mul_(rows), -1, keepdim=True, out=dot)
    if not are_class_ids(labels):
        torch.sum(torch.mul(labels, rows, out=buffer), -1, keepdim=True, out=target)


def gradient_by_chunks(labels, logits, residuals, upstream):
    multiplier, shift, total, weight, _, projection = residuals
    pull = upstream[:, None] * multiplier
    factors = (
        multiplier * LOG2_E,
        factor_of_softmax(pull, weight, total),
        -pull * projection * multiplier,
    )
    gradient = _contiguous_like(logits)
    step = _rows_per_chunk(logits)
    chunks = chunks_of(step, logits, gradient, labels, pull, shift, *factors)
    for rows, out, chunk_labels, chunk_pull, chunk_shift, *chunk_factors in chunks:
        exponent_factor, softmax_factor, row_factor = chunk_factors
        rows = in_compute_dtype(rows)
        result = shifted(rows, chunk_shift, exponent_factor, _buffer(out, rows))
        result.exp2_().mul_(softmax_factor).addcmul_(rows, row_factor)
        _subtract_labels(result, chunk_labels, chunk_pull)
        _store(result, out)
    return gradient


def _subtract_labels(result, labels, pull):
    if are_class_ids(labels):
        result.scatter_add_(-1, labels[:, None].clamp(min=0), -pull)
    else:
        result.addcmul_(labels, pull, value=-1)


def _rows_per_chunk(logits):
    """Returns how many rows of `(N, K)` logits make a chunk."""
    limit, share = MAX_CHUNK[logits.device.type], MAX_SHARE
    if logits.dtype != compute_dtype(logits):
        limit, share = limit // 4, MAX_HALF_SHARE
    elements = min(limit, max(MIN_CHUNK, int(logits.numel() * share)))
    return max(1, elements // max(1, logits.shape[-1]))


def _contiguous_like(x):
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _buffer(out, like):
    """Returns `out` to compute in where its dtype allows that."""
    return out if out.dtype == like.dtype else None


def _store(result, out):
    if out.dtype != result.dtype:  # Else `result` lies in this `_buffer`.
        out.copy_(result)
