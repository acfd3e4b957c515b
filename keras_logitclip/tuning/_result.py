"""What a search found."""

import dataclasses

from keras_logitclip._plotting import new_axes


@dataclasses.dataclass(frozen=True)
class TauSearch:
    """What `search_tau` found. Printed, it is a table.

    Attributes:
        best_tau: The threshold with the best accuracy on held-out noisy labels,
            among those with the most seeds.
        rows: A dictionary for each threshold that was trained: `"tau"`, `"seeds"`
            (how many), `"accuracy"` on the held-out noisy labels and
            `"clean_accuracy"` (`None` without clean data).
        epochs: Epochs of a full training.
        epochs_spent: Epochs of all trainings together, also of those that crashed.
        cost: The same in full trainings.
        study_name: The name of the Optuna study.
    """

    best_tau: float
    rows: list[dict]
    epochs: int
    epochs_spent: int
    study_name: str

    @property
    def cost(self) -> float:
        return self.epochs_spent / self.epochs

    def __str__(self):
        lines = [
            f"best tau: {self.best_tau:.4g} (study {self.study_name!r}, "
            f"{self.epochs_spent} epochs = {self.cost:.2f} full trainings)",
            "    tau   1/tau  seeds  noisy acc.  clean acc.",
        ]
        for row in self.rows:
            clean = row["clean_accuracy"]
            lines.append(
                f"{row['tau']:7.4g} {1 / row['tau']:7.4g} {row['seeds']:6d} "
                f"{row['accuracy']:11.4f} "
                + (f"{'':>11s}" if clean is None else f"{clean:11.4f}")
            )
        return "\n".join(line.rstrip() for line in lines)

    def plot(self, ax=None):
        """Draws the accuracies over `tau`.

        Args:
            ax: The Matplotlib axes to draw on. Defaults to `None`, which means
                those of a new figure.

        Returns:
            The Matplotlib axes.

        Raises:
            ImportError: If Matplotlib is not installed.

        Example:

        ```python
        tuning.search_tau(build_model, x, y, epochs=60).plot().figure.savefig("tau.png")
        ```
        """
        if ax is None:
            ax = new_axes("TauSearch.plot")
        kinds = {"accuracy": ("noisy", "-"), "clean_accuracy": ("clean", "--")}
        for key, (labels, style) in kinds.items():
            points = [(r["tau"], r[key]) for r in self.rows if r[key] is not None]
            if points:
                ax.plot(
                    *zip(*points, strict=True),
                    style,
                    marker="o",
                    label=f"{labels} labels",
                )
        ax.axvline(self.best_tau, color="0.7", zorder=0)
        ax.set(xscale="log", xlabel="tau", ylabel="accuracy", title=self.study_name)
        ax.legend()
        return ax
