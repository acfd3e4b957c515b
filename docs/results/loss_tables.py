"""The tables of docs/choosing_loss.md, from the trainings of `*-losses-sgd`.

A method is a loss, plain or clipped. In each case, a data set with a kind of noise, it
takes the learning rate, `tau` and so on with the best accuracy on held-out noisy labels
of one seed. What is chosen is trained with three. Figures are test accuracies on clean
labels in percent, means of the last tenth of the epochs and over the seeds.
"""

import tomllib
from pathlib import Path

import numpy as np
import pandas as pd

FOLDER = Path(__file__).parent
DATA = ("digits", "letters", "cifar10n", "banking77")
CASE = ["data", "noise"]
CANDIDATE = ["value", "learning_rate", "weight_decay"]
SMOOTHING = "label smoothing"
# Of rows of the tables: the loss, and how it is trained.
CROSS_ENTROPY = {
    ("CE", "plain"): "cross-entropy",
    (SMOOTHING, "plain"): "label smoothing 0.1",
    ("CE, weight decay", "plain"): "larger weight decay",
    ("LogitNorm", "plain"): "LogitNorm",
    ("CE", "value_limit"): "each logit clipped",
    ("CE", "norm_penalty"): "penalty of the norm",
    ("CE", "tau"): "**LogitClip**",
    (SMOOTHING, "tau"): "LogitClip, label smoothing 0.1",
    ("CE, weight decay", "tau"): "LogitClip, larger weight decay",
}


def load() -> pd.DataFrame:
    """Returns a row for each case, loss and method, as it is chosen, and each seed."""
    parts = []
    for path in sorted(FOLDER.glob("*-sgd/cells.csv")):
        study = path.parent.name.removesuffix("-sgd")
        data, _, kind = study.partition("-")
        if data in DATA and (kind == "losses" or kind.startswith("decay")):
            parts.append(_load_study(path).assign(data=data))
    cells = pd.concat(parts)
    is_usual = cells.weight_decay == cells.weight_decay.min()
    usual, decays = cells[is_usual], cells[~is_usual].assign(loss="CE, weight decay")
    cells = pd.concat([usual, decays], ignore_index=True)
    method = [*CASE, "loss", "method"]
    # Of equal ones the larger value, then the smaller rate, as in studies.
    order = ["noisy_accuracy", *CANDIDATE]
    first = cells[cells.seed == 0].sort_values(
        order, ascending=[False, False, True, True]
    )
    best = first.groupby(method).head(1)
    return cells.merge(best[[*method, *CANDIDATE]], on=[*method, *CANDIDATE])


def _load_study(path):
    settings = tomllib.loads(Path(f"{path.parent}.toml").read_text())
    cells = pd.read_csv(path)
    method = ["noise", "loss", "method"]
    rates = len(settings["optimizer"]["learning_rates"])
    groups = cells.groupby(method)
    # All candidates with the first seed, and the chosen one with all.
    candidates = groups.value.transform(lambda v: rates * max(v.nunique(), 1))
    trained = groups.learning_rate.transform("size")
    complete = trained == candidates + settings["seeds"] - settings["select_seeds"]
    for names in cells[~complete][method].drop_duplicates().values.tolist():
        print(f"Left out, not complete: {path.parent.name}", *names)
    cells = cells[complete]
    return cells.assign(
        weight_decay=settings["optimizer"]["weight_decay"],
        loss=cells.loss.replace("evidence:label_smoothing", SMOOTHING),
        value=cells.value.fillna(0.0),
        **100 * cells[["accuracy", "noisy_accuracy"]].round(9),
    )


def by_seed(chosen) -> pd.DataFrame:
    """Returns the accuracies: rows of case, loss and method, a column for each seed."""
    index = [*CASE, "loss", "method", "seed"]
    return chosen.set_index(index).accuracy.unstack("seed")


def _gains(chosen):
    rows = by_seed(chosen)
    both = [rows.xs(method, level="method") for method in ("plain", "tau")]
    gains = (both[1] - both[0]).dropna(how="all")
    means = pd.DataFrame({"plain": both[0].mean(axis=1), "tau": both[1].mean(axis=1)})
    return means.loc[gains.index].assign(
        gain=gains.mean(axis=1), error=gains.sem(axis=1)
    )


def gain_of_clipping(chosen):
    """Each loss, plain and clipped, and the gain: means over the kinds of noise."""
    gains = _gains(chosen).groupby(["loss", "data"])
    means = gains[["plain", "tau", "gain"]].mean()
    means["error"] = gains.error.apply(lambda e: np.sqrt((e**2).sum()) / len(e))
    texts = means.apply(_gain_text, axis=1).unstack("data")
    names = [name for name in DATA if name in texts]
    order = means.tau.groupby("loss").mean().sort_values(ascending=False).index
    return texts.reindex(order)[names].fillna("")


def _gain_text(row):
    return f"{row.plain:.1f} → {row.tau:.1f} ({row.gain:+.1f} ± {row.error:.1f})"


def _names(rows):
    """Returns what rows are called in a table of all losses."""
    losses, methods = (rows.index.get_level_values(n) for n in ("loss", "method"))
    suffix = {"plain": "", "tau": ", clipped"}
    return [
        loss + suffix.get(method, f", {method}".replace("_", " "))
        for loss, method in zip(losses, methods, strict=True)
    ]


def below_best_loss(chosen):
    """How far each loss is below the best one of a case: mean, worst, by data."""
    means = by_seed(chosen).mean(axis=1)
    below = means.groupby(CASE).transform("max") - means
    below = below[below.index.get_level_values("loss") != "CE, weight decay"]
    groups = below.groupby(["loss", "method"])
    table = below.groupby(["loss", "method", "data"]).mean().unstack("data")
    table = table[[name for name in DATA if name in table]]
    table.insert(0, "mean", groups.mean())
    table.insert(1, "worst", groups.max())
    table = table[groups.size() == groups.size().max()].sort_values("mean")
    table.insert(0, "loss", _names(table))
    return table.set_index("loss").map("{:.1f}".format)


def instead_of_clipping(chosen):
    """Cross-entropy with what people do against wrong labels, alone and clipped."""
    rows = by_seed(chosen)
    texts = rows.mean(axis=1).map("{:.1f}".format) + " ± "
    texts += rows.sem(axis=1).map("{:.1f}".format)
    table = texts.unstack(CASE).reindex([*CROSS_ENTROPY]).dropna(how="all").fillna("")
    table.index = [CROSS_ENTROPY[key] for key in table.index]
    table.columns = [f"{data}, {noise}" for data, noise in table.columns]
    return table.rename_axis("").T.rename_axis("data, noise")


TABLES = (gain_of_clipping, below_best_loss, instead_of_clipping)
