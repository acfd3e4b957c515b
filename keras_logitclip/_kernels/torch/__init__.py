"""Clipping and its cross-entropy on PyTorch, for the norm of order 2.

In eager mode short rows take one form and all others another, and there is one for
`torch.compile`. Formulas and names are those of `_kernels.cross_entropy`, but for
exponents of two.
"""

from functools import partial

import torch

from keras_logitclip._kernels import clip
from keras_logitclip._kernels.cross_entropy import clip_then_cross_entropy
from keras_logitclip._kernels.multiplier import range_of
from keras_logitclip._kernels.torch.chunks import clip_by_chunks
from keras_logitclip._kernels.torch.chunks import clip_vjp
from keras_logitclip._kernels.torch.chunks import gradient_by_chunks
from keras_logitclip._kernels.torch.chunks import residuals_by_chunks
from keras_logitclip._kernels.torch.compiled import compiled_clip_vjp
from keras_logitclip._kernels.torch.compiled import compiled_gradient
from keras_logitclip._kernels.torch.compiled import compiled_multiplier
from keras_logitclip._kernels.torch.compiled import compiled_residuals
from keras_logitclip._kernels.torch.residuals import Residuals
from keras_logitclip._kernels.torch.residuals import label_gradient
from keras_logitclip._kernels.torch.residuals import losses_of
from keras_logitclip._kernels.torch.rows import compute_dtype
from keras_logitclip._kernels.torch.rows import in_compute_dtype
from keras_logitclip._kernels.torch.short_rows import are_short_rows
from keras_logitclip._kernels.torch.short_rows import finish_gradient
from keras_logitclip._kernels.torch.short_rows import losses_of_short_rows
from keras_logitclip._labels import are_class_ids


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
            rows, multiplier = compiled_multiplier(logits, tau)
            ctx.save_for_backward(logits, multiplier)
            unclipped = multiplier * range_of(rows).shrink == 1
            return torch.where(unclipped, logits, (rows * multiplier).to(logits.dtype))
        clipped, multiplier = clip_by_chunks(logits, tau)
        if clipped is None:
            ctx.save_for_backward(logits)
            return clip.logit_clip(logits, tau, p=2, axis=-1)
        ctx.save_for_backward(logits, multiplier)
        return clipped

    @staticmethod
    def backward(ctx, upstream):
        logits, *multiplier = ctx.saved_tensors
        if torch.compiler.is_compiling():
            return compiled_clip_vjp(logits, multiplier[0], ctx.tau, upstream), None
        if torch.is_grad_enabled() or not multiplier:
            generic = partial(clip.logit_clip, tau=ctx.tau, p=2, axis=-1)
            return _generic_vjp(ctx, generic, [logits], upstream)[0], None
        return clip_vjp(logits, multiplier[0], ctx.tau, upstream), None


class _ClippedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, labels, logits, tau):
        ctx.tau, ctx.started = tau, None
        if torch.compiler.is_compiling():
            residuals = compiled_residuals(labels, logits, tau)
        elif are_short_rows(logits, tau) and not ctx.needs_input_grad[0]:
            losses, ctx.started = losses_of_short_rows(
                labels, logits, tau, starts_gradient=ctx.needs_input_grad[1]
            )
            ctx.save_for_backward(labels, logits)
            return _unfused_losses(labels, logits, tau) if losses is None else losses
        else:
            residuals = residuals_by_chunks(labels, logits, tau)
        ctx.save_for_backward(labels, logits, *(residuals or ()))
        if residuals is None:
            return _unfused_losses(labels, logits, tau)
        return losses_of(residuals, tau)

    @staticmethod
    def backward(ctx, upstream):
        labels, logits, *residuals = ctx.saved_tensors
        residuals = Residuals(*residuals) if residuals else None
        unit = 1.0
        if torch.compiler.is_compiling():
            gradient = compiled_gradient(labels, logits, residuals, upstream)
            unit = range_of(in_compute_dtype(logits)).shrink
        elif ctx.started is not None and not torch.is_grad_enabled():
            # It is overwritten. Another backward pass finds none, and differentiates
            # the unfused losses.
            started, ctx.started = ctx.started, None
            return None, finish_gradient(started, logits, upstream), None
        elif torch.is_grad_enabled() or residuals is None:
            unfused = partial(_unfused_losses, tau=ctx.tau)
            return *_generic_vjp(ctx, unfused, [labels, logits], upstream), None
        else:
            gradient = gradient_by_chunks(labels, logits, residuals, upstream)
        if not ctx.needs_input_grad[0]:
            return None, gradient, None
        return label_gradient(logits, residuals, upstream, unit), gradient, None


def _unfused_losses(labels, logits, tau):
    """Returns the losses of rows of any size, differentiable more than once.

    In float64: in float32, PyTorch's cross-entropy of 128,000 classes is wrong
    by more than a millionth.
    """
    if not are_class_ids(labels):
        labels = labels.double()
    losses = clip_then_cross_entropy(labels, logits.double(), tau, p=2)
    return losses.to(compute_dtype(logits))


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
