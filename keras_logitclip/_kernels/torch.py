"""Clipping with the norm of order 2 and softmax cross-entropy, on PyTorch.

The names are those of `_kernels`. Eager functions compute in place, and keep one tensor
of the size of the logits, which becomes the gradient. Chunks and compiled functions
keep none. The transformations of `torch.func`, forward mode and derivatives of higher
order use the plain form.
"""

import math
import warnings
from functools import cache
from functools import partial

import torch
from torch.autograd import forward_ad

from keras_logitclip._kernels import plain
from keras_logitclip._numerics import scale_of_squares

# PyTorch's exp2 takes two fifths of the time of its exp, on CPUs.
LOG2_E = 1 / math.log(2)
# Elements of a chunk, on CPUs. Four times as many take at most 3% less time.
CHUNK = 2**17
# From this many logits on, half precision is computed in chunks on CPUs. Then 512x32000
# take 0.4 to 0.8 of the time, and no memory; 1024x100 would take 1.15 of the time.
MIN_CHUNKED = 2**20
# From this many logits on, functions are compiled on GPUs. Loss and gradient of
# 8192x32000 logits then take 0.6 of the time of PyTorch's own cross-entropy, not 2.2.
# Compilation takes 2 to 7 s, which smaller logits would not make up for.
MIN_COMPILED = 2**24


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
        clipped, multiplier = _fused(_clip, logits)(logits, tau)
        ctx.tau = tau
        ctx.save_for_backward(logits, multiplier)
        return clipped

    @staticmethod
    def backward(ctx, upstream):
        logits, multiplier = ctx.saved_tensors
        if torch.is_grad_enabled() or _is_transformed(upstream):
            clip = partial(plain.logit_clip, tau=ctx.tau, p=2, axis=-1)
            return *torch.func.vjp(clip, logits)[1](upstream), None
        pull_back = _fused(_pull_back, logits)
        return pull_back(logits, multiplier, upstream, ctx.tau), None


def _clip(logits, tau):
    rows, multiplier, buffer = _measure(logits, tau)
    return torch.mul(rows, multiplier, out=buffer).to(logits.dtype), multiplier


def _pull_back(logits, multiplier, upstream, tau):
    rows, upstream = logits.to(multiplier.dtype), upstream.to(multiplier.dtype)
    buffer = rows * upstream
    along = _along(buffer.sum(-1, keepdim=True), multiplier)
    torch.addcmul(upstream, rows, along, value=-1 / tau**2, out=buffer)
    return buffer.mul_(multiplier).to(logits.dtype)


class _ClippedCrossEntropy(torch.autograd.Function):
    """The tensor of exponentials becomes the gradient, in the first backward pass."""

    @staticmethod
    def forward(ctx, labels, logits, tau, counted):
        ctx.tau, ctx.counted, ctx.terms = tau, counted, None
        is_whole = logits.element_size() > 2 or not _is_eager_on_cpu(logits)
        ctx.in_chunks = not is_whole and logits.numel() >= MIN_CHUNKED
        if ctx.in_chunks:
            parts = (_forward(*chunk, tau)[:-1] for chunk in _chunks(labels, logits))
            losses, *columns = map(torch.cat, zip(*parts, strict=True))
        else:
            forward = _fused(_forward, logits)
            losses, *columns, ctx.terms = forward(labels, logits, tau)
        if counted is not None:
            multiplier = columns[0].squeeze(-1)
            if counted is not True:
                multiplier = torch.where(counted, multiplier, math.nan)
            # 1 if no row is left whose norm is finite.
            columns[-1] = columns[-1] / multiplier.nanmean().nan_to_num(nan=1.0)
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
        of_labels, (terms, ctx.terms) = None, (ctx.terms, None)
        if ctx.needs_input_grad[0]:
            multiplier, total, *_, scale = columns
            pull = upstream.unsqueeze(-1) * (scale * total / multiplier)
            of_labels = (total.log() - logits * multiplier) * pull
        if ctx.in_chunks:
            gradient = torch.empty_like(logits)
            tensors = labels, logits, gradient, upstream, *columns
            for y, z, out, pull, *rest in _chunks(*tensors):
                out.copy_(_gradient(y, z, pull, rest))
        else:
            gradient_of = _fused(_gradient, logits)
            gradient = gradient_of(labels, logits, upstream, columns, terms)
        return of_labels, gradient, None, None


def _fused(function, logits):
    """Returns the function, compiled for large logits on a GPU."""
    if torch.compiler.is_compiling():  # Asked first: sizes would become conditions.
        return function
    if not logits.is_cuda or logits.numel() < MIN_COMPILED:
        return function
    torch._dynamo.mark_static(logits, logits.ndim - 1)  # Unknown classes are slow.
    return _compiled(function)


@cache
def _compiled(function):
    """Returns the function compiled, or as it is once that has failed."""
    forms = [function, torch.compile(function)]

    def call(*arguments):
        try:
            # Not with tau as a symbol: that gave another tau's results from the cache.
            with torch._dynamo.config.patch(specialize_float=True):
                return forms[-1](*arguments)
        except torch._dynamo.exc.TorchDynamoException as error:
            del forms[1:]
            message = f"PyTorch cannot compile clipping, so it is slow: {error}"
            warnings.warn(message, stacklevel=2)
            return function(*arguments)

    return call


def _forward(labels, logits, tau):
    """Returns the losses, five columns for `_gradient`, and the exponentials."""
    rows, multiplier, buffer = _measure(logits, tau)
    if are_ids := labels.ndim == 1:
        key = labels.clamp(0, rows.shape[-1] - 1).unsqueeze(-1)
        # Invalid ids: everything computed from the multiplier becomes NaN.
        multiplier.masked_fill_(labels.unsqueeze(-1) != key, math.nan)
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
    along = _along(dot, multiplier) / tau**2
    if torch.compiler.is_compiling():
        # Else, the backward pass would compute `dot`, with more exponentials.
        losses, terms = torch.where(dot.isnan(), dot, losses), None
    return losses.squeeze(-1), multiplier, total, key, along, multiplier / total, terms


def _gradient(labels, logits, upstream, columns, terms=None):
    """Returns the gradient, in the memory of the exponentials if given."""
    multiplier, total, key, along, scale = columns
    rows, pull = logits.to(total.dtype), upstream.unsqueeze(-1)
    factor, compiling = pull * scale, torch.compiler.is_compiling()
    if terms is None or compiling:
        exponent = multiplier * LOG2_E
        terms = (rows * exponent).exp2_()
    if compiling:
        # Else, terms without `pull` would be summed in the forward pass.
        terms, total, along, factor = terms * pull, total * pull, along * pull, scale
    if labels.ndim == 2:
        terms.mul_(key).addcmul_(labels, total, value=-1)
    elif not compiling:
        terms.scatter_add_(-1, key, -total)
    gradient = terms.addcmul_(rows, along, value=-1).mul_(factor).to(logits.dtype)
    if labels.ndim == 1 and compiling:
        # Set at the end, to save a pass. `scatter_` may copy bfloat16 on a GPU.
        row = rows.gather(-1, key)
        of_label = ((row * exponent).exp2_() * pull - total - row * along) * factor
        index = torch.arange(len(key), device=key.device), key.squeeze(-1)
        gradient.index_put_(index, of_label.squeeze(-1).to(logits.dtype))
    return gradient


def _measure(logits, tau):
    """Returns rows, s of each (NaN if squares overflow), and a tensor to overwrite."""
    rows = logits.to(torch.promote_types(logits.dtype, torch.float32))
    scale = scale_of_squares(tau, rows.dtype == torch.float64)
    scaled = rows * scale
    norm = torch.linalg.vector_norm(scaled, dim=-1, keepdim=True)
    multiplier = torch.full_like(norm, tau * scale).div_(norm).clamp_(max=1.0)
    return rows, torch.nn.functional.threshold_(multiplier, 0.0, math.nan), scaled


def _along(dot, multiplier):
    """Returns tau^2 times the factor of a row in its projection, 0 if not clipped."""
    # Multiplied one after the other, because the square of s may vanish.
    return (dot * multiplier * multiplier).masked_fill_(multiplier >= 1, 0.0)


def _sum_rows(terms, *rows):
    """Sums the terms of each row without keeping them in memory."""
    return torch.cat([terms(*chunk).sum(-1, keepdim=True) for chunk in _chunks(*rows)])


def _is_eager_on_cpu(logits):
    return logits.device.type == "cpu" and not torch.compiler.is_compiling()


def _chunks(*tensors):
    """Returns the rows of all tensors in chunks; the second tensor has the logits."""
    rows = tensors[1]
    if _is_eager_on_cpu(rows):
        step = max(1, CHUNK // max(1, rows.shape[-1]))
        if step < len(rows):
            return zip(*(x.split(step) for x in tensors), strict=True)
    return [tensors]
