"""A progress bar for all processes that work on a study."""

import contextlib
import time
from collections.abc import Callable
from collections.abc import Iterator

# Wait this many times the duration of an update before the next one.
_INTERVAL = 50


@contextlib.contextmanager
def progress_bar(
    description: str, total: int, done: Callable[[], tuple[int, str]], verbose: bool
) -> Iterator[Callable]:
    """Shows how many epochs are done, in all processes.

    `done` returns the number of epochs and a text beside them. The yielded function
    updates the bar, with a message instead of the text if there is one. It skips
    frequent updates, because with hundreds of trainings each takes a tenth of a second
    to read the database.
    """
    from tqdm import tqdm  # Optuna depends on it.

    not_before = 0.0

    def show(message=""):
        if verbose:
            bar.n, text = done()
            bar.set_postfix_str(message or text)

    def refresh(message=""):
        nonlocal not_before
        start = time.perf_counter()
        if start >= not_before:
            show(message)
            end = time.perf_counter()
            not_before = end + _INTERVAL * (end - start)

    with tqdm(total=total, unit="epoch", desc=description, disable=not verbose) as bar:
        show()
        # The remaining time is estimated from the epochs from now on.
        bar.initial = bar.n
        try:
            yield refresh
        finally:
            show()
