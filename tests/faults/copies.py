"""A copy of the repository, in which faults are planted."""

import contextlib
import hashlib
import re
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from tests.faults.planting import Fault
from tests.faults.planting import Selection
from tests.faults.warm import warm
from tests.subprocesses import ROOT
from tests.subprocesses import run_well

# Seconds for the tests of the unchanged source.
_LIMIT = 240


class Outcome(NamedTuple):
    """Holds the outcome of a test run: `caught` as in `Result`, "no" if all passed."""

    caught: str
    by: str
    seconds: float


class Copy:
    """A copy of the tracked files in a folder, and processes that test it.

    The end of its `with` block removes it.
    """

    def __enter__(self):
        self._stack = contextlib.ExitStack()
        temporary = tempfile.TemporaryDirectory(prefix="keras-logitclip-faults-")
        self._folder = Path(self._stack.enter_context(temporary))
        self._runs, self._outcomes = {}, {}
        tracked = run_well(["git", "-C", ROOT, "ls-files"]).splitlines()
        self._contents = {name: (ROOT / name).read_bytes() for name in tracked}
        for name, contents in self._contents.items():
            path = self._folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(contents)
        return self

    def __exit__(self, *exception):
        self._stack.close()

    def unchanged(self, selection: Selection) -> Outcome:
        """Runs tests without any fault, once."""
        if selection not in self._outcomes:
            self._outcomes[selection] = self._run(selection, _LIMIT)
        return self._outcomes[selection]

    def planted(self, fault: Fault, limit: float) -> Outcome:
        """Runs the tests of a fault with the fault, within a number of seconds."""
        path, contents = self._folder / fault.file, self._contents[fault.file]
        path.write_text(fault.plant(contents.decode()))
        try:
            return self._run(fault.selection, limit)
        finally:
            path.write_bytes(contents)

    def digest(self, fault: Fault) -> str:
        """Returns a hash of everything that a result depends on."""
        selected = {part.partition("::")[0] for part in fault.selection.arguments}
        digest = hashlib.sha256(repr(fault).encode())
        for name, contents in self._contents.items():
            if _is_used_by_all(name) or name in selected:
                digest.update(name.encode() + contents)
        return digest.hexdigest()[:16]

    def _run(self, selection, limit):
        start = time.monotonic()
        run = self._run_on(selection.backend)
        status, output = run(selection.arguments, limit)
        seconds = time.monotonic() - start
        if status is None:
            return Outcome("time-out", "", seconds)
        if status == 0 and " passed" in output:
            return Outcome("no", "", seconds)
        failure = re.search(
            r"^(?:FAILED|ERROR) (tests/.*?)(?: - |$)", output, re.MULTILINE
        )
        by = failure[1] if failure else f"exit status {status}"
        return Outcome("yes", by, seconds)

    def _run_on(self, backend):
        if backend not in self._runs:
            process = warm(self._folder, backend)
            self._runs[backend] = self._stack.enter_context(process)
        return self._runs[backend]


def _is_used_by_all(name):
    """Returns whether a file belongs to the package or is shared by tests."""
    folder, _, file = name.rpartition("/")
    helps = folder == "tests" and not file.startswith("test_")
    return name.startswith("keras_logitclip/") or helps
