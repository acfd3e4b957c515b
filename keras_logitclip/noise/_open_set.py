"""Open-set noise: inputs that belong to none of the classes."""

import dataclasses

import numpy as np
from numpy.typing import ArrayLike

from keras_logitclip._arguments import check_rate
from keras_logitclip._arguments import check_seed
from keras_logitclip._arguments import describe_seed
from keras_logitclip._jobs.arrays import check_array


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class OpenSetInputs:
    """Holds inputs of which some were replaced by inputs of another data set.

    `open_set` returns it.

    Attributes:
        inputs: The inputs after the replacement.
        source: The position in `outside` of the replacement of each input, or -1 if the
            input was kept.
        asked_rate: The requested rate.
        seed: The seed, or the text form of the `Generator`.
        replaced: Which inputs were replaced, bool.
        rate: The share of the inputs that were replaced, which is the realised rate.
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
    inputs: ArrayLike,
    outside: ArrayLike,
    rate: float,
    *,
    seed: int | np.random.Generator,
) -> OpenSetInputs:
    """Replaces inputs by inputs of another data set, and keeps the labels.

    Each input is replaced with probability `rate` by a random input of `outside`. No
    input of `outside` is used twice before all are used once.

    Args:
        inputs: Array of shape `(samples, ...)`, which is not changed.
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
    inputs, outside = check_array(inputs, "inputs"), check_array(outside, "outside")
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
            "Expected `inputs` and `outside` of the same dtype and shape per sample, "
            f"with at least one sample each. Received: inputs of dtype {inputs.dtype} "
            f"and shape {inputs.shape}, outside of dtype {outside.dtype} and shape "
            f"{outside.shape}"
        )
