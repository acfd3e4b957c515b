"""Processes that have imported a backend, and run pytest in forks of themselves.

The import of Keras and its backend takes several times as long as most tests.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.subprocesses import environment
from tests.subprocesses import started

_POLL_SECONDS = 0.05
# Neither a cache nor plugins that no test needs, which take two seconds to import.
_OPTIONS = ["-x", "-q", "-p", "no:cacheprovider", "-p", "pytest_timeout"]


@contextlib.contextmanager
def warm(copy: Path, backend: str) -> Iterator[Callable]:
    """Starts a process for the tests of a copy on one backend.

    Yields:
        A function that runs pytest until the first failure. It takes arguments and a
        number of seconds, and returns the exit status, `None` after those seconds, and
        what was written.
    """
    variables = environment(
        backend,
        OMP_NUM_THREADS="1",
        PYTHONPATH=str(copy),
        PYTEST_DISABLE_PLUGIN_AUTOLOAD="1",
        # An edit that keeps the size, within a second, would not be noticed.
        PYTHONDONTWRITEBYTECODE="1",
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    command = [sys.executable, "-m", "tests.faults.warm"]
    log = copy / f"{backend}.log"

    with started(command, cwd=copy, env=variables, **pipes) as process:

        def run(arguments: list[str], limit: float) -> tuple[int | None, str]:
            log.write_text("")
            request = str(log), limit, [*_OPTIONS, *arguments]
            print(json.dumps(request), file=process.stdin, flush=True)
            status = json.loads(process.stdout.readline())
            return status, log.read_text(errors="replace")

        yield run


def _serve():
    # Imports that take long, but nothing of the copy.
    import hypothesis  # noqa: F401
    import keras  # noqa: F401
    import optuna  # noqa: F401

    for line in sys.stdin:
        print(json.dumps(_run_in_fork(*json.loads(line))), flush=True)


def _run_in_fork(log, limit, arguments):
    child = os.fork()
    if child == 0:
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for output in (1, 2):
            os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), output)
        status = pytest.main(arguments)
        sys.stdout.flush()
        os._exit(status)
    deadline = time.monotonic() + limit
    while time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(_POLL_SECONDS)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


if __name__ == "__main__":
    _serve()
