"""The progress bar of a study."""

import time

from keras_logitclip._jobs import queue
from keras_logitclip.study._config import Cell
from keras_logitclip.study._config import Study

# Wait so many times the time that the last look at the database took.
_REFRESH_INTERVAL = 50


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
        self.not_before = 0.0
        self.bar = tqdm(
            total=len(self.cells) * self.epochs,
            unit="epoch",
            desc=study.name,
            disable=not verbose,
        )

    def __enter__(self):
        self._refresh()
        # The time left is estimated from what is done from now on.
        self.bar.initial = self.bar.n
        return self

    def __exit__(self, *exception):
        self._refresh()
        self.bar.close()

    def refresh(self) -> None:
        """Shows what is done, unless it was shown just now.

        With hundreds of cells a look at the database takes a tenth of a second, which
        the trainings would miss.
        """
        start = time.perf_counter()
        if start < self.not_before:
            return
        self._refresh()
        end = time.perf_counter()
        self.not_before = end + _REFRESH_INTERVAL * (end - start)

    def _refresh(self):
        if self.bar.disable:
            return
        done = dict.fromkeys(self.cells, 0)
        for trial in queue.trials_of(self.opened):
            cell = Cell(*(queue.job_of(trial) or ("",) * len(Cell._fields)))
            if cell in done:
                epochs = self.epochs if trial.value is not None else trial.last_step
                done[cell] = max(done[cell], epochs or 0)
        trained = sum(epochs == self.epochs for epochs in done.values())
        self.bar.set_postfix_str(f"{trained}/{len(done)} cells", refresh=False)
        self.bar.n = sum(done.values())
        self.bar.refresh()
