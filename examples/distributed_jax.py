"""Trains on several devices with JAX, with some of the classes on each.

    python examples/distributed_jax.py

On a mesh of 4 x 2 devices, the batch is split into four parts, and the last layer and
its logits into two parts of the classes. XLA sums the norm of the logits over devices.
No device ever holds all logits of a row, which is important for a vocabulary of many
thousand classes. `keras.distribution.DataParallel()` would split only the batch.

Here one CPU is split into eight devices. With accelerators, remove the line with
XLA_FLAGS and adapt the shape of the mesh to their number. With several machines, start
this program on each, first call
`keras.distribution.initialize(addresses, processes, id)`, give `ModelParallel`
`auto_shard_dataset=False`, and let each process load its own part of the data.
"""

import argparse
import os

os.environ["KERAS_BACKEND"] = "jax"
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import noisy_digits

from keras_logitclip import LogitClipLoss
from keras_logitclip import callbacks
from keras_logitclip import metrics
from keras_logitclip import noise

MESH = {"batch": 4, "classes": 2}
BATCH_SIZE = 64


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--tau", type=float, default=1.0, help="clipping threshold")
    parser.add_argument("--noise-rate", type=float, default=0.4)
    return parser.parse_args()


def make_distribution():
    mesh = keras.distribution.DeviceMesh(tuple(MESH.values()), tuple(MESH))
    layouts = keras.distribution.LayoutMap(mesh)
    layouts[".*logits/kernel"] = (None, "classes")
    layouts[".*logits/bias"] = ("classes",)
    layouts[".*logits/output"] = ("batch", "classes")
    return keras.distribution.ModelParallel(layout_map=layouts)


def build_model(tau):
    model = keras.Sequential(
        [
            keras.Input((64,)),
            keras.layers.Dense(512, activation="relu"),
            keras.layers.Dense(noisy_digits.NUM_CLASSES, name="logits"),
        ]
    )
    model.compile(
        keras.optimizers.SGD(0.1, momentum=0.9),
        LogitClipLoss("sparse_categorical_crossentropy", tau=tau),
        metrics=[metrics.MeanLogitNorm(), metrics.ClippedFraction(tau=tau)],
    )
    return model


def main():
    arguments = parse_arguments()
    keras.utils.set_random_seed(0)
    # Before the model is built, so that its weights are created on their devices.
    keras.distribution.set_distribution(make_distribution())
    digits = noisy_digits.load()
    # Only whole batches, which can be split evenly.
    rows = len(digits.x_train) // BATCH_SIZE * BATCH_SIZE
    x_train, y_train = digits.x_train[:rows], digits.y_train[:rows]
    noisy = noise.symmetric(
        y_train, arguments.noise_rate, noisy_digits.NUM_CLASSES, seed=0
    )
    model = build_model(arguments.tau)
    batches = noisy_digits.Batches(x_train, noisy.labels, 0, BATCH_SIZE)
    monitor = callbacks.MemorizationMonitor(x_train, noisy)
    devices = len(keras.distribution.list_devices())
    print(f"Training {arguments.epochs} epochs on {devices} devices ...")
    history = model.fit(
        batches, epochs=arguments.epochs, verbose=0, callbacks=[monitor]
    ).history
    predicted = model.predict(
        digits.x_test, batch_size=len(digits.x_test), verbose=0
    ).argmax(axis=-1)
    weights = model.get_layer("logits").kernel.value
    print(f"weights of the last layer: {weights.shape}, {weights.sharding.spec}")
    print(f"wrong labels memorized: {history['memorized'][-1]:.1%}")
    print(f"test accuracy: {(predicted == digits.y_test).mean():.1%}")


if __name__ == "__main__":
    main()
