"""Which compiler computes a function, and giving it a part of one."""

import math

import keras
from keras import ops

# Bytes of logits from which on TensorFlow's compiler is worth its start; and the rows
# of a batch of unknown size.
MIN_COMPILED = 2**22
_TYPICAL_ROWS = 1024


def fused_by_compiler() -> bool:
    """Whether products of logits are free where they feed other operations."""
    return keras.config.backend() == "jax" or compiled_by_tensorflow_xla()


def double_precision_is_free() -> bool:
    """Whether sums of squares in float64 cost no more than others.

    TensorFlow's XLA computes both branches of a conditional, so that to look for
    overflow and to sum again would take a pass more.
    """
    return compiled_by_tensorflow_xla()


def with_compiler(function, logits):
    """Returns the function of tensors compiled, where that is worth it.

    In TensorFlow's graphs each operation writes to new memory, for which a CPU waits
    longer than it computes. XLA needs one memory for the result alone; but it compiles
    anew for every shape, so that the shape has to be known.
    """
    if _bytes_to_compile(logits) < MIN_COMPILED:
        return function
    import tensorflow as tf

    return tf.function(function, jit_compile=True, autograph=False)


def cond(predicate, on_true, on_false):
    """Returns `keras.ops.cond`, without compiling it anew at each call.

    JAX compiles every conditional whose branches are new functions, which takes a
    tenth of a second; outside of a compiled function the predicate is known.
    """
    if _is_known_to_jax(predicate):
        return on_true() if predicate else on_false()
    return ops.cond(predicate, on_true, on_false)


def bytes_of(logits) -> int:
    sizes = [_TYPICAL_ROWS if size is None else size for size in logits.shape]
    return math.prod(sizes) * logits.dtype.size


def on_cpu_without_compiler() -> bool:
    if keras.config.backend() != "tensorflow" or compiled_by_tensorflow_xla():
        return False
    import tensorflow as tf

    return not tf.config.list_physical_devices("GPU")


def compiled_by_tensorflow_xla() -> bool:
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


def _bytes_to_compile(logits) -> int:
    """The bytes of logits that a graph of TensorFlow can give to XLA, or 0."""
    if not on_cpu_without_compiler() or not logits.shape.is_fully_defined():
        return 0
    import tensorflow as tf

    if tf.executing_eagerly() or not tf.test.is_built_with_xla():
        return 0
    return bytes_of(logits)


def _is_known_to_jax(x) -> bool:
    if keras.config.backend() != "jax":
        return False
    import jax

    return not isinstance(x, jax.core.Tracer)
