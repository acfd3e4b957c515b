"""Passes over the logits, in the form that is cheapest on each backend."""

import functools
import math
import operator

import keras
from keras import ops

from keras_logitclip._kernels import compilers

# The shortest row that is worth slicing, and into how many slices.
MIN_SLICED = 64
_SLICES = 8

# The longest row that JAX's compiler adds up well on a CPU, and into how many pieces
# longer ones are cut at most.
MAX_SINGLE_SUM = 32_768
MAX_PIECES = 256

# Lengths of rows, and of blocks of them, that TensorFlow multiplies as vectors.
MIN_BLOCKED = 512
MIN_BLOCK, MAX_BLOCK = 32, 160

# Bytes of logits from which on TensorFlow's compiler should compute terms twice.
MIN_RECOMPUTED = 2**24


def slices_of_row(classes: int, count: int = _SLICES) -> list[slice]:
    """Returns slices of equal length, and the rest of the row as the last one.

    Compilers add up the slices in the pass that computes their elements. The
    sums that are left are shorter, and so more precise: compilers add one
    number after the other.
    """
    width = classes // count
    starts = range(0, count * width, width)
    equal = [slice(start, start + width) for start in starts]
    return [*equal, slice(count * width, None)]


def row_sum(x):
    """Returns the sum of each row, with size 1 for the last axis."""
    return _sum_of_each_row(lambda x: x, [x])


def row_dot(a, b):
    """Returns the dot product of each row of `a` with that of `b`, likewise."""
    block = _block_of_products(a.shape[-1])
    if block:
        return _dot_of_each_block(a, b, block)
    return _sum_of_each_row(operator.mul, [a, b])


def row_dot_in_memory(a, b):
    """Returns the same, of tensors that nothing has to compute at that place."""
    pieces = _pieces_of_long_rows(a.shape[-1])
    if not pieces:
        return row_dot(a, b)
    shape = (*ops.shape(a)[:-1], 1)
    # Without the barrier, the compiler would cut the product and not its factors.
    a, b = _barrier([_cut_rows(x, pieces) for x in (a, b)])
    return ops.reshape(_sum_of_cut_rows(a * b, pieces), shape)


def fused_row_sums(all_terms, logits, *factors):
    """Returns the sum over each row of every `terms(logits, *factors)`, likewise.

    For compilers, which write to memory what several sums share. Of large tensors that
    costs more than to compute it again, so they are kept from seeing it.

    Args:
        all_terms: At most two elementwise functions of parts of the logits.
        logits: Tensor of shape `(N, K)`.
        *factors: Tensors of shape `(N, 1)`.
    """
    if compilers.compiled_by_tensorflow_xla():
        return _sums_of_slices(all_terms, logits, factors)
    pieces = _pieces_of_long_rows(logits.shape[-1])
    if pieces:
        return _sums_of_pieces(all_terms, logits, factors, pieces)
    return [ops.sum(terms(logits, *factors), -1, keepdims=True) for terms in all_terms]


def rescale(logits, unit, *factors):
    """Returns the product of the logits, a scalar tensor, and factors of the rows.

    The unit is nearly always 1: then the logits are multiplied once, by all
    factors. Otherwise one after the other, for their product may be too small.
    """
    if compilers.fused_by_compiler():
        return functools.reduce(operator.mul, factors, logits * unit)

    def product_in_one_pass():
        return logits * math.prod(factors) if factors else logits

    def product_in_order():
        # TensorFlow rearranges products, to multiply the small tensors first.
        divisors = [1 / factor for factor in (unit, *factors)]
        return functools.reduce(operator.truediv, divisors, logits)

    return compilers.cond(unit == 1, product_in_one_pass, product_in_order)


def select_rows(chosen, rows, others):
    """Returns the chosen ones of `rows`, and all else of `others`."""

    def selected():
        return ops.where(chosen, rows, others)

    if compilers.fused_by_compiler():
        return selected()
    return compilers.cond(ops.any(chosen), selected, lambda: others)


def _sum_of_each_row(terms, rows, slices=_SLICES):
    """Sums `terms(*rows)` over all classes.

    For CPUs, TensorFlow's XLA writes the terms to memory before it sums them;
    slices of them that are added up first it does not write.
    """
    classes = rows[0].shape[-1] or 0
    if classes < MIN_SLICED or not compilers.compiled_by_tensorflow_xla():
        return ops.sum(terms(*rows), -1, keepdims=True)

    def terms_of(part):
        return terms(*[x[..., part] for x in rows])

    *equal, rest = slices_of_row(classes, slices)
    total = ops.sum(sum(map(terms_of, equal)), -1, keepdims=True)
    return total + ops.sum(terms_of(rest), -1, keepdims=True)


def _block_of_products(classes) -> int | None:
    """Returns the length of the blocks of rows to multiply as vectors, if any.

    Without a compiler, TensorFlow writes products to new memory before it sums them,
    which costs a CPU more than to compute them; its matrix product does not, but adds
    one number after the other. On GPUs it may round to fewer digits.
    """
    if not classes or classes < MIN_BLOCKED or not compilers.on_cpu_without_compiler():
        return None
    return next((n for n in range(MAX_BLOCK, MIN_BLOCK, -1) if classes % n == 0), None)


def _dot_of_each_block(a, b, block):
    shape = (-1, a.shape[-1] // block)
    products = ops.matmul(
        ops.reshape(a, (*shape, 1, block)), ops.reshape(b, (*shape, block, 1))
    )
    dots = ops.sum(ops.reshape(products, shape), -1)
    return ops.reshape(dots, (*ops.shape(a)[:-1], 1))


def _pieces_of_long_rows(classes) -> int | None:
    """Returns into how many equal pieces JAX should cut long rows to sum them, if any.

    For CPUs its compiler gives sums to a library, which takes ten times as long for
    what it has to compute of very long rows. Pieces of unequal length would be copied.
    """
    if keras.config.backend() != "jax" or not classes or classes <= MAX_SINGLE_SUM:
        return None
    import jax

    # Before, barriers could not be differentiated.
    if jax.default_backend() != "cpu" or jax.__version_info__ < (0, 6):
        return None
    fewest = -(-classes // MAX_SINGLE_SUM)
    return next((n for n in range(fewest, MAX_PIECES + 1) if classes % n == 0), None)


def _sums_of_slices(all_terms, logits, factors):
    if compilers.bytes_of(logits) < MIN_RECOMPUTED:
        return [row_sum(terms(logits, *factors)) for terms in all_terms]

    def sum_of_slices(terms, count):
        return _sum_of_each_row(lambda part: terms(part, *factors), [logits], count)

    # Slices of different lengths have nothing in common.
    counts = (_SLICES, _SLICES // 2)
    return [sum_of_slices(*pair) for pair in zip(all_terms, counts, strict=True)]


def _sums_of_pieces(all_terms, logits, factors, pieces):
    logits, sums = _cut_rows(logits, pieces), []
    for terms in all_terms:
        # The compiler does not see that both have terms in common.
        factors, sums = _barrier((factors, sums))
        of_pieces = [ops.repeat(factor, pieces, 0) for factor in factors]
        sums.append(_sum_of_cut_rows(terms(logits, *of_pieces), pieces))
    return sums


def _cut_rows(x, pieces):
    return ops.reshape(x, (-1, x.shape[-1] // pieces))


def _sum_of_cut_rows(x, pieces):
    sums = ops.reshape(ops.sum(x, -1), (-1, pieces))
    return ops.sum(sums, -1, keepdims=True)


def _barrier(tensors):
    """Returns the same tensors, of which JAX's compiler does not see the origin."""
    import jax

    return jax.lax.optimization_barrier(tensors)
