"""The results, a line for each fault that was planted, and the table of them."""

import csv
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from tests.faults.planting import Fault

PATH = Path(__file__).parent / "results.csv"


class Result(NamedTuple):
    """Holds the result of the tests of a fault.

    Attributes:
        date: The day, as YYYY-MM-DD.
        commit: The last commit then.
        fault: The name of the fault.
        caught: "yes", "no" or "time-out".
        by: The first test that failed.
        seconds: How long the tests took.
        digest: Of the source, the fault and the tests.
    """

    date: str
    commit: str
    fault: str
    caught: str
    by: str
    seconds: str
    digest: str


def read() -> list[Result]:
    """Returns the results so far, the oldest first."""
    if not PATH.exists():
        return []
    with PATH.open(newline="") as file:
        return [Result(**row) for row in csv.DictReader(file)]


def append(result: Result) -> None:
    """Appends a result at once, so that a kill loses nothing."""
    is_new = not PATH.exists()
    with PATH.open("a", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if is_new:
            writer.writerow(Result._fields)
        writer.writerow(result)


def report(faults: list[Fault]) -> str:
    """Returns the table of `docs/testing.md` with the last result of each fault."""
    last = {result.fault: result for result in read()}
    known = [fault for fault in faults if fault.name in last]
    planted = Counter(fault.modules for fault in known)
    survived = [fault for fault in known if last[fault.name].caught == "no"]
    missed = Counter(fault.modules for fault in survived)
    rows = [(name, count, count - missed[name]) for name, count in planted.items()]
    caught = len(known) - len(survived)
    rows.append(("all", len(known), f"{caught} ({caught / max(1, len(known)):.0%})"))
    dates = sorted(last[fault.name].date for fault in known)
    return "\n".join(
        [
            "| modules | faults | caught |",
            "|---|---|---|",
            *(f"| {name} | {count} | {caught} |" for name, count, caught in rows),
            "",
            f"Run {' to '.join(dict.fromkeys(dates[:1] + dates[-1:]))}.",
            *(f"Not caught: {fault.name}." for fault in survived),
            *(f"Not run: {f.name}." for f in faults if f.name not in last),
        ]
    )
