"""Draws the pictures of README.md and docs/choosing_tau.md, from the studies here.

    python docs/results/pictures.py

The one of the README has the epochs of one task, that of the page test accuracies over
learning rates, under one kind of noise of each data set.
"""

import json
import tarfile

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import LogLocator
from tables import FOLDER
from tables import METHOD
from tables import TAU
from tables import at_best_rate
from tables import load
from tables import of

PANELS = {
    "odd-digits": ("symmetric 0.3", "digits, odd or even (2 classes)"),
    "digits-mlp": ("symmetric 0.4", "digits (10)"),
    "cifar10n": ("human worse_label", "CIFAR-10N, human labels (10)"),
    "letters": ("symmetric 0.4", "letters (26)"),
    "banking77": ("symmetric 0.4", "banking77 (77)"),
    "clinc150": ("symmetric 0.4", "CLINC150 (150)"),
}
PLAIN, CLIPPED = ("plain", 0.0), ("tau", TAU)
LINES = {
    "plain": PLAIN,
    f"clipped, tau = {TAU:g}": CLIPPED,
    "normalized gradient": ("normalized_tau", TAU),
}
# The task of the README's picture.
DATA, NOISE = "banking77", "symmetric 0.4"


def draw(ax, cells, data, noise, title):
    """Draws accuracies over rates; a dot is what held-out noisy labels choose."""
    cells = cells[(cells.data == data) & (cells.noise == noise)]
    means = cells.groupby([*METHOD, "learning_rate"]).accuracy.mean()
    chosen = at_best_rate(cells)
    for name, method in LINES.items():
        line = of(means, *method).groupby("learning_rate").mean()
        (drawn,) = ax.plot(line.index, line.values, label=name)
        best = of(chosen, *method)
        ax.plot(best.learning_rate, best.accuracy, "o", color=drawn.get_color())
    ax.set(xscale="log", title=f"{title}\n{noise}", ylim=(40, None))
    ax.xaxis.set_major_locator(LogLocator())


def read_records():
    with tarfile.open(FOLDER / f"{DATA}-sgd" / "cells.tar.xz") as archive:
        files = [member for member in archive if member.isfile()]
        return [json.load(archive.extractfile(file)) for file in files]


def draw_epochs(axes, cells, records):
    """Draws accuracy and memorized labels: at the rates that plain and clipped choose.

    The band is the range of the seeds.
    """
    chosen = at_best_rate(cells[(cells.data == DATA) & (cells.noise == NOISE)])
    of_plain = of(chosen, *PLAIN).learning_rate.item()
    of_clipped = of(chosen, *CLIPPED).learning_rate.item()
    lines = {
        f"plain, rate {of_plain:g} (its best)": (NOISE, *PLAIN, of_plain),
        f"plain, rate {of_clipped:g}": (NOISE, *PLAIN, of_clipped),
        f"clipped, rate {of_clipped:g} (its best)": (NOISE, *CLIPPED, of_clipped),
    }
    keys = ("noise", "method", "value", "learning_rate")
    for name, line in lines.items():
        of_line = [r for r in records if tuple(r[key] or 0.0 for key in keys) == line]
        for ax, number in zip(axes, ("accuracy", "memorized"), strict=True):
            values = 100 * np.array([r["epochs"][number] for r in of_line])
            epochs = np.arange(1, values.shape[1] + 1)
            (drawn,) = ax.plot(epochs, values.mean(0), label=name)
            band = {"alpha": 0.2, "color": drawn.get_color()}
            ax.fill_between(epochs, values.min(0), values.max(0), **band)


def draw_picture_of_readme(cells):
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    draw_epochs(axes, cells, read_records())
    axes[0].set(title="Accuracy on clean test labels", ylabel="percent")
    axes[1].set(title="Wrong labels that the model predicts")
    figure.supxlabel("epoch")
    axes[1].legend()
    figure.savefig(FOLDER.parent / "banking77.png", dpi=100)


def main():
    cells = load()
    cells = cells[cells.optimizer == "sgd"]
    draw_picture_of_readme(cells)
    figure, axes = plt.subplots(2, 3, figsize=(10, 6), layout="constrained")
    for ax, (data, (noise, title)) in zip(axes.flat, PANELS.items(), strict=True):
        draw(ax, cells, data, noise, title)
    figure.supxlabel("learning rate (SGD with momentum)")
    figure.supylabel("test accuracy in percent")
    axes[0, 0].legend()
    figure.savefig(FOLDER.parent / "learning_rates.png", dpi=100)


if __name__ == "__main__":
    main()
