"""Draws the pictures of a report: curves of the chosen candidates over the epochs."""

import io
import math

from keras_logitclip._plotting import new_axes
from keras_logitclip.study import _summary

# The names of the methods in reports, and their colors.
NAMES = {
    "plain": "plain",
    "tau": "LogitClip",
    "normalized_tau": "normalized LogitClip",
    "value_limit": "value clip",
    "norm_penalty": "norm penalty",
}
COLORS = dict(
    zip(NAMES, ("#737373", "#1f77b4", "#ff7f0e", "#2ca02c", "#d62728"), strict=True)
)
KINDS = {
    "curves": ("accuracy", "test accuracy (%)"),
    "memorized": ("memorized", "memorized labels (%)"),
}
_MAX_COLUMNS = 4
_WIDTH = 9.0  # In inches. With this resolution, about as wide as a README.
_DPI = 120


def draw_pictures(results: _summary.Results) -> dict[str, dict[str, bytes]]:
    """Returns PNG files by their names, for each noise."""
    pictures = {noise: {} for noise in results.cells.noise.unique()}
    for kind, (name, label) in KINDS.items():
        lines = _summary.curves(results, name)
        for noise, of_noise in lines.groupby("noise", sort=False):
            file = f"{kind}-{noise.replace(' ', '-')}.png"
            pictures[noise][file] = _draw(noise, of_noise, label)
    return pictures


def _draw(title, lines, y_label):
    """Draws a panel for each loss: means of its methods, ± deviations over seeds."""
    figure, axes = _panels(lines.loss.nunique())
    for ax, (loss, rows) in zip(axes, lines.groupby("loss", sort=False), strict=True):
        for method, points in rows.groupby("method", sort=False):
            color, mean, std = COLORS[method], points["mean"], points["std"]
            ax.plot(points.epoch, mean, ".-", ms=4, color=color, label=NAMES[method])
            band = {"color": color, "alpha": 0.15, "linewidth": 0}
            ax.fill_between(points.epoch, mean - std, mean + std, **band)
        ax.set_title(loss, fontsize=9)
        ax.set_xlabel("epoch", fontsize=8)
        if ax.get_subplotspec().is_first_col():
            ax.set_ylabel(y_label, fontsize=8)
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
    # Without the version of Matplotlib, so that the bytes change only with the picture.
    figure.savefig(file, format="png", dpi=_DPI, metadata={"Software": None})
    plt.close(figure)
    return file.getvalue()
