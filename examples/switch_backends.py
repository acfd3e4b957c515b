"""Trains under one backend, then loads the model under the others.

    python examples/switch_backends.py

A model with a `LogitClip` layer, compiled with a `LogitClipLoss`, is saved to a
`.keras` file. Each of the other installed backends loads it, predicts, and continues
the training with the saved loss. The script exits with an error if predictions differ
between backends.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

BACKENDS = ("tensorflow", "jax", "torch")
NOISE_RATE = 0.4
SEED = 0
TAU = 1.0
TOLERANCE = 1e-5


def main():
    arguments = parse_arguments()
    if arguments.worker:
        # Keras has one backend per process, so each backend has its own process.
        run_worker(arguments.worker, arguments.epochs)
    else:
        compare_backends(arguments.backends, arguments.epochs)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--backends",
        nargs="+",
        choices=BACKENDS,
        default=[name for name in BACKENDS if find_spec(name)],
        help="the first one trains, the others load (default: all installed)",
    )
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    missing = [name for name in arguments.backends if not find_spec(name)]
    if missing:
        parser.error(f"not installed: {', '.join(missing)}")
    if len(set(arguments.backends)) < 2 and not arguments.worker:
        parser.error(
            "expected at least two installed backends of "
            f"{', '.join(BACKENDS)}; found: {', '.join(arguments.backends) or 'none'}"
        )
    return arguments


def compare_backends(backends, epochs):
    with tempfile.TemporaryDirectory() as folder:
        predictions = [predict_with(name, Path(folder), epochs) for name in backends]
    reference, *others = predictions
    difference = max(np.abs(other - reference).max() for other in others)
    print(f"Largest difference of the predictions between backends: {difference:.1e}")
    if not difference <= TOLERANCE:
        sys.exit(f"Expected at most {TOLERANCE:g}.")


def predict_with(backend, folder, epochs):
    command = [sys.executable, __file__, "--worker", folder, "--epochs", str(epochs)]
    subprocess.run(command, env={**os.environ, "KERAS_BACKEND": backend}, check=True)
    return np.load(folder / f"{backend}.npy")


def run_worker(folder, epochs):
    import keras
    import noisy_digits

    digits = noisy_digits.load()
    rng = np.random.default_rng(SEED)
    labels = noisy_digits.flip_symmetric(digits.y_train, NOISE_RATE, rng)
    batches = noisy_digits.Batches(digits.x_train, labels, seed=SEED)
    path = folder / "model.keras"
    if path.exists():
        model = load(path)
        predictions = model.predict(digits.x_test, verbose=0)
        done = f"loaded, trained on with {type(model.loss).__name__}"
        history = model.fit(batches, epochs=1, verbose=0)
    else:
        model = build()
        history = model.fit(batches, epochs=epochs, verbose=0)
        model.save(path)
        predictions = model.predict(digits.x_test, verbose=0)
        done = f"trained for {epochs} epochs, saved"
    backend = keras.config.backend()
    np.save(folder / f"{backend}.npy", predictions)
    accuracy = np.mean(predictions.argmax(axis=-1) == digits.y_test)
    print(
        f"{backend}: {done}, loss {history.history['loss'][-1]:.4f}, "
        f"test accuracy {accuracy:.1%}"
    )


def build():
    import keras
    import noisy_digits

    from keras_logitclip import LogitClip
    from keras_logitclip import LogitClipLoss

    keras.utils.set_random_seed(SEED)
    model = noisy_digits.build_model(LogitClip(tau=TAU))
    loss = LogitClipLoss("sparse_categorical_crossentropy", tau=TAU)
    model.compile(make_optimizer(), loss)
    return model


def load(path):
    import keras

    # Registers the layer and the loss, so that `custom_objects` are not needed.
    import keras_logitclip  # noqa: F401

    model = keras.saving.load_model(path)
    # With the saved loss but a new optimizer, because under torch Keras 3.15 saves an
    # optimizer class that cannot train under other backends.
    model.compile(make_optimizer(), model.loss)
    return model


def make_optimizer():
    import keras

    return keras.optimizers.SGD(0.1, momentum=0.9)


if __name__ == "__main__":
    main()
