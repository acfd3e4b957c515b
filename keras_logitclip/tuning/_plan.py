"""Which trainings a search consists of: from coarse to fine, each of them to the end.

Short trainings mislead. Memorization comes late, so they favour thresholds that learn
fast and memorize later; few thresholds that are trained to the end find a better one
for the same cost (`docs/choosing_tau.md`). What comes next depends on the scores alone,
so that any process can tell at any time.
"""

import math
from typing import NamedTuple


class Training(NamedTuple):
    """One training: a threshold with a seed."""

    tau: float
    seed: int


class Progress(NamedTuple):
    """What a search has to do next, and the values so far, the best one first."""

    missing: list[Training]
    ranking: list[float]


TRAINED = 4
FINALISTS = 2
# The middles of three equal parts of the range, in its logarithm.
_SPREAD = (1 / 6, 1 / 2, 5 / 6)


def progress(taus: list[float], seeds: int, scores: dict[Training, float]) -> Progress:
    """Returns what is missing before more can be decided.

    Of more than four values three are trained, spread over the range, then one where
    their scores let the best one be. Then the best two get the other seeds. Equal
    scores leave the larger threshold, which clips less, in front.
    """
    first_seed = {
        training.tau: s for training, s in scores.items() if not training.seed
    }

    def rank(values):
        return sorted(values, key=lambda tau: (first_seed[tau], tau), reverse=True)

    values = taus if len(taus) <= TRAINED else _spread(taus)
    missing = [Training(tau, 0) for tau in values if tau not in first_seed]
    if missing:
        return Progress(missing, [])
    if len(taus) > TRAINED:
        values = [*values, _refine(taus, values, first_seed)]
        missing = [Training(tau, 0) for tau in values if tau not in first_seed]
        if missing:
            return Progress(missing, [])
    ranking = rank(values)
    finalists = ranking[:FINALISTS]
    trainings = [Training(tau, seed) for seed in range(seeds) for tau in finalists]
    missing = [training for training in trainings if training not in scores]
    if not missing:
        finalists.sort(
            key=lambda tau: (sum(scores[tau, seed] for seed in range(seeds)), tau),
            reverse=True,
        )
    return Progress(missing, finalists + ranking[FINALISTS:])


def planned_trainings(num_values: int, seeds: int) -> int:
    """Returns how many trainings a search takes that nothing interrupts."""
    return min(num_values, TRAINED) + min(num_values, FINALISTS) * (seeds - 1)


def _spread(taus):
    """Returns three values in the middles of three equal parts of the range."""
    low, high = math.log(min(taus)), math.log(max(taus))
    left = list(taus)
    for share in _SPREAD:
        left.remove(_nearest(low + share * (high - low), left))
    return [tau for tau in taus if tau not in left]


def _refine(taus, trained, scores):
    """Returns the value next to the top of a parabola through the three trained."""
    (x0, y0), (x1, y1), (x2, y2) = sorted(
        (math.log(tau), scores[tau]) for tau in trained
    )
    slope = (y1 - y0) / (x1 - x0)
    curvature = ((y2 - y1) / (x2 - x1) - slope) / (x2 - x0)
    if curvature < 0:
        top = (x0 + x1) / 2 - slope / (2 * curvature)
    else:  # It has no top.
        top = max((y0, x0), (y1, x1), (y2, x2))[1]
    return _nearest(top, [tau for tau in taus if tau not in trained])


def _nearest(log_tau, taus):
    # Rounded, so that a tie is one on every machine: the larger value clips less.
    return min(taus, key=lambda tau: (round(abs(math.log(tau) - log_tau), 9), -tau))
