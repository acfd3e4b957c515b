"""Writes the tables of docs/choosing_tau.md, and those of the other pages of `PAGES`.

    python docs/results/tables.py          # writes them
    python docs/results/tables.py --check  # fails where they differ

A case is a data set with an optimizer and a kind of noise. In each, every method takes
the learning rate with the best accuracy on held-out noisy labels, of as many as the
others. Figures are test accuracies on clean labels in percent, means of the last tenth
of the epochs and over the seeds. The loss is cross-entropy.
"""

import sys
import tomllib
from pathlib import Path

import cleaning_tables
import loss_tables
import numpy as np
import pandas as pd

FOLDER = Path(__file__).parent
# The number of classes, and where the data are from.
STUDIES = {
    "odd-digits": (2, "digits"),
    "odd-digits-one-logit": (2, "digits"),
    "digits-mlp": (10, "digits"),
    "digits-cnn": (10, "digits"),
    "fashion-mnist": (10, "Fashion-MNIST"),
    "cifar10n": (10, "CIFAR-10N"),
    "letters": (26, "letters"),
    "banking77": (77, "banking77"),
    "clinc150": (150, "CLINC150"),
}
STUDY = ["classes", "data", "optimizer"]
CASE = [*STUDY, "noise"]
METHOD = [*CASE, "method", "value"]
ACCURACIES = [
    *("accuracy", "noisy_accuracy"),
    *("stopped_accuracy", "stopped_noisy_accuracy"),
]
TAUS = [0.5, 1.0, 1.5, 2.0, 3.0, 5.0]
TAU = 1.5


def load() -> pd.DataFrame:
    """Returns the trainings of methods that are trained with all rates and seeds."""
    parts = []
    for name in STUDIES:
        for optimizer in ("sgd", "adamw"):
            path = FOLDER / f"{name}-{optimizer}" / "cells.csv"
            if path.exists():
                study = load_study(path)
                parts.append(study.assign(data=name, optimizer=optimizer))
    cells = pd.concat(parts)
    return cells.assign(
        classes=cells.data.map(lambda name: STUDIES[name][0]),
        value=cells.value.fillna(0.0),
        **100 * cells[ACCURACIES],
    )


def load_study(path):
    settings = tomllib.loads(Path(f"{path.parent}.toml").read_text())
    rates = settings["optimizer"]["learning_rates"]
    cells = pd.read_csv(path)
    cells = cells[cells.learning_rate.isin(rates) & (cells.loss == "CE")]
    method = ["noise", "method", "value"]
    trained = cells.groupby(method, dropna=False).learning_rate.transform("size")
    complete = trained == len(rates) * settings["seeds"]
    for names in cells[~complete][method].drop_duplicates().values.tolist():
        print(f"Left out, not complete: {path.parent.name}", *names)
    return cells[complete]


def at_best_rate(cells: pd.DataFrame, by: str = "noisy_accuracy") -> pd.DataFrame:
    """Returns a row for each method and value: at the rate of the best accuracy.

    Of equal ones, it is the smallest rate.
    """
    rows = cells.groupby([*METHOD, "learning_rate"], as_index=False).agg(
        **{name: (name, "mean") for name in ACCURACIES},
        seeds=("seed", "size"),
    )
    # Rounded, lest the last digit decides.
    best = rows.loc[rows[by].round(6).groupby([rows[m] for m in METHOD]).idxmax()]
    rates = rows.groupby(METHOD).learning_rate.agg(["min", "max"])
    best = best.join(rates, METHOD)
    at_edge = (best.learning_rate == best["min"]) | (best.learning_rate == best["max"])
    return best.assign(at_edge=at_edge).set_index(METHOD)


def of(rows, method, value=0.0):
    """Returns the rows of one method, by their cases."""
    return rows.xs((method, value), level=("method", "value"))


def of_taus(rows, column):
    """Returns a column for each tau, of the cases that have all of them."""
    table = rows.xs("tau", level="method")[column].unstack("value")
    return table.reindex(columns=TAUS).dropna()


def below_best(cells, by="noisy_accuracy"):
    """Returns by how much each tau, and plain, are below the best tau of a case."""
    rows = at_best_rate(cells, by)
    table = of_taus(rows, "accuracy")
    table["plain"] = of(rows, "plain").accuracy
    return table.rsub(table[TAUS].max(axis=1), axis=0)


def default(cells):
    """Points below the best tau, over all cases, with rates by noisy and clean labels.

    The last row is a rule that knows the best tau of each data set and optimizer.
    """
    columns = {}
    for by, name in (("noisy_accuracy", "noisy"), ("accuracy", "clean")):
        below = below_best(cells, by)
        means = below[TAUS].groupby(STUDY).transform("mean")
        known = [below.at[case, tau] for case, tau in means.idxmin(axis=1).items()]
        below["the best of each study"] = known
        columns[f"{name}: mean"] = below.mean().map("{:.1f}".format)
        columns[f"{name}: worst"] = below.max().map("{:.1f}".format)
        share = (below <= 1).mean()
        columns[f"{name}: within 1 point"] = share.map("{:.0%}".format)
    return pd.DataFrame(columns).rename_axis("tau")


def default_by_study(cells):
    """Points below the best tau, mean over the kinds of noise."""
    below = below_best(cells).groupby(STUDY)
    return below.mean().map("{:.1f}".format).assign(cases=below.size())


def default_of_others(cells):
    """The best tau of the other data, and how far below the best it is here."""
    below = below_best(cells)
    data = below.index.get_level_values("data").map(lambda name: STUDIES[name][1])
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


def gains(cells):
    """How often, and by how much, each is above plain cross-entropy at its own rate."""
    rows, there = at_best_rate(cells), at_rate_of_plain(cells)
    plain = of(rows, "plain").accuracy
    methods = {
        "clipped, own rate": of(rows, "tau", TAU),
        "clipped, rate of plain": of(there, "tau", TAU),
        "normalized, own rate": of(rows, "normalized_tau", TAU),
        "normalized, rate of plain": of(there, "normalized_tau", TAU),
    }
    found = {
        (optimizer, name): {
            "cases": len(gain),
            "above": (gain > 0).sum(),
            "below": (gain < 0).sum(),
            "mean gain": f"{gain.mean():+.1f}",
        }
        for name, method in methods.items()
        for optimizer, gain in (method.accuracy - plain).dropna().groupby("optimizer")
    }
    return pd.DataFrame(found).T.rename_axis(["optimizer", "method"]).sort_index()


def learning_rates(cells):
    """How many times the rate of plain each tau takes: median, smallest to largest."""
    rows = at_best_rate(cells)
    plain = of(rows, "plain").learning_rate
    factors = of_taus(rows, "learning_rate").div(plain, axis=0).dropna()
    groups = factors.groupby(["classes", "optimizer"])
    texts = [groups.median(), groups.min(), groups.max()]
    median, low, high = (table.map("{:.3g}".format) for table in texts)
    return (median + " (" + low + " to " + high + ")").assign(cases=groups.size())


def at_rate_of_plain(cells):
    """Returns the accuracies of each method at the rate that plain chooses."""
    plain = of(at_best_rate(cells), "plain").learning_rate
    there = cells.join(plain.rename("rate of plain"), CASE)
    there = there[np.isclose(there.learning_rate, there["rate of plain"])]
    return there.groupby(METHOD)[["accuracy"]].mean()


def same_learning_rate(cells):
    """What clipping gives at the rate of plain cross-entropy, and at its own."""
    rows, there = at_best_rate(cells), at_rate_of_plain(cells)
    columns = {"plain": of(rows, "plain").accuracy}
    for method, name in (("tau", "clipped"), ("normalized_tau", "normalized")):
        columns[f"{name}, rate of plain"] = of(there, method, TAU).accuracy
        columns[f"{name}, own rate"] = of(rows, method, TAU).accuracy
    means = pd.DataFrame(columns).groupby(STUDY).mean()
    return means.map("{:.1f}".format).replace("nan", "")


def early_stopping(cells):
    """The last epochs, and the one of the best noisy accuracy, each at its own rate."""
    last, stopped = at_best_rate(cells), at_best_rate(cells, "stopped_noisy_accuracy")
    columns = {}
    for name, method in {"plain": ("plain", 0.0), "clipped": ("tau", TAU)}.items():
        columns[f"{name}, last epochs"] = of(last, *method).accuracy
        columns[f"{name}, stopped early"] = of(stopped, *method).stopped_accuracy
    table = pd.DataFrame(columns).dropna()
    noisy = table[table.index.get_level_values("noise") != "clean"]
    return noisy.groupby(STUDY).mean().map("{:.1f}".format)


def cost_of_noisy_validation(cells):
    """Points more at the rate that is best by clean labels: plain, and clipped."""
    best, rows = at_best_rate(cells, "accuracy"), at_best_rate(cells)
    methods = {"plain": ("plain", 0.0), "clipped": ("tau", TAU)}
    costs = pd.DataFrame(
        {
            name: of(best, *method).accuracy - of(rows, *method).accuracy
            for name, method in methods.items()
        }
    ).dropna()
    kinds = costs.index.get_level_values("noise").str.split().str[0]
    means = costs.groupby([*STUDY, kinds]).mean().map("{:.1f}".format)
    return (means.plain + ", " + means.clipped).unstack("noise").fillna("")


def all_cases(cells):
    """Each case: accuracy (rate), * where the rate is at the edge of those tried."""
    rows = at_best_rate(cells)
    texts = rows.accuracy.map("{:.1f} (".format) + rows.learning_rate.map("{:g}".format)
    rows["text"] = texts + rows.at_edge.map({True: "*)", False: ")"})
    at_rate = cells.join(rows.learning_rate.rename("chosen"), METHOD)
    at_rate = at_rate[at_rate.learning_rate == at_rate.chosen]
    by_seed = at_rate.set_index([*METHOD, "seed"]).accuracy.unstack("seed")
    gains = of(by_seed, "tau", TAU) - of(by_seed, "plain")
    gains = gains.dropna(how="all")
    error = gains.sem(axis=1).map(lambda e: "" if np.isnan(e) else f" ± {e:.1f}")
    there = at_rate_of_plain(cells).accuracy.map("{:.1f}".format).to_frame()
    columns = {
        "seeds": gains.count(axis=1),
        "plain": of(rows, "plain").text,
        f"tau {TAU:g}": of(rows, "tau", TAU).text,
        "gain": gains.mean(axis=1).map("{:+.1f}".format) + error,
        "normalized": of(rows, "normalized_tau", TAU).text,
        f"tau {TAU:g}, rate of plain": of(there, "tau", TAU).accuracy,
        "normalized, rate of plain": of(there, "normalized_tau", TAU).accuracy,
    }
    return pd.DataFrame(columns).loc[gains.index].fillna("").astype({"seeds": int})


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
    gains,
    early_stopping,
    cost_of_noisy_validation,
    all_cases,
)


# Of each page in docs: its tables, and what they are made of.
PAGES = {
    "choosing_tau.md": (TABLES, load),
    "choosing_loss.md": (loss_tables.TABLES, loss_tables.load),
    "cleaning.md": ([cleaning_tables.label_errors], cleaning_tables.load),
    "probabilities.md": ([cleaning_tables.calibration_errors], cleaning_tables.load),
}


def with_tables(text, tables, cells):
    """Returns the text of a page with its tables written anew."""
    for table in tables:
        start, end = f"<!-- {table.__name__} -->", "<!-- end -->"
        before, after = text.split(start)
        _, after = after.split(end, 1)
        text = f"{before}{start}\n\n{markdown(table(cells))}\n\n{end}{after}"
    return text


def before_and_after(name):
    """Returns the text of a page, and the same with its tables written anew."""
    tables, load_rows = PAGES[name]
    text = (FOLDER.parent / name).read_text(encoding="utf-8")
    return text, with_tables(text, tables, load_rows())


def main(check):
    stale = []
    for name in PAGES:
        before, after = before_and_after(name)
        if after != before:
            stale.append(name)
        if not check:
            (FOLDER.parent / name).write_text(after, encoding="utf-8")
    if check and stale:
        sys.exit(f"Tables that are not those of the trainings: {stale}")


if __name__ == "__main__":
    main(check=sys.argv[1:] == ["--check"])
