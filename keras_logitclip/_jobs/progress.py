"""One progress bar for all processes that work on a study."""

import contextlib
import time
from collections.abc import Callable
from collections.abc import Iterator

# Look again after so many times the time that the last look took.
_INTERVAL = 50


@contextlib.contextmanager
def progress_bar(
    description: str, total: int, done: Callable[[], tuple[int, str]], verbose: bool
) -> Iterator[Callable]:
    """Shows how many epochs are done, those of other processes among them.

    `done` returns how many, and a text to show beside them. What is yielded shows it,
    or a message, unless it was shown just now: with hundreds of trainings a look at
    the database takes a tenth of a second, which the trainings would miss.
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
        # The time left is estimated from what is done from now on.
        bar.initial = bar.n
        try:
            yield refresh
        finally:
            show()
