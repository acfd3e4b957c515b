"""Plants faults in a copy of the package, one at a time, and runs tests on each.

A fault is caught if its tests pass on the unchanged copy and fail with it. Results are
appended to `results.csv`. A fault with a result for the same source and tests is not
run again.
"""

import argparse
import datetime
import re
import sys
from collections import Counter

from tests.faults import results
from tests.faults.copies import Copy
from tests.faults.planting import load_faults
from tests.subprocesses import ROOT
from tests.subprocesses import run_well

# The time limit is this many times the duration without a fault, plus these seconds.
_TIMES, _MORE = 4, 30


def main() -> None:
    parser = argparse.ArgumentParser("python -m tests.faults", description=__doc__)
    parser.add_argument(
        "--only", default="", help="faults whose name or file has this pattern"
    )
    parser.add_argument(
        "--report", action="store_true", help="only print the table of the results"
    )
    options = parser.parse_args()
    faults = load_faults()
    if options.report:
        print(results.report(faults))
        return
    chosen = [f for f in faults if re.search(options.only, f"{f.file}: {f.name}")]
    for fault in chosen:  # A list that went stale fails at once.
        fault.plant((ROOT / fault.file).read_text())
    with Copy() as copy:
        sys.exit(_plant_all(chosen, copy))


def _plant_all(faults, copy) -> str | None:
    """Returns what is wrong, if anything is."""
    known = {result.digest: result for result in results.read()}
    counts = Counter()
    for number, fault in enumerate(faults, start=1):
        digest = copy.digest(fault)
        result = known.get(digest) or _new_result(fault, digest, copy)
        head = f"[{number}/{len(faults)}] {fault.name}: {result.caught}"
        print(head, result.seconds, result.by, flush=True)
        counts[result.caught] += 1
    del counts["yes"], counts["time-out"]
    return f"Faults that are not caught: {dict(counts)}" if counts else None


def _new_result(fault, digest, copy) -> results.Result:
    """Plants a fault, and records the result unless the tests fail without it, too."""
    before = copy.unchanged(fault.selection)
    usable = before.caught == "no"
    limit = _TIMES * before.seconds + _MORE
    outcome = copy.planted(fault, limit) if usable else before
    result = results.Result(
        datetime.date.today().isoformat(),
        _commit(),
        fault.name,
        outcome.caught if usable else "fails without it",
        outcome.by,
        f"{outcome.seconds:.1f}",
        digest,
    )
    if usable:
        results.append(result)
    return result


def _commit() -> str:
    return run_well(["git", "-C", ROOT, "rev-parse", "--short", "HEAD"]).strip()


if __name__ == "__main__":
    main()
