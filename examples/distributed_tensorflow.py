"""Trains on several devices with TensorFlow, with a part of each batch on each.

    python examples/distributed_tensorflow.py

Here one CPU is split into two devices. With several GPUs, remove `split_the_cpu()`:
`MirroredStrategy()` uses all of them.

With several machines, start the program on each with its own TF_CONFIG, and first
create a `tf.distribute.MultiWorkerMirroredStrategy()`. `fit` of Keras 3.15 fails there,
so write your own loop around `strategy.run`. The loss divides by the number of
replicas, and the optimizer sums their gradients. So a step is the same as a step of the
whole batch on one device.
"""

import argparse
import os

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import noisy_digits
import tensorflow as tf

from keras_logitclip import LogitClipLoss
from keras_logitclip import metrics
from keras_logitclip import noise


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--tau", type=float, default=1.0, help="clipping threshold")
    parser.add_argument("--noise-rate", type=float, default=0.4)
    return parser.parse_args()


def split_the_cpu():
    cpu = tf.config.list_physical_devices("CPU")[0]
    devices = [tf.config.LogicalDeviceConfiguration() for _ in range(2)]
    tf.config.set_logical_device_configuration(cpu, devices)
    return [device.name for device in tf.config.list_logical_devices("CPU")]


def build_model(tau):
    model = noisy_digits.build_model()
    model.compile(
        keras.optimizers.SGD(0.1, momentum=0.9),
        LogitClipLoss("sparse_categorical_crossentropy", tau=tau),
        metrics=[metrics.MeanLogitNorm(), metrics.ClippedFraction(tau=tau)],
    )
    return model


def main():
    arguments = parse_arguments()
    strategy = tf.distribute.MirroredStrategy(split_the_cpu())
    keras.utils.set_random_seed(0)
    digits = noisy_digits.load()
    noisy = noise.symmetric(
        digits.y_train, arguments.noise_rate, noisy_digits.NUM_CLASSES, seed=0
    )
    with strategy.scope():
        model = build_model(arguments.tau)
    # The size of the whole batch, of which each device gets a part.
    data = tf.data.Dataset.from_tensor_slices((digits.x_train, noisy.labels))
    batches = data.shuffle(len(noisy.labels)).batch(64, drop_remainder=True)
    replicas = strategy.num_replicas_in_sync
    print(f"Training {arguments.epochs} epochs on {replicas} devices ...")
    history = model.fit(batches, epochs=arguments.epochs, verbose=0).history
    predicted = model.predict(digits.x_test, verbose=0).argmax(axis=-1)
    print(f"clipped logits: {history['clipped_fraction'][-1]:.1%}")
    print(f"test accuracy: {(predicted == digits.y_test).mean():.1%}")


if __name__ == "__main__":
    main()
