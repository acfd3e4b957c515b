"""The result of the generators of label noise."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from keras_logitclip._arguments import check_num_classes
from keras_logitclip._labels import check_class_ids
from keras_logitclip._plotting import label_classes
from keras_logitclip._plotting import new_axes


def count_classes(num_classes: int | None, **labels: ArrayLike) -> int:
    """Returns the number of classes, or the largest label + 1 if it is `None`."""
    if num_classes is not None:
        return check_num_classes(num_classes)
    largest = max(check_class_ids(y, np.inf, name).max() for name, y in labels.items())
    if largest == 0:
        raise ValueError(
            "Expected labels of at least two classes, or the number of classes as "
            "`num_classes`. Received: only labels of class 0"
        )
    return int(largest) + 1


@dataclasses.dataclass(frozen=True, init=False, eq=False, repr=False)
class NoisyLabels:
    """Holds noisy labels, the clean labels, and how the noise was made.

    The generators of `keras_logitclip.noise` return it. You can also make it from other
    labels.

    Args:
        labels: The noisy class ids, integers of shape `(samples,)`, such as a list,
            an array or a pandas Series.
        clean: The clean class ids.
        num_classes: Number of classes, at least 2. Defaults to `None`, which means
            the largest label + 1.
        kind: Name of the noise. Defaults to `"given"`.
        asked_rate: The requested rate, if there was one. The realised `rate` can differ
            by kind: for example, asymmetric noise does not flip the labels of some
            classes. Defaults to `None`.
        seed: The seed of the noise, or the text form of the `Generator`. Defaults to
            `None`.

    Attributes:
        labels: The noisy labels, int64, as is `clean`.
        flipped: Which labels differ from the clean ones, bool.
        rate: The share of the labels that differ, which is the realised rate.
        transition: The realised transition matrix: `transition[i, j]` is the share of
            label `j` among the samples of class `i`. Rows sum to 1. A class without
            samples has a 1 on the diagonal. The matrix is computed at each access, and
            takes 0.8 GB with 10,000 classes.
        num_classes_given: Whether the number of classes was given, not inferred.

    Raises:
        ValueError: If labels are not integers in `[0, num_classes)`, or if the numbers
            of noisy and clean labels differ.

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
    kind: str
    asked_rate: float | None
    seed: int | str | None
    num_classes_given: bool = dataclasses.field(init=False)

    def __init__(
        self,
        labels: ArrayLike,
        clean: ArrayLike,
        num_classes: int | None = None,
        kind: str = "given",
        asked_rate: float | None = None,
        seed: int | str | None = None,
    ):
        given = num_classes is not None
        num_classes = count_classes(num_classes, labels=labels, clean=clean)
        labels = check_class_ids(labels, num_classes)
        clean = check_class_ids(clean, num_classes, "clean")
        if len(labels) != len(clean):
            raise ValueError(
                "Expected as many noisy labels as clean ones. "
                f"Received: {len(labels)} labels, {len(clean)} clean"
            )
        # Circumvents the protection of a frozen dataclass.
        vars(self).update(
            labels=labels,
            clean=clean,
            num_classes=num_classes,
            kind=kind,
            asked_rate=asked_rate,
            seed=seed,
            num_classes_given=given,
        )

    @property
    def flipped(self) -> np.ndarray:
        return self.labels != self.clean

    @property
    def rate(self) -> float:
        return float(self.flipped.mean())

    @property
    def transition(self) -> np.ndarray:
        pairs = self.clean * self.num_classes + self.labels
        pairs, counts = np.unique(pairs, return_counts=True)
        samples = np.bincount(self.clean, minlength=self.num_classes)
        matrix = np.zeros((self.num_classes, self.num_classes))
        matrix.ravel()[pairs] = counts / samples[pairs // self.num_classes]
        absent = np.flatnonzero(samples == 0)
        matrix[absent, absent] = 1
        return matrix

    def __repr__(self) -> str:
        inferred = "" if self.num_classes_given else " (largest label + 1)"
        return (
            f"NoisyLabels(kind={self.kind!r}, asked_rate={self.asked_rate!r}, "
            f"rate={self.rate:.6g}, samples={len(self.labels)}, "
            f"num_classes={self.num_classes}{inferred}, seed={self.seed!r})"
        )

    def plot(self, class_names: Sequence[str] | None = None, ax: Any = None) -> Any:
        """Draws the realised transition matrix.

        Args:
            class_names: Names beside rows and columns. Defaults to `None`, which means
                the class ids.
            ax: The Matplotlib axes to draw on. Defaults to `None`, which means a new
                figure.

        Returns:
            The Matplotlib axes.

        Raises:
            ImportError: If Matplotlib is not installed.
            ValueError: If the number of names is not the number of classes.

        Example:

        ```python
        noisy = noise.symmetric(y_train, 0.4, num_classes=10, seed=0)
        noisy.plot().figure.savefig("transition.png")
        ```
        """
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
            label_classes(ax, self.num_classes, class_names)
        return ax
