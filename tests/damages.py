"""Damages files of a test, and limits memory and time of reading them."""

import contextlib
import time
import tracemalloc

from hypothesis import HealthCheck
from hypothesis import settings
from hypothesis import strategies as st

MIB = 2**20

reproducibly = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    # The files are written anew for each example.
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@contextlib.contextmanager
def little(memory=16 * MIB, seconds=1.0):
    """Checks that the block takes little memory and processor time."""
    tracemalloc.start()
    start = time.process_time()
    try:
        yield
        taken, peak = time.process_time() - start, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert taken < seconds
    assert peak < memory


@st.composite
def _changes(draw):
    """Draws a change of bytes: flipped bits, or a replaced piece."""
    place = draw(st.floats(0, 1))
    if draw(st.booleans()):
        mask = draw(st.integers(1, 255))
        return lambda data: _replaced(data, place, 1, lambda piece: [piece[0] ^ mask])
    length = draw(st.integers(0, 40))
    piece = draw(st.binary(max_size=40))
    return lambda data: _replaced(data, place, length, lambda _: piece)


def _replaced(data, place, length, by):
    start = int(place * (len(data) - 1))
    piece = data[start : start + length]
    return data[:start] + bytes(by(piece)) + data[start + length :]


@st.composite
def damages(draw):
    """Draws a function that changes bytes one to three times, or truncates them."""
    if draw(st.integers(0, 4)) == 0:
        place = draw(st.floats(0, 1, exclude_max=True))
        return lambda data: data[: int(place * len(data))]
    changes = draw(st.lists(_changes(), min_size=1, max_size=3))

    def change(data):
        for one in changes:
            data = one(data) if data else data
        return data

    return change
