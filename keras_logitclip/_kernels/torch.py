"""Clipping with the norm of order 2 and softmax cross-entropy, on PyTorch.

Let z be a row of logits, n its norm, s = min(1, tau / n) and y the class weights
(one-hot for a class id). The loss and its gradient are

    loss = sum_k y_k (log sum_j exp(s z_j) - s z_k)
    u = sum(y) softmax(s z) - y
    gradient = s (u - (u . z / n) z / n)    where n > tau, and u elsewhere

The functions compute in place. For the backward pass they keep one tensor of the size
of the logits, which becomes the gradient. The transformations of `torch.func`, forward
mode and derivatives of higher order use the plain form.
"""

import math
from functools import partial

import torch
from torch.autograd import forward_ad

from keras_logitclip._kernels import plain

# PyTorch's exp2 takes two fifths of the time of its exp, on CPUs.
LOG2_E = 1 / math.log(2)

# Elements of a chunk, for half precision and for products to be summed. Twice as many
# take a fifth less time, and more memory. GPUs start slowly, so they get this share.
MIN_CHUNK, MIN_SHARE = 2**17, 1 / 64

# Before rows are squared, they are scaled to a norm of about 2**-52 (in float32) if it
# was tau. So the squares do not vanish at tau, nor overflow at 8e34 tau.
EXPONENTS = {torch.float32: 52, torch.float64: 500}


def serves(logits) -> bool:
    """Returns whether this form can be used: not while ONNX or OpenVINO traces it."""
    return not torch.jit.is_tracing()  # Tracing cannot record custom gradients.


def logit_clip(logits, tau: float):
    """Clips the norm along the last axis."""
    if _is_transformed(logits):
        return plain.logit_clip(logits, tau, 2, -1)
    return _LogitClip.apply(logits, tau)


def clipped_cross_entropy(labels, logits, tau: float, counted=None):
    """Computes the loss of each row; see `_kernels`."""
    if labels.ndim == 1:
        labels = labels.long()  # Otherwise `gather` converts them at each call.
    if _is_transformed(labels) or _is_transformed(logits):
        return plain.clipped_cross_entropy(labels, logits, tau, 2, counted)
    return _ClippedCrossEntropy.apply(labels, logits, tau, counted)


def _is_transformed(x) -> bool:
    """Returns whether `torch.func` or forward mode transforms the tensor."""
    return not torch.compiler.is_compiling() and (
        torch._C._are_functorch_transforms_active()
        or torch._C._functorch.is_legacy_batchedtensor(x)
        or forward_ad.unpack_dual(x).tangent is not None
    )


class _LogitClip(torch.autograd.Function):
    @staticmethod
    def forward(ctx, logits, tau):
        rows = logits.to(_compute_dtype(logits))
        multiplier, buffer = _measure(rows, tau)
        ctx.tau = tau
        ctx.save_for_backward(logits, multiplier)
        return torch.mul(rows, multiplier, out=buffer).to(logits.dtype)

    @staticmethod
    def backward(ctx, upstream):
        logits, multiplier = ctx.saved_tensors
        if torch.is_grad_enabled() or _is_transformed(upstream):
            clip = partial(plain.logit_clip, tau=ctx.tau, p=2, axis=-1)
            return *torch.func.vjp(clip, logits)[1](upstream), None
        rows, pull = logits.to(multiplier.dtype), upstream.to(multiplier.dtype)
        buffer = rows * pull
        along = _along(buffer.sum(-1, keepdim=True), multiplier)
        torch.addcmul(pull, rows, along, value=-1 / ctx.tau**2, out=buffer)
        return buffer.mul_(multiplier).to(logits.dtype), None


class _ClippedCrossEntropy(torch.autograd.Function):
    """The tensor of exponentials becomes the gradient, in the first backward pass."""

    @staticmethod
    def forward(ctx, labels, logits, tau, counted):
        ctx.tau, ctx.counted, ctx.terms = tau, counted, None
        compiled, dtype = torch.compiler.is_compiling(), _compute_dtype(logits)
        if compiled or logits.dtype == dtype:
            losses, *columns, terms = _forward(labels, logits.to(dtype), tau)
            ctx.terms = None if compiled else terms
        else:
            chunks = _chunks(labels, logits)
            parts = (_forward(y, z.to(dtype), tau)[:-1] for y, z in chunks)
            losses, *columns = map(torch.cat, zip(*parts, strict=True))
        if counted is not None:
            columns[-1] = columns[-1] / _mean(columns[0], counted)
        ctx.save_for_backward(labels, logits, *columns)
        return losses

    @staticmethod
    def backward(ctx, upstream):
        labels, logits, *columns = ctx.saved_tensors
        if torch.is_grad_enabled() or _is_transformed(upstream):
            options = {"tau": ctx.tau, "p": 2, "counted": ctx.counted}
            plain_losses = partial(plain.clipped_cross_entropy, **options)
            if labels.ndim == 2:
                vjp = torch.func.vjp(plain_losses, labels, logits)[1]
                return *vjp(upstream), None, None
            vjp = torch.func.vjp(partial(plain_losses, labels), logits)[1]
            return None, *vjp(upstream), None, None
        multiplier, total, *_ = columns
        of_labels, (terms, ctx.terms) = None, (ctx.terms, None)
        if ctx.needs_input_grad[0]:
            pull = upstream.unsqueeze(-1) * (columns[-1] * total / multiplier)
            of_labels = (total.log() - logits * multiplier) * pull
        if torch.compiler.is_compiling():
            gradient = _fused_gradient(labels, logits, ctx.tau, upstream, columns)
        elif terms is not None:
            gradient = _gradient(labels, logits, ctx.tau, upstream, columns, terms)
        else:
            gradient = torch.empty_like(logits)
            tensors = labels, logits, gradient, upstream, *columns
            for y, z, out, pull, *rest in _chunks(*tensors):
                out.copy_(_gradient(y, z.to(total.dtype), ctx.tau, pull, rest))
        return of_labels, gradient, None, None


def _forward(labels, rows, tau):
    """Returns the losses, five columns for `_gradient`, and the exponentials."""
    multiplier, buffer = _measure(rows, tau)
    are_ids = labels.ndim == 1
    if are_ids:
        labels = labels.unsqueeze(-1)
        key = labels.clamp(0, rows.shape[-1] - 1)
        # Invalid ids: everything computed from the multiplier becomes NaN.
        multiplier.masked_fill_(labels != key, math.nan)
    terms = torch.mul(rows, multiplier * LOG2_E, out=buffer).exp2_()
    total = terms.sum(-1, keepdim=True)
    dot = _sum_rows(torch.mul, terms, rows)
    if are_ids:
        losses = total.div(terms.gather(-1, key)).log_()
        dot = dot - total * rows.gather(-1, key)
    else:
        # All terms of both sums are positive, so nothing cancels.
        largest, key = rows.amax(-1, keepdim=True), labels.sum(-1, keepdim=True)
        distance = _sum_rows(lambda y, z, top: y * (top - z), labels, rows, largest)
        losses = (total / torch.exp2(largest * (multiplier * LOG2_E))).log_()
        losses = (losses * key).addcmul_(multiplier, distance)
        dot = dot.mul_(key) - total * (key * largest - distance)
    along = _along(dot, multiplier)
    if torch.compiler.is_compiling():
        # Else, the backward pass would compute `dot`, with more exponentials.
        losses = torch.where(dot.isnan(), dot, losses)
    return losses.squeeze(-1), multiplier, total, key, along, multiplier / total, terms


def _gradient(labels, rows, tau, upstream, columns, terms=None):
    """Returns the gradient of the rows, in the memory of the exponentials if given.

    `multiplier` is s, `total` the sum of the exponentials, `key` the class id or the
    sum of the weights, and `along / tau**2` the factor of the row in its gradient.
    """
    multiplier, total, key, along, scale = columns
    if terms is None:
        terms = torch.exp2(rows * (multiplier * LOG2_E))
    if labels.ndim == 1:
        terms.scatter_add_(-1, key, -total)
    else:
        terms.mul_(key).addcmul_(labels, total, value=-1)
    terms.addcmul_(rows, along, value=-1 / tau**2)
    return terms.mul_(upstream.unsqueeze(-1) * scale)


def _fused_gradient(labels, logits, tau, upstream, columns):
    """Returns the gradient in the dtype of the logits, in one pass of a compiler."""
    multiplier, total, key, along, scale = columns
    pull, rows = upstream.unsqueeze(-1), logits.to(total.dtype)
    if labels.ndim == 1:
        # Scattering would take another pass after a cast. Comparing integers would take
        # a third longer than floats, which are exact up to 2**24 classes.
        classes = torch.arange(rows.shape[-1], dtype=rows.dtype, device=rows.device)
        labels, key = torch.where(classes == key.to(rows.dtype), 1.0, 0.0), 1
    # Every term has `pull`, or the compiler would sum them in the forward pass.
    terms = torch.exp2(rows * (multiplier * LOG2_E)) * (pull * key)
    terms = terms - labels * (pull * total) - rows * (pull * along / tau**2)
    return (terms * scale).to(logits.dtype)


def _mean(multiplier, counted):
    """Returns the mean of s over the counted rows that are finite, or 1 without any."""
    if counted is not True:
        multiplier = torch.where(counted, multiplier.squeeze(-1), math.nan)
    return multiplier.nanmean().nan_to_num(nan=1.0)


def _measure(rows, tau):
    """Returns s of each row, NaN where squares overflow, and a tensor to overwrite."""
    scale = 2.0 ** -(math.frexp(tau)[1] + EXPONENTS[rows.dtype])  # Exact.
    scaled = rows * scale
    norm = torch.linalg.vector_norm(scaled, dim=-1, keepdim=True)
    multiplier = torch.full_like(norm, tau * scale).div_(norm).clamp_(max=1.0)
    return torch.nn.functional.threshold_(multiplier, 0.0, math.nan), scaled


def _along(dot, multiplier):
    """Returns tau^2 times the factor of a row in its projection, 0 if not clipped."""
    # Multiplied one after the other, because the square of s may vanish.
    return (dot * multiplier * multiplier).masked_fill_(multiplier >= 1, 0.0)


def _sum_rows(terms, *rows):
    """Sums the terms of each row without keeping them in memory."""
    if torch.compiler.is_compiling():
        return terms(*rows).sum(-1, keepdim=True)
    sums = [terms(*chunk).sum(-1, keepdim=True) for chunk in _chunks(*rows)]
    return torch.cat(sums) if len(sums) > 1 else sums[0]


def _chunks(*tensors):
    """Returns the rows of all tensors in chunks; the second tensor has the logits."""
    rows = tensors[1]
    elements = max(MIN_CHUNK, int(rows.numel() * MIN_SHARE))
    step = max(1, elements // max(1, rows.shape[-1]))
    if step >= len(rows):
        return [tensors]
    return zip(*(x.split(step) for x in tensors), strict=True)


def _compute_dtype(logits):
    return torch.float64 if logits.dtype == torch.float64 else torch.float32
