"""Passes over logits in the form that the compiler of each backend computes well."""

import math

import keras
from keras import ops

# Bytes of logits from which on TensorFlow's compiler is worth its start. Loss and
# gradient of 2048x1000 take 0.45 of the time of Keras's cross-entropy in a graph, those
# of 1024x100 (400 kB), which are not compiled, 0.8.
_MIN_COMPILED = 2**22
# The longest row that JAX's compiler adds up well on a CPU, and into how many pieces
# longer ones are cut at most. The two sums of exponentials take 1.1 ns per logit at
# 256x32000 and 6.7 ns at 256x128000, and 2.1 ns there in pieces.
_MAX_SINGLE_SUM = 32_768
_MAX_PIECES = 256
# Into how many pieces rows are cut for TensorFlow's compiler, at most. At 512x32000
# that takes 0.75 of the time of Keras's cross-entropy and a quarter of the memory of
# the logits, and 1.05 and all of it without.
_MAX_SLICES = 8


def compile_large(function, logits):
    """Returns the function of tensors compiled, where that is worth it.

    In TensorFlow's graphs each operation writes to new memory, for which a CPU waits
    longer than it computes. XLA needs one memory for the result alone; but it compiles
    anew for every shape, so that the shape has to be known.
    """
    if keras.config.backend() != "tensorflow" or not logits.shape.is_fully_defined():
        return function
    if math.prod(logits.shape) * logits.dtype.size < _MIN_COMPILED:
        return function
    import tensorflow as tf
    from tensorflow.python.eager import context

    # The callbacks are those of debuggers, which add what XLA cannot compile.
    can_be_compiled = tf.test.is_built_with_xla() and not (
        tf.executing_eagerly()
        or tf.config.list_physical_devices("GPU")
        or context.context().op_callbacks
    )
    if not can_be_compiled:
        return function
    return tf.function(function, jit_compile=True, autograph=False)


def row_sum(terms, matrices, columns=()):
    """Returns the sum of `terms(*matrices, *columns)` over each row, with size 1.

    Args:
        terms: Elementwise function.
        matrices: Tensors of shape `(..., K)`.
        columns: Tensors of shape `(..., 1)`.
    """
    classes = matrices[0].shape[-1]
    if _is_long_for_jax(classes):
        return _sum_of_pieces(terms, matrices, columns)
    values = terms(*matrices, *columns)
    if classes and _is_traced_for_xla():
        # XLA writes to memory what it sums, but not what it adds up before.
        values = sum(ops.split(values, _divisor(classes, _MAX_SLICES), -1))
    return ops.sum(values, -1, keepdims=True)


def _is_long_for_jax(classes) -> bool:
    if keras.config.backend() != "jax" or classes <= _MAX_SINGLE_SUM:
        return False
    import jax

    # Before, barriers could not be differentiated.
    return jax.default_backend() == "cpu" and jax.__version_info__ >= (0, 6)


def _sum_of_pieces(terms, matrices, columns):
    """Sums long rows as shorter ones.

    For CPUs, JAX's compiler takes up to ten times as long for the terms of long rows.
    Barriers keep it from joining the pieces again, and from writing to memory what
    two sums have in common: the columns may hold a sum that has to be finished before.
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
    """Whether TensorFlow is tracing a function for its XLA compiler."""
    if keras.config.backend() != "tensorflow":
        return False
    import tensorflow as tf
    from tensorflow.python.ops import control_flow_util

    graph = tf.compat.v1.get_default_graph()
    return control_flow_util.GraphOrParentsInXlaContext(graph)
