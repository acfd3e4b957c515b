"""Which trainings a search consists of: successive halving with a fixed budget.

Few epochs tell which values are hopeless, so all values are trained briefly, the best
four longer, and the best two to the end. Each of the first two stages takes no more
epochs than one full training, the last one two: a search costs four at most. What
comes next depends on the scores alone, so that any process can tell at any time.
"""

from typing import NamedTuple


class Training(NamedTuple):
    """One training: a threshold, for so many epochs, with a seed."""

    tau: float
    epochs: int
    seed: int


class Stage(NamedTuple):
    """The best `values` so far are trained for so many epochs with each seed."""

    values: int
    epochs: int
    seeds: int


class Progress(NamedTuple):
    """What a search has to do next, and the values from the best to the worst."""

    missing: list[Training]
    ranking: list[float]


SHORT_LIST = 4
FINALISTS = 2


def stages(num_values: int, epochs: int, seeds: int) -> list[Stage]:
    """Returns the stages of a search, the shortest trainings first."""
    finalists = min(FINALISTS, num_values)
    final = Stage(finalists, epochs, seeds)
    if num_values <= finalists:
        return [final]
    if num_values <= SHORT_LIST:
        return [Stage(num_values, epochs, 1), final]
    first = Stage(num_values, epochs // num_values, 1)
    return [first, Stage(SHORT_LIST, epochs // SHORT_LIST, 1), final]


def progress(
    taus: list[float], plan: list[Stage], scores: dict[Training, float]
) -> Progress:
    """Returns the trainings of the first stage that is not complete.

    Equal scores leave the larger threshold, which clips less, in front.
    """
    ranking = sorted(taus, reverse=True)
    for stage in plan:
        survivors = ranking[: stage.values]
        trainings = [
            [Training(tau, stage.epochs, seed) for seed in range(stage.seeds)]
            for tau in survivors
        ]
        missing = [
            training
            for same_seed in zip(*trainings, strict=True)
            for training in same_seed
            if training not in scores
        ]
        if missing:
            return Progress(missing, ranking)
        means = {
            of_tau[0].tau: sum(map(scores.__getitem__, of_tau)) / stage.seeds
            for of_tau in trainings
        }
        survivors.sort(key=lambda tau: (means[tau], tau), reverse=True)
        ranking[: stage.values] = survivors
    return Progress([], ranking)


def planned_epochs(plan: list[Stage]) -> int:
    """Returns how many epochs a search takes that nothing interrupts."""
    trainings = {
        Training(float(value), stage.epochs, seed)
        for stage in plan
        for value in range(stage.values)
        for seed in range(stage.seeds)
    }
    return sum(training.epochs for training in trainings)
