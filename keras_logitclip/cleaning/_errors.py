"""`find_label_errors`, which finds wrong labels and suggests others."""

import csv
import dataclasses
import os

import numpy as np

from keras_logitclip._arguments import check_count
from keras_logitclip._jobs.arrays import check_array
from keras_logitclip._plotting import import_pyplot
from keras_logitclip._probabilities import softmax
from keras_logitclip.cleaning._noise import check_held_out
from keras_logitclip.cleaning._noise import fit_noise


@dataclasses.dataclass(frozen=True)
class LabelErrors:
    """Holds the result of `find_label_errors`. It prints the number of errors.

    Attributes:
        indices: Positions of the labels that look wrong, the worst first.
        labels: The given labels of all samples.
        suggested: The most probable class of each sample other than its label.
        quality: The probability of each label to be correct.
    """

    indices: np.ndarray
    labels: np.ndarray
    suggested: np.ndarray
    quality: np.ndarray

    @property
    def keep(self) -> np.ndarray:
        """Returns which samples are not in `indices`, as booleans."""
        kept = np.ones(len(self.labels), bool)
        kept[self.indices] = False
        return kept

    def __str__(self):
        count, samples = len(self.indices), len(self.labels)
        shown = ", ".join(str(index) for index in self.indices[:10])
        worst = f", the worst at {shown}" if count else ""
        return f"{count} of {samples} labels look wrong ({count / samples:.1%}){worst}"

    def to_csv(self, path: str | os.PathLike, class_names=None) -> None:
        """Writes a row for each label that looks wrong, the worst first.

        Args:
            path: Path of the file.
            class_names: Class names in the order of the ids. Defaults to `None`, which
                means the ids.
        """
        names = self._names(class_names)
        with open(path, "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["index", "given", "suggested", "quality"])
            for index in self.indices:
                pair = names[self.labels[index]], names[self.suggested[index]]
                writer.writerow([index, *pair, f"{self.quality[index]:.6f}"])

    def plot(self, x, count: int = 40, columns: int = 8, class_names=None):
        """Draws the images whose labels look worst, each with both labels.

        Args:
            x: The images of all samples, of shape `(samples, height, width)` or with
                one, three or four channels at the end.
            count: Largest number of images. Defaults to `40`.
            columns: Number of images in a row. Defaults to `8`.
            class_names: Class names in the order of the ids. Defaults to `None`, which
                means the ids.

        Returns:
            The Matplotlib figure.
        """
        plt = import_pyplot("LabelErrors.plot")
        columns = check_count("columns", columns)
        images = _check_images(x, len(self.labels))
        names = self._names(class_names)
        shown = self.indices[: check_count("count", count)]
        rows = max(1, -(-len(shown) // columns))
        figure, axes = plt.subplots(
            rows,
            columns,
            figsize=(1.4 * columns, 1.7 * rows),
            squeeze=False,
            layout="constrained",
        )
        for ax in axes.flat:
            ax.axis("off")
        for ax, index in zip(axes.flat, shown, strict=False):
            given, suggested = names[self.labels[index]], names[self.suggested[index]]
            ax.imshow(_scaled(images[index]), cmap="gray")
            ax.set_title(f"{given}\n→ {suggested}", fontsize=8, parse_math=False)
        return figure

    def _names(self, class_names):
        """Returns the class names, or the ids, if there is one for each class."""
        classes = 1 + int(max(self.labels.max(), self.suggested.max()))
        if class_names is None:
            return range(classes)
        if len(class_names) < classes:
            raise ValueError(
                "Invalid value for argument `class_names`: expected names of at least "
                f"{classes} classes. Received: {len(class_names)}"
            )
        return class_names


def find_label_errors(y, logits) -> LabelErrors:
    """Finds wrong labels from logits of held-out samples.

    Their number is the estimate of confident learning (cleanlab), as in
    `estimate_noise`. They are the labels with the lowest posterior probability, which
    Bayes' rule gives from the calibrated class probabilities and the transition matrix.
    So a label that is often confused with another class is more suspicious than one
    that is never confused.

    Formula:

    ```python
    # Of class c, given the inputs and the label y:
    probability[c] = softmax(logits / temperature)[c] * transition[c, y] / sum(...)
    quality = probability[y]
    ```

    With many classes, the estimated transition matrix is based on few samples per
    class. So it is smoothed by one added sample for each class and label.

    Args:
        y: The labels, some of which are wrong: class ids, integers of shape
            `(samples,)`.
        logits: Logits of each sample from a model that was not trained on it, as
            `held_out_logits` returns them, of shape `(samples, classes)`.

    Returns:
        `LabelErrors`.

    Raises:
        ValueError: As in `estimate_noise`.
        ImportError: If cleanlab is not installed.

    Example:

    ```python
    errors = cleaning.find_label_errors(y_train, logits)
    errors.to_csv("errors.csv")
    errors.plot(images)
    model.fit(x_train[errors.keep], y_train[errors.keep])
    ```
    """
    logits, labels = check_held_out(y, logits)
    joint, temperature, _ = fit_noise(labels, logits)
    transition = _smoothed(joint * len(labels))
    posterior = softmax(logits / temperature) * transition.T[labels]
    posterior /= posterior.sum(1, keepdims=True)
    quality = posterior[np.arange(len(labels)), labels]
    others = np.where(np.arange(len(joint)) == labels[:, None], -1, posterior)
    count = round((1 - np.trace(joint)) * len(labels))
    worst = np.argsort(quality, kind="stable")[:count]
    return LabelErrors(worst, labels, others.argmax(1), quality)


def _smoothed(counts):
    """Returns a transition matrix of counts and of one more sample in each place.

    The added samples have the same noise rate, so they do not change it.
    """
    classes = len(counts)
    rate = 1 - np.trace(counts) / counts.sum()
    added = np.full(counts.shape, classes * rate / (classes - 1))
    np.fill_diagonal(added, classes * (1 - rate))
    together = counts + added
    return together / together.sum(1, keepdims=True)


def _check_images(x, samples):
    """Returns images as an array, if there is one for each sample."""
    images = check_array(x, "x")
    is_image = images.ndim == 3 or (images.ndim == 4 and images.shape[-1] in (1, 3, 4))
    if not is_image or len(images) != samples:
        raise ValueError(
            "Invalid value for argument `x`: expected an image for each label, of "
            "shape `(samples, height, width)` or with one, three or four channels at "
            f"the end. Received: shape {images.shape}, {samples} labels"
        )
    return images


def _scaled(image):
    """Returns an image with values from 0 to 1."""
    image = np.asarray(image, "float64")
    low, high = image.min(), image.max()
    return (image - low) / (high - low or 1)
