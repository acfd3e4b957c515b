"""Measures what docs/cleaning.md and docs/probabilities.md say.

    python docs/results/cleaning.py --data-dir DATA --seeds 0 1 2

Labels are made wrong, or are those of people; a clipped model and a plain one, each at
its own learning rate of the studies here, estimate how many are wrong and find them.
Then both are trained on all labels, and on those that are left. Each case, model and
seed is a row of `cleaning.csv` as soon as it is measured, and what has one is not
measured again. The held-out logits are in the folder `results/cleaning`: a run that was
killed goes on with them. `python docs/results/tables.py` writes the tables of the pages
from the rows. Fifteen minutes for each seed on one core, with JAX; `DATA` is that of
README.md.
"""

import argparse
import csv
import functools
import re
from pathlib import Path
from typing import NamedTuple

import cleaning_tables
import keras
import numpy as np
from cleanlab.count import estimate_joint
from cleanlab.rank import get_label_quality_scores

from keras_logitclip import LogitClipLoss
from keras_logitclip import calibration
from keras_logitclip import cleaning
from keras_logitclip import ops
from keras_logitclip import study
from keras_logitclip._jobs.arrays import ShuffledBatches
from keras_logitclip._probabilities import softmax
from keras_logitclip.study import _data
from keras_logitclip.study import _training

FOLDER = Path(__file__).parent
CROSS_ENTROPY = "sparse_categorical_crossentropy"
TAU = 1.5
# The learning rates of the plain and of the clipped model: of those that the studies
# tried, the best by held-out noisy labels, of the digits with three seeds, of the
# others with the first one.
CASES = {
    ("digits-mlp", "symmetric 0.4"): (0.003, 0.003),
    ("digits-mlp", "pair-flip 0.3"): (0.3, 1.0),
    ("banking77", "symmetric 0.4"): (0.01, 0.3),
    ("cifar10n", "human worse_label"): (0.003, 0.01),
}
MODELS = {"plain": float("inf"), "clipped": TAU}


class Case(NamedTuple):
    """Data with noisy labels, and how to train on them."""

    study: study.Study
    data: _data.Data
    labels: np.ndarray
    wrong: np.ndarray
    tau: float
    learning_rate: float
    seed: int
    folder: Path

    @property
    def settings(self):
        return self.study.settings

    def build_model(self):
        return _training.build_core(self.study, self.data)

    def held_out_logits(self):
        return cleaning.held_out_logits(
            self.build_model,
            self.data.inputs(self.data.x_train),
            self.labels,
            epochs=self.settings.epochs,
            optimizer=functools.partial(make_optimizer, self.learning_rate),
            tau=self.tau,
            batch_size=self.settings.batch_size,
            seed=self.seed,
            folder=self.folder,
        )

    def test_logits(self, keep):
        """Returns the logits of the test set by a model that is trained on a part."""
        keras.utils.set_random_seed(self.seed)
        x, labels = self.data.inputs(self.data.x_train[keep]), self.labels[keep]
        batches = ShuffledBatches(x, labels, self.settings.batch_size, self.seed)
        model = self.build_model()
        steps = self.settings.epochs * len(batches)
        loss = LogitClipLoss(CROSS_ENTROPY, self.tau)
        model.compile(make_optimizer(self.learning_rate, steps), loss)
        model.fit(batches, epochs=self.settings.epochs, verbose=0)
        return model.predict(self.data.inputs(self.data.x_test), verbose=0)


def make_optimizer(learning_rate, steps):
    """Returns the optimizer of the studies."""
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay(
        [int(0.4 * steps), int(0.7 * steps)],
        [learning_rate, learning_rate / 10, learning_rate / 100],
    )
    return keras.optimizers.SGD(schedule, momentum=0.9, weight_decay=5e-3)


def missing(seeds):
    """Yields the names of what has no row yet: case, model, learning rate and seed."""
    path = cleaning_tables.PATH
    done = cleaning_tables.load()[cleaning_tables.NAMES] if path.exists() else None
    done = [] if done is None else done.values.tolist()
    for seed in seeds:
        for (data, noise), rates in CASES.items():
            for model, rate in zip(MODELS, rates, strict=True):
                if [data, noise, model, rate, seed] not in done:
                    yield data, noise, model, rate, seed


def make_case(names, options):
    data_name, noise, model, rate, seed = names
    loaded, data, data_dir = load_data(data_name, options.data_dir)
    noisy = _data.make_noise(loaded, data, noise, seed, data_dir)
    folder = re.sub(r"[^a-z0-9.-]+", "-", f"{data_name} {noise} {model} {seed}")
    return Case(
        loaded,
        data,
        noisy.labels,
        noisy.flipped,
        MODELS[model],
        rate,
        seed,
        options.results / folder,
    )


@functools.cache
def load_data(name, data_dir):
    """Returns the study of these data, the data, and the folder that they are in."""
    loaded = study.load(FOLDER / f"{name}-sgd.toml")
    is_built_in = loaded.settings.data.name == "digits"
    data_dir = None if is_built_in else data_dir
    return loaded, _data.load_data(loaded, data_dir), data_dir


def found(case, logits):
    """Returns what is found of the wrong labels, in percent."""
    estimate = cleaning.estimate_noise(case.labels, logits)
    errors = cleaning.find_label_errors(case.labels, logits)
    low, high = estimate.interval
    rate = case.wrong.mean()
    self_confidence = get_label_quality_scores(case.labels, softmax(logits))
    rightly = case.wrong[errors.indices].sum()
    return {
        "wrong": rate,
        "estimated": estimate.rate,
        "interval": (high - low) / 2,
        "estimated as it is": rate_of(case.labels, logits),
        "estimated clipped": rate_of(case.labels, clip(logits, case.tau)),
        "found": in_worst(errors.quality, case.wrong),
        "found by self-confidence": in_worst(self_confidence, case.wrong),
        "precision": rightly / len(errors.indices),
        "recall": rightly / case.wrong.sum(),
    }


def rate_of(labels, logits):
    """Returns the rate that cleanlab estimates without a temperature."""
    return 1 - np.trace(estimate_joint(labels, softmax(logits)))


def clip(logits, tau):
    return keras.ops.convert_to_numpy(ops.logit_clip(logits, tau))


def in_worst(quality, wrong):
    """Returns how many of as many labels as are wrong, of the lowest quality, are."""
    worst = np.argsort(quality, kind="stable")[: wrong.sum()]
    return wrong[worst].mean()


def retrained(case, logits, errors):
    """Returns the test accuracy with all labels, and with those that are left."""
    right = case.data.y_test
    pruned = case.test_logits(errors.keep)
    return {
        "all labels": np.mean(logits.argmax(1) == right),
        "pruned": np.mean(pruned.argmax(1) == right),
    }


def calibrated(case, logits, temperature):
    """Returns the calibration errors on the second half of the test set."""
    half = len(logits) // 2
    labels = case.data.y_test
    of_clean = calibration.fit_temperature(logits[:half], labels[:half])
    logits, labels = logits[half:], labels[half:]
    clipped = clip(logits, case.tau)
    given = {
        "as it is": logits,
        "clipped": clipped,
        "T of noisy labels": logits / temperature,
        "T of clean labels": logits / of_clean,
    }
    return {
        "accuracy": np.mean(logits.argmax(1) == labels),
        "largest probability": softmax(logits).max(1).mean(),
        "largest, clipped": softmax(clipped).max(1).mean(),
        **{
            name: calibration.expected_calibration_error(values, labels)
            for name, values in given.items()
        },
    }


def measure(case):
    """Returns the figures of both pages, by their names."""
    held_out = case.held_out_logits()
    errors = cleaning.find_label_errors(case.labels, held_out)
    temperature = cleaning.estimate_noise(case.labels, held_out).temperature
    logits = case.test_logits(np.ones(len(case.labels), bool))
    return {
        **found(case, held_out),
        **retrained(case, logits, errors),
        **calibrated(case, logits, temperature),
    }


def append(row):
    """Writes a row at the end of the table, which it begins if there is none."""
    path = cleaning_tables.PATH
    is_new = not path.exists()
    with path.open("a", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, row, lineterminator="\n")
        if is_new:
            writer.writeheader()
        writer.writerow(row)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=Path, help="folder of the data")
    parser.add_argument("--results", type=Path, default=Path("results/cleaning"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", default="", help="a part of the names of cases")
    options = parser.parse_args()
    for names in missing(options.seeds):
        if options.only in " ".join(names[:2]):
            named = dict(zip(cleaning_tables.NAMES, names, strict=True))
            append(named | measure(make_case(names, options)))


if __name__ == "__main__":
    main()
