"""Passes over the logits, in the form that is cheapest on each backend."""

import functools
import itertools
import math
import operator

import keras
from keras import ops

# The shortest row that is worth slicing.
MIN_SLICED = 64
_SLICES = 8

# The longest row whose sums of products JAX's compiler adds up well on a CPU; and
# how many numbers are added one after the other in longer rows.
MAX_SINGLE_SUM = 32_768
_BLOCK = 1024

# Lengths of rows, and of blocks of them, that TensorFlow multiplies as vectors.
MIN_BLOCKED = 512
MIN_BLOCK, MAX_BLOCK = 32, 160

# Bytes of logits that TensorFlow computes part by part, and those of a part. Many
# parts make a large graph.
MIN_SPLIT = 2**24
_PART = 2**21
_MAX_PARTS = 32


def slices_of_row(classes: int) -> list[slice]:
    """Returns slices of equal length, and the rest of the row as the last one.

    Compilers add up the slices in the pass that computes their elements. The
    sums that are left are shorter, and so more precise: compilers add one
    number after the other.
    """
    width = classes // _SLICES
    starts = range(0, _SLICES * width, width)
    equal = [slice(start, start + width) for start in starts]
    return [*equal, slice(_SLICES * width, None)]


def fused_by_compiler() -> bool:
    """Whether products of logits are free where they feed other operations."""
    return keras.config.backend() == "jax" or _compiled_by_tensorflow_xla()


def double_precision_is_free() -> bool:
    """Whether sums of squares in float64 cost no more than others.

    TensorFlow's XLA computes both branches of a conditional, so that to look for
    overflow and to sum again would take a pass more.
    """
    return _compiled_by_tensorflow_xla()


def parts_of_rows(logits) -> list[slice]:
    """Returns the parts of a batch to compute one by one, and to `join` afterwards.

    Without a compiler, each operation of TensorFlow writes to new memory. A CPU waits
    longer for large pieces of it, which the system has to hand out every time, than
    it computes; small ones are used again, and stay in the cache.
    """
    size = _size_to_split(logits)
    if size < MIN_SPLIT:
        return [slice(None)]
    rows = logits.shape[0]
    count = min(math.ceil(size / _PART), _MAX_PARTS, rows)
    ends = [rows * i // count for i in range(count + 1)]
    return [slice(*pair) for pair in itertools.pairwise(ends)]


def take(x, rows: slice):
    return x if rows == slice(None) else x[rows]


def join(parts):
    return parts[0] if len(parts) == 1 else ops.concatenate(parts)


def cond(predicate, on_true, on_false):
    """Returns `keras.ops.cond`, without compiling it anew at each call.

    JAX compiles every conditional whose branches are new functions, which takes a
    tenth of a second; outside of a compiled function the predicate is known.
    """
    if _is_known_to_jax(predicate):
        return on_true() if predicate else on_false()
    return ops.cond(predicate, on_true, on_false)


def row_sum(x):
    """Returns the sum of each row, with size 1 for the last axis."""
    return _sum_of_each_row(lambda part: x[..., part], x.shape[-1])


def row_dot(a, b):
    """Returns the dot product of each row of `a` with that of `b`, likewise."""
    block = _block_of_products(a.shape[-1])
    if block:
        return _dot_of_each_block(a, b, block)
    return _sum_of_each_row(lambda part: a[..., part] * b[..., part], a.shape[-1])


def row_sum_and_dot(a, b):
    """Returns `row_sum(a)` and `row_dot(a, b)`."""
    if _reduces_pairs(a.shape[-1]):
        return _sums_in_one_pass(a, a * b)
    return row_sum(a), row_dot(a, b)


def rescale(logits, unit, *factors):
    """Returns the product of the logits, a scalar tensor, and factors of the rows.

    The unit is nearly always 1: then the logits are multiplied once, by all
    factors. Otherwise one after the other, for their product may be too small.
    """
    if fused_by_compiler():
        return functools.reduce(operator.mul, factors, logits * unit)

    def product_in_one_pass():
        return logits * math.prod(factors) if factors else logits

    def product_in_order():
        # TensorFlow rearranges products, to multiply the small tensors first.
        divisors = [1 / factor for factor in (unit, *factors)]
        return functools.reduce(operator.truediv, divisors, logits)

    return cond(unit == 1, product_in_one_pass, product_in_order)


def _sum_of_each_row(terms, classes):
    """Sums `terms(slice)` over all classes.

    For CPUs, TensorFlow's XLA writes the terms to memory before it sums them;
    slices of them that are added up first it does not write.
    """
    if not (_compiled_by_tensorflow_xla() and classes and classes >= MIN_SLICED):
        return ops.sum(terms(slice(None)), -1, keepdims=True)
    *equal, rest = slices_of_row(classes)
    total = ops.sum(sum(map(terms, equal)), -1, keepdims=True)
    return total + ops.sum(terms(rest), -1, keepdims=True)


def _block_of_products(classes) -> int | None:
    """Returns the length of the blocks of rows to multiply as vectors, if any.

    Without a compiler, TensorFlow writes products to new memory before it sums them,
    which costs a CPU more than to compute them; its matrix product does not, but adds
    one number after the other. On GPUs it may round to fewer digits.
    """
    if not classes or classes < MIN_BLOCKED or not _on_cpu_without_compiler():
        return None
    return next((n for n in range(MAX_BLOCK, MIN_BLOCK, -1) if classes % n == 0), None)


def _dot_of_each_block(a, b, block):
    shape = (-1, a.shape[-1] // block)
    products = ops.matmul(
        ops.reshape(a, (*shape, 1, block)), ops.reshape(b, (*shape, block, 1))
    )
    dots = ops.sum(ops.reshape(products, shape), -1)
    return ops.reshape(dots, (*ops.shape(a)[:-1], 1))


def _reduces_pairs(classes) -> bool:
    """Whether to reduce long rows in pairs of tensors, which JAX compiles itself.

    Sums of one tensor go to a library, which writes products of long rows to
    buffers that are not counted as temporary memory: of 256 rows of 128,000 it took
    ten times as long.
    """
    if keras.config.backend() != "jax" or classes <= MAX_SINGLE_SUM:
        return False
    import jax

    return jax.default_backend() == "cpu"


def _sums_in_one_pass(a, b):
    """Returns the sum of each row of `a` and that of `b`, with size 1."""
    import jax

    def reduce(a, b):
        zero = jax.numpy.zeros((), a.dtype)
        return jax.lax.reduce((a, b), (zero, zero), _add_pairs, (a.ndim - 1,))

    blocks = a.shape[-1] // _BLOCK
    end = blocks * _BLOCK
    equal = [x[..., :end].reshape(*x.shape[:-1], blocks, _BLOCK) for x in (a, b)]
    rests = reduce(a[..., end:], b[..., end:])
    return [
        (ops.sum(sums, -1) + rest)[..., None]
        for sums, rest in zip(reduce(*equal), rests, strict=True)
    ]


def _add_pairs(left, right):
    # A function of the module, for JAX would compile a new one at each call.
    return left[0] + right[0], left[1] + right[1]


def _is_known_to_jax(x) -> bool:
    if keras.config.backend() != "jax":
        return False
    import jax

    return not isinstance(x, jax.core.Tracer)


def _size_to_split(logits) -> int:
    """The bytes of logits that a graph of TensorFlow can compute in parts, or 0."""
    if not _on_cpu_without_compiler() or not logits.shape.is_fully_defined():
        return 0
    import tensorflow as tf

    # Eagerly, to start the operations of all parts would take what is won.
    if tf.executing_eagerly():
        return 0
    return logits.shape.num_elements() * logits.dtype.size


def _on_cpu_without_compiler() -> bool:
    if keras.config.backend() != "tensorflow" or _compiled_by_tensorflow_xla():
        return False
    import tensorflow as tf

    return not tf.config.list_physical_devices("GPU")


def _compiled_by_tensorflow_xla() -> bool:
    """Whether TensorFlow is tracing a function for its XLA compiler.

    A function that was traced before it got inside a compiled one is not
    recognized: it runs correctly, and slower.
    """
    if keras.config.backend() != "tensorflow":
        return False
    import tensorflow as tf
    from tensorflow.python.ops import control_flow_util

    graph = tf.compat.v1.get_default_graph()
    return control_flow_util.GraphOrParentsInXlaContext(graph)
