"""What a generator of label noise returns."""

import dataclasses

import numpy as np

from keras_logitclip._arguments import check_num_classes
from keras_logitclip._labels import check_class_ids
from keras_logitclip._plotting import new_axes


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class NoisyLabels:
    """Noisy labels, the clean ones, and how the one came from the other.

    The generators of `keras_logitclip.noise` return it. It can also be made of
    labels from elsewhere.

    Args:
        labels: The noisy class ids, integers of shape `(samples,)`.
        clean: The clean ones.
        num_classes: Number of classes, at least 2.
        kind: Name of the noise. Defaults to `"given"`.
        asked_rate: The rate that was asked for, if one was. How it compares with
            the realised `rate` depends on the kind: asymmetric noise, say,
            leaves alone the classes without a confusion. Defaults to `None`.
        seed: What the noise was drawn with, if it was drawn: the seed, or the
            name of the `Generator` that was given instead. Defaults to `None`.

    Attributes:
        labels: The noisy labels, int64, as is `clean`.
        flipped: Which labels differ from the clean ones, bool.
        rate: The share of them that differs: the realised rate.
        transition: The realised transition matrix: `transition[i, j]` is the
            share of label `j` among the samples of class `i`. Rows sum to 1; a
            class without samples keeps its label, a 1 on the diagonal.

    Raises:
        ValueError: If labels are no integers in `[0, num_classes)`, or if there
            are more or fewer noisy than clean ones.

    Example:

    >>> from keras_logitclip import noise
    >>> noise.NoisyLabels([0, 2, 2], clean=[0, 1, 2], num_classes=3).transition
    array([[1., 0., 0.],
           [0., 0., 1.],
           [0., 0., 1.]])
    """

    labels: np.ndarray
    clean: np.ndarray
    num_classes: int
    kind: str = "given"
    asked_rate: float | None = None
    seed: int | str | None = None

    def __post_init__(self):
        num_classes = check_num_classes(self.num_classes)
        labels = check_class_ids(self.labels, num_classes)
        clean = check_class_ids(self.clean, num_classes, "clean")
        if len(labels) != len(clean):
            raise ValueError(
                "Expected as many noisy labels as clean ones. "
                f"Received: {len(labels)} labels, {len(clean)} clean"
            )
        checked = {"labels": labels, "clean": clean, "num_classes": num_classes}
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    @property
    def flipped(self) -> np.ndarray:
        return self.labels != self.clean

    @property
    def rate(self) -> float:
        return float(self.flipped.mean())

    @property
    def transition(self) -> np.ndarray:
        shape = (self.num_classes, self.num_classes)
        pairs = np.ravel_multi_index((self.clean, self.labels), shape)
        counts = np.bincount(pairs, minlength=self.num_classes**2).reshape(shape)
        samples = counts.sum(1, keepdims=True)
        counts = np.where(samples > 0, counts, np.eye(self.num_classes))
        return counts / np.maximum(samples, 1)

    def __repr__(self):
        return (
            f"NoisyLabels(kind={self.kind!r}, asked_rate={self.asked_rate!r}, "
            f"rate={self.rate:.6g}, samples={len(self.labels)}, "
            f"num_classes={self.num_classes}, seed={self.seed!r})"
        )

    def plot(self, class_names=None, ax=None):
        """Draws the realised transition matrix.

        Args:
            class_names: Names to write at the rows and columns. Defaults to
                `None`, which means the class ids.
            ax: The Matplotlib axes to draw on. Defaults to `None`, which means
                those of a new figure.

        Returns:
            The Matplotlib axes.

        Raises:
            ImportError: If Matplotlib is not installed.
            ValueError: If there are more or fewer names than classes.

        Example:

        ```python
        noisy = noise.symmetric(y_train, 0.4, num_classes=10, seed=0)
        noisy.plot().figure.savefig("transition.png")
        ```
        """
        if class_names is not None and len(class_names) != self.num_classes:
            raise ValueError(
                f"Invalid value for argument `class_names`: expected "
                f"{self.num_classes} names. Received: {len(class_names)}"
            )
        if ax is None:
            ax = new_axes("NoisyLabels.plot")
        image = ax.imshow(self.transition, vmin=0, vmax=1, cmap="Blues")
        ax.figure.colorbar(image, ax=ax, label="share of the clean class")
        ax.set(
            xlabel="noisy label",
            ylabel="clean label",
            title=f"{self.kind}, {self.rate:.1%} flipped",
        )
        if class_names is not None:
            ids = range(self.num_classes)
            ax.set_xticks(ids, class_names, rotation=90)
            ax.set_yticks(ids, class_names)
        return ax
