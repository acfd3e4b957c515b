"""Writes the tables of docs/choosing_tau.md, from the trainings of the studies here.

    python docs/results/tables.py

A case is a data set with an optimizer and a kind of noise. In each, every method takes
the learning rate with the best accuracy on held-out noisy labels, of as many as the
others. Figures are test accuracies on clean labels in percent, means of the last tenth
of the epochs and over the seeds. The loss is cross-entropy.
"""

from pathlib import Path

import numpy as np
import pandas as pd

FOLDER = Path(__file__).parent
CLASSES = {
    "odd-digits": 2,
    "odd-digits-one-logit": 2,
    "digits-mlp": 10,
    "digits-cnn": 10,
    "fashion-mnist": 10,
    "cifar10n": 10,
    "letters": 26,
    "banking77": 77,
    "clinc150": 150,
}
STUDY = ["classes", "data", "optimizer"]
CASE = [*STUDY, "noise"]
METHOD = [*CASE, "method", "value"]
TAUS = [0.5, 1.0, 1.5, 2.0, 3.0, 5.0]
TAU = 1.5


def load(folder: Path) -> pd.DataFrame:
    """Returns the trainings, without what is not trained with all rates yet."""
    cells = pd.concat(map(pd.read_csv, sorted(folder.glob("*/cells.csv"))))
    cells[["data", "_", "optimizer"]] = cells.study.str.rpartition("-")
    cells = cells[(cells.loss == "CE") & cells.data.isin(CLASSES)]
    cells = cells.assign(
        classes=cells.data.map(CLASSES),
        value=cells.value.fillna(0.0),
        **100 * cells[["accuracy", "noisy_accuracy"]],
    )
    rates = cells.groupby([*METHOD, "seed"]).learning_rate.transform("size")
    all_rates = rates.groupby([cells[name] for name in STUDY]).transform("max")
    return cells[rates == all_rates]


def at_best_rate(cells: pd.DataFrame, by: str = "noisy_accuracy") -> pd.DataFrame:
    """Returns a row for each method and value: at the rate of the best accuracy."""
    rows = cells.groupby([*METHOD, "learning_rate"], as_index=False).agg(
        accuracy=("accuracy", "mean"),
        error=("accuracy", "sem"),
        noisy_accuracy=("noisy_accuracy", "mean"),
        seeds=("seed", "size"),
    )
    best = rows.loc[rows.groupby(METHOD)[by].idxmax()]
    rates = rows.groupby(CASE).learning_rate.agg(["min", "max"])
    best = best.join(rates, CASE)
    at_edge = (best.learning_rate == best["min"]) | (best.learning_rate == best["max"])
    return best.assign(at_edge=at_edge).set_index(METHOD)


def of(rows, method, value=0.0):
    """Returns the rows of one method, by their cases."""
    return rows.xs((method, value), level=("method", "value"))


def of_taus(rows, column):
    """Returns a column for each tau, of the cases that have all of them."""
    table = rows.xs("tau", level="method")[column].unstack("value")
    return table.reindex(columns=TAUS).dropna()


def below_best(cells):
    """Returns by how much each tau, and plain, are below the best tau of a case."""
    rows = at_best_rate(cells)
    table = of_taus(rows, "accuracy")
    table["plain"] = of(rows, "plain").accuracy
    return table.rsub(table[TAUS].max(axis=1), axis=0)


def default(cells):
    """Points below the best tau, over all cases."""
    below = below_best(cells)
    return pd.DataFrame(
        {
            "mean": below.mean().map("{:.1f}".format),
            "worst": below.max().map("{:.1f}".format),
            "within 1 point": (below <= 1).mean().map("{:.0%}".format),
        }
    ).rename_axis("tau")


def default_by_study(cells):
    """Points below the best tau, mean over the kinds of noise."""
    below = below_best(cells).groupby(STUDY)
    return below.mean().map("{:.1f}".format).assign(cases=below.size())


def default_of_others(cells):
    """The best tau of the other data, and how far below the best it is here."""
    below = below_best(cells)
    data = below.index.get_level_values("data")
    found = {}
    for name in dict.fromkeys(data):
        tau = below[data != name][TAUS].mean().idxmin()
        here = below.loc[data == name]
        found[name] = {
            "tau": f"{tau:g}",
            "mean": f"{here[tau].mean():.1f}",
            "worst": f"{here[tau].max():.1f}",
            "plain": f"{here.plain.mean():.1f}",
        }
    return pd.DataFrame(found).T.rename_axis("data")


def learning_rates(cells):
    """The factor to the rate of plain: geometric mean (spread, a factor, too)."""
    rows = at_best_rate(cells)
    plain = of(rows, "plain").learning_rate
    factors = np.log10(of_taus(rows, "learning_rate").div(plain, axis=0)).dropna()
    groups = factors.groupby(["classes", "optimizer"])
    mean, spread = 10 ** groups.mean(), 10 ** groups.std()
    table = mean.map("{:.2g}".format) + " (" + spread.map("{:.1f}".format) + ")"
    return table.assign(cases=groups.size())


def same_learning_rate(cells):
    """What clipping gives at the rate of plain cross-entropy, and at its own."""
    rows = at_best_rate(cells)
    plain = of(rows, "plain")
    rates = plain.learning_rate.rename("rate of plain")
    there = cells.join(rates, CASE)
    there = there[np.isclose(there.learning_rate, there["rate of plain"])]
    there = there.groupby(METHOD)[["accuracy"]].mean()
    columns = {"plain": plain.accuracy}
    for method, name in (("tau", "clipped"), ("normalized_tau", "normalized")):
        if method in rows.index.unique("method"):
            columns[f"{name}, rate of plain"] = of(there, method, TAU).accuracy
            columns[f"{name}, own rate"] = of(rows, method, TAU).accuracy
    means = pd.DataFrame(columns).groupby(STUDY).mean()
    return means.map("{:.1f}".format).replace("nan", "")


def cost_of_noisy_validation(cells):
    """Points more at the rate that is best by clean test labels, which nobody has."""
    best, rows = at_best_rate(cells, "accuracy"), at_best_rate(cells)
    columns = {"plain": ("plain", 0.0), f"tau {TAU:g}": ("tau", TAU)}
    costs = pd.DataFrame(
        {
            name: of(best, *method).accuracy - of(rows, *method).accuracy
            for name, method in columns.items()
        }
    ).dropna()
    return costs.groupby(STUDY).mean().map("{:.1f}".format)


def all_cases(cells):
    """Each case: accuracy (rate), * where the rate is at the edge of those tried."""
    rows = at_best_rate(cells)
    texts = rows.accuracy.map("{:.1f} (".format) + rows.learning_rate.map("{:g}".format)
    rows["text"] = texts + rows.at_edge.map({True: "*)", False: ")"})
    plain, clipped = of(rows, "plain"), of(rows, "tau", TAU)
    gain = (clipped.accuracy - plain.accuracy).dropna()
    error = np.hypot(clipped.error, plain.error)[gain.index]
    columns = {
        "seeds": plain.seeds[gain.index].astype(str),
        "plain": plain.text,
        f"tau {TAU:g}": clipped.text,
        "gain": gain.map("{:+.1f}".format)
        + error.map(lambda of: "" if np.isnan(of) else f" ± {of:.1f}"),
    }
    if "normalized_tau" in rows.index.unique("method"):
        columns["normalized"] = of(rows, "normalized_tau", TAU).text
    return pd.DataFrame(columns).loc[gain.index].fillna("")


def markdown(table):
    table = table.reset_index()
    lines = [table.columns, *table.values.tolist()]
    lines = [f"| {' | '.join(map(str, line))} |" for line in lines]
    return "\n".join([lines[0], "|---" * len(table.columns) + "|", *lines[1:]])


TABLES = (
    default,
    default_by_study,
    default_of_others,
    learning_rates,
    same_learning_rate,
    cost_of_noisy_validation,
    all_cases,
)


def main():
    cells = load(FOLDER)
    page = FOLDER.parent / "choosing_tau.md"
    text = page.read_text()
    for table in TABLES:
        start, end = f"<!-- {table.__name__} -->", "<!-- end -->"
        before, after = text.split(start)
        _, after = after.split(end, 1)
        text = f"{before}{start}\n\n{markdown(table(cells))}\n\n{end}{after}"
    page.write_text(text)


if __name__ == "__main__":
    main()
