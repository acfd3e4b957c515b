"""The pictures of a report."""

import io
import math
import re
from collections.abc import Iterable
from typing import NamedTuple

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
_FEW = 15  # So many points are shown as such.
_DEEPEST = 40  # Points below the best, over taus and rates.
_WIDTH = 9.0  # In inches; with the resolution about as wide as a README.
_DPI = 120
_LONGEST_NAME = 40


class Picture(NamedTuple):
    name: str  # Of the file.
    noise: str | None  # `None` for all.
    caption: str
    png: bytes


def draw_pictures(results: _summary.Results) -> list[Picture]:
    """Draws the numbers of a study, in the order of a report."""
    kinds = (
        ("curves", "test accuracy", "epoch", _over_epochs(results, "accuracy")),
        ("memorized", "memorized labels", "epoch", _over_epochs(results, "memorized")),
        ("tau", "test accuracy", "tau", _over_taus(results)),
        ("rate", "test accuracy", "learning rate", _over_rates(results)),
    )
    pictures = []
    for noise, part in file_names(results.cells.noise.unique()).items():
        for kind, y_label, x_label, lines in kinds:
            of_noise = lines[lines.noise == noise]
            if len(of_noise):
                png = _draw_lines(noise, of_noise, x_label, f"{y_label} (%)")
                caption = f"{y_label.capitalize()} over {x_label}"
                pictures.append(Picture(f"{kind}-{part}.png", noise, caption, png))
    gains = results.chosen.dropna(subset="gain")
    if len(gains):
        pictures.append(Picture("gain.png", None, "Gain", _draw_gains(gains)))
    return pictures


def file_names(names: Iterable[str]) -> dict[str, str]:
    """Returns a part of a file name for each name, without two that are equal."""
    safe = {}
    for name in names:
        base = re.sub(r"[^A-Za-z0-9.-]+", "-", name)[:_LONGEST_NAME].strip("-.")
        part, number = base or "noise", 1
        # Some file systems take upper and lower case for the same.
        while part.lower() in (other.lower() for other in safe.values()):
            number += 1
            part = f"{base or 'noise'}-{number}"
        safe[name] = part
    return safe


def one_line(name: str) -> str:
    """Returns a name without line breaks and characters that cannot be seen."""
    visible = (letter if letter.isprintable() else " " for letter in name)
    return " ".join("".join(visible).split())


def _label(name):
    name = one_line(name)
    if len(name) > _LONGEST_NAME:
        name = name[: _LONGEST_NAME - 1] + "…"
    return name.replace("$", r"\$")  # Matplotlib takes what dollars enclose for TeX.


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


def _draw_lines(title, lines, x_label, y_label):
    """A panel for each loss: the means of its methods, ± deviations over seeds."""
    figure, axes = _panels(lines.loss.nunique(), 1.75, sharey=True)
    for ax, (loss, rows) in zip(axes, lines.groupby("loss", sort=False), strict=True):
        for method, points in rows.groupby("method", sort=False):
            color, label = _COLORS[method], NAMES[method]
            mean, std = 100 * points["mean"], 100 * points["std"]
            marker = "." if len(points) <= _FEW else ""
            ax.plot(points.x, mean, marker=marker, color=color, label=label)
            band = mean - std, mean + std
            ax.fill_between(points.x, *band, color=color, alpha=0.15, linewidth=0)
        if x_label == "epoch":
            ax.xaxis.get_major_locator().set_params(integer=True)
        else:
            chosen, label = rows[rows.chosen == 1], "chosen by noisy validation"
            style = {"ms": 8, "mfc": "none", "color": "0.2", "label": label}
            ax.plot(chosen.x, 100 * chosen["mean"], "o", **style)
            _scale(ax, rows.x)
        ax.set_title(_label(loss), fontsize=9)
        ax.set_xlabel(x_label, fontsize=8)
        if ax.get_subplotspec().is_first_col():
            ax.set_ylabel(y_label, fontsize=8)
    low, high = axes[0].get_ylim()
    if x_label != "epoch":
        axes[0].set_ylim(max(low, high - _DEEPEST))
    return _finish(figure, title)


def _draw_gains(gains):
    """A panel for each noise: the gains of the losses, ± standard errors."""
    losses, methods = [*gains.loss.unique()], [*gains.method.unique()]
    height = 0.3 + 0.22 * len(losses)
    figure, axes = _panels(gains.noise.nunique(), height, sharex=True, sharey=True)
    for ax, (noise, rows) in zip(axes, gains.groupby("noise", sort=False), strict=True):
        for method, points in rows.groupby("method", sort=False):
            shift = 0.16 * (methods.index(method) - (len(methods) - 1) / 2)
            places = points.loss.map(losses.index) + shift
            style = {"fmt": "o", "ms": 4, "color": _COLORS[method]}
            gain, error = 100 * points.gain, 100 * points.gain_error
            ax.errorbar(gain, places, xerr=error, label=NAMES[method], **style)
        ax.axvline(0, color="0.3", linewidth=0.8)
        ax.set_title(_label(noise), fontsize=9)
        ax.set_xlabel("points of test accuracy", fontsize=8)
        ax.set_yticks(range(len(losses)), map(_label, losses))
    axes[0].set_ylim(len(losses) - 0.5, -0.5)
    return _finish(figure, "Gain over plain, ± standard error")


def _panels(count, height, **shared):
    """Returns a figure and the axes of its panels."""
    rows = math.ceil(count / _MAX_COLUMNS)
    columns = math.ceil(count / rows)
    figure = new_axes("write_report").figure
    figure.clear()
    width = _WIDTH if columns > 1 else _WIDTH / 2
    figure.set_size_inches(width, 0.7 + rows * (0.4 + height))
    axes = figure.subplots(rows, columns, squeeze=False, **shared).ravel()
    for ax in axes:
        ax.tick_params(labelsize=7.5)
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(alpha=0.25)
    for ax in axes[count:]:
        ax.remove()
    return figure, axes[:count]


def _scale(ax, values):
    """Makes the axis logarithmic, with some of the values at it."""
    values = np.unique(values)
    ticks = values[:: math.ceil(len(values) / _MAX_TICKS)]
    ax.set_xscale("log")
    ax.set_xlim(values[0] / 1.2, values[-1] * 1.2)
    ax.set_xticks(ticks, [f"{tick:.2g}" for tick in ticks])
    ax.minorticks_off()


def _finish(figure, title):
    """Returns the figure as a PNG file with a legend, and closes it."""
    import matplotlib.pyplot as plt

    labels = [ax.get_legend_handles_labels() for ax in figure.axes]
    handles = {name: handle for of in labels for handle, name in zip(*of, strict=True)}
    figure.legend(
        handles.values(),
        handles,
        title=_label(title),
        loc="outside upper center",
        ncols=6 if figure.get_figwidth() == _WIDTH else 2,
        title_fontsize=11,
        fontsize=8,
        frameon=False,
    )
    file = io.BytesIO()
    # Without the version of Matplotlib, so that the bytes change with the picture only.
    figure.savefig(file, format="png", dpi=_DPI, metadata={"Software": None})
    plt.close(figure)
    return file.getvalue()
