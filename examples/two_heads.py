"""Heads on features with and without LogitClip, a module that the examples share.

Each loss is trained with several learning rates. The best one has the highest accuracy
on held-out noisy labels. Clean labels are not needed, because random wrong labels lower
the accuracies of all models alike. `keras_logitclip.tuning.search_tau` with
`learning_rates=...` does the same, and searches `tau`, too.
"""

from collections import Counter
from typing import NamedTuple

import keras
import numpy as np
from noisy_digits import Batches
from sklearn.model_selection import train_test_split

from keras_logitclip import LogitClipLoss

CROSS_ENTROPY = "sparse_categorical_crossentropy"


class Head(NamedTuple):
    """Holds a trained model, its learning rate, and its accuracy on held-out labels."""

    model: keras.Model
    learning_rate: float
    held_out: float


def add_options(parser, tau, epochs, learning_rates):
    parser.add_argument("--tau", type=float, default=tau, help="clipping threshold")
    parser.add_argument("--epochs", type=int, default=epochs)
    parser.add_argument(
        "--learning-rates",
        type=float,
        nargs="+",
        default=learning_rates,
        metavar="RATE",
        help="candidates; add others if the best is the first or the last",
    )
    parser.add_argument("--seed", type=int, default=0)


def split_off_fifth(names, *arrays):
    """Splits off a fifth of each class, and returns the parts as `train_test_split`.

    `names` are the class names of the samples.
    """
    few = [str(name) for name, count in Counter(names).items() if count < 5]
    if few:
        raise SystemExit(
            "Expected at least five samples of each class, to split off a fifth as "
            f"test set. Received: fewer of {few[:10]}"
        )
    return train_test_split(*arrays, test_size=0.2, stratify=names, random_state=0)


def train(x, labels, num_classes, arguments):
    """Returns the best head of each loss, by the name of the loss."""
    rows = train_test_split(
        np.arange(len(x)), test_size=0.1, random_state=arguments.seed
    )
    training, held_out = ((x[part], labels[part]) for part in rows)
    losses = {
        "cross-entropy": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        f"LogitClip, tau={arguments.tau:g}": LogitClipLoss(
            CROSS_ENTROPY, tau=arguments.tau
        ),
    }
    best = {}
    for name, loss in losses.items():
        heads = []
        for rate in arguments.learning_rates:
            model = train_head(loss, rate, *training, num_classes, arguments)
            heads.append(Head(model, rate, percentage_predicted(model, *held_out)))
            print(
                f"{name}, learning rate {rate:g}: predicts "
                f"{heads[-1].held_out:.1f}% of the held-out labels",
                flush=True,
            )
        best[name] = max(heads, key=lambda head: head.held_out)
        if best[name] in (heads[0], heads[-1]):
            print("The best rate is the first or the last one: try others beyond it.")
    return best


def train_head(loss, learning_rate, x, labels, num_classes, arguments):
    keras.utils.set_random_seed(arguments.seed)
    model = keras.Sequential(
        [
            keras.Input(x.shape[1:]),
            keras.layers.Dense(256, activation="relu"),
            keras.layers.Dense(num_classes),
        ]
    )
    model.compile(keras.optimizers.SGD(learning_rate, momentum=0.9), loss)
    batches = Batches(x, labels, arguments.seed, batch_size=128)
    model.fit(batches, epochs=arguments.epochs, verbose=0)
    return model


def percentage_predicted(model, x, labels):
    predicted = model.predict(x, batch_size=1024, verbose=0).argmax(axis=-1)
    return 100 * np.mean(predicted == labels)


def make_table(heads, measured):
    """Returns a Markdown table of the percentages of labels that each head predicts.

    `measured` has pairs of inputs and labels by the headings of columns.
    """
    lines = [["loss, in %", "learning rate", "held-out labels", *measured]]
    lines.append(len(lines[0]) * ["---"])
    for name, head in heads.items():
        right = [percentage_predicted(head.model, *pair) for pair in measured.values()]
        shares = [f"{share:.1f}" for share in (head.held_out, *right)]
        lines.append([name, f"{head.learning_rate:g}", *shares])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
