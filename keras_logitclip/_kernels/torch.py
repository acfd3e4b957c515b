"""Clipping and its cross-entropy on PyTorch: in place and by chunks, or compiled.

In eager mode every operation is a pass over memory, so the rows are worked on in
chunks that stay in the processor's cache, in place where possible. Under
`torch.compile` there is one chunk, and the compiler fuses the passes. Formulas
and names are those of `_kernels.cross_entropy`, but for exponents of two.
"""

import math
from collections import namedtuple
from functools import partial

import torch

from keras_logitclip._kernels import clip
from keras_logitclip._kernels.cross_entropy import are_class_ids
from keras_logitclip._kernels.cross_entropy import clip_then_cross_entropy
from keras_logitclip._kernels.cross_entropy import needs_maximum
from keras_logitclip._kernels.multiplier import range_of
from keras_logitclip._kernels.reductions import MIN_SLICED
from keras_logitclip._kernels.reductions import slices_of_row

# PyTorch's exp2 takes a fraction of the time of its exp, on CPUs.
LOG2_E, LN_2 = 1 / math.log(2), math.log(2)

# Elements of a chunk: enough to outweigh the cost of starting operations, and few
# enough for the cache and, beyond the minimum, for this share of all logits.
MIN_CHUNK, MAX_CHUNK = 2**16, 2**18
MAX_CHUNK_SHARE = 1 / 12

# Rows up to which a norm that adds up in float32 is right to 1e-6 and better.
MAX_FLOAT32_SUM = 4096

# Of each row; `multiplier` is s in `unit`s, `shift` and `target` are exponents
# of two, and `projection` is u . (s z) / tau^2, or 0 where nothing is clipped.
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
        multipliers = []
        clipped = _contiguous_like(logits)
        for rows, out in _chunks(_matrix(logits), _matrix(clipped)):
            rows = _in_compute_dtype(rows)
            norm = _norm(rows)
            if not _is_in_range(norm, rows):
                ctx.save_for_backward(logits)
                return clip.logit_clip(logits, tau, p=2, axis=-1)
            multipliers.append(_row_multiplier(norm, tau, unit=1.0).to(rows.dtype))
            _store(torch.mul(rows, multipliers[-1], out=_buffer(out, rows)), out)
        ctx.save_for_backward(logits, torch.cat(multipliers))
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


def _clip_vjp(logits, multiplier, tau, upstream):
    gradient = _contiguous_like(logits)
    matrices = map(_matrix, (logits, upstream, gradient))
    for rows, pull, out, factor in _chunks(*matrices, multiplier):
        rows, pull = _in_compute_dtype(rows), _in_compute_dtype(pull)
        # Of the unit vector along the row, divided by the norm: tau / factor.
        along = (pull * rows).sum(-1, keepdim=True) * (factor / tau).square()
        along = torch.where(factor < 1, along, 0.0)
        result = torch.mul(pull, factor, out=_buffer(out, pull))
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
    chunks = []
    for rows, chunk_labels in _chunks(logits, labels):
        rows = _in_compute_dtype(rows)
        norm = _norm(rows)
        if not _is_in_range(norm, rows):
            return None
        multiplier = _row_multiplier(norm, tau, unit=1.0).to(rows.dtype)
        chunks.append(_residuals(chunk_labels, rows, multiplier, tau, unit=1.0))
    rows_of = zip(*chunks, strict=True)
    return Residuals(*(None if x[0] is None else torch.cat(x) for x in rows_of))


def _compiled_residuals(labels, logits, tau):
    rows, multiplier = _compiled_multiplier(logits, tau)
    return _residuals(labels, rows, multiplier, tau, range_of(rows).shrink)


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


def _residuals(labels, rows, multiplier, tau, unit):
    exponents = rows * (multiplier * LOG2_E)
    shift = None
    if needs_maximum(tau, rows.shape[-1]):
        shift = exponents.amax(-1, keepdim=True)
        exponents.sub_(shift)
    exponentials = exponents.exp2_()
    total = _row_sum(exponentials)
    mean = multiplier * _row_sum(exponentials.mul_(rows)) / total
    if are_class_ids(labels):
        target = rows.gather(-1, labels[:, None].clamp(min=0))
        weight = torch.where(labels[:, None] < 0, float("nan"), 1.0).to(rows.dtype)
    else:
        target = _row_sum(labels * rows)
        weight = _row_sum(labels)
    along = weight * mean - target * multiplier
    projection = torch.where(multiplier * unit < 1, along / tau**2, 0.0)
    target = target * (multiplier * LOG2_E)
    return Residuals(multiplier, shift, total, weight, target, projection)


def _losses(residuals, tau):
    _, shift, total, weight, target, _ = residuals
    # As in `cross_entropy._weighted_negative_log`.
    reference = target / torch.where(weight == 0, 1.0, weight)
    reference = reference.clamp(-tau * LOG2_E, tau * LOG2_E)
    if shift is None:
        negative_log = torch.log(total / torch.exp2(reference))
    else:
        negative_log = torch.log(total) - (reference - shift) * LN_2
    losses = weight * negative_log + (weight * reference - target) * LN_2
    return losses.squeeze(-1)


def _gradient_by_chunks(labels, logits, residuals, upstream):
    multiplier, shift, total, weight, _, projection = residuals
    pull = upstream[:, None] * multiplier
    factors = (
        multiplier * LOG2_E,
        pull * weight / total,
        -pull * projection * multiplier,
    )
    gradient = _contiguous_like(logits)
    chunks = _chunks(logits, gradient, labels, pull, shift, *factors)
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
    result = torch.exp2(shifted) * (pull * weight / total)
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


def _chunks(logits, *others):
    """Yields chunks of rows of `(N, K)` logits, with the same rows of the others.

    One chunk, without rows, if there are no rows.
    """
    rows, classes = logits.shape
    elements = int(rows * classes * MAX_CHUNK_SHARE)
    step = max(1, min(max(elements, MIN_CHUNK), MAX_CHUNK) // classes)
    for start in range(0, max(rows, 1), step):
        part = slice(start, start + step)
        yield [None if x is None else x[part] for x in (logits, *others)]


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


def _is_in_range(norm, rows) -> bool:
    # False for NaN. On a GPU, this waits for the norm.
    return not len(rows) or norm.amax().item() < range_of(rows).max_norm


def _row_multiplier(norm, tau, unit):
    return torch.where(norm <= tau * unit, 1 / unit, tau / norm)  # NaN for NaN.


def _norm(rows):
    precise = torch.float64 if rows.shape[-1] > MAX_FLOAT32_SUM else None
    return torch.linalg.vector_norm(rows, dim=-1, keepdim=True, dtype=precise)


def _row_sum(x):
    if not torch.compiler.is_compiling() or x.shape[-1] < MIN_SLICED:
        return x.sum(-1, keepdim=True)  # Precise in eager mode.
    *equal, rest = slices_of_row(x.shape[-1])
    total = sum(x[..., part] for part in equal).sum(-1, keepdim=True)
    return total + x[..., rest].sum(-1, keepdim=True)


def _in_compute_dtype(logits):
    return logits.to(_compute_dtype(logits))


def _compute_dtype(logits):
    return torch.float64 if logits.dtype == torch.float64 else torch.float32
