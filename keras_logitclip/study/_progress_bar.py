"""The progress bar of a study."""

from keras_logitclip import _trials
from keras_logitclip.study._config import Cell
from keras_logitclip.study._config import Study


class ProgressBar:
    """Counts the epochs of all cells, those of other processes among them.

    Args:
        opened: The study in its database.
        study: The study.
        verbose: Whether to show it.
    """

    def __init__(self, opened, study: Study, verbose: bool):
        from tqdm import tqdm  # Optuna depends on it.

        self.opened = opened
        self.cells = set(study.cells)
        self.epochs = study.settings["epochs"]
        self.bar = tqdm(
            total=len(self.cells) * self.epochs,
            unit="epoch",
            desc=study.name,
            disable=not verbose,
        )

    def __enter__(self):
        self.refresh()
        # The time left is estimated from what is done from now on.
        self.bar.initial = self.bar.n
        return self

    def __exit__(self, *exception):
        self.refresh()
        self.bar.close()

    def refresh(self) -> None:
        if self.bar.disable:
            return
        done = dict.fromkeys(self.cells, 0)
        for trial in _trials.trials_of(self.opened):
            cell = Cell(*(_trials.job_of(trial) or ("",) * len(Cell._fields)))
            if cell in done:
                epochs = self.epochs if trial.value is not None else trial.last_step
                done[cell] = max(done[cell], epochs or 0)
        trained = sum(epochs == self.epochs for epochs in done.values())
        self.bar.set_postfix_str(f"{trained}/{len(done)} cells", refresh=False)
        self.bar.n = sum(done.values())
        self.bar.refresh()
