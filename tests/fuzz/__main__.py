"""Compares random draws with the float64 reference until the time is over.

A draw is one call for a value and a gradient. Hundreds of draws share a configuration:
the computation, shape and dtype, and the compiled function.
"""

import argparse
import itertools
import sys
import time
from datetime import date

from tests.conftest import BACKEND
from tests.fuzz.tally import Tally

PROGRESS_SECONDS = 10


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument(
        "--seed",
        type=int,
        default=int(date.today().strftime("%Y%m%d")),
        help="of all draws; by default the date",
    )
    arguments = parser.parse_args()
    print(f"{BACKEND}, seed {arguments.seed}", flush=True)
    tally, start = Tally(arguments.seed), time.monotonic()
    printed = 0
    for number in itertools.count():
        for line in tally.add(number):
            print(line, flush=True)
        seconds = time.monotonic() - start
        if seconds >= printed + PROGRESS_SECONDS:
            print(f"{seconds:.0f} s: {tally}", flush=True)
            printed = seconds
        if seconds >= arguments.seconds:
            break
    print(tally.table())
    return 1 if tally.failures else 0


if __name__ == "__main__":
    sys.exit(main())
