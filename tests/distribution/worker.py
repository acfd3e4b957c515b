"""The process that `test_backends_agree` starts under each backend.

python -m tests.distribution.worker FOLDER BACKEND ...

Each process computes losses and gradients, and trains and saves a model. Then it waits
for the models of the backends that are named, and predicts with all of them.
"""

import sys
from pathlib import Path

import keras
import numpy as np

from keras_logitclip import LogitClip
from keras_logitclip import LogitClipLoss
from tests.running import value_and_vjp
from tests.subprocesses import wait_for

BACKEND = keras.config.backend()
INF = float("inf")

rng = np.random.default_rng(0)
LOGITS = 3 * rng.normal(size=(64, 20)).astype("float32")
LABELS = rng.integers(0, 20, 64)
INPUTS = rng.normal(size=(320, 16)).astype("float32")
TARGETS = rng.integers(0, 20, 320)
KERNELS = [
    rng.normal(size=shape).astype("float32") / 4 for shape in ((16, 32), (32, 20))
]

LOSSES = {
    "sparse": LogitClipLoss("sparse_categorical_crossentropy", 1.0),
    "sparse-p1": LogitClipLoss("sparse_categorical_crossentropy", 1.0, p=1),
    "sparse-pinf": LogitClipLoss("sparse_categorical_crossentropy", 1.0, p=INF),
    "sparse-p3": LogitClipLoss("sparse_categorical_crossentropy", 1.0, p=3),
    "one-hot": LogitClipLoss("categorical_crossentropy", 2.0),
    "focal": LogitClipLoss("categorical_focal_crossentropy", 2.0),
    "binary": LogitClipLoss("binary_crossentropy", 2.0),
    "mae": LogitClipLoss("mae", 2.0, activation="softmax"),
}


def build_model():
    dense = [
        keras.layers.Dense(32, "relu", use_bias=False),
        keras.layers.Dense(20, use_bias=False),
    ]
    model = keras.Sequential([keras.Input((16,)), *dense, LogitClip(5.0)])
    model.set_weights(KERNELS)
    loss = LogitClipLoss("sparse_categorical_crossentropy", 1.0)
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), loss)
    return model


def compute(folder: Path) -> None:
    results = {}
    for name, loss in LOSSES.items():
        labels = LABELS if name.startswith("sparse") else np.eye(20)[LABELS]
        value, gradient = value_and_vjp(
            lambda z, loss=loss, labels=labels: loss(labels, z),
            LOGITS,
            np.ones(()),
            "eager",
        )
        results[f"loss {name}"], results[f"gradient {name}"] = value, gradient
    model = build_model()
    steps = [
        model.train_on_batch(INPUTS[i : i + 32], TARGETS[i : i + 32])
        for i in range(0, 320, 32)
    ]
    results["ten losses"] = np.array(steps)
    for i, weight in enumerate(model.get_weights()):
        results[f"weights {i} after ten steps"] = weight
    np.savez(folder / f"{BACKEND}.npz", **results)
    model.save(folder / f"{BACKEND}-unfinished.keras")
    # Under this name, it is there as a whole.
    (folder / f"{BACKEND}-unfinished.keras").rename(folder / f"{BACKEND}.keras")


def predict(folder: Path, backends: list[str]) -> None:
    for backend in backends:
        path = folder / f"{backend}.keras"
        wait_for(path.exists, f"the model of {backend}")
        model = keras.saving.load_model(path, safe_mode=True)
        assert isinstance(model.loss, LogitClipLoss)
        np.save(
            folder / f"{path.stem} predicted by {BACKEND}.npy",
            model.predict(INPUTS, verbose=0),
        )
        if path.stem == "torch" != BACKEND:
            # The optimizer in the file is a class of Keras's torch backend.
            model.compile(keras.optimizers.SGD(0.1), model.loss)
        model.fit(INPUTS, TARGETS, verbose=0)


if __name__ == "__main__":
    folder, *backends = sys.argv[1:]
    compute(Path(folder))
    predict(Path(folder), backends)
