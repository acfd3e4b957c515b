"""Computes the draws of a configuration with the library."""

import keras
import numpy as np

from keras_logitclip import LogitClip
from keras_logitclip import ops
from keras_logitclip._labels import set_masks
from tests.conftest import BACKEND
from tests.running import differentiated
from tests.running import double_precision
from tests.running import to_numpy


def values_and_gradients(configuration, given):
    """Values and gradients of all draws, as float64 arrays with rows along the last
    axis."""
    c = configuration
    names = ["logits", "upstream"]
    names += [name for name in ("labels", "weights", "mask") if c.takes(name)]
    with double_precision(c.dtype):
        tensors = {name: _tensors(c, name, given[name]) for name in names}
        signature = None
        if c.unknown != "none":
            signature = [_spec(c, name, tensors[name][0]) for name in names]
        function = differentiated(function_of(c, names[2:]), c.mode, signature)
        parts = [function(*each) for each in zip(*tensors.values(), strict=True)]
        values, gradients = (_stacked(each) for each in zip(*parts, strict=True))
    if c.kind in ("clip", "layer"):
        values = np.moveaxis(values, _stacked_axis(c), -1)
    return values, np.moveaxis(gradients, _stacked_axis(c), -1)


def function_of(c, names):
    """Returns a function of logits and other arrays, in the order of these names."""
    if c.kind == "norm":
        return lambda z: ops.logit_norm(z, c.p, c.axis)
    if c.kind == "clip":
        return lambda z: ops.logit_clip(z, c.tau, c.p, c.axis)
    if c.kind == "cross-entropy":
        return lambda z, y: ops.clipped_softmax_cross_entropy(y, z, c.tau, c.p, c.axis)
    if c.kind == "layer":
        layer = LogitClip(
            c.tau,
            c.p,
            c.axis,
            normalize_gradient=c.normalize_gradient,
            dtype=c.dtype,
        )
        return lambda z, mask=None: layer(z, mask=mask)
    arguments = {"ignore_class": c.ignore_class} if c.ignore_class is not None else {}
    if c.normalize_gradient:
        arguments["normalize_gradient"] = True
    loss = c.subject.loss(
        c.classes, axis=c.axis, reduction=c.reduction, dtype=c.loss_dtype, **arguments
    )

    def compute(z, *others):
        others = dict(zip(names, others, strict=True))
        if "mask" in others:
            z = z + 0  # A tensor of its own to mark.
            set_masks(z, others["mask"])
        return loss(others["labels"], z, sample_weight=others.get("weights"))

    return compute


def _tensors(c, name, stacked):
    """The tensors of all draws; for JAX, arrays of NumPy in their dtype."""
    if _has_classes(c, name):
        stacked = np.moveaxis(stacked, -1, _stacked_axis(c))
    if name == "labels" and c.labels == "column":
        stacked = np.expand_dims(stacked, _stacked_axis(c))
    tensor = keras.ops.convert_to_tensor(stacked, _dtype(c, name))
    return list(np.asarray(tensor)) if BACKEND == "jax" else keras.ops.unstack(tensor)


def _stacked(tensors):
    if BACKEND == "jax":
        return np.stack(tensors).astype("float64")
    return to_numpy(keras.ops.stack(tensors)).astype("float64")


def _stacked_axis(c):
    """The class axis where draws are stacked before the others."""
    return c.axis if c.axis < 0 else c.axis + 1


def _has_classes(c, name):
    return {
        "logits": True,
        "labels": not c.has_ids,
        "upstream": c.kind in ("clip", "layer"),
    }.get(name, False)


def _dtype(c, name):
    if name == "logits":
        return c.dtype
    if name == "mask":
        return "bool"
    if name == "labels" and c.labels in ("ids", "column"):
        return "int32"
    return "float64" if c.dtype == "float64" else "float32"


def _spec(c, name, tensor):
    import tensorflow as tf

    shape = [None] * len(tensor.shape)
    if c.unknown == "batch":
        shape[1:] = tensor.shape[1:]
    return tf.TensorSpec(shape, tensor.dtype)
