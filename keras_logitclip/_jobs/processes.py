"""Worker processes, which share nothing but a database."""

import multiprocessing
import time
from collections.abc import Callable

import keras

from keras_logitclip._jobs.description import keras_settings

_POLL_SECONDS = 0.5


def work_in_processes(
    workers: int,
    target: Callable,
    arguments: tuple,
    is_complete: Callable[[], bool],
    on_poll: Callable[[], None],
) -> None:
    """Starts processes that call a function, and waits until all of them have ended.

    Keras is set as here in all of them. `is_complete` is asked if one of them failed,
    `on_poll` called every now and then.

    Raises:
        RuntimeError: If they end before all is done.
    """
    # Forked, a process would inherit the threads and locks of the backend.
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(
            target=_run, args=(keras_settings(), target, arguments), daemon=True
        )
        for _ in range(workers)
    ]
    try:
        for process in processes:
            process.start()
        while any(process.is_alive() for process in processes):
            time.sleep(_POLL_SECONDS)
            on_poll()
    finally:
        for process in processes:
            if process.is_alive():
                process.terminate()
    codes = [process.exitcode for process in processes]
    if any(codes) and not is_complete():
        raise RuntimeError(
            "All worker processes ended before the work was complete; what is done "
            "is kept, and the same call goes on with it. Their errors are printed "
            f"above. Received: exit codes {codes}"
        )


def _run(settings, target, arguments):
    keras.config.set_floatx(settings["floatx"])
    keras.config.set_dtype_policy(settings["dtype_policy"])
    keras.config.set_image_data_format(settings["image_data_format"])
    target(*arguments)


def exit_with_parent(*ignored) -> None:
    """Leaves the work to others when nobody waits for this process any more."""
    if not multiprocessing.parent_process().is_alive():
        raise SystemExit("The parent process was ended.")
