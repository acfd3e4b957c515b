"""The trainings of a search, from a coarse grid to a fine one.

All trainings are complete ones. Memorization comes late, so short trainings would
prefer thresholds that learn fast and memorize later. For the same cost, a few complete
trainings find a better threshold. The next trainings depend only on the scores, so any
process can determine them at any time.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple


class Training(NamedTuple):
    """Holds a threshold, a learning rate (`None`: the optimizer's) and a seed."""

    tau: float
    learning_rate: float | None
    seed: int = 0


COARSE = 3
FINALISTS = 2
# The logarithm of the threshold at which learning rates are compared.
_LOG_START = math.log(1.5)


class Plan(NamedTuple):
    """Holds ascending thresholds and learning rates, and the number of seeds."""

    taus: list[float]
    learning_rates: list
    seeds: int

    def progress(self, scores: dict) -> tuple[list[Training], list[Training]]:
        """Returns the next missing trainings, or a ranking if none is missing.

        The ranking has all trained thresholds and learning rates, the best first. Among
        equal ones, the larger threshold, which clips less, is first, and then the
        smaller learning rate. Only the best two are trained with all seeds.
        """
        for stage in self._stages(scores):
            missing = [training for training in stage if training not in scores]
            if missing:
                return missing, []
        ranking = _ranked({t: score for t, score in scores.items() if t.seed == 0})
        sums = dict.fromkeys(ranking[:FINALISTS], 0.0)
        seeds = [t._replace(seed=seed) for seed in range(self.seeds) for t in sums]
        missing = [training for training in seeds if training not in scores]
        if missing:
            return missing, []
        for training in seeds:
            sums[training._replace(seed=0)] += scores[training]
        return [], _ranked(sums) + ranking[FINALISTS:]

    def count(self) -> int:
        """Returns the number of trainings of a search, which scores do not change."""
        scores = {}
        while missing := self.progress(scores)[0]:
            scores.update(dict.fromkeys(missing, 0.0))
        return len(scores)

    def _stages(self, scores) -> Iterator[list[Training]]:
        """Yields lists of trainings, each of which needs the scores of those before.

        All learning rates are compared at one threshold, and the other thresholds get
        the best of them. If there are more than four thresholds, three over the whole
        range are trained, and then the most promising of the others. An infinite
        threshold, which means no clipping, is trained with each learning rate.
        """
        rates, rate = self.learning_rates, self.learning_rates[0]
        taus = finite = [tau for tau in self.taus if tau < math.inf]
        plain = [Training(tau, r) for tau in self.taus[len(finite) :] for r in rates]
        if len(finite) > COARSE + 1:
            taus = _spread(finite)
        if finite and len(rates) > 1:
            start = _nearest(_LOG_START, finite)
            taus[taus.index(_nearest(math.log(start), taus))] = start
            compared = [Training(start, rate) for rate in rates]
            yield compared + plain
            rate = _ranked({t: scores[t] for t in compared})[0].learning_rate
        yield plain + [Training(tau, rate) for tau in taus]
        if len(finite) > COARSE + 1:
            scores = {tau: scores[Training(tau, rate)] for tau in taus}
            yield [Training(_refine(finite, scores), rate)]


def _ranked(scores):
    def merit(training):
        # Rounded, so that the order of a sum cannot break a tie.
        score = round(scores[training], 9)
        return score, training.tau, -(training.learning_rate or 0)

    return sorted(scores, key=merit, reverse=True)


def _spread(taus):
    """Returns the values next to the middles of three equal parts of the range."""
    low, high = math.log(taus[0]), math.log(taus[-1])
    left = list(taus)
    for part in range(COARSE):
        share = (part + 0.5) / COARSE
        left.remove(_nearest(low + share * (high - low), left))
    return [tau for tau in taus if tau not in left]


def _refine(taus, scores):
    """Returns the value next to the top of a parabola through the three scores."""
    (x0, y0), (x1, y1), (x2, y2) = sorted((math.log(t), s) for t, s in scores.items())
    slope = (y1 - y0) / (x1 - x0)
    curvature = ((y2 - y1) / (x2 - x1) - slope) / (x2 - x0)
    if curvature < 0:
        top = (x0 + x1) / 2 - slope / (2 * curvature)
    else:  # The parabola has no top.
        top = max((y0, x0), (y1, x1), (y2, x2))[1]
    return _nearest(top, [tau for tau in taus if tau not in scores])


def _nearest(log_tau, taus):
    # Rounded, so that ties are the same on every machine. The larger value wins a tie,
    # because it clips less.
    return min(taus, key=lambda tau: (round(abs(math.log(tau) - log_tau), 9), -tau))
