"""What all forms need of the rows of logits: a few numbers each."""

from itertools import repeat

import torch

from keras_logitclip._kernels.multiplier import range_of
from keras_logitclip._kernels.reductions import slices_of_row

# Rows up to which sums in float32 are right to 1e-6 and better.
MAX_FLOAT32_SUM = 4096


def chunks_of(step, *tensors):
    """Yields `step` rows of each tensor at a time, `None` for `None`.

    One chunk, without rows, if there are no rows.
    """
    parts = (repeat(None) if x is None else x.split(step) for x in tensors)
    return zip(*parts, strict=False)  # `repeat` has no end.


def as_matrix(x):
    return x.reshape(-1, x.shape[-1])


def in_compute_dtype(logits):
    return logits.to(compute_dtype(logits))


def compute_dtype(logits):
    return torch.float64 if logits.dtype == torch.float64 else torch.float32


def row_sum(x):
    if not torch.compiler.is_compiling() or x.shape[-1] <= MAX_FLOAT32_SUM:
        return x.sum(-1, keepdim=True)  # Precise for longer rows in eager mode.
    *equal, rest = slices_of_row(x.shape[-1])
    total = sum(x[..., part] for part in equal).sum(-1, keepdim=True)
    return total + x[..., rest].sum(-1, keepdim=True)


def new_columns(logits, number):
    """Returns as many tensors of one number per row, as one tensor."""
    dtype = compute_dtype(logits)
    return logits.new_empty((number, len(logits), 1), dtype=dtype)


def new_norm(logits):
    dtype = _norm_dtype(logits.shape[-1]) or compute_dtype(logits)
    return logits.new_empty((len(logits), 1), dtype=dtype)


def _norm_dtype(classes):
    return torch.float64 if classes > MAX_FLOAT32_SUM else None


def measure(rows, tau, norm, multiplier):
    """Writes the norm and s of each row; NaN for NaN, and s is 0 for infinity."""
    torch.linalg.vector_norm(rows, dim=-1, keepdim=True, dtype=norm.dtype, out=norm)
    torch.div(norm.new_tensor(tau), norm, out=multiplier).clamp_(max=1.0)


def is_in_range(norm, multiplier) -> bool:
    # False for NaN. On a GPU, this waits for the norm.
    return not len(norm) or norm.amax().item() < range_of(multiplier).max_norm
