"""Clipping and its cross-entropy on PyTorch, for the norm of order 2.

With z a row of logits, n its norm and s = min(1, tau / n), the loss and its
gradient for the weights y of the classes (one-hot for a class id) are

    loss = sum_k y_k (log sum_j exp(s z_j) - s z_k)
    u = sum(y) softmax(s z) - y
    gradient = s (u - (u . z / n) z / n)    where n > tau, and u elsewhere

Each function has two forms. The fast one computes in place and keeps, for the
backward pass, one tensor of the size of the logits, which becomes the gradient. The
plain one consists of differentiable operations: for `torch.compile`, which fuses
them, for the transformations of `torch.func`, and for derivatives of higher order.
"""

import math

import torch
from torch.autograd import forward_ad

from keras_logitclip._labels import nan_without_class

# PyTorch's exp2 takes two fifths of the time of its exp, on CPUs.
LOG2_E = 1 / math.log(2)

# Elements of a product that is summed and dropped, and of half precision that is
# computed in float32 at a time. Of 2**16 to 2**20, this is the fastest on CPUs.
MIN_CHUNK = 2**17
# A GPU has more to start; there, a chunk is this share of the logits at least.
MIN_SHARE = 1 / 64

# The norms that float32 and float64 can hold the squares of, divided by tau.
MAX_EXPONENT = {torch.float32: 52, torch.float64: 500}


def logit_clip(logits, tau: float):
    """Clips the norm along the last axis."""
    if _needs_plain_form(logits):
        return _plain_clip(logits, tau)[0]
    return _LogitClip.apply(logits, tau)


def clipped_cross_entropy(labels, logits, tau: float, counted=None):
    """Computes the softmax cross-entropy of each row of clipped logits.

    Args:
        labels: Class ids of shape `(N,)`, in [0, K) or -1 for a loss and a gradient
            of NaN; or the weights of the classes, of the shape of `logits` and the
            dtype to compute in.
        logits: Floating-point tensor of shape `(N, K)`.
        tau: Threshold of the norm.
        counted: `None`, or a boolean tensor of shape `(N,)`: the gradient is then
            divided by the mean factor s of these rows, taken as a constant.
    """
    plain = _needs_plain_form(labels) or _needs_plain_form(logits)
    function = _plain_losses if plain else _ClippedCrossEntropy.apply
    losses, (multiplier, *_) = function(labels, logits, tau)
    if counted is None:
        return losses
    multiplier = torch.where(counted, multiplier.detach().squeeze(-1), math.nan)
    mean = multiplier.nanmean().nan_to_num(nan=1.0)
    return losses + (1 / mean - 1) * (losses - losses.detach())


def _needs_plain_form(x) -> bool:
    """Whether a function of the tensor is compiled, or differentiated forward."""
    return (
        torch.compiler.is_compiling()
        or torch._C._are_functorch_transforms_active()
        or forward_ad.unpack_dual(x).tangent is not None
    )


def _needs_plain_vjp(upstream) -> bool:
    """Whether a backward pass is differentiated in turn, or vectorized."""
    return (
        torch.is_grad_enabled()
        or torch._C._are_functorch_transforms_active()
        or torch._C._functorch.is_legacy_batchedtensor(upstream)
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
        if _needs_plain_vjp(upstream):
            clip = lambda z: _plain_clip(z, ctx.tau)[0]  # noqa: E731
            return *torch.func.vjp(clip, logits)[1](upstream), None
        rows, pull = logits.to(multiplier.dtype), upstream.to(multiplier.dtype)
        buffer = rows * pull
        along = _along(buffer.sum(-1, keepdim=True), multiplier)
        torch.addcmul(pull, rows, along, value=-1 / ctx.tau**2, out=buffer)
        return buffer.mul_(multiplier).to(logits.dtype), None


class _ClippedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, labels, logits, tau):
        ctx.tau = tau
        ctx.save_for_backward(labels, logits)
        dtype = _compute_dtype(logits)
        if logits.dtype == dtype:
            losses, ctx.kept = _exponentiate(labels, logits, tau)
            return losses, ctx.kept
        ctx.kept = None
        chunks = _chunks(labels, logits)
        parts = [_exponentiate(y, z.to(dtype), tau) for y, z in chunks]
        losses, kept = zip(*parts, strict=True)
        return torch.cat(losses), (torch.cat([x[0] for x in kept]),)

    @staticmethod
    def backward(ctx, upstream, _):
        labels, logits = ctx.saved_tensors
        if ctx.needs_input_grad[0] or _needs_plain_vjp(upstream):
            return *_plain_vjp(labels, logits, ctx.tau, upstream), None
        if ctx.kept is None:
            return None, _gradient_by_chunks(labels, logits, upstream, ctx.tau), None
        # Overwritten: another backward pass computes it again.
        kept, ctx.kept = ctx.kept, None
        return None, _gradient(labels, logits, upstream, ctx.tau, *kept), None


def _exponentiate(labels, rows, tau):
    """Returns the losses and, for the gradient, what `_gradient` takes."""
    multiplier, buffer = _measure(rows, tau)
    ids = None
    if labels.ndim == 1:
        ids = labels.unsqueeze(-1).long()  # Twice as fast for `gather` as int32.
        # What is no class; all that follows from the factor becomes NaN.
        multiplier.masked_fill_(ids < 0, math.nan)
        ids = ids.clamp(min=0)
    factor = multiplier * LOG2_E
    exponentials = torch.mul(rows, factor, out=buffer).exp2_()
    total = exponentials.sum(-1, keepdim=True)
    if ids is not None:
        losses = total.div(exponentials.gather(-1, ids)).log_()
    else:
        # Both terms are sums of positive ones: nothing cancels.
        largest = rows.amax(-1, keepdim=True)
        distance = _sum_rows(lambda y, z, top: y * (top - z), labels, rows, largest)
        losses = (total / torch.exp2(largest * factor)).log_()
        losses = losses * labels.sum(-1, keepdim=True) + multiplier * distance
    return losses.squeeze(-1), (multiplier, ids, total, exponentials)


def _gradient(labels, rows, upstream, tau, multiplier, ids, total, exponentials):
    """Returns the gradient of the rows, in the memory of the exponentials."""
    gradient = exponentials
    if ids is not None:
        gradient.scatter_add_(-1, ids, -total)
    else:
        gradient.mul_(labels.sum(-1, keepdim=True))
        gradient.addcmul_(labels, total, value=-1)
    along = _along(_sum_rows(torch.mul, gradient, rows), multiplier)
    gradient.addcmul_(rows, along, value=-1 / tau**2)
    return gradient.mul_((upstream.unsqueeze(-1) * multiplier).div_(total))


def _gradient_by_chunks(labels, logits, upstream, tau):
    gradient = torch.empty_like(logits)
    for y, z, pull, out in _chunks(labels, logits, upstream, gradient):
        z = z.to(_compute_dtype(z))
        _, kept = _exponentiate(y, z, tau)
        out.copy_(_gradient(y, z, pull, tau, *kept))
    return gradient


def _measure(rows, tau):
    """Returns s of each row, and a tensor of the size of the rows to write to.

    The squares of the rows are summed in units that leave a sum for norms of 1e-10 tau
    to 1e34 tau, in float32. s is NaN for longer rows.
    """
    scale = 2.0 ** -(math.frexp(tau)[1] + MAX_EXPONENT[rows.dtype])
    scaled = rows * scale
    norm = torch.linalg.vector_norm(scaled, dim=-1, keepdim=True)
    multiplier = torch.full_like(norm, tau * scale).div_(norm).clamp_(max=1.0)
    return torch.nn.functional.threshold_(multiplier, 0.0, math.nan), scaled


def _along(dot, multiplier):
    """Returns tau^2 times the factor of a row in the projection of a vector to it.

    Zero where the row is not clipped. `dot` is their product.
    """
    along = dot * multiplier
    return along.mul_(torch.where(multiplier < 1, multiplier, 0.0))


def _plain_clip(logits, tau):
    """Returns the clipped logits and s of each row."""
    rows = logits.to(_compute_dtype(logits))
    unit = 2.0 ** -MAX_EXPONENT[rows.dtype]
    square = rows.square().sum(-1, keepdim=True)
    small = (rows * unit).square().sum(-1, keepdim=True)
    huge = ~(square < unit**-2 / 16)
    norm = torch.where(huge, small, square)
    unclipped = ~huge & (square <= tau**2)
    norm = torch.where(unclipped, 1.0, norm).sqrt()
    norm = torch.where(norm.isfinite(), norm, norm - norm)
    unit = torch.where(huge, unit, torch.ones_like(norm))
    clipped = torch.where(unclipped, rows, rows * unit * (tau / norm))
    return clipped.to(logits.dtype), torch.where(unclipped, 1.0, unit * tau / norm)


def _plain_losses(labels, logits, tau):
    clipped, multiplier = _plain_clip(logits.to(_compute_dtype(logits)), tau)
    if labels.ndim == 2:
        losses = -(labels * torch.log_softmax(clipped, -1)).sum(-1)
        return losses, (multiplier,)
    classes = torch.arange(clipped.shape[-1], device=clipped.device)
    chosen = classes == labels.unsqueeze(-1)
    target = torch.where(chosen, clipped, 0.0).sum(-1)
    losses = (clipped.exp().sum(-1) / target.exp()).log()
    return nan_without_class(labels, losses), (multiplier,)


def _plain_vjp(labels, logits, tau, upstream):
    """Returns the gradients of labels and logits; `None` for those of class ids."""
    if labels.ndim == 1:
        of_logits = lambda z: _plain_losses(labels, z, tau)[0]  # noqa: E731
        return None, *torch.func.vjp(of_logits, logits)[1](upstream)
    of_both = lambda y, z: _plain_losses(y, z, tau)[0]  # noqa: E731
    return torch.func.vjp(of_both, labels, logits)[1](upstream)


def _sum_rows(terms, *rows):
    """Sums the terms of each row, none of which are kept in memory."""
    sums = [terms(*chunk).sum(-1, keepdim=True) for chunk in _chunks(*rows)]
    return torch.cat(sums) if len(sums) > 1 else sums[0]


def _chunks(*tensors):
    rows = tensors[1]
    size = max(MIN_CHUNK, int(rows.numel() * MIN_SHARE))
    step = max(1, size // max(1, rows.shape[-1]))
    if step >= len(rows):
        return [tensors]
    return zip(*(x.split(step) for x in tensors), strict=True)


def _compute_dtype(logits):
    return torch.float64 if logits.dtype == torch.float64 else torch.float32
