"""Measures clipping where a sample has several labels, over `tau` and its norm.

    python docs/results/multi_label.py --data-dir DATA

Two samples of the digits, or with `DATA` of banking77 (README.md says where it is
from), become one with the labels of both: images as the larger of each pixel, texts as
joined ones. In training, three of ten labels are others. A network of 256 hidden units
gives a logit for each label; the loss is the sum of their clipped binary
cross-entropies.
Each `tau` has the learning rate with the best F1 on held-out noisy labels, of seven.
The table has the F1 on clean labels (micro, a label counts as predicted where its logit
is above zero) and the mean average precision, which needs no threshold. Ten minutes
on two CPU cores.
"""

import argparse
from pathlib import Path

import keras
import numpy as np
import pandas as pd
from sklearn.datasets import load_digits
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics import average_precision_score
from sklearn.metrics import f1_score
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer

from keras_logitclip import LogitClipLoss

TAUS = (0.5, 1.5, 3.0, 6.0, 12.0, 24.0, np.inf)
ORDERS = (2, np.inf)
RATES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
EPOCHS = 25
NOISE = 0.3


def digits():
    """Returns inputs and labels of pairs of digits, to train and to test with."""
    images, labels = load_digits(return_X_y=True)
    parts = train_test_split(images / 16, labels, test_size=0.2, random_state=0)
    (x, x_test), (y, y_test) = parts[:2], parts[2:]
    train, test = pairs(len(x), 4 * len(x)), pairs(len(x_test), len(x_test))
    return (x[train].max(1), y[train]), (x_test[test].max(1), y_test[test])


def banking77(folder):
    """Returns the same of pairs of texts."""
    tables = [pd.read_csv(folder / f"banking77-{n}.csv") for n in ("train", "test")]
    names = sorted(set(tables[0].category))
    parts = []
    for table in tables:
        drawn = pairs(len(table), len(table))
        first, second = (table.text.values[drawn[:, i]] for i in range(2))
        ids = np.array([names.index(name) for name in table.category])
        parts.append(
            ([" ".join(both) for both in zip(first, second, strict=True)], ids[drawn])
        )
    features = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
        TruncatedSVD(300, random_state=0),
        Normalizer(),
    )
    x = features.fit_transform(parts[0][0])
    # Numbers of about one, as in the studies.
    scale = x.std()
    test = features.transform(parts[1][0])
    return (x / scale, parts[0][1]), (test / scale, parts[1][1])


def pairs(size, number):
    return np.random.default_rng(size).integers(size, size=(number, 2))


def multi_hot(ids, classes):
    labels = np.zeros((len(ids), classes), "float32")
    np.put_along_axis(labels, ids, 1, axis=1)
    return labels


def train(data, classes, tau, p, rate):
    """Returns F1 on held-out noisy labels, F1 and mean average precision on clean."""
    (x, ids), (x_test, ids_test) = data
    rng = np.random.default_rng(0)
    wrong = rng.random(ids.shape) < NOISE
    noisy = multi_hot(
        np.where(wrong, rng.integers(classes, size=ids.shape), ids), classes
    )
    held_out = np.arange(len(x)) % 10 == 0
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input(x.shape[1:]),
            keras.layers.Dense(256, "relu"),
            keras.layers.Dense(classes),
        ]
    )
    steps = EPOCHS * (-(-int(np.sum(~held_out)) // 128))
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay(
        [int(0.4 * steps), int(0.7 * steps)], [rate, rate / 10, rate / 100]
    )
    model.compile(
        keras.optimizers.SGD(schedule, momentum=0.9, weight_decay=5e-3),
        # The sum over the labels, as for one label: not their mean.
        LogitClipLoss(summed_binary_crossentropy, tau, p),
    )
    model.fit(x[~held_out], noisy[~held_out], batch_size=128, epochs=EPOCHS, verbose=0)
    chosen, logits = (model.predict(of, verbose=0) for of in (x[held_out], x_test))
    if not np.isfinite(logits).all():
        return 0.0, 0.0, 0.0
    clean = multi_hot(ids_test, classes)
    return (
        f1_score(noisy[held_out], chosen > 0, average="micro"),
        f1_score(clean, logits > 0, average="micro"),
        average_precision_score(clean, logits, average="macro"),
    )


def summed_binary_crossentropy(y_true, y_pred):
    losses = keras.ops.binary_crossentropy(y_true, y_pred, from_logits=True)
    return keras.ops.sum(losses, axis=-1)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=Path, help="folder of banking77's tables")
    folder = parser.parse_args().data_dir
    sets = {"digits": (10, digits())}
    if folder:
        sets["banking77"] = (77, banking77(folder))
    print("| data | labels | norm | tau | rate | F1 | mean average precision |")
    print("|---|---|---|---|---|---|---|")
    for name, (classes, data) in sets.items():
        for p in ORDERS:
            for tau in TAUS:
                if np.isinf(tau) and np.isinf(p):
                    continue  # No clipping has been trained already.
                rows = {r: train(data, classes, tau, p, r) for r in RATES}
                rate = max(rows, key=lambda rate: rows[rate][0])
                scores = " | ".join(f"{100 * score:.1f}" for score in rows[rate][1:])
                edge = "*" if rate in (RATES[0], RATES[-1]) else ""
                print(
                    f"| {name} | {classes} | {p:g} | {tau:g} | {rate:g}{edge} "
                    f"| {scores} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
