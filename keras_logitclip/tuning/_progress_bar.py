"""The progress bar of a search."""

from keras_logitclip.tuning._study import epochs_spent


class ProgressBar:
    """Counts epochs, those of other processes among them.

    Args:
        study: The study to count in.
        total: How many epochs there will be if nothing crashes.
        verbose: Whether to show it.
    """

    def __init__(self, study, total: int, verbose: bool):
        from tqdm import tqdm  # Optuna depends on it.

        self.study = study
        self.bar = tqdm(
            total=total, unit="epoch", desc=study.study_name, disable=not verbose
        )

    def __enter__(self):
        self.refresh()
        return self

    def __exit__(self, *exception):
        self.bar.close()

    def count_epoch(self) -> None:
        self.bar.update()

    def refresh(self) -> None:
        self.bar.n = epochs_spent(self.study)
        self.bar.refresh()
