"""The planted faults: small edits of the package, and tests that should fail."""

import ast
import shlex
import tomllib
from pathlib import Path
from typing import NamedTuple

LISTS = sorted(Path(__file__).parent.glob("*.toml"))


class Selection(NamedTuple):
    """Arguments of pytest, and the backend that it runs on."""

    tests: str
    backend: str

    @property
    def arguments(self) -> list[str]:
        return shlex.split(self.tests)


class Fault(NamedTuple):
    """Describes an edit of the source.

    Attributes:
        modules: The modules of its list.
        name: What is wrong.
        file: The file to edit.
        old: A text that the file contains once.
        new: The text that replaces it.
        tests: Arguments of pytest, which select the tests that should fail.
        backend: The backend of the tests.
    """

    modules: str
    name: str
    file: str
    old: str
    new: str
    tests: str
    backend: str = "torch"

    @property
    def selection(self) -> Selection:
        return Selection(self.tests, self.backend)

    def plant(self, source: str) -> str:
        """Returns the contents of the file with the fault.

        Raises:
            ValueError: If the file does not contain the text once, or if the result is
                not Python.
        """
        if (count := source.count(self.old)) != 1:
            raise ValueError(
                f"Expected the text of the fault {self.name!r} once in {self.file}. "
                f"Received: {count} times {self.old!r}"
            )
        changed = source.replace(self.old, self.new)
        ast.parse(changed, self.file)
        return changed


def load_faults() -> list[Fault]:
    """Returns the faults of all lists."""
    faults = []
    for path in LISTS:
        contents = tomllib.loads(path.read_text())
        faults += [Fault(contents["modules"], **fault) for fault in contents["fault"]]
    names = [fault.name for fault in faults]
    repeated = {name for name in names if names.count(name) > 1}
    if repeated:
        raise ValueError(f"Expected each name once. Received twice: {repeated}")
    return faults
