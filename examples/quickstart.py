"""Trains on wrong labels with and without LogitClip, and compares the results.

    python examples/quickstart.py

Small networks learn handwritten digits, of which 30% have the label of the next digit,
with cross-entropy and with `LogitClipLoss` around it. With three seeds each, that takes
about a minute on two CPU cores. The example prints a table and writes the curves to
`quickstart.png`.

Both losses use the recipe of the LogitClip paper with 60 epochs and batches of 64: SGD
with momentum and weight decay, and a learning rate that is divided by 10 after 40% and
70% of the epochs. The first learning rate of each loss is the best of eight by held-out
noisy labels (`docs/studies.md`):

    python -m keras_logitclip study run docs/results/demo.toml
"""

import argparse
import functools
import os
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import noisy_digits
import numpy as np

from keras_logitclip import LogitClipLoss
from keras_logitclip import noise

try:
    import matplotlib
    from rich.console import Console
    from rich.progress import BarColumn
    from rich.progress import MofNCompleteColumn
    from rich.progress import Progress
    from rich.progress import TextColumn
    from rich.progress import TimeRemainingColumn
    from rich.table import Table
except ModuleNotFoundError as error:
    raise ImportError(
        f"This example needs {error.name}, which is not installed. "
        'Install it with: pip install "keras-logitclip[demo]"'
    ) from error

matplotlib.use("Agg")

import matplotlib.pyplot as plt

LAST_EPOCHS = 10


class Curves(NamedTuple):
    """Holds percentages of shape (seeds, epochs)."""

    test_accuracy: np.ndarray
    memorized: np.ndarray

    @property
    def last(self):
        return self.test_accuracy[:, -LAST_EPOCHS:].mean(axis=1)

    @property
    def best(self):
        return self.test_accuracy.max(axis=1)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds")
    parser.add_argument("--tau", type=float, default=1.5, help="clipping threshold")
    parser.add_argument(
        "--learning-rates",
        type=float,
        nargs=2,
        default=[0.3, 0.03],
        metavar=("PLAIN", "CLIPPED"),
        help="first learning rates; for symmetric noise, use 0.01 and 0.03",
    )
    parser.add_argument(
        "--noise",
        choices=["pair_flip", "symmetric"],
        default="pair_flip",
        help="whether wrong labels are the next digit, or any other",
    )
    parser.add_argument("--noise-rate", type=float, default=0.3)
    parser.add_argument("--weight-decay", type=float, default=5e-3)
    parser.add_argument("--output", type=Path, default=Path("quickstart.png"))
    arguments = parser.parse_args()
    if min(arguments.epochs, arguments.seeds) < 1:
        parser.error("--epochs and --seeds must be at least 1")
    if not 0 <= arguments.noise_rate < 1:
        parser.error("--noise-rate must be at least 0 and less than 1")
    if not all(0 < rate < np.inf for rate in arguments.learning_rates):
        parser.error("--learning-rates must be greater than 0")
    if not arguments.weight_decay >= 0:
        parser.error("--weight-decay must be at least 0")
    if not arguments.output.parent.is_dir():
        parser.error(f"--output: no such folder: {arguments.output.parent}")
    return arguments


def make_losses(tau, learning_rates):
    """Returns the losses, each with its learning rate."""
    plain, clipped = learning_rates
    cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return {
        f"cross-entropy, rate {plain:g}": (cross_entropy, plain),
        f"LogitClip, tau={tau:g}, rate {clipped:g}": (
            LogitClipLoss("sparse_categorical_crossentropy", tau=tau),
            clipped,
        ),
    }


def make_optimizer(rate, steps_per_epoch, epochs, weight_decay):
    learning_rate = keras.optimizers.schedules.PiecewiseConstantDecay(
        boundaries=[int(share * epochs) * steps_per_epoch for share in (0.4, 0.7)],
        values=[rate, rate / 10, rate / 100],
    )
    # In papers and PyTorch, the momentum multiplies the weight decay of 5e-4 by 1 / (1
    # - 0.9). In Keras it does not, so 5e-3 is the same.
    return keras.optimizers.SGD(
        learning_rate, momentum=0.9, weight_decay=weight_decay or None
    )


def flip_labels(labels, arguments, seed):
    flip = getattr(noise, arguments.noise)
    rate, num_classes = arguments.noise_rate, noisy_digits.NUM_CLASSES
    return flip(labels, rate, num_classes, seed=seed).labels


def train(loss, learning_rate, digits, noisy_labels, arguments, seed, on_epoch):
    epochs = arguments.epochs
    keras.utils.set_random_seed(seed)
    batches = noisy_digits.Batches(digits.x_train, noisy_labels, seed)
    memorization = noisy_digits.Memorization(digits, noisy_labels)
    progress = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: on_epoch())
    model = noisy_digits.build_model()
    optimizer = make_optimizer(
        learning_rate, len(batches), epochs, arguments.weight_decay
    )
    model.compile(optimizer, loss)
    model.fit(batches, epochs=epochs, verbose=0, callbacks=[memorization, progress])
    return memorization


def make_progress(console):
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("epochs, left:"),
        TimeRemainingColumn(),
        console=console,
    )


def train_all(digits, losses, arguments, console):
    runs = {name: [] for name in losses}
    with make_progress(console) as progress:
        total = arguments.seeds * len(losses) * arguments.epochs
        task = progress.add_task("", total=total)
        on_epoch = functools.partial(progress.advance, task)
        for seed in range(arguments.seeds):
            # Both losses get the same wrong labels.
            noisy_labels = flip_labels(digits.y_train, arguments, seed)
            for name, pair in losses.items():
                progress.update(task, description=f"{name}, seed {seed}")
                run = train(*pair, digits, noisy_labels, arguments, seed, on_epoch)
                runs[name].append(run)
    return {name: make_curves(runs[name]) for name in runs}


def make_curves(runs):
    return Curves(
        test_accuracy=100 * np.array([run.test_accuracy for run in runs]),
        memorized=100 * np.array([run.memorized for run in runs]),
    )


def make_table(results, noise_rate):
    table = Table(title=f"{noise_rate:.0%} wrong labels: mean ± std over seeds, in %")
    table.add_column("loss")
    last_epochs = min(LAST_EPOCHS, next(iter(results.values())).test_accuracy.shape[1])
    table.add_column(f"test accuracy,\nlast {last_epochs} epochs", justify="right")
    table.add_column("test accuracy,\nbest epoch", justify="right")
    table.add_column("wrong labels\nmemorized at the end", justify="right")
    for name, curves in results.items():
        values = (curves.last, curves.best, curves.memorized[:, -1])
        table.add_row(name, *map(format_spread, values))
    return table


def format_spread(values):
    if np.isnan(values).any():
        return "none wrong"
    return f"{np.mean(values):.1f} ± {np.std(values):.1f}"


def draw(results, noise_rate, path):
    figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    figure.suptitle(
        f"Handwritten digits, {noise_rate:.0%} of the training labels wrong"
    )
    for name, curves in results.items():
        draw_curve(axes[0], name, curves.test_accuracy)
        draw_curve(axes[1], name, curves.memorized)
    axes[0].set(title="Accuracy on clean test labels", ylabel="test accuracy (%)")
    axes[1].set(title="Wrong labels that the model predicts", ylabel="memorized (%)")
    axes[1].set_ylim(bottom=0)
    for axis in axes:
        axis.set_xlabel("epoch")
        axis.grid(alpha=0.3)
        axis.legend()
    figure.savefig(path, dpi=150)


def draw_curve(axis, name, values):
    epochs = np.arange(1, values.shape[1] + 1)
    mean, spread = values.mean(axis=0), values.std(axis=0)
    (line,) = axis.plot(epochs, mean, label=name)
    axis.fill_between(
        epochs, mean - spread, mean + spread, color=line.get_color(), alpha=0.2
    )


def describe(results):
    """Returns sentences about the results."""
    plain, clipped = results.values()
    sentences = []
    if not np.isnan(plain.memorized).any():
        sentences.append(
            "At the end, the model predicts "
            f"{plain.memorized[:, -1].mean():.1f}% of the wrong labels with plain "
            f"cross-entropy and {clipped.memorized[:, -1].mean():.1f}% with LogitClip."
        )
    sentences.append(
        f"From its best to the last epochs, test accuracy loses "
        f"{(plain.best - plain.last).mean():.1f} points with plain cross-entropy and "
        f"{(clipped.best - clipped.last).mean():.1f} with LogitClip."
    )
    sentences.append(describe_gain(clipped.last - plain.last))
    return " ".join(sentences)


def describe_gain(gains):
    gain = round(gains.mean(), 1)
    if gain == 0:
        return "Clipping makes no difference to it over the last epochs, on average."
    ahead = f"it is ahead in {np.sum(gains > 0)} of {len(gains)} seeds"
    if gain < 0:
        return (
            "Clipping did not help here: over the last epochs, its test accuracy is "
            f"{-gain:.1f} points lower on average; {ahead}."
        )
    return (
        f"Over the last epochs, clipping gains {gain:.1f} points of test accuracy on "
        f"average; {ahead}."
    )


def main():
    arguments = parse_arguments()
    console = Console()
    losses = make_losses(arguments.tau, arguments.learning_rates)
    results = train_all(noisy_digits.load(), losses, arguments, console)
    console.print(make_table(results, arguments.noise_rate))
    console.print(describe(results))
    draw(results, arguments.noise_rate, arguments.output)
    console.print(f"The curves are in {arguments.output}.")


if __name__ == "__main__":
    main()
