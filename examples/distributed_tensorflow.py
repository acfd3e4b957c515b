"""Trains on several devices with TensorFlow, which share each batch.

    python examples/distributed_tensorflow.py

Here the two devices are made of one CPU. With several GPUs, remove
`split_the_cpu()`, and `MirroredStrategy()` takes all of them.

On many machines, start the program on each with its own TF_CONFIG, and make a
`tf.distribute.MultiWorkerMirroredStrategy()` before anything else. There, `fit` of
Keras 3.15 fails; write the loop yourself around `strategy.run`. The loss divides by
the number of replicas and the optimizer adds up their gradients, so that a step is
one of the whole batch.
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
    # Of the whole batch, of which each device gets its part.
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
