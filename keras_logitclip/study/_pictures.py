"""The pictures of a report."""

import io
import math

import numpy as np
import pandas as pd

from keras_logitclip._plotting import new_axes
from keras_logitclip.study import _summary

# What reports call the methods, and how they draw them.
NAMES = {
    "plain": "plain",
    "tau": "LogitClip",
    "normalized_tau": "normalized LogitClip",
    "value_limit": "value clip",
    "norm_penalty": "norm penalty",
}
_COLORS = dict(zip(NAMES, ("0.45", "C0", "C1", "C2", "C3"), strict=True))
_MAX_COLUMNS = 4
_MAX_TICKS = 5
_DEEPEST = 40  # Points below the best, over taus and rates.
_WIDTH = 9.0  # In inches; with the resolution about as wide as a README.
_DPI = 120


def draw_pictures(results: _summary.Results) -> dict[str, dict[str, bytes]]:
    """Draws the numbers of a study: for each noise, PNG files by their names."""
    kinds = (
        ("curves", "test accuracy", "epoch", _over_epochs(results, "accuracy")),
        ("memorized", "memorized labels", "epoch", _over_epochs(results, "memorized")),
        ("tau", "test accuracy", "tau", _over_taus(results)),
        ("rate", "test accuracy", "learning rate", _over_rates(results)),
    )
    return {
        noise: {
            f"{kind}-{noise.replace(' ', '-')}.png": _draw(noise, of, x_label, y_label)
            for kind, y_label, x_label, lines in kinds
            if len(of := lines[lines.noise == noise])
        }
        for noise in results.cells.noise.unique()
    }


def _over_epochs(results, name):
    """What is chosen, at each epoch."""
    rows = results.epochs.assign(x=results.epochs.epoch)
    rows = rows.merge(results.chosen[_summary.CANDIDATE]).dropna(subset=name)
    over_seeds = rows.groupby([*_summary.METHOD, "x"], sort=False)[name]
    return over_seeds.agg(["mean", "std"]).reset_index()


def _over_taus(results):
    """The finite taus, each at its best rate, and plain as a level beside them."""
    rows = results.by_value[results.by_value.value != np.inf]
    taus = rows[rows.method.isin(["tau", "normalized_tau"])].assign(x=rows.value)
    plain = rows[rows.method == "plain"].assign(chosen=0)
    levels = plain.merge(taus[["noise", "loss", "x"]].drop_duplicates())
    return pd.concat([levels, taus])


def _over_rates(results):
    """The learning rates, each at its best value, where there are several."""
    rows = results.by_rate.assign(x=results.by_rate.learning_rate)
    return rows[rows.groupby(["noise", "loss"]).x.transform("nunique") > 1]


def _draw(title, lines, x_label, y_label):
    """A panel for each loss: the means of its methods, ± deviations over seeds."""
    figure, axes = _panels(lines.loss.nunique())
    for ax, (loss, rows) in zip(axes, lines.groupby("loss", sort=False), strict=True):
        for method, points in rows.groupby("method", sort=False):
            look = {"color": _COLORS[method], "label": NAMES[method], "ms": 4}
            mean, std = 100 * points["mean"], 100 * points["std"]
            ax.plot(points.x, mean, ".-", **look)
            band = {"color": _COLORS[method], "alpha": 0.15, "linewidth": 0}
            ax.fill_between(points.x, mean - std, mean + std, **band)
        if x_label != "epoch":
            chosen, label = rows[rows.chosen == 1], "chosen by noisy validation"
            look = {"ms": 8, "mfc": "none", "color": "0.2", "label": label}
            ax.plot(chosen.x, 100 * chosen["mean"], "o", **look)
            values = np.unique(rows.x)
            ticks = values[:: math.ceil(len(values) / _MAX_TICKS)]
            ax.set_xscale("log")
            ax.set_xticks(ticks, [f"{tick:.2g}" for tick in ticks])
            ax.minorticks_off()
        ax.set_title(loss, fontsize=9)
        ax.set_xlabel(x_label, fontsize=8)
        if ax.get_subplotspec().is_first_col():
            ax.set_ylabel(f"{y_label} (%)", fontsize=8)
    if x_label != "epoch":
        low, high = axes[0].get_ylim()
        axes[0].set_ylim(max(low, high - _DEEPEST))
    return _finish(figure, title)


def _panels(count):
    """Returns a figure and the axes of its panels."""
    rows = math.ceil(count / _MAX_COLUMNS)
    columns = math.ceil(count / rows)
    figure = new_axes("write_report").figure
    figure.clear()
    figure.set_size_inches(_WIDTH if columns > 1 else _WIDTH / 2, 0.7 + 2.15 * rows)
    axes = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
    for ax in axes:
        ax.tick_params(labelsize=7.5)
        ax.grid(alpha=0.25)
    for ax in axes[count:]:
        ax.remove()
    return figure, axes[:count]


def _finish(figure, title):
    """Returns the figure as a PNG file with a legend, and closes it."""
    import matplotlib.pyplot as plt

    labels = [ax.get_legend_handles_labels() for ax in figure.axes]
    handles = {name: handle for of in labels for handle, name in zip(*of, strict=True)}
    figure.legend(
        handles.values(),
        handles,
        title=title,
        loc="outside upper center",
        ncols=6 if figure.get_figwidth() == _WIDTH else 2,
        fontsize=8,
        frameon=False,
    )
    file = io.BytesIO()
    # Without the version of Matplotlib, so that the bytes change with the picture only.
    figure.savefig(file, format="png", dpi=_DPI, metadata={"Software": None})
    plt.close(figure)
    return file.getvalue()
