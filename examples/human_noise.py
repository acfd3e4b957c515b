"""Trains a small CNN on human labels, with and without LogitClip.

    python examples/human_noise.py --data-dir DATA --labels CIFAR-10_human.pt

CIFAR-10N has labels of the training images of CIFAR-10 by workers of a crowdsourcing
site. In its "worse" set, 40% are wrong. The file is published at
https://github.com/UCSC-REAL/cifar-10-100n under CC BY-NC 4.0: not for commercial use.
`DATA` is the folder that contains `cifar-10-batches-py`, the Python version of
CIFAR-10. Without `--data-dir`, Keras downloads the images.

It trains a small network on 5,000 of the images with one seed, which takes minutes on
two CPU cores. At this size, the learning rate matters as much as the loss: try
`--learning-rate`, and `--samples 50000` for all images.
"""

import argparse
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from noisy_digits import Batches

from keras_logitclip import LogitClipLoss
from keras_logitclip import datasets

LAST_EPOCHS = 5
NUM_CLASSES = 10


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--labels", type=Path, required=True, help="CIFAR-10_human.pt")
    parser.add_argument("--data-dir", type=Path, help="folder of cifar-10-batches-py")
    parser.add_argument("--kind", default="worse", help="name of the label set")
    parser.add_argument("--samples", type=int, default=5_000, help="training images")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--tau", type=float, default=1.0, help="clipping threshold")
    parser.add_argument("--learning-rate", type=float, default=0.05)
    parser.add_argument("--weight-decay", type=float, default=5e-3)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if min(arguments.samples, arguments.epochs) < 1:
        parser.error("--samples and --epochs must be at least 1")
    return arguments


def build_model(image_shape):
    """Builds a CNN of three blocks that returns logits."""
    layers = [keras.Input(image_shape), keras.layers.Rescaling(1 / 255)]
    for filters in (16, 32, 64):
        layers += [
            keras.layers.Conv2D(filters, 3, padding="same", use_bias=False),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
            keras.layers.MaxPooling2D(),
        ]
    return keras.Sequential(
        [*layers, keras.layers.Flatten(), keras.layers.Dense(NUM_CLASSES)]
    )


def make_optimizer(steps_per_epoch, arguments):
    learning_rate = keras.optimizers.schedules.PiecewiseConstantDecay(
        boundaries=[
            int(share * arguments.epochs) * steps_per_epoch for share in (0.5, 0.75)
        ],
        values=[arguments.learning_rate / factor for factor in (1, 10, 100)],
    )
    # This is 5e-4 in papers and PyTorch: see quickstart.py.
    return keras.optimizers.SGD(
        learning_rate, momentum=0.9, weight_decay=arguments.weight_decay or None
    )


def train(loss, x_train, labels, dataset, arguments):
    keras.utils.set_random_seed(arguments.seed)
    batches = Batches(x_train, labels, arguments.seed, batch_size=128)
    model = build_model(x_train.shape[1:])
    optimizer = make_optimizer(len(batches), arguments)
    model.compile(optimizer, loss, metrics=["accuracy"])
    history = model.fit(
        batches,
        validation_data=(dataset.x_test, dataset.y_test),
        epochs=arguments.epochs,
        verbose=2,
    ).history
    predicted = np.argmax(model.predict(x_train, verbose=0), axis=-1)
    return 100 * np.array(history["val_accuracy"]), predicted


def main():
    arguments = parse_arguments()
    dataset = datasets.load("cifar10", arguments.data_dir)
    human = datasets.load_human_labels(
        arguments.labels, arguments.kind, dataset.y_train
    )
    print(human)
    chosen = np.random.default_rng(arguments.seed).permutation(len(human.labels))
    chosen = chosen[: arguments.samples]
    x_train, labels, clean = (
        array[chosen] for array in (dataset.x_train, human.labels, human.clean)
    )
    wrong = labels != clean
    losses = {
        "cross-entropy": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        f"LogitClip, tau={arguments.tau:g}": LogitClipLoss(
            "sparse_categorical_crossentropy", tau=arguments.tau
        ),
    }
    for name, loss in losses.items():
        print(f"\n{name}:")
        accuracy, predicted = train(loss, x_train, labels, dataset, arguments)
        print(
            f"{name}: test accuracy {accuracy[-LAST_EPOCHS:].mean():.1f}% in the last "
            f"{min(LAST_EPOCHS, len(accuracy))} epochs, {accuracy.max():.1f}% in the "
            f"best one; {100 * np.mean(predicted[wrong] == labels[wrong]):.1f}% of the "
            "wrong labels memorized"
        )


if __name__ == "__main__":
    main()
