"""Finds wrong labels with cleanlab, through a clipped model and through a plain one.

    python examples/find_label_errors.py

cleanlab (https://github.com/cleanlab/cleanlab) judges each label by what a model
predicts that was not trained on it. Here some labels of handwritten digits are made
wrong on purpose, and cross-validation gives the predictions of networks trained with
plain cross-entropy and with `LogitClipLoss`: through which are more of them found?
Both get the recipe of quickstart.py with half of the epochs, and a learning rate of
0.1, which suits the clipped model better: about a minute on two CPU cores.

For Fashion-MNIST, `DATA` is the folder of its four original files; without it, Keras
downloads them:

    python examples/find_label_errors.py --data fashion_mnist --data-dir DATA
"""

import argparse
import os
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from noisy_digits import NUM_CLASSES
from noisy_digits import Batches
from sklearn.model_selection import StratifiedKFold

from keras_logitclip import LogitClipLoss
from keras_logitclip import datasets
from keras_logitclip import noise
from keras_logitclip import ops
from keras_logitclip.study import models

try:
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores
except ModuleNotFoundError as error:
    raise ImportError(
        "This example needs cleanlab, which is not installed. "
        "Install it with: pip install cleanlab"
    ) from error

CROSS_ENTROPY = "sparse_categorical_crossentropy"
CONFUSIONS = {
    "digits": noise.MNIST_CONFUSIONS,
    "fashion_mnist": noise.FASHION_MNIST_CONFUSIONS,
}


class Found(NamedTuple):
    """How many labels are wrong, and how many of them are found.

    `in_worst` of them are among as many labels that cleanlab ranks worst. cleanlab's
    own choice has `reported` labels, of which `rightly` are wrong.
    """

    wrong: int
    in_worst: int
    reported: int
    rightly: int

    @property
    def percentages(self):
        precision = self.rightly / self.reported if self.reported else np.nan
        shares = (self.in_worst / self.wrong, precision, self.rightly / self.wrong)
        return 100 * np.array(shares)


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--data", choices=CONFUSIONS, default="digits")
    parser.add_argument("--data-dir", type=Path, help="folder of Fashion-MNIST")
    parser.add_argument("--samples", type=int, default=5_000, help="at most so many")
    parser.add_argument(
        "--noise", choices=("symmetric", "asymmetric"), default="symmetric"
    )
    parser.add_argument("--noise-rate", type=float, default=0.2)
    parser.add_argument("--model", choices=("mlp", "small_cnn"), default="mlp")
    parser.add_argument("--tau", type=float, default=0.5, help="clipping threshold")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds")
    arguments = parser.parse_args()
    if min(arguments.samples, arguments.epochs, arguments.seeds) < 1:
        parser.error("--samples, --epochs and --seeds must be at least 1")
    if arguments.folds < 2:
        parser.error("--folds must be at least 2")
    if not 0 < arguments.noise_rate < 1:
        parser.error("--noise-rate must be greater than 0 and less than 1")
    return arguments


def load(arguments):
    data = datasets.load(arguments.data, arguments.data_dir)
    chosen = np.random.default_rng(0).permutation(len(data.y_train))
    chosen = chosen[: arguments.samples]
    images = data.x_train[chosen].astype("float32") / data.x_train.max()
    return images[..., None], data.y_train[chosen]


def make_wrong(labels, arguments, seed):
    if arguments.noise == "symmetric":
        return noise.symmetric(labels, arguments.noise_rate, NUM_CLASSES, seed=seed)
    mapping = CONFUSIONS[arguments.data]
    return noise.asymmetric(labels, arguments.noise_rate, mapping, seed=seed)


def make_optimizer(steps_per_epoch, epochs):
    learning_rate = keras.optimizers.schedules.PiecewiseConstantDecay(
        boundaries=[int(share * epochs) * steps_per_epoch for share in (0.4, 0.7)],
        values=[0.1, 0.01, 0.001],
    )
    # Ten times what papers and PyTorch call 5e-4: see quickstart.py.
    return keras.optimizers.SGD(learning_rate, momentum=0.9, weight_decay=5e-3)


def predict_held_out(tau, images, labels, arguments, seed):
    """The logits of each sample by a model that was not trained on it."""
    logits = np.empty((len(labels), NUM_CLASSES), "float32")
    folds = StratifiedKFold(arguments.folds, shuffle=True, random_state=seed)
    for number, (train, held_out) in enumerate(folds.split(images, labels), start=1):
        print(f" {number}", end="", flush=True)
        keras.utils.set_random_seed(seed)
        batches = Batches(images[train], labels[train], seed)
        model = models.MODELS[arguments.model](images.shape[1:], NUM_CLASSES)
        optimizer = make_optimizer(len(batches), arguments.epochs)
        model.compile(optimizer, LogitClipLoss(CROSS_ENTROPY, tau))
        model.fit(batches, epochs=arguments.epochs, verbose=0)
        logits[held_out] = model.predict(images[held_out], verbose=0)
    return logits


def predict_probabilities(logits, tau):
    # Not the softmax of the raw logits: training leaves their norm beyond `tau` to
    # chance, and cleanlab, whose thresholds are mean probabilities, reports fewer.
    probabilities = keras.ops.softmax(ops.logit_clip(logits, tau))
    return keras.ops.convert_to_numpy(probabilities)


def count_in_worst(quality, wrong):
    """Counts the wrong labels among as many labels of the lowest quality."""
    worst = np.argsort(quality, kind="stable")[: np.sum(wrong)]
    return int(np.sum(wrong[worst]))


def find(noisy, probabilities):
    quality = get_label_quality_scores(noisy.labels, probabilities)
    # In this process alone: to fork one that has a backend's threads can hang.
    reported = find_label_issues(noisy.labels, probabilities, n_jobs=1)
    return Found(
        wrong=int(np.sum(noisy.flipped)),
        in_worst=count_in_worst(quality, noisy.flipped),
        reported=int(np.sum(reported)),
        rightly=int(np.sum(reported & noisy.flipped)),
    )


def describe(found):
    return (
        f"{found.in_worst} of {found.wrong} wrong labels among the {found.wrong} of "
        f"the lowest quality; cleanlab reports {found.reported}, "
        f"{found.rightly} of them rightly"
    )


def make_table(results):
    lines = [
        "| in %, mean ± std over seeds | wrong among as many of the lowest quality "
        "| precision of what cleanlab reports | recall |",
        "|---|---|---|---|",
    ]
    for name, runs in results.items():
        percentages = np.array([found.percentages for found in runs])
        spreads = zip(percentages.mean(axis=0), percentages.std(axis=0), strict=True)
        cells = (name, *(f"{mean:.1f} ± {std:.1f}" for mean, std in spreads))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main():
    arguments = parse_arguments()
    images, labels = load(arguments)
    # With an infinite threshold, nothing is clipped.
    thresholds = {
        "cross-entropy": float("inf"),
        f"LogitClip, tau={arguments.tau:g}": arguments.tau,
    }
    results = {name: [] for name in thresholds}
    for seed in range(arguments.seeds):
        noisy = make_wrong(labels, arguments, seed)
        if not noisy.flipped.any():
            raise SystemExit("No label is wrong: there is nothing to find.")
        print(noisy)
        for name, tau in thresholds.items():
            print(f"{name}, fold", end="", flush=True)
            logits = predict_held_out(tau, images, noisy.labels, arguments, seed)
            found = find(noisy, predict_probabilities(logits, tau))
            print(f": {describe(found)}")
            results[name].append(found)
    print(f"\n{make_table(results)}")


if __name__ == "__main__":
    main()
