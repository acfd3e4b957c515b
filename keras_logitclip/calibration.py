"""Temperature scaling of logits, and the calibration error of probabilities."""

import numpy as np

from keras_logitclip._arguments import check_count
from keras_logitclip._arguments import check_transition_matrix
from keras_logitclip._labels import look_like_probabilities
from keras_logitclip._probabilities import check_labels
from keras_logitclip._probabilities import check_logits
from keras_logitclip._probabilities import check_rows
from keras_logitclip._probabilities import log_sum_exp
from keras_logitclip._probabilities import softmax

__all__ = ["expected_calibration_error", "fit_temperature"]


def __dir__():
    return __all__


# The searched temperatures, relative to the mean distance of the largest logit from the
# mean.
_TEMPERATURES = np.geomspace(1e-4, 1e4, 41)
# Each step reduces the interval to 0.618 of its length, all steps to 1e-8.
_STEPS = 40


def fit_temperature(logits, labels, transition=None) -> float:
    """Fits the temperature that calibrates the probabilities of a model.

    The softmax of clipped logits is far too cautious: with ten classes and `tau=1.5`,
    no probability is above 0.351. The softmax of the raw logits divided by the
    temperature shows how often the model is right. The predicted class does not change.

    Formula:

    ```python
    probabilities = softmax(logits / temperature)
    # Without `transition`, the largest mean of
    log(probabilities[labels])
    # With it, the largest mean of
    log((probabilities @ transition)[labels])
    ```

    Without the transition matrix, noisy labels give probabilities of the noisy labels,
    which are too cautious for the clean labels.

    Args:
        logits: Logits of samples that the model was not trained on, of shape
            `(samples, classes)`.
        labels: Their class ids, integers of shape `(samples,)`.
        transition: Known or estimated transition matrix of noisy labels, for example
            from `cleaning.estimate_noise`: `transition[i, j]` is the probability of
            label `j` for class `i`. Defaults to `None`, which means clean labels.

    Returns:
        The temperature, greater than 0.

    Raises:
        ValueError: If an argument is out of range, or if no temperature is the best. If
            every label is predicted, each smaller temperature is better. If labels are
            predicted less often than at random, each larger temperature is better.

    Example:

    >>> from keras_logitclip import calibration
    >>> logits = [[1.5, 0.0], [1.5, 0.0], [1.5, 0.0], [1.5, 0.0]]
    >>> temperature = calibration.fit_temperature(logits, [0, 0, 0, 1])
    >>> round(temperature, 4)  # The softmax of 1.5 / 1.3654 is 0.75.
    1.3654

    References:
        - [Guo et al., 2017](https://arxiv.org/abs/1706.04599)
        - [Patrini et al., 2017](https://arxiv.org/abs/1609.03683)
    """
    logits = check_logits("logits", logits)
    labels = check_labels("labels", labels, logits)
    temperature = best_temperature(logits, labels, transition)
    if temperature in (0, np.inf):
        raise ValueError(
            "Expected labels for which one temperature is the best: some labels that "
            "are not predicted (with `transition`, more than it explains), and more "
            "predicted labels than at random. Received: labels of which "
            f"{np.mean(logits.argmax(1) == labels):.2%} are predicted"
        )
    return temperature


def expected_calibration_error(logits, labels, bins: int = 15) -> float:
    """Computes the expected calibration error of probabilities.

    Predictions are sorted into bins of equal width by their probability. The error of a
    bin is the distance between its share of correct predictions and its mean
    probability. The result is the mean over the bins, weighted by the number of
    predictions.

    Args:
        logits: Logits of shape `(samples, classes)`, or probabilities: rows of numbers
            of at least 0 that sum to 1.
        labels: The clean class ids, integers of shape `(samples,)`.
        bins: Number of bins. Defaults to `15`.

    Returns:
        The error, from 0 to 1.

    Raises:
        ValueError: If an argument is out of range.

    Example:

    >>> from keras_logitclip import calibration
    >>> probabilities = [[0.75, 0.25], [0.75, 0.25], [0.75, 0.25], [0.75, 0.25]]
    >>> calibration.expected_calibration_error(probabilities, [0, 0, 0, 1])
    0.0
    >>> calibration.expected_calibration_error(probabilities, [0, 0, 1, 1])
    0.25

    References:
        - [Guo et al., 2017](https://arxiv.org/abs/1706.04599)
    """
    given = check_rows("logits", logits)
    labels = check_labels("labels", labels, given)
    bins = check_count("bins", bins)
    probabilities = given if look_like_probabilities(given) else softmax(given)
    confidence = probabilities.max(1)
    # A probability on the edge of two bins belongs to the lower one.
    places = np.ceil(confidence * bins).astype(int).clip(1, bins) - 1
    surplus = confidence - (probabilities.argmax(1) == labels)
    sums = np.bincount(places, weights=surplus, minlength=bins)
    return float(np.abs(sums).sum() / len(labels))


def best_temperature(logits: np.ndarray, labels: np.ndarray, transition=None) -> float:
    """Returns the temperature with the largest likelihood.

    It is 0 or infinity if the likelihood is largest in that limit.
    """
    scale, logits = _normalized(logits)
    weights = None
    if transition is not None:
        weights = _log_probabilities_of(labels, transition, logits.shape[1])

    def loss(temperature):
        return _cross_entropy(logits / temperature, labels, weights)

    losses = [loss(temperature) for temperature in _TEMPERATURES]
    best = int(np.argmin(losses))
    if best in (0, len(losses) - 1):
        return np.inf if best else 0.0
    low, high = np.log(_TEMPERATURES[[best - 1, best + 1]])
    return scale * float(np.exp(_minimum(lambda t: loss(np.exp(t)), low, high)))


def _normalized(logits):
    """Returns a scale, and the logits divided by it."""
    largest = np.abs(logits).max() or 1.0
    logits = logits / largest  # Prevents overflow of differences.
    scale = (logits.max(1) - logits.mean(1)).mean()
    if scale == 0:
        raise ValueError(
            "Invalid value for argument `logits`: expected rows with different logits. "
            "Received: rows whose logits are all equal"
        )
    return float(scale * largest), logits / scale


def _log_probabilities_of(labels, transition, classes):
    """Returns the log-probability of each sample's label for each class."""
    matrix = check_transition_matrix("transition", transition)
    if len(matrix) != classes:
        raise ValueError(
            "Invalid value for argument `transition`: expected as many rows as there "
            f"are classes. Received: {len(matrix)} rows, {classes} classes"
        )
    impossible = ~matrix.any(0)[labels]
    if impossible.any():
        first = impossible.argmax()
        raise ValueError(
            "Invalid value for argument `transition`: expected labels with a "
            f"probability above 0 for some class. Received: the label {labels[first]} "
            f"at position {first}, whose column is 0"
        )
    with np.errstate(divide="ignore"):  # The logarithm of 0.
        return np.log(matrix.T[labels])


def _cross_entropy(logits, labels, weights):
    """Returns the mean cross-entropy, of noisy labels if there are weights."""
    if weights is None:
        of_labels = np.take_along_axis(logits, labels[:, None], 1)[:, 0]
    else:
        of_labels = log_sum_exp(logits + weights)
    return np.mean(log_sum_exp(logits) - of_labels)


def _minimum(function, low, high):
    """Returns the minimizer of a function by golden-section search."""
    share = (np.sqrt(5) - 1) / 2
    left, right = high - share * (high - low), low + share * (high - low)
    at_left, at_right = function(left), function(right)
    for _ in range(_STEPS):
        if at_left < at_right:
            high, right, at_right = right, left, at_left
            left = high - share * (high - low)
            at_left = function(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + share * (high - low)
            at_right = function(right)
    return (low + high) / 2
