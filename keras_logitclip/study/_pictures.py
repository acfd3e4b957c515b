"""The pictures of a report."""

import io
import math
import re
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from keras_logitclip._plotting import new_axes
from keras_logitclip.study._summary import compare
from keras_logitclip.study._summary import in_order
from keras_logitclip.study._summary import loss_order
from keras_logitclip.study._summary import setting
from keras_logitclip.study._summary import summarize

_METHODS = ("plain", "tau")  # Those whose curves are drawn.
_MAX_COLUMNS = 4
_WIDTH = 9.0  # In inches; with the resolution about as wide as a README.
_DPI = 120
_LONGEST_NAME = 40


class Picture(NamedTuple):
    """A picture in a report.

    Attributes:
        name: Its file name.
        noise: The noise that it is about, `None` for all.
        caption: What it shows.
        png: The contents of the file.
    """

    name: str
    noise: str | None
    caption: str
    png: bytes


def draw_pictures(records: Iterable[dict]) -> list[Picture]:
    """Draws what the records hold, in the order of a report.

    Raises:
        ImportError: If Matplotlib is not installed.
    """
    records = in_order(records)
    summaries = summarize(records)
    results = compare(summaries)
    losses = sorted({record["loss"] for record in records}, key=loss_order)
    colors = {loss: f"C{i % 10}" for i, loss in enumerate(losses)}
    names = file_names(dict.fromkeys(record["noise"] for record in records))
    pictures = []
    for noise, name in names.items():
        cells = [r for r in records if r["noise"] == noise and r["method"] in _METHODS]
        rows = [row for row in summaries if row.noise == noise]
        if cells:
            caption = "Test accuracy and memorized wrong labels over the epochs"
            png = _draw_curves(noise, cells, results, colors)
            pictures.append(Picture(f"curves-{name}.png", noise, caption, png))
        if any(row.method == "tau" for row in rows):
            caption = "Test accuracy over tau"
            png = _draw_taus(noise, rows, results, colors)
            pictures.append(Picture(f"tau-{name}.png", noise, caption, png))
    gains = {
        (noise, loss): result
        for (noise, loss, method), result in results.items()
        if method == "tau" and result.gain is not None
    }
    if gains:
        caption = "Gain by clipping"
        pictures.append(Picture("gain.png", None, caption, _draw_gains(gains, colors)))
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


def _draw_curves(noise, cells, results, colors):
    losses = list(dict.fromkeys(cell["loss"] for cell in cells))
    shown = [("accuracy", "test accuracy (%)")]
    if any(np.isfinite(_curve([cell], "memorized")).any() for cell in cells):
        shown.append(("memorized", "memorized (%)"))
    figure, stacks = _panels(len(losses), stack=len(shown), height=1.45)
    for axes, (name, label) in zip(stacks, shown, strict=True):
        for ax, loss in zip(axes, losses, strict=True):
            for method, style in (("plain", "-"), ("tau", "--")):
                row = _chosen(results, noise, loss, method)
                if row is not None:
                    same = [cell for cell in cells if setting(cell) == row[:4]]
                    curve = _curve(same, name)
                    ax.plot(
                        range(1, len(curve) + 1),
                        curve,
                        linestyle=style,
                        marker="." if len(curve) < 5 else "",  # One point is no line.
                        color=colors[loss],
                    )
        _share_limits(axes, label)
    for ax, loss in zip(stacks[0], losses, strict=True):
        row = _chosen(results, noise, loss, "tau")
        tau = "" if row is None else f" (tau {row.value:.3g})"
        ax.set_title(_label(loss) + tau, fontsize=9)
    for ax in figure.axes:
        ax.xaxis.get_major_locator().set_params(integer=True)
    for ax in stacks[-1]:
        ax.set_xlabel("epoch", fontsize=8)
    for style, label in (("-", "plain"), ("--", "clipped, tau by noisy validation")):
        stacks[0][0].plot([], [], style, color="0.3", label=label)
    return _finish(figure, noise)


def _draw_taus(noise, rows, results, colors):
    losses = list(dict.fromkeys(row.loss for row in rows if row.method == "tau"))
    figure, (axes,) = _panels(len(losses), height=1.75)
    for ax, loss in zip(axes, losses, strict=True):
        color = colors[loss]
        taus = [row for row in rows if row.loss == loss and row.method == "tau"]
        taus = [row for row in taus if math.isfinite(row.value)]
        values = [row.value for row in taus]
        means = [100 * row.mean for row in taus]
        errors = [_percent(row.std) for row in taus]
        ax.errorbar(values, means, errors, fmt="o-", ms=3, capsize=2, color=color)
        chosen = _chosen(results, noise, loss, "tau")
        if chosen in taus:
            point = ([chosen.value], [100 * chosen.mean])
            ax.plot(*point, "o", ms=8, mfc="none", color="0.2")
        plain = _chosen(results, noise, loss, "plain")
        if plain is not None:
            mean, error = 100 * plain.mean, 100 * (plain.std or 0)
            ax.axhline(mean, color="0.4", linestyle=":")
            ax.axhspan(mean - error, mean + error, color="0.4", alpha=0.15, lw=0)
        ax.set_title(_label(loss), fontsize=9)
        ax.set_xlabel("tau", fontsize=8)
    _scale_taus(axes, {r.value for r in rows if r.method == "tau"})
    _share_limits(axes, "test accuracy (%)")
    first = axes[0]
    first.plot([], [], "o-", ms=3, color="0.3", label="clipped, ± std over seeds")
    first.plot([], [], ":", color="0.4", label="plain")
    label = "tau by noisy validation"
    first.plot([], [], "o", ms=8, mfc="none", color="0.2", label=label)
    return _finish(figure, noise)


def _draw_gains(gains, colors):
    noises = list(dict.fromkeys(noise for noise, _ in gains))
    losses = [loss for loss in colors if any(loss == key[1] for key in gains)]
    figure, (axes,) = _panels(len(noises), height=0.7 + 0.2 * len(losses))
    for ax, noise in zip(axes, noises, strict=True):
        for place, loss in enumerate(losses):
            result = gains.get((noise, loss))
            if result is not None:
                ax.barh(
                    place,
                    100 * result.gain,
                    xerr=_percent(result.gain_error),
                    color=colors[loss],
                    error_kw={"elinewidth": 1, "capsize": 2},
                )
        ax.axvline(0, color="0.3", linewidth=0.8)
        ax.set_title(_label(noise), fontsize=9)
        ax.set_xlabel("points of accuracy", fontsize=8)
        ax.set_yticks(range(len(losses)), [_label(loss) for loss in losses])
        ax.set_ylim(len(losses) - 0.4, -0.6)
        if not ax.get_subplotspec().is_first_col():
            ax.tick_params(labelleft=False)
    limits = np.array([ax.get_xlim() for ax in axes])
    for ax in axes:
        ax.set_xlim(limits.min(), limits.max())
    label = "clipped, tau by noisy validation, minus plain; ± standard error"
    axes[0].plot([], [], "s", color="0.3", label=label)
    return _finish(figure, "gain by clipping")


def _chosen(results, noise, loss, method):
    result = results.get((noise, loss, method))
    return None if result is None else result.chosen


def _percent(deviation):
    """A deviation in points; Matplotlib draws no bar for NaN."""
    return math.nan if deviation is None else 100 * deviation


def _curve(cells, name):
    """The mean over seeds, in percent; NaN where one is undefined."""
    length = min(len(cell["epochs"][name]) for cell in cells)
    curves = [cell["epochs"][name][:length] for cell in cells]
    return 100 * np.array(curves, dtype="float64").mean(0)


def _panels(count, height, stack=1):
    """Returns a figure and, for each layer of the stack, the axes of its panels."""
    rows = math.ceil(count / _MAX_COLUMNS)
    columns = math.ceil(count / rows)
    figure = new_axes("write_report").figure
    figure.clear()
    width = _WIDTH if columns > 1 else _WIDTH / 2
    figure.set_size_inches(width, 0.7 + rows * (0.4 + stack * height))
    axes = figure.subplots(rows * stack, columns, squeeze=False)
    stacks = [axes[layer::stack].ravel() for layer in range(stack)]
    for layer in stacks:
        for ax in layer:
            ax.tick_params(labelsize=7.5)
            ax.spines[["top", "right"]].set_visible(False)
            ax.grid(alpha=0.25)
        for ax in layer[count:]:
            ax.remove()
    return figure, [layer[:count] for layer in stacks]


def _share_limits(axes, label):
    """Gives the panels the same y axis and writes at the first of each row."""
    limits = np.array([ax.get_ylim() for ax in axes])
    margin = 0.03 * np.ptp(limits)
    for ax in axes:
        ax.set_ylim(limits.min() - margin, limits.max() + margin)
        if ax.get_subplotspec().is_first_col():
            ax.set_ylabel(label, fontsize=8)
        else:
            ax.tick_params(labelleft=False)


def _scale_taus(axes, taus):
    """A logarithmic axis with plain numbers at it, few enough to read."""
    taus = [tau for tau in taus if math.isfinite(tau)] or [1.0]
    low, high = min(taus) / 1.2, max(taus) * 1.2
    digits = (1, 2, 5) if high / low < 300 else (1,)
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [digit * 10.0**exponent for exponent in exponents for digit in digits]
    ticks = [tick for tick in ticks if low <= tick <= high]
    for ax in axes:
        ax.set_xscale("log")
        ax.set_xlim(low, high)
        ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        ax.minorticks_off()


def _finish(figure, title):
    """Returns the figure as a PNG file and closes it."""
    import matplotlib.pyplot as plt

    figure.legend(
        loc="outside upper center",
        title=_label(title),
        title_fontsize=11,
        fontsize=8,
        ncols=3,
        frameon=False,
    )
    file = io.BytesIO()
    # Without the version of Matplotlib, so that the bytes change with the picture only.
    figure.savefig(file, format="png", dpi=_DPI, metadata={"Software": None})
    plt.close(figure)
    return file.getvalue()
