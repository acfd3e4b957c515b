"""Operations on rows in forms that JAX and TensorFlow compute fast."""

import math

import keras
from keras import ops

# From this many logits on, XLA pays off in TensorFlow's graphs. Loss and gradient of
# 2048x1000 logits take 0.45 of the time of Keras's cross-entropy. Those of 1024x100,
# which are not compiled, take 0.8.
_MIN_COMPILED = 2**20
# The longest row that JAX's compiler sums fast on a CPU, and the largest number of
# pieces of longer rows. The two sums of exponentials take 1.1 ns per logit for
# 256x32000 logits and 6.7 ns for 256x128000, or 2.1 ns in pieces.
_MAX_SINGLE_SUM = 32_768
_MAX_PIECES = 256
# The largest number of slices of a row for TensorFlow's compiler. 512x32000 logits take
# 0.75 of the time of Keras's cross-entropy and 0.25 of their memory, not 1.05 and 1.
_MAX_SLICES = 8


def compile_large(function, logits):
    """Returns a function of tensors, compiled by XLA where that pays off.

    In TensorFlow's graphs, each operation writes to new memory, and a CPU waits for
    memory longer than it computes. XLA writes only the result. It compiles anew for
    every shape, so the shape has to be known.
    """
    known = keras.config.backend() == "tensorflow" and logits.shape.is_fully_defined()
    if not known or math.prod(logits.shape) < _MIN_COMPILED:
        return function
    import tensorflow as tf
    from tensorflow.python.eager import context

    # The callbacks of debuggers add operations that XLA cannot compile.
    can_be_compiled = tf.test.is_built_with_xla() and not (
        tf.executing_eagerly()
        or tf.config.list_physical_devices("GPU")
        or context.context().op_callbacks
    )
    if not can_be_compiled:
        return function
    return tf.function(function, jit_compile=True, autograph=False)


def entries(rows, ids):
    """Returns the entry of each row at its id, which has to be valid, as a column."""
    if keras.config.backend() != "tensorflow":
        return ops.take_along_axis(rows, ids, -1)
    import tensorflow as tf

    # Keras's operations for negative ids take 3% of the loss of 128x10 logits.
    return tf.gather(rows, ops.cast(ids, "int32"), batch_dims=1)


def row_sum(terms, matrices, columns=()):
    """Returns the sums of the rows of `terms(*matrices, *columns)`, as a column.

    `terms` is elementwise. The shapes are `(..., K)`, and `(..., 1)` of columns.
    """
    classes = matrices[0].shape[-1]
    if _is_long_for_jax(classes):
        return _sum_of_pieces(terms, matrices, columns)
    values = terms(*matrices, *columns)
    if classes and _is_traced_for_xla():
        # XLA writes the operand of a sum to memory, but not the operands of additions.
        values = sum(ops.split(values, _divisor(classes, _MAX_SLICES), -1))
    return ops.sum(values, -1, keepdims=True)


def _is_long_for_jax(classes) -> bool:
    if keras.config.backend() != "jax" or classes <= _MAX_SINGLE_SUM:
        return False
    import jax

    # Older versions cannot differentiate barriers.
    return jax.default_backend() == "cpu" and jax.__version_info__ >= (0, 6)


def _sum_of_pieces(terms, matrices, columns):
    """Sums long rows as shorter ones.

    On CPUs, JAX's compiler makes the terms of long rows up to ten times as slow.
    Barriers keep it from joining the pieces again. They also keep it from storing
    common terms of two sums, because a sum in the columns has to be finished first.
    """
    import jax

    count = _divisor(matrices[0].shape[-1], _MAX_PIECES)
    pieces = [ops.reshape(x, (*x.shape[:-1], count, -1)) for x in matrices]
    columns = [ops.expand_dims(x, -1) for x in columns]
    tensors = jax.lax.optimization_barrier((*pieces, *columns))
    sums = jax.lax.optimization_barrier(ops.sum(terms(*tensors), -1))
    return ops.sum(sums, -1, keepdims=True)


def _divisor(number, largest):
    return next(n for n in range(largest, 0, -1) if number % n == 0)


def _is_traced_for_xla() -> bool:
    """Returns whether TensorFlow is tracing a function for XLA."""
    if keras.config.backend() != "tensorflow":
        return False
    import tensorflow as tf
    from tensorflow.python.ops import control_flow_util

    graph = tf.compat.v1.get_default_graph()
    return control_flow_util.GraphOrParentsInXlaContext(graph)
