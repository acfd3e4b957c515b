"""Compares the cross-entropy of clipped logits with that of raw logits.

    KERAS_BACKEND=torch python -m benchmarks.clipped_cross_entropy

The candidates are losses that return a mean:

- `keras`: Keras's cross-entropy of the raw logits, the reference
- `native`: the same loss from the library of the backend
- `loss`: `LogitClipLoss` around it
- `normalized`: the same with `normalize_gradient=True`
- `clip`: `ops.logit_clip`, then Keras's cross-entropy
- `formula`: the formula of clipping in `keras.ops`, then Keras's cross-entropy
"""

from benchmarks import harness

TAU = 1.0
SHAPES = (
    (128, 10),
    (256, 100),
    (1024, 100),
    (2048, 1000),
    (64, 32000),
    (512, 32000),
    (256, 128000),
)
CANDIDATES = ("keras", "native", "loss", "normalized", "clip", "formula")


def make_candidate(name):
    # Not imported at the top, because `--report` works without a backend.
    import keras
    from keras import ops

    from keras_logitclip import LogitClipLoss
    from keras_logitclip.ops import logit_clip

    cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def clip(labels, logits):
        return cross_entropy(labels, logit_clip(logits, TAU))

    def formula(labels, logits):
        norm = ops.norm(logits, axis=-1, keepdims=True)
        return cross_entropy(labels, logits * ops.minimum(1, TAU / norm))

    return {
        "keras": cross_entropy,
        "native": NATIVE[keras.config.backend()],
        "loss": LogitClipLoss("sparse_categorical_crossentropy", TAU),
        "normalized": LogitClipLoss(
            "sparse_categorical_crossentropy", TAU, normalize_gradient=True
        ),
        "clip": clip,
        "formula": formula,
    }[name]


def torch_cross_entropy(labels, logits):
    import torch

    return torch.nn.functional.cross_entropy(logits, labels.long())


def tensorflow_cross_entropy(labels, logits):
    import tensorflow as tf

    return tf.reduce_mean(
        tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
    )


def jax_cross_entropy(labels, logits):
    import jax

    logit_of_label = jax.numpy.take_along_axis(logits, labels[:, None], -1)[:, 0]
    return jax.numpy.mean(jax.nn.logsumexp(logits, -1) - logit_of_label)


NATIVE = {
    "torch": torch_cross_entropy,
    "tensorflow": tensorflow_cross_entropy,
    "jax": jax_cross_entropy,
}


if __name__ == "__main__":
    harness.main(
        harness.Benchmark(
            "clipped_cross_entropy",
            __doc__.splitlines()[0],
            CANDIDATES,
            make_candidate,
            SHAPES,
        )
    )
