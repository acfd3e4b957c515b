"""Clipping and its cross-entropy on PyTorch: in place and by chunks, or compiled.

In eager mode every operation is a pass over memory, so the rows are worked on in
chunks that stay in the processor's cache, in place where possible. Starting an
operation costs as much as some thousand numbers: what takes one number per row is
done for all chunks at once. Under `torch.compile` there is one chunk, and the
compiler fuses the passes. Formulas and names are those of
`_kernels.cross_entropy`, but for exponents of two.
"""

import math
from collections import namedtuple
from functools import partial
from itertools import repeat

import torch

from keras_logitclip._kernels import clip
from keras_logitclip._kernels.cross_entropy import are_class_ids
from keras_logitclip._kernels.cross_entropy import clip_then_cross_entropy
from keras_logitclip._kernels.cross_entropy import needs_maximum
from keras_logitclip._kernels.multiplier import range_of
from keras_logitclip._kernels.reductions import slices_of_row

# PyTorch's exp2 takes a fraction of the time of its exp, on CPUs.
LOG2_E, LN_2 = 1 / math.log(2), math.log(2)

# Elements of a chunk: enough to outweigh the cost of starting operations, and few
# enough for the cache. A GPU has far more to start, and no such cache.
MAX_CHUNK = {"cpu": 2**20, "cuda": 2**28}
MIN_CHUNK = 2**16
# The largest chunk as a share of all logits. What a chunk needs in the forward pass
# is gone before there is a gradient; in the backward pass it computes in the
# gradient itself, but for half precision, which takes two buffers of twice its size.
MAX_SHARE, MAX_HALF_SHARE = 1 / 2, 1 / 12

# Rows up to which sums in float32 are right to 1e-6 and better.
MAX_FLOAT32_SUM = 4096

# Of each row; `multiplier` is s in `unit`s, `shift` and `target` are exponents
# of two, and `projection` is u . (s z) / tau^2, or 0 where nothing is clipped.
# `weight` is `None` for class ids, whose `total` is NaN for what is no class.
Residuals = namedtuple("Residuals", "multiplier shift total weight target projection")


def logit_clip(logits, tau: float):
    """Clips the norm of order 2 along the last axis."""
    return _LogitClip.apply(logits, tau)


def clipped_cross_entropy(labels, logits, tau: float):
    """Computes the loss of each row; see `_kernels.cross_entropy`."""
    if are_class_ids(labels):
        labels = labels.long()  # What `gather` and `scatter` take.
    return _ClippedCrossEntropy.apply(labels, logits, tau)


class _LogitClip(torch.autograd.Function):
    @staticmethod
    def forward(ctx, logits, tau):
        ctx.tau = tau
        if torch.compiler.is_compiling():
            rows, multiplier = _compiled_multiplier(logits, tau)
            ctx.save_for_backward(logits, multiplier)
            unclipped = multiplier * range_of(rows).shrink == 1
            return torch.where(unclipped, logits, (rows * multiplier).to(logits.dtype))
        clipped, multiplier = _clip_by_chunks(logits, tau)
        if clipped is None:
            ctx.save_for_backward(logits)
            return clip.logit_clip(logits, tau, p=2, axis=-1)
        ctx.save_for_backward(logits, multiplier)
        return clipped

    @staticmethod
    def backward(ctx, upstream):
        logits, *multiplier = ctx.saved_tensors
        if torch.compiler.is_compiling():
            return _compiled_clip_vjp(logits, multiplier[0], ctx.tau, upstream), None
        if torch.is_grad_enabled() or not multiplier:
            generic = partial(clip.logit_clip, tau=ctx.tau, p=2, axis=-1)
            return _generic_vjp(ctx, generic, [logits], upstream)[0], None
        return _clip_vjp(logits, multiplier[0], ctx.tau, upstream), None


def _clip_by_chunks(logits, tau):
    """Returns the clipped logits and s, or `None` if a norm is out of range."""
    matrix, clipped = _matrix(logits), _contiguous_like(logits)
    norm, multiplier = _new_norm(matrix), _new_columns(matrix, 1)[0]
    step = _rows_per_chunk(matrix)
    chunks = _chunks(step, matrix, _matrix(clipped), norm, multiplier)
    for rows, out, row_norm, factor in chunks:
        rows = _in_compute_dtype(rows)
        _measure(rows, tau, row_norm, factor)
        _store(torch.mul(rows, factor, out=_buffer(out, rows)), out)
    return (clipped, multiplier) if _is_in_range(norm, multiplier) else (None, None)


def _clip_vjp(logits, multiplier, tau, upstream):
    gradient = _contiguous_like(logits)
    matrices = [_matrix(x) for x in (logits, upstream, gradient)]
    step = _rows_per_chunk(matrices[0])
    for rows, pull, out, factor in _chunks(step, *matrices, multiplier):
        rows, pull = _in_compute_dtype(rows), _in_compute_dtype(pull)
        buffer = _buffer(out, rows)
        along = torch.mul(pull, rows, out=buffer).sum(-1, keepdim=True)
        # Of the unit vector along the row, divided by the norm: tau / factor.
        along = torch.where(factor < 1, along * (factor / tau).square(), 0.0)
        result = torch.mul(pull, factor, out=buffer)
        _store(result.addcmul_(rows, -factor * along), out)
    return gradient


def _compiled_clip_vjp(logits, multiplier, tau, upstream):
    rows = _in_compute_dtype(logits)
    shrink = range_of(rows).shrink
    factor = multiplier * shrink
    clipped, pull = rows * shrink * multiplier, _in_compute_dtype(upstream)
    along = _row_sum(pull * clipped) / tau**2
    # Also where the factor is NaN.
    along = torch.where(factor == 1, 0.0, along)
    return ((pull - clipped * along) * factor).to(logits.dtype)


class _ClippedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, labels, logits, tau):
        ctx.tau = tau
        if torch.compiler.is_compiling():
            residuals = _compiled_residuals(labels, logits, tau)
        else:
            residuals = _residuals_by_chunks(labels, logits, tau)
        ctx.save_for_backward(labels, logits, *(residuals or ()))
        if residuals is None:
            return _unfused_losses(labels, logits, tau)
        return _losses(residuals, tau)

    @staticmethod
    def backward(ctx, upstream):
        labels, logits, *residuals = ctx.saved_tensors
        residuals = Residuals(*residuals) if residuals else None
        unit = 1.0
        if torch.compiler.is_compiling():
            gradient = _compiled_gradient(labels, logits, residuals, upstream)
            unit = range_of(_in_compute_dtype(logits)).shrink
        elif torch.is_grad_enabled() or residuals is None:
            unfused = partial(_unfused_losses, tau=ctx.tau)
            return *_generic_vjp(ctx, unfused, [labels, logits], upstream), None
        else:
            gradient = _gradient_by_chunks(labels, logits, residuals, upstream)
        if not ctx.needs_input_grad[0]:
            return None, gradient, None
        return _label_gradient(logits, residuals, upstream, unit), gradient, None


def _unfused_losses(labels, logits, tau):
    """Returns the losses of rows of any size, differentiable more than once.

    In float64: in float32, PyTorch's cross-entropy of 128,000 classes is wrong
    by more than a millionth.
    """
    if not are_class_ids(labels):
        labels = labels.double()
    losses = clip_then_cross_entropy(labels, logits.double(), tau, p=2)
    return losses.to(_compute_dtype(logits))


def _generic_vjp(ctx, function, inputs, upstream):
    """Differentiates `function` instead; the result is differentiable, too."""
    again = torch.is_grad_enabled()
    if not again:
        needed = ctx.needs_input_grad
        inputs = [x.detach().requires_grad_(needed[i]) for i, x in enumerate(inputs)]
    wanted = [x for x in inputs if x.requires_grad]
    with torch.enable_grad():
        value = function(*inputs)
        gradients = torch.autograd.grad(value, wanted, upstream, create_graph=again)
    gradients = iter(gradients)
    return [next(gradients) if x.requires_grad else None for x in inputs]


def _residuals_by_chunks(labels, logits, tau):
    """Returns the residuals, or `None` if a norm is beyond the safe range."""
    norm, columns = _new_norm(logits), _new_columns(logits, 5)
    step = _rows_per_chunk(logits)
    buffer = columns.new_empty((min(step, len(logits)), logits.shape[-1]))
    for rows, *rest in _chunks(step, logits, labels, norm, *columns):
        _add_up(_in_compute_dtype(rows), *rest, tau, buffer[: len(rows)])
    multiplier, shift, total, dot, target = columns
    if not _is_in_range(norm, multiplier):
        return None
    if not needs_maximum(tau, logits.shape[-1]):
        shift = None
    if are_class_ids(labels):
        target = _at_ids(logits, labels).to(columns.dtype)
    return _residuals(labels, multiplier, shift, total, dot, target, tau, unit=1.0)


def _add_up(rows, labels, norm, multiplier, shift, total, dot, target, tau, buffer):
    """Writes the norm, s and the sums of each row; `target` of weights only."""
    _measure(rows, tau, norm, multiplier)
    exponents = torch.mul(rows, multiplier * LOG2_E, out=buffer)
    if needs_maximum(tau, rows.shape[-1]):
        exponents.sub_(torch.amax(exponents, -1, keepdim=True, out=shift))
    torch.sum(exponents.exp2_(), -1, keepdim=True, out=total)
    torch.sum(exponents.mul_(rows), -1, keepdim=True, out=dot)
    if not are_class_ids(labels):
        torch.sum(torch.mul(labels, rows, out=buffer), -1, keepdim=True, out=target)


def _compiled_residuals(labels, logits, tau):
    rows, multiplier = _compiled_multiplier(logits, tau)
    exponents = rows * (multiplier * LOG2_E)
    shift = None
    if needs_maximum(tau, rows.shape[-1]):
        shift = exponents.amax(-1, keepdim=True)
        exponents = exponents - shift
    exponentials = torch.exp2(exponents)
    total, dot = _row_sum(exponentials), _row_sum(exponentials * rows)
    target = _at_ids(rows, labels) if are_class_ids(labels) else _row_sum(labels * rows)
    unit = range_of(rows).shrink
    return _residuals(labels, multiplier, shift, total, dot, target, tau, unit)


def _compiled_multiplier(logits, tau):
    """Returns the rows multiplied by `shrink`, and s / shrink of each."""
    rows = _in_compute_dtype(logits)
    max_norm, shrink = range_of(rows)
    square = _row_sum(rows * rows)
    rows = rows * shrink
    shrunk_norm = _row_sum(rows * rows).sqrt()
    norm = torch.where(square < max_norm**2, square.sqrt() * shrink, shrunk_norm)
    norm = torch.where(norm.isfinite(), norm, float("nan"))
    return rows, _row_multiplier(norm, tau, shrink)


def _residuals(labels, multiplier, shift, total, dot, target, tau, unit):
    """Returns the residuals, given `target` and `dot` in terms of the rows."""
    if are_class_ids(labels):
        weight = None
        total = total.masked_fill(labels[:, None] < 0, float("nan"))
        along = multiplier * (dot / total - target)
    else:
        weight = _row_sum(labels)
        along = multiplier * (weight * (dot / total) - target)
    projection = torch.where(multiplier * unit < 1, along / tau**2, 0.0)
    target = target * (multiplier * LOG2_E)
    return Residuals(multiplier, shift, total, weight, target, projection)


def _at_ids(rows, ids):
    return rows.gather(-1, ids[:, None].clamp(min=0))


def _losses(residuals, tau):
    _, shift, total, weight, target, _ = residuals
    if weight is None:
        return _negative_log(total, target, shift).squeeze(-1)
    # As in `cross_entropy._weighted_negative_log`.
    reference = target / torch.where(weight == 0, 1.0, weight)
    reference = reference.clamp(-tau * LOG2_E, tau * LOG2_E)
    losses = weight * _negative_log(total, reference, shift)
    return (losses + (weight * reference - target) * LN_2).squeeze(-1)


def _negative_log(total, exponent, shift):
    if shift is None:
        return torch.log(total / torch.exp2(exponent))
    return torch.log(total) - (exponent - shift) * LN_2


def _softmax_factor(pull, weight, total):
    return (pull if weight is None else pull * weight) / total


def _gradient_by_chunks(labels, logits, residuals, upstream):
    multiplier, shift, total, weight, _, projection = residuals
    pull = upstream[:, None] * multiplier
    factors = (
        multiplier * LOG2_E,
        _softmax_factor(pull, weight, total),
        -pull * projection * multiplier,
    )
    gradient = _contiguous_like(logits)
    step = _rows_per_chunk(logits)
    chunks = _chunks(step, logits, gradient, labels, pull, shift, *factors)
    for rows, out, chunk_labels, chunk_pull, chunk_shift, *chunk_factors in chunks:
        exponent_factor, softmax_factor, row_factor = chunk_factors
        rows = _in_compute_dtype(rows)
        result = torch.mul(rows, exponent_factor, out=_buffer(out, rows))
        if chunk_shift is not None:
            result.sub_(chunk_shift)
        result.exp2_().mul_(softmax_factor).addcmul_(rows, row_factor)
        _subtract_labels(result, chunk_labels, chunk_pull)
        _store(result, out)
    return gradient


def _subtract_labels(result, labels, pull):
    if are_class_ids(labels):
        result.scatter_add_(-1, labels[:, None].clamp(min=0), -pull)
    else:
        result.addcmul_(labels, pull, value=-1)


def _compiled_gradient(labels, logits, residuals, upstream):
    multiplier, shift, total, weight, _, projection = residuals
    rows = _in_compute_dtype(logits)
    shrink = range_of(rows).shrink
    pull = upstream[:, None] * (multiplier * shrink)
    exponents = rows * shrink * multiplier
    shifted = exponents * LOG2_E if shift is None else exponents * LOG2_E - shift
    result = torch.exp2(shifted) * _softmax_factor(pull, weight, total)
    result = result - exponents * (pull * projection)
    if are_class_ids(labels):
        classes = torch.arange(rows.shape[-1], device=rows.device)
        labels = (classes == labels[:, None]).to(rows.dtype)
    return (result - labels * pull).to(logits.dtype)


def _label_gradient(logits, residuals, upstream, unit):
    multiplier, shift, total, *_ = residuals
    log_total = torch.log(total) + (0.0 if shift is None else shift * LN_2)
    exponents = _in_compute_dtype(logits) * unit * multiplier
    return upstream[:, None] * (log_total - exponents)


def _rows_per_chunk(logits):
    """Returns how many rows of `(N, K)` logits make a chunk."""
    limit, share = MAX_CHUNK[logits.device.type], MAX_SHARE
    if logits.dtype != _compute_dtype(logits):
        limit, share = limit // 4, MAX_HALF_SHARE
    elements = min(limit, max(MIN_CHUNK, int(logits.numel() * share)))
    return max(1, elements // max(1, logits.shape[-1]))


def _chunks(step, *tensors):
    """Yields `step` rows of each tensor at a time, `None` for `None`.

    One chunk, without rows, if there are no rows.
    """
    parts = (repeat(None) if x is None else x.split(step) for x in tensors)
    return zip(*parts, strict=False)  # `repeat` has no end.


def _new_columns(logits, number):
    """Returns as many tensors of one number per row, as one tensor."""
    dtype = _compute_dtype(logits)
    return logits.new_empty((number, len(logits), 1), dtype=dtype)


def _new_norm(logits):
    dtype = _norm_dtype(logits.shape[-1]) or _compute_dtype(logits)
    return logits.new_empty((len(logits), 1), dtype=dtype)


def _measure(rows, tau, norm, multiplier):
    """Writes the norm and s of each row; NaN for NaN, and s is 0 for infinity."""
    torch.linalg.vector_norm(rows, dim=-1, keepdim=True, dtype=norm.dtype, out=norm)
    torch.div(norm.new_tensor(tau), norm, out=multiplier).clamp_(max=1.0)


def _matrix(x):
    return x.reshape(-1, x.shape[-1])


def _contiguous_like(x):
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _buffer(out, like):
    """Returns `out` to compute in where its dtype allows that."""
    return out if out.dtype == like.dtype else None


def _store(result, out):
    if out.dtype != result.dtype:  # Else `result` lies in this `_buffer`.
        out.copy_(result)


def _is_in_range(norm, multiplier) -> bool:
    # False for NaN. On a GPU, this waits for the norm.
    return not len(norm) or norm.amax().item() < range_of(multiplier).max_norm


def _row_multiplier(norm, tau, unit):
    return torch.where(norm <= tau * unit, 1 / unit, tau / norm)  # NaN for NaN.


def _norm_dtype(classes):
    return torch.float64 if classes > MAX_FLOAT32_SUM else None


def _row_sum(x):
    if not torch.compiler.is_compiling() or x.shape[-1] <= MAX_FLOAT32_SUM:
        return x.sum(-1, keepdim=True)  # Precise for longer rows in eager mode.
    *equal, rest = slices_of_row(x.shape[-1])
    total = sum(x[..., part] for part in equal).sum(-1, keepdim=True)
    return total + x[..., rest].sum(-1, keepdim=True)


def _in_compute_dtype(logits):
    return logits.to(_compute_dtype(logits))


def _compute_dtype(logits):
    return torch.float64 if logits.dtype == torch.float64 else torch.float32
