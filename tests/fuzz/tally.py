"""Counts draws and failures, and keeps the worst of them."""

from collections import namedtuple

import numpy as np

from tests.fuzz.check import draw_all
from tests.fuzz.check import errors_of_draws

Worst = namedtuple("Worst", "error draw")


class Tally:
    """What has been drawn with a seed so far."""

    def __init__(self, seed):
        self.seed = seed
        self.configurations = self.draws = self.failures = 0
        self.worst = {}

    def __str__(self):
        return (
            f"{self.configurations} configurations, {self.draws} draws, "
            f"{self.failures} failures"
        )

    def add(self, number):
        """Checks the configuration of this number; returns a line if it fails.

        So it does with any exception, too.
        """
        self.configurations += 1
        configuration = None
        try:
            configuration, inputs = draw_all(self.seed, number)
            errors = errors_of_draws(configuration, inputs)
        except Exception as error:
            self.failures += 1
            return [self._line(number, 0, f"{error!r}, {configuration}")]
        self.draws += configuration.draws
        for name, each in errors._asdict().items():
            worst = Worst(each.max(), self._check(number, each.argmax()))
            quantity = f"{configuration.title}, {name}"
            self.worst[quantity] = max(worst, self.worst.get(quantity, worst))
        either = np.maximum(*errors)
        wrong = int((either > 1).sum())
        if not wrong:
            return []
        self.failures += 1
        excess = f"{wrong} of {len(either)} draws, up to {either.max():.3g} times"
        return [self._line(number, either.argmax(), f"{excess}, {configuration}")]

    def table(self):
        """The worst error of each quantity, and what gave it."""
        rows = sorted(self.worst.items())
        lines = [f"{name}: {error:.2g}, {draw}" for name, (error, draw) in rows]
        return "\n".join([str(self), "Worst errors, where 1 is allowed:", *lines])

    def _check(self, number, draw):
        return f"check(seed={self.seed}, configuration={number}, draw={draw})"

    def _line(self, number, draw, why):
        return f"{self._check(number, draw)}  # {why}"
