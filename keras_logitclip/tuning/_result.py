"""The result of a search."""

import dataclasses
import math
from typing import Any

from keras_logitclip._jobs import queue
from keras_logitclip._plotting import new_axes


@dataclasses.dataclass(frozen=True)
class TauSearch:
    """Holds the result of `search_tau`. It prints as a table.

    Attributes:
        best_tau: The threshold with the best accuracy on held-out noisy labels, among
            those with the most seeds. `inf` means no clipping.
        best_learning_rate: Its learning rate, `None` without `learning_rates`.
        rows: A dictionary for each trained threshold and learning rate: `"tau"`,
            `"learning_rate"`, `"seeds"` (their number), `"accuracy"` on the held-out
            noisy labels and `"clean_accuracy"` (`None` without clean data).
        epochs: Epochs of one training.
        epochs_spent: Epochs of all trainings together, including crashed ones.
        cost: The same as a number of trainings.
        study_name: The name of the Optuna study.
    """

    best_tau: float
    best_learning_rate: float | None
    rows: list[dict]
    epochs: int
    epochs_spent: int
    study_name: str

    @property
    def cost(self) -> float:
        return self.epochs_spent / self.epochs

    def __str__(self):
        best = f"best tau: {self.best_tau:.4g}"
        if self.best_learning_rate is not None:
            best += f", learning rate: {self.best_learning_rate:.4g}"
        cost = f"{self.epochs_spent} epochs = {self.cost:.2f} full trainings"
        lines = [f"{best} (study {self.study_name!r}, {cost})", *self._advice()]
        lines.append("    tau   1/tau    rate  seeds  noisy acc.  clean acc.")
        for row in self.rows:
            rate, clean = row["learning_rate"], row["clean_accuracy"]
            lines.append(
                f"{row['tau']:7.4g} {1 / row['tau']:7.4g} "
                + (7 * " " if rate is None else f"{rate:7.4g}")
                + f"{row['seeds']:7d} {row['accuracy']:11.4f}"
                + ("" if clean is None else f"{clean:12.4f}")
            )
        return "\n".join(lines)

    def _advice(self):
        """Returns advice if the best learning rate is the smallest or the largest."""
        rates = {row["learning_rate"] for row in self.rows}
        if len(rates) > 1 and self.best_learning_rate == min(rates):
            return ["This is the smallest learning rate: try smaller ones, too."]
        if len(rates) > 1 and self.best_learning_rate == max(rates):
            return ["This is the largest learning rate: try larger ones, too."]
        return []

    def plot(self, ax: Any = None) -> Any:
        """Draws the accuracies over `tau`, with a line for each learning rate.

        An infinite `tau`, which means no clipping, is drawn at twice the largest other
        one.

        Args:
            ax: The Matplotlib axes to draw on. Defaults to `None`, which means a new
                figure.

        Returns:
            The Matplotlib axes.
        """
        ax = new_axes("TauSearch.plot") if ax is None else ax
        taus = sorted({row["tau"] for row in self.rows})
        end = 2 * max((tau for tau in taus if tau < math.inf), default=1)
        kinds = [("accuracy", "noisy", "-"), ("clean_accuracy", "clean", "--")]
        if self.rows[0]["clean_accuracy"] is None:
            kinds.pop()
        rates = sorted({row["learning_rate"] for row in self.rows})
        for index, rate in enumerate(rates):
            which = "" if rate is None else f", learning rate {rate:.4g}"
            rows = [row for row in self.rows if row["learning_rate"] == rate]
            places = [min(row["tau"], end) for row in rows]
            for key, labels, dash in kinds:
                look = {"color": f"C{index}", "label": f"{labels} labels{which}"}
                ax.plot(places, [row[key] for row in rows], f"o{dash}", **look)
        ax.axvline(min(self.best_tau, end), color="0.7", zorder=0)
        ax.set(xscale="log", xlabel="tau", ylabel="accuracy", title=self.study_name)
        ax.set_xticks([min(tau, end) for tau in taus], [f"{tau:.3g}" for tau in taus])
        ax.minorticks_off()
        ax.legend()
        return ax


def rows_of(study) -> list[dict]:
    """Returns a row for each threshold and learning rate, with means over the seeds."""
    groups = {}
    for (*group, _), trial in sorted(queue.complete_trials(study).items()):
        groups.setdefault(tuple(group), []).append(trial)
    return [
        {
            "tau": tau,
            "learning_rate": learning_rate,
            "seeds": len(trials),
            "accuracy": _mean([trial.value for trial in trials]),
            "clean_accuracy": _mean([t.user_attrs["clean_accuracy"] for t in trials]),
        }
        for (tau, learning_rate), trials in groups.items()
    ]


def epochs_spent(study) -> int:
    """Returns the number of epochs of all trainings, including crashed ones."""
    trials = queue.trials_of(study, "RUNNING", "COMPLETE", "FAIL")
    return sum(len(trial.intermediate_values) for trial in trials)


def _mean(values):
    return None if None in values else sum(values) / len(values)
