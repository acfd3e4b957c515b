"""Noise that depends on the sample: Xia et al., 2020."""

import numpy as np

from keras_logitclip._arguments import check_num_classes
from keras_logitclip._arguments import check_number
from keras_logitclip._arguments import check_rate
from keras_logitclip._arguments import check_seed
from keras_logitclip._arguments import describe_seed
from keras_logitclip._labels import check_class_ids
from keras_logitclip.noise._noisy_labels import NoisyLabels

# The paper's standard deviation of the samples' rates.
_RATE_STDDEV = 0.1
# Features are converted to float64 in pieces of this many numbers (32 MiB).
_CHUNK_NUMBERS = 2**22


def instance_dependent(
    features: np.ndarray,
    labels: np.ndarray,
    rate: float,
    num_classes: int,
    *,
    scale: float,
    seed: int | np.random.Generator,
) -> NoisyLabels:
    """Flips each label with a rate and to a class that depend on the sample.

    Formula:

    ```python
    q = truncated_normal(mean=rate, stddev=0.1, low=0, high=1)  # per sample
    w = normal(size=(num_classes, num_features, num_classes))
    a = scale * x @ w[y]
    a[y] = -inf
    probabilities = q * softmax(a)
    probabilities[y] = 1 - q
    ```

    Over the classes, the entries of `a` have the standard deviation
    `scale * norm(x)`. Where that is far above 1, the softmax is nearly one-hot:
    the sample's features leave it one wrong class. Raw pixels, 0 to 255, are so
    (`scale=1.0`; the authors' code takes these), and so are those in [0, 1]
    (`scale=1 / 255`), of which an image has many. Several classes share the
    flips of a sample with a `scale` of about `1 / norm(x)`.

    `rate` is the mean of the normal distribution before its tails are cut, as in
    the paper. Within 0.2 of an end, cutting them moves the mean of `q` inwards:
    to 0.129 at a `rate` of 0.1, say. At the ends themselves there is nothing to
    draw: 0 flips no label and 1 flips all.

    All is computed in float64. Still, a processor that rounds the product with
    `w` differently may draw another label where a draw lies within about 1e-10
    of a boundary between classes: not one of 50,000 labels, in all likelihood.

    Of `w`, one class is in memory at a time. Drawing all of it takes hours where there
    are tens of thousands of classes.

    Args:
        features: Array of shape `(samples, ...)`, such as images, of any real
            dtype; all axes but the first are one row of features.
        labels: Clean class ids, integers of shape `(samples,)`.
        rate: Mean flip rate in [0, 1], see above.
        num_classes: Number of classes, at least 2.
        scale: What the features are multiplied by, a number greater than zero.
        seed: A seed, or a `numpy.random.Generator` to draw from.

    Returns:
        `NoisyLabels`.

    Raises:
        ValueError: If an argument is out of range, if labels are no class ids, or
            if features are no finite numbers, as many rows as labels.

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
    rate, num_classes = check_rate(rate), check_num_classes(num_classes)
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
        noisy, clean, num_classes, "instance-dependent", rate, describe_seed(seed)
    )


def _check_features(features, samples):
    """Returns the features as rows, in their own dtype."""
    features = np.asarray(features)
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
    """Draws from the normal distribution again wherever it left [0, 1]."""
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
    # The first class beyond the threshold; one of weight zero never is.
    return (cumulative <= thresholds[:, None]).sum(1)
