"""Runs functions of one tensor under a backend's modes (see `conftest.MODES`)."""

import contextlib
from collections import namedtuple

import keras
import numpy as np

BACKEND = keras.config.backend()
# Under NumPy, Keras makes float32 of float64, and OpenVINO computes in float32.
INFERENCE_ONLY = BACKEND in ("numpy", "openvino")
KERAS_VERSION = tuple(int(part) for part in keras.__version__.split(".")[:2])
# Older versions cannot put masks on NumPy arrays.
TAKES_MASKS = BACKEND != "numpy" or KERAS_VERSION >= (3, 15)
# In older versions, torch.compile cannot trace Keras's handling of arguments.
TORCH_COMPILES_FULL_GRAPHS = KERAS_VERSION >= (3, 15)


def apply(function, x, mode="eager", dtype="float32"):
    """Returns the value of `function(x)` as a NumPy array."""
    with double_precision(dtype):
        return to_numpy(_compile(function, mode)(to_tensor(x, dtype)))


def value_and_vjp(function, x, upstream, mode, dtype="float32"):
    """Returns `function(x)` and the gradient of `sum(upstream * function(x))`.

    `upstream` is cast to the dtype of the value, and broadcast to its shape.
    """
    with double_precision(dtype):
        both = differentiated(function, mode)(to_tensor(x, dtype), upstream)
        return tuple(map(to_numpy, both))


def differentiated(function, mode, signature=None):
    """Returns a function that computes the value and the gradient of `function`.

    The result is a function of `x`, `upstream` and the other arguments, and is compiled
    once. `signature` has their shapes and dtypes if TensorFlow must not know all sizes.
    """
    if BACKEND == "tensorflow":
        return _tensorflow_differentiated(function, mode, signature)
    if BACKEND == "jax":
        return _jax_differentiated(function, mode)
    return _torch_differentiated(function, mode)


Part = namedtuple("Part", "value gradient")


def apply_each(functions, x, mode="eager", dtype="float32"):
    """Returns the values of many functions by their names, compiled as one function.

    In eager mode, each is called separately, except on OpenVINO, which compiles
    everything.
    """
    if mode == "eager" and BACKEND != "openvino":
        return {
            name: apply(f, _of(x, name), mode, dtype) for name, f in functions.items()
        }
    values = apply(on_parts(functions), _repeat(functions, x), mode, dtype)
    return dict(zip(functions, np.split(values, len(functions)), strict=True))


def value_and_vjp_each(functions, x, mode, dtype="float32", upstream=None):
    """Returns the values of many functions and the gradients of their sums, by names.

    In compiled modes, they are one function, each on its own rows. `x` has the common
    rows, or the rows by name. `upstream` weights the sums. Backends without gradients
    return `None` for them.
    """
    count = len(functions)
    if INFERENCE_ONLY:
        values = apply_each(functions, x, mode, dtype)
        return {name: Part(value, None) for name, value in values.items()}
    if mode == "eager":
        seed = np.ones(()) if upstream is None else upstream
        return {
            name: Part(*value_and_vjp(f, _of(x, name), seed, mode, dtype))
            for name, f in functions.items()
        }
    rows = _repeat(functions, x)
    upstream = np.ones(()) if upstream is None else _repeat(functions, upstream)
    values, gradients = value_and_vjp(on_parts(functions), rows, upstream, mode, dtype)
    parts = map(Part, np.split(values, count), np.split(gradients, count))
    return dict(zip(functions, parts, strict=True))


def _of(x, name):
    """Returns the common rows, or the rows of a name."""
    return x[name] if isinstance(x, dict) else x


def _repeat(functions, x):
    return np.concatenate([_of(x, name) for name in functions])


def on_parts(functions):
    """Returns all functions as one function, each on its own rows."""

    def together(x):
        parts = keras.ops.split(x, len(functions))
        return keras.ops.concatenate(
            [
                function(part)
                for function, part in zip(functions.values(), parts, strict=True)
            ]
        )

    return together


def gradient_along(function, x, upstream, direction):
    """Returns the gradient of `sum(direction * vjp(function)(x, upstream))`."""
    return to_numpy(
        {
            "tensorflow": _tensorflow_gradient_along,
            "jax": _jax_gradient_along,
            "torch": _torch_gradient_along,
        }[BACKEND](function, to_tensor(x), to_tensor(upstream), to_tensor(direction))
    )


def with_labels(loss, labels):
    """Returns a loss, or its `call`, with these labels as a function of the logits."""
    labels = np.asarray(labels)
    dtype = "int32" if np.issubdtype(labels.dtype, np.integer) else "float32"
    given = to_tensor(labels, dtype)
    return lambda z: loss(given, z)


def to_tensor(x, dtype="float32"):
    return keras.ops.cast(keras.ops.convert_to_tensor(x), dtype)


def to_numpy(x):
    """Returns a tensor as a NumPy array, in float32 for bfloat16."""
    if keras.backend.standardize_dtype(x.dtype) == "bfloat16":
        x = keras.ops.cast(x, "float32")
    return keras.ops.convert_to_numpy(x)


def double_precision(dtype):
    """Enables float64 on JAX if the dtype is float64."""
    if BACKEND == "jax" and dtype == "float64":
        import jax

        if not hasattr(jax, "enable_x64"):  # The place it had up to JAX 0.7.
            return jax.experimental.enable_x64()
        return jax.enable_x64(True)
    return contextlib.nullcontext()


def _compile(function, mode, signature=None):
    if mode == "eager":
        return function
    if BACKEND == "tensorflow":
        import tensorflow as tf

        return tf.function(function, signature, jit_compile=mode == "xla")
    if BACKEND == "jax":
        import jax

        return jax.jit(function)
    import torch

    torch._dynamo.reset()
    return torch.compile(function, backend=mode, fullgraph=TORCH_COMPILES_FULL_GRAPHS)


def _tensorflow_differentiated(function, mode, signature):
    import tensorflow as tf

    def both(x, upstream, *others):
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = function(x, *others)
        seed = tf.broadcast_to(tf.cast(upstream, value.dtype), tf.shape(value))
        return value, tape.gradient(value, x, output_gradients=seed)

    return _compile(both, mode, signature)


def _jax_differentiated(function, mode):
    import jax

    def both(x, upstream, *others):
        value, vjp = jax.vjp(lambda x: function(x, *others), x)
        seed = jax.numpy.asarray(upstream, value.dtype)
        return value, vjp(jax.numpy.broadcast_to(seed, value.shape))[0]

    return _compile(both, mode)


def _torch_differentiated(function, mode):
    import torch

    compiled = _compile(function, mode)

    def both(x, upstream, *others):
        x = x.detach().requires_grad_()
        value = compiled(x, *others)
        seed = torch.as_tensor(upstream).to(value)
        value.backward(seed.expand(value.shape))
        return value.detach(), x.grad

    return both


def _tensorflow_gradient_along(function, x, upstream, direction):
    import tensorflow as tf

    with tf.GradientTape() as outer:
        outer.watch(x)
        with tf.GradientTape() as inner:
            inner.watch(x)
            value = function(x)
        gradient = inner.gradient(value, x, output_gradients=upstream)
    return outer.gradient(gradient, x, output_gradients=direction)


def _jax_gradient_along(function, x, upstream, direction):
    import jax

    def along(x):
        gradient = lambda x: jax.vjp(function, x)[1](upstream)[0]  # noqa: E731
        return jax.vjp(gradient, x)[1](direction)[0]

    return jax.jit(along)(x)  # Or each operation is compiled for itself.


def _torch_gradient_along(function, x, upstream, direction):
    import torch

    x = x.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(function(x), x, upstream, create_graph=True)
    return torch.autograd.grad(gradient, x, direction)[0]
