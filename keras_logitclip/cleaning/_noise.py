"""`estimate_noise`, which estimates the noise rate and the transition matrix."""

import dataclasses

import numpy as np

from keras_logitclip._arguments import check_count
from keras_logitclip._arguments import check_number
from keras_logitclip._plotting import label_classes
from keras_logitclip._plotting import new_axes
from keras_logitclip._probabilities import check_labels
from keras_logitclip._probabilities import check_logits
from keras_logitclip._probabilities import softmax
from keras_logitclip.calibration import best_temperature

# The largest number of printed classes.
_MOST = 10


@dataclasses.dataclass(frozen=True)
class NoiseEstimate:
    """Holds the result of `estimate_noise`. It prints as a table of the worst classes.

    Attributes:
        rate: The share of wrong labels.
        interval: The interval of the rate, by bootstrap over the samples. It does not
            include errors of the model.
        confidence: The probability that such an interval contains the rate of all such
            samples.
        joint: The joint distribution, an array of shape `(classes, classes)`:
            `joint[i, j]` is the share of samples of class `i` with label `j`.
        temperature: The temperature that gives probabilities of the clean classes, as
            in `calibration.fit_temperature` with `transition`.
    """

    rate: float
    interval: tuple[float, float]
    confidence: float
    joint: np.ndarray
    temperature: float

    @property
    def transition(self) -> np.ndarray:
        """Returns the transition matrix: row `i` has the probabilities for class `i`.

        `losses.ForwardCorrection` takes it.
        """
        return transition_of(self.joint)

    @property
    def rows(self) -> list[dict]:
        """Returns a dictionary for each label, the most often wrong one first.

        It has `"label"`, `"share"` (of all samples), `"wrong"` (the share of samples
        with this label for which it is wrong), `"class"` (the most frequent true class
        of wrong ones, `None` without any) and `"lost"` (the share of the samples of the
        class `"label"` that have another label).
        """
        shares = self.joint.sum(0)
        rows = []
        for label, transition in enumerate(self.transition):
            others = np.delete(self.joint[:, label], label)
            classes = np.delete(np.arange(len(self.joint)), label)
            wrong = others.sum() / shares[label] if shares[label] else 0.0
            rows.append(
                {
                    "label": label,
                    "share": float(shares[label]),
                    "wrong": float(wrong),
                    "class": int(classes[others.argmax()]) if wrong else None,
                    "lost": float(1 - transition[label]),
                }
            )
        return sorted(rows, key=lambda row: -row["wrong"])

    def __str__(self):
        low, high = self.interval
        lines = [
            f"{self.rate:.1%} of the labels are wrong "
            f"({self.confidence:.0%} interval: {low:.1%} to {high:.1%})",
            "  label   share   wrong  mostly class    lost",
        ]
        for row in self.rows[:_MOST]:
            named = "" if row["class"] is None else row["class"]
            lines.append(
                f"{row['label']:7d} {row['share']:7.1%} {row['wrong']:7.1%} "
                f"{named:>13} {row['lost']:7.1%}"
            )
        more = len(self.joint) - _MOST
        return "\n".join(lines + ([f"  and {more} more labels"] if more > 0 else []))

    def plot(self, ax=None, class_names=None):
        """Draws the transition matrix.

        Args:
            ax: The Matplotlib axes to draw on. Defaults to `None`, which means a new
                figure.
            class_names: Names beside rows and columns. Defaults to `None`, which means
                the class ids.

        Returns:
            The Matplotlib axes.
        """
        ax = new_axes("NoiseEstimate.plot") if ax is None else ax
        image = ax.imshow(self.transition, vmin=0, vmax=1, cmap="Blues")
        ax.figure.colorbar(image, ax=ax)
        if class_names is not None:
            label_classes(ax, len(self.joint), class_names)
        title = f"{self.rate:.1%} of the labels are wrong"
        ax.set(xlabel="label", ylabel="class", title=title)
        return ax


def estimate_noise(
    y, logits, *, confidence: float = 0.95, draws: int = 100, seed: int = 0
) -> NoiseEstimate:
    """Estimates the noise of labels from logits of held-out samples.

    This is confident learning, by cleanlab: a sample is counted for a class if its
    probability of this class is above the mean of the samples with this label. The
    probabilities are calibrated to the given labels first, because a clipped softmax is
    far too cautious. Errors of the model make the rate too large: docs/cleaning.md has
    measurements.

    Args:
        y: The labels, some of which are wrong: class ids, integers of shape
            `(samples,)`.
        logits: Logits of each sample from a model that was not trained on it, as
            `held_out_logits` returns them, of shape `(samples, classes)`.
        confidence: Confidence level of the interval. Defaults to `0.95`.
        draws: Number of bootstrap samples for the interval. Defaults to `100`.
        seed: Seed of the draws. Defaults to `0`.

    Returns:
        A `NoiseEstimate`.

    Raises:
        ValueError: If an argument is out of range, or if the logits predict the labels
            less often than at random, because their orders differ.
        ImportError: If cleanlab is not installed.

    Example:

    ```python
    estimate = cleaning.estimate_noise(y_train, logits)
    print(estimate)
    loss = losses.ForwardCorrection(estimate.transition)
    ```

    References:
        - [Northcutt et al., 2021](https://arxiv.org/abs/1911.00068)
    """
    logits, labels = check_held_out(y, logits)
    confidence = check_number("confidence", confidence, "(0, 1)")
    draws = check_count("draws", draws)
    joint, temperature, probabilities = fit_noise(labels, logits)
    rng = np.random.default_rng(check_count("seed", seed, 0))
    rates = []
    for _ in range(draws):
        rows = rng.integers(0, len(labels), len(labels))
        rates.append(_rate(_joint(labels[rows], probabilities[rows])))
    ends = (0.5 - confidence / 2, 0.5 + confidence / 2)
    low, high = np.quantile(rates, ends).tolist()
    return NoiseEstimate(_rate(joint), (low, high), confidence, joint, temperature)


def check_held_out(y, logits) -> tuple[np.ndarray, np.ndarray]:
    """Returns logits and labels as arrays if there is a label for each row."""
    logits = check_logits("logits", logits)
    return logits, check_labels("y", y, logits)


def fit_noise(labels: np.ndarray, logits: np.ndarray):
    """Returns the joint distribution, the temperature, and probabilities of the labels.

    The temperature is for probabilities of the classes, not of the labels.
    """
    of_labels = _of_labels(labels, logits)
    probabilities = softmax(logits / of_labels)
    joint = _joint(labels, probabilities)
    of_classes = best_temperature(logits, labels, transition_of(joint))
    is_limit = of_classes in (0, np.inf)
    return joint, of_labels if is_limit else of_classes, probabilities


def transition_of(joint: np.ndarray) -> np.ndarray:
    """Returns the transition matrix, with a 1 on the diagonal for an empty class."""
    sums = joint.sum(1, keepdims=True)
    shares = joint / np.where(sums > 0, sums, 1)
    return np.where(sums > 0, shares, np.eye(len(joint)))


def _of_labels(labels, logits):
    """Returns the temperature for probabilities of the given labels.

    It is 1 if all labels are predicted, because then any temperature works.
    """
    temperature = best_temperature(logits, labels)
    if temperature == np.inf:
        raise ValueError(
            "Expected labels in the order of the rows of `logits`. If the order is "
            "right, the model has learned nothing: look at its learning rate and "
            "epochs. Received: labels of which "
            f"{np.mean(logits.argmax(1) == labels):.2%} are predicted, less than at "
            "random"
        )
    return temperature or 1.0


def _joint(labels, probabilities):
    """Returns the joint distribution by confident learning."""
    # cleanlab has the labels in the rows.
    return _import_count().estimate_joint(labels, probabilities).T


def _rate(joint):
    return max(0.0, float(1 - np.trace(joint)))  # The sum may be rounded up.


def _import_count():
    """Imports cleanlab, or explains how to install it."""
    try:
        from cleanlab import count
    except ModuleNotFoundError as error:
        raise ImportError(
            f"The noise is estimated by cleanlab, which needs {error.name}, which is "
            'not installed. Install it with: pip install "keras-logitclip[cleaning]"'
        ) from error
    return count
