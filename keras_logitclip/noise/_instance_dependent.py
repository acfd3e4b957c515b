"""Label noise that depends on the sample (Xia et al., 2020)."""

import numpy as np
from numpy.typing import ArrayLike

from keras_logitclip._arguments import check_number
from keras_logitclip._arguments import check_rate
from keras_logitclip._arguments import check_seed
from keras_logitclip._arguments import describe_seed
from keras_logitclip._jobs.arrays import check_array
from keras_logitclip._labels import check_class_ids
from keras_logitclip.noise._noisy_labels import NoisyLabels
from keras_logitclip.noise._noisy_labels import count_classes

# The paper's standard deviation of the samples' rates.
_RATE_STDDEV = 0.1
# Number of features that are converted to float64 at a time (32 MiB).
_CHUNK_NUMBERS = 2**22


def instance_dependent(
    features: ArrayLike,
    labels: ArrayLike,
    rate: float,
    num_classes: int | None = None,
    *,
    scale: float,
    seed: int | np.random.Generator,
) -> NoisyLabels:
    """Flips labels with a rate and to a class that depend on the sample.

    Formula:

    ```python
    q = truncated_normal(mean=rate, stddev=0.1, low=0, high=1)  # per sample
    w = normal(size=(num_classes, num_features, num_classes))
    a = scale * x @ w[y]
    a[y] = -inf
    probabilities = q * softmax(a)
    probabilities[y] = 1 - q
    ```

    Over the classes, the entries of `a` have the standard deviation `scale * norm(x)`.
    If it is far above 1, the softmax is nearly one-hot, and the features of a sample
    decide its wrong class. That holds for raw pixels from 0 to 255 with `scale=1.0`, as
    in the authors' code, and for pixels in [0, 1] (`scale=1 / 255`), because an image
    has many. With a `scale` of about `1 / norm(x)`, several wrong classes are probable.

    As in the paper, `rate` is the mean of the normal distribution before its
    truncation. Within 0.2 of 0 or 1, the truncation changes the mean of `q`: for
    example, it is 0.129 for a `rate` of 0.1. A `rate` of exactly 0 flips no label, and
    1 flips all.

    The computation is in float64. A processor that rounds the product with `w`
    differently may draw another label if a draw is within about 1e-10 of a boundary
    between classes. Among 50,000 labels, that is unlikely to happen once.

    Only one class of `w` is in memory at a time. With tens of thousands of classes,
    drawing `w` takes hours.

    Args:
        features: Array of shape `(samples, ...)` and of any real dtype, such as images.
            It is flattened to one row of features per sample.
        labels: Clean class ids, integers of shape `(samples,)`, such as a list, an
            array or a pandas Series.
        rate: Mean flip rate in [0, 1], see above.
        num_classes: Number of classes, at least 2. Defaults to `None`, which means
            the largest label + 1.
        scale: Factor of the features, a number greater than zero.
        seed: A seed, or a `numpy.random.Generator` to draw from.

    Returns:
        `NoisyLabels`.

    Raises:
        ValueError: If an argument is out of range, if the labels are not class ids, or
            if the features are not finite numbers with one row for each label.

    Example:

    >>> import numpy as np
    >>> from keras_logitclip import noise
    >>> images = np.full((6, 8, 8), 255, "uint8")
    >>> noise.instance_dependent(
    ...     images, [0, 1, 2, 0, 1, 2], 1.0, 3, scale=1 / 2000, seed=0
    ... ).rate
    1.0

    References:
        - [Xia et al., 2020](https://arxiv.org/abs/2006.07836)
    """
    rate, given = check_rate(rate), num_classes
    num_classes = count_classes(given, labels=labels)
    clean, rng = check_class_ids(labels, num_classes), check_seed(seed)
    scale = check_number("scale", scale, "(0, inf)")
    rows = _check_features(features, len(clean))
    flipped = rng.random(len(clean)) < _flip_rates(rate, len(clean), rng)
    uniform = rng.random(len(clean))
    noisy = clean.copy()
    for label in range(num_classes):
        weights = scale * rng.standard_normal((rows.shape[1], num_classes))
        members = np.flatnonzero(flipped & (clean == label))
        for chunk in _chunks(members, rows.shape[1]):
            scores = rows[chunk].astype("float64") @ weights
            _check_finite(scores)
            scores[:, label] = -np.inf
            noisy[chunk] = _draw_from_softmax(scores, uniform[chunk])
    return NoisyLabels(
        noisy, clean, given, "instance-dependent", rate, describe_seed(seed)
    )


def _check_features(features, samples):
    """Returns the features as rows, in their own dtype."""
    features = check_array(features, "features")
    if features.ndim < 2 or not features.size or features.dtype.kind not in "biuf":
        raise ValueError(
            "Invalid value for argument `features`: expected numbers of shape "
            "`(samples, ...)`. "
            f"Received: dtype {features.dtype}, shape {features.shape}"
        )
    if len(features) != samples:
        raise ValueError(
            "Expected as many rows of features as labels. "
            f"Received: {len(features)} rows, {samples} labels"
        )
    return features.reshape(samples, -1)


def _check_finite(scores):
    if not np.isfinite(scores).all():
        raise ValueError(
            "Invalid value for argument `features`: expected finite numbers, also "
            "after multiplication by `scale`. Received: NaN or infinity"
        )


def _flip_rates(rate, samples, rng):
    """Draws from the normal distribution, and again for each draw outside of [0, 1]."""
    if rate in (0, 1):
        return np.full(samples, rate)
    rates = rng.normal(rate, _RATE_STDDEV, samples)
    while (outside := np.flatnonzero((rates < 0) | (rates > 1))).size:
        rates[outside] = rng.normal(rate, _RATE_STDDEV, outside.size)
    return rates


def _chunks(members, num_features):
    size = max(1, _CHUNK_NUMBERS // num_features)
    return (members[start : start + size] for start in range(0, len(members), size))


def _draw_from_softmax(scores, uniform):
    weights = np.exp(scores - scores.max(1, keepdims=True))
    cumulative = np.cumsum(weights, 1)
    thresholds = uniform * cumulative[:, -1]
    # The first class beyond the threshold, which never has the weight zero.
    return (cumulative <= thresholds[:, None]).sum(1)
