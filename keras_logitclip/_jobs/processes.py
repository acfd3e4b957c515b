"""Work in one or several processes, which share only a database."""

import multiprocessing
import time
from collections.abc import Callable

import keras

from keras_logitclip._jobs.description import keras_settings

_POLL_SECONDS = 0.5
_LONGEST = 200  # Bytes of a message of a worker.


def work(
    workers: int,
    target: Callable,
    arguments: tuple,
    is_complete: Callable[[], bool],
    on_progress: Callable[[str], None],
) -> None:
    """Calls a function in this process or in several, and waits until they end.

    The function gets the arguments and a function that passes messages to
    `on_progress`. All processes have the Keras settings of this one. `is_complete` is
    called if one of them failed.

    Raises:
        RuntimeError: If all processes end before the work is complete.
    """
    if workers == 1:
        target(*arguments, on_progress)
        return
    # A forked process would inherit the threads and locks of the backend.
    context = multiprocessing.get_context("spawn")
    # Without a lock, which a killed worker would keep.
    message = context.RawArray("c", _LONGEST + 1)
    worker = (keras_settings(), message, target, arguments)
    processes = [
        context.Process(target=_run, args=worker, daemon=True) for _ in range(workers)
    ]
    try:
        for process in processes:
            process.start()
        while any(process.is_alive() for process in processes):
            time.sleep(_POLL_SECONDS)
            on_progress(message.value.decode(errors="ignore"))
    finally:
        for process in processes:
            if process.is_alive():
                process.terminate()
    codes = [process.exitcode for process in processes]
    if any(codes) and not is_complete():
        raise RuntimeError(
            "All worker processes ended before the work was complete. Their errors are "
            "printed above. Finished work is kept, and the same call resumes it. "
            f"Received: exit codes {codes}"
        )


def _run(settings, message, target, arguments):
    def on_progress(text=""):
        if not multiprocessing.parent_process().is_alive():
            raise SystemExit("The parent process was ended.")
        message.value = text.encode()[:_LONGEST]

    keras.config.set_floatx(settings["floatx"])
    keras.config.set_dtype_policy(settings["dtype_policy"])
    keras.config.set_image_data_format(settings["image_data_format"])
    target(*arguments, on_progress)
