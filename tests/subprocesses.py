"""Starts processes, and ends them and their children with the test."""

import atexit
import contextlib
import functools
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Seconds that any of these processes may take, on a machine that is busy.
LIMIT = 240

# This process reads the groups of running processes until the process of the tests has
# ended, by whatever signal. Then it kills the remaining groups.
_GUARD = """
import os, signal, sys
groups = set()
for line in sys.stdin:
    group = int(line)
    if group > 0:
        groups.add(group)
    else:
        groups.discard(-group)
for group in groups:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        pass
"""


@functools.cache
def _guard():
    guard = subprocess.Popen(
        [sys.executable, "-S", "-c", _GUARD],
        stdin=subprocess.PIPE,
        text=True,
        bufsize=1,
        start_new_session=True,
    )

    def end():
        guard.stdin.close()
        try:
            guard.wait(10)
        except subprocess.TimeoutExpired:  # Something forked still has the pipe.
            guard.kill()

    atexit.register(end)
    return guard


def environment(backend: str | None = None, **variables: str) -> dict[str, str]:
    """Returns the variables for a process that can import the repository's packages.

    Args:
        backend: That of Keras. Defaults to `None`, which means that of the tests.
        **variables: Further ones.
    """
    own = {"KERAS_BACKEND": backend} if backend else {}
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        **own,
        **variables,
    }


@contextlib.contextmanager
def started(command: list, **options) -> Iterator[subprocess.Popen]:
    """Starts a process as the leader of a group, which ends with the block.

    Args:
        command: The program and its arguments.
        **options: Keyword arguments of `subprocess.Popen`.
    """
    options = {"env": environment(), "text": True, **options}
    process = subprocess.Popen(
        list(map(str, command)), start_new_session=True, **options
    )
    print(process.pid, file=_guard().stdin)
    try:
        yield process
    finally:
        end_group(process)
        print(-process.pid, file=_guard().stdin)


def end_group(process: subprocess.Popen) -> None:
    """Kills a process and those that it started, if any is left."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for pipe in (process.stdout, process.stderr):
        if pipe:
            pipe.close()


def finish(process: subprocess.Popen, limit: float = LIMIT) -> tuple[str, str]:
    """Waits for the end of a process, and returns its output and its messages."""
    try:
        return process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        output, messages = process.communicate(timeout=10)
    pytest.fail(f"A process took more than {limit} s: {output}\n{messages}")


def finish_well(process: subprocess.Popen, limit: float = LIMIT) -> tuple[str, str]:
    """Returns the output of a process, and checks that it ends without an error."""
    output, messages = finish(process, limit)
    assert process.returncode == 0, f"{output}\n{messages}"
    return output, messages


Ended = subprocess.CompletedProcess


def run(command: list, limit: float = LIMIT, **options) -> Ended:
    """Runs a process to its end, as `subprocess.run` does, and within a limit."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with started(command, **pipes, **options) as process:
        output, messages = finish(process, limit)
    return Ended(command, process.returncode, output, messages)


def run_well(command: list, **options) -> str:
    """Returns what a process prints, and checks that it ends without an error."""
    ended = run(command, **options)
    assert ended.returncode == 0, f"{ended.stdout}\n{ended.stderr}"
    return ended.stdout


def run_together(
    commands: list, environments: list[dict], folder: Path, limit: float = LIMIT
) -> list[str]:
    """Runs Python processes that need each other, and returns their outputs.

    All of them end with the first that fails.
    """
    logs = [folder / f"{index}.log" for index in range(len(commands))]
    with contextlib.ExitStack() as stack:
        processes = []
        for command, variables, log in zip(commands, environments, logs, strict=True):
            options = {"stdout": stack.enter_context(log.open("w")), "cwd": ROOT}
            options |= {"stderr": subprocess.STDOUT, "env": variables}
            process = started([sys.executable, *command], **options)
            processes.append(stack.enter_context(process))
        codes = _wait_for_all(processes, limit)
    written = [log.read_text() for log in logs]
    ends = "\n".join(text[-5000:] for text in written)
    assert codes == len(codes) * [0], f"{codes}, after {limit} s at most: {ends}"
    return written


def _wait_for_all(processes, limit):
    """Returns how the processes ended: None for one that goes on."""
    deadline = time.monotonic() + limit
    while True:
        codes = [process.poll() for process in processes]
        if any(codes) or None not in codes or time.monotonic() > deadline:
            return codes
        time.sleep(0.05)


def wait_for(condition: Callable[[], bool], what: str, limit: float = LIMIT) -> None:
    """Waits until a condition holds, and fails after the limit."""
    deadline = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < deadline, f"Waited more than {limit} s for {what}."
        time.sleep(0.05)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
