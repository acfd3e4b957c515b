"""Open-set noise: images of no class at all, under labels of the classes."""

import dataclasses

import numpy as np

from keras_logitclip._arguments import check_rate
from keras_logitclip._arguments import check_seed
from keras_logitclip._arguments import describe_seed


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class OpenSetInputs:
    """Inputs of which some were replaced by inputs from outside.

    `open_set` returns it.

    Attributes:
        inputs: The inputs after the replacement.
        source: For each input the position in `outside` of what replaced it, -1
            where it was kept.
        asked_rate: The rate that was asked for.
        seed: The seed, or the name of the `Generator` that was given instead.
        replaced: Which inputs were replaced, bool.
        rate: The share of them: the realised rate.
    """

    inputs: np.ndarray
    source: np.ndarray
    asked_rate: float
    seed: int | str

    @property
    def replaced(self) -> np.ndarray:
        return self.source >= 0

    @property
    def rate(self) -> float:
        return float(self.replaced.mean())

    def __repr__(self):
        return (
            f"OpenSetInputs(asked_rate={self.asked_rate!r}, rate={self.rate:.6g}, "
            f"samples={len(self.inputs)}, seed={self.seed!r})"
        )


def open_set(
    inputs: np.ndarray,
    outside: np.ndarray,
    rate: float,
    *,
    seed: int | np.random.Generator,
) -> OpenSetInputs:
    """Replaces inputs by inputs of another data set; their labels stay.

    Each input is replaced with probability `rate`. Which input of `outside`
    replaces it is random, but none is taken twice before all were taken once.

    Args:
        inputs: Array of shape `(samples, ...)`. It is not changed.
        outside: Inputs of other classes, of the same dtype and shape per sample.
        rate: Probability that an input is replaced, in [0, 1].
        seed: A seed, or a `numpy.random.Generator` to draw from.

    Returns:
        `OpenSetInputs`.

    Raises:
        ValueError: If the rate is out of range, or if dtypes or shapes differ.

    Example:

    >>> import numpy as np
    >>> from keras_logitclip import noise
    >>> inside, outside = np.zeros((4, 2, 2)), np.ones((9, 2, 2))
    >>> mixed = noise.open_set(inside, outside, 1.0, seed=0)
    >>> print(mixed.inputs.mean())
    1.0

    References:
        - [Wang et al., 2018](https://arxiv.org/abs/1804.00092)
    """
    rate, rng = check_rate(rate), check_seed(seed)
    inputs, outside = np.asarray(inputs), np.asarray(outside)
    _check_alike(inputs, outside)
    replaced = np.flatnonzero(rng.random(len(inputs)) < rate)
    source = np.full(len(inputs), -1, "int64")
    source[replaced] = np.resize(rng.permutation(len(outside)), len(replaced))
    mixed = inputs.copy()
    mixed[replaced] = outside[source[replaced]]
    return OpenSetInputs(mixed, source, rate, describe_seed(seed))


def _check_alike(inputs, outside):
    alike = (
        inputs.ndim > 0
        and outside.ndim > 0
        and len(inputs)
        and len(outside)
        and inputs.dtype == outside.dtype
        and inputs.shape[1:] == outside.shape[1:]
    )
    if not alike:
        raise ValueError(
            "Expected inputs and inputs from outside of the same dtype and shape per "
            "sample, at least one of each. "
            f"Received: inputs of dtype {inputs.dtype} and shape {inputs.shape}, "
            f"outside of dtype {outside.dtype} and shape {outside.shape}"
        )
