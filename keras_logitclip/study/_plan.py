"""The cells of a study, and the choice among its candidates."""

from collections.abc import Mapping
from statistics import fmean
from typing import NamedTuple

from keras_logitclip.study._config import Candidate
from keras_logitclip.study._config import Study

METHODS = ("plain", "tau", "normalized_tau", "value_limit", "norm_penalty")


class Cell(NamedTuple):
    """Describes one training of a study.

    Attributes:
        noise: Name of the noise.
        loss: Name of the loss.
        method: One of `METHODS`.
        value: The value of the method, `None` for `"plain"`.
        learning_rate: The learning rate, which the schedule multiplies.
        seed: Seed of noise, split and training.
    """

    noise: str
    loss: str
    method: str
    value: float | None
    learning_rate: float
    seed: int


def choose(accuracies: Mapping[Candidate, Mapping[int, float]]) -> Candidate:
    """Returns the candidate with the best accuracy on held-out noisy labels.

    `accuracies` has them by seed. Means are over the seeds that all candidates share,
    or over each candidate's seeds if they share none. Among equal candidates, the
    larger value wins, and then the smaller learning rate.
    """
    shared = set.intersection(*map(set, accuracies.values()))

    def rank(candidate):
        of_seed = accuracies[candidate]
        mean = fmean(of_seed[seed] for seed in shared or of_seed)
        # Rounded so that the last digit does not decide.
        return round(mean, 9), candidate.value or 0, -candidate.learning_rate

    return max(accuracies, key=rank)


def cells(study: Study, accuracies: Mapping[Cell, float]) -> list[Cell]:
    """Returns the cells of a study as far as they are known.

    These are all candidates with the selecting seeds, and the selected candidates with
    the other seeds. For each seed, similar cells follow each other.
    """
    chosen = {
        (noise, key): _chosen(study, noise, key, accuracies)
        for noise in study.noises
        for key in study.candidates
    }
    return [
        Cell(noise, *key, *candidate, seed)
        for seed in range(study.settings.seeds)
        for key, candidates in study.candidates.items()
        for candidate in candidates
        for noise in study.noises
        if seed < _selecting(study) or candidate == chosen[noise, key]
    ]


def count(study: Study) -> int:
    """Returns the final number of cells."""
    selecting = _selecting(study)
    others = study.settings.seeds - selecting
    sizes = map(len, study.candidates.values())
    return len(study.noises) * sum(selecting * size + others for size in sizes)


def _selecting(study):
    """Returns the number of seeds with which all candidates are trained."""
    settings = study.settings
    return min(settings.select_seeds or settings.seeds, settings.seeds)


def _chosen(study, noise, key, accuracies):
    """Returns the selected candidate, `None` if it is not known yet."""
    candidates, seeds = study.candidates[key], range(_selecting(study))
    if len(candidates) == 1:
        return candidates[0]
    found = {
        candidate: {
            seed: accuracies.get(Cell(noise, *key, *candidate, seed)) for seed in seeds
        }
        for candidate in candidates
    }
    known = all(None not in of_seed.values() for of_seed in found.values())
    return choose(found) if known else None
