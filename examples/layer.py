"""Trains a model with a `LogitClip` layer.

    python examples/layer.py

The loss is ordinary cross-entropy. The model returns clipped logits, also after it is
saved and loaded, and predicts the same classes as without clipping.
"""

import argparse
import os
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import noisy_digits
import numpy as np

from keras_logitclip import LogitClip


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tau", type=float, default=1.0, help="clipping threshold")
    parser.add_argument("--noise-rate", type=float, default=0.4)
    return parser.parse_args()


def train(digits, arguments):
    keras.utils.set_random_seed(arguments.seed)
    rng = np.random.default_rng(arguments.seed)
    labels = noisy_digits.flip_symmetric(digits.y_train, arguments.noise_rate, rng)
    batches = noisy_digits.Batches(digits.x_train, labels, seed=arguments.seed)
    model = noisy_digits.build_model(LogitClip(tau=arguments.tau))
    model.compile(
        optimizer=keras.optimizers.SGD(0.1, momentum=0.9),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    model.fit(batches, epochs=arguments.epochs, verbose=0)
    return model


def save_and_load(model):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        model.save(path)
        # `custom_objects` are not needed, because the import of `keras_logitclip`
        # registers the layer.
        return keras.saving.load_model(path)


def compare(model, digits):
    """Prints how clipping changes the logits but not the predicted classes."""
    without_clipping = keras.Model(model.inputs, model.layers[-2].output)
    clipped = model.predict(digits.x_test, verbose=0)
    logits = without_clipping.predict(digits.x_test, verbose=0)
    loaded = save_and_load(model).predict(digits.x_test, verbose=0)
    classes = clipped.argmax(axis=-1)
    same = np.mean(classes == logits.argmax(axis=-1))

    print(f"Test accuracy: {np.mean(classes == digits.y_test):.1%}")
    print(f"Largest norm of the logits: {largest_norm(logits):.3f}")
    print(f"Largest norm after the LogitClip layer: {largest_norm(clipped):.3f}")
    print(f"Same predicted class with and without clipping: {same:.1%} of the samples")
    print(
        "Largest difference of the predictions after saving and loading: "
        f"{np.abs(loaded - clipped).max():g}"
    )


def largest_norm(logits):
    return np.linalg.norm(logits, axis=-1).max()


def main():
    arguments = parse_arguments()
    digits = noisy_digits.load()
    print(f"Training {arguments.epochs} epochs on {keras.config.backend()} ...")
    compare(train(digits, arguments), digits)


if __name__ == "__main__":
    main()
