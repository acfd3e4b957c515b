"""Label noise that depends only on the class."""

import operator
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from keras_logitclip._arguments import check_flag
from keras_logitclip._arguments import check_rate
from keras_logitclip._arguments import check_seed
from keras_logitclip._arguments import check_transition_matrix
from keras_logitclip._arguments import describe_seed
from keras_logitclip._labels import check_class_ids
from keras_logitclip.noise._noisy_labels import NoisyLabels
from keras_logitclip.noise._noisy_labels import count_classes
from keras_logitclip.noise._transition import Row
from keras_logitclip.noise._transition import Transition
from keras_logitclip.noise._transition import draw_exactly
from keras_logitclip.noise._transition import draw_independently


def symmetric(
    labels: ArrayLike,
    rate: float,
    num_classes: int | None = None,
    *,
    include_true_class: bool = False,
    exact: bool = False,
    seed: int | np.random.Generator,
) -> NoisyLabels:
    """Flips labels to any other class with equal probabilities.

    Formula:

    ```python
    transition[i, i] = 1 - rate
    transition[i, j] = rate / (num_classes - 1)  # j != i
    ```

    Args:
        labels: Clean class ids, integers of shape `(samples,)`, such as a list, an
            array or a pandas Series.
        rate: Probability that a label is replaced, in [0, 1].
        num_classes: Number of classes, at least 2. Defaults to `None`, which means
            the largest label + 1.
        include_true_class: Whether a label can be replaced by itself, as in some
            published code. The real rate is then
            `rate * (num_classes - 1) / num_classes`. Defaults to `False`.
        exact: Whether to flip the expected number of labels, as in
            `from_transition`. Defaults to `False`.
        seed: A seed, or a `numpy.random.Generator` to draw from.

    Returns:
        `NoisyLabels`.

    Raises:
        ValueError: If an argument is out of range, or the labels are not class ids.

    Example:

    >>> from keras_logitclip import noise
    >>> noise.symmetric([0, 1, 2, 0, 1, 2], 0.5, 3, exact=True, seed=0)
    NoisyLabels(kind='symmetric, exact counts', asked_rate=0.5, rate=0.5, \
samples=6, num_classes=3, seed=0)

    References:
        - [van Rooyen et al., 2015](https://arxiv.org/abs/1505.07634)
    """
    rate, given = check_rate(rate), num_classes
    num_classes = count_classes(given, labels=labels)
    kind, targets = "symmetric", num_classes - 1
    if check_flag("include_true_class", include_true_class):
        kind, targets = "symmetric, true class included", num_classes
    stay = 1 - rate * (num_classes - 1) / targets

    classes = np.arange(num_classes)

    def row(label):
        probabilities = np.full(num_classes, rate / targets)
        probabilities[label] = stay
        return Row(classes, probabilities)

    transition = Transition(np.full(num_classes, stay), row)
    return _draw(labels, given, transition, kind, rate, exact, seed)


def asymmetric(
    labels: ArrayLike,
    rate: float,
    mapping: Sequence[int],
    *,
    exact: bool = False,
    seed: int | np.random.Generator,
) -> NoisyLabels:
    """Flips the labels of some classes to a similar class.

    Every flip depends on the clean label. If cats become dogs and dogs become cats, no
    label is flipped twice.

    Formula:

    ```python
    transition[i, i] = 1 - rate
    transition[i, mapping[i]] = rate  # 1 in all if mapping[i] == i
    ```

    Args:
        labels: Clean class ids, integers of shape `(samples,)`, such as a list, an
            array or a pandas Series.
        rate: Probability in [0, 1] that a label is flipped if `mapping` gives its class
            another class. The rate of all labels is lower: half of it with
            `CIFAR10_CONFUSIONS`, which maps five of ten classes to themselves.
        mapping: The class that each class is mistaken for, or the class itself if its
            labels stay. Predefined are `CIFAR10_CONFUSIONS`, `MNIST_CONFUSIONS`,
            `FASHION_MNIST_CONFUSIONS`, `CIFAR100_SUPERCLASSES` and
            `CIFAR100_ALPHABETICAL_BLOCKS`.
        exact: Whether to flip the expected number of labels, as in
            `from_transition`. Defaults to `False`.
        seed: A seed, or a `numpy.random.Generator` to draw from.

    Returns:
        `NoisyLabels`.

    Raises:
        ValueError: If an argument is out of range, if the labels are not class ids, or
            if an entry of the mapping is not a class.

    Example:

    >>> from keras_logitclip import noise
    >>> noisy = noise.asymmetric([0, 1, 2, 0, 1, 2], 1.0, (1, 0, 2), seed=0)
    >>> noisy.labels.tolist()
    [1, 0, 2, 1, 0, 2]

    References:
        - [Patrini et al., 2017](https://arxiv.org/abs/1609.03683)
    """
    rate, mapping = check_rate(rate), _check_mapping(mapping)
    transition = _to_one_class(mapping, rate)
    return _draw(labels, len(mapping), transition, "asymmetric", rate, exact, seed)


def pair_flip(
    labels: ArrayLike,
    rate: float,
    num_classes: int | None = None,
    *,
    exact: bool = False,
    seed: int | np.random.Generator,
) -> NoisyLabels:
    """Flips labels to the next class, and labels of the last class to the first.

    Formula:

    ```python
    transition[i, i] = 1 - rate
    transition[i, (i + 1) % num_classes] = rate
    ```

    Args:
        labels: Clean class ids, integers of shape `(samples,)`, such as a list, an
            array or a pandas Series.
        rate: Probability that a label is flipped, in [0, 1].
        num_classes: Number of classes, at least 2. Defaults to `None`, which means
            the largest label + 1.
        exact: Whether to flip the expected number of labels, as in
            `from_transition`. Defaults to `False`.
        seed: A seed, or a `numpy.random.Generator` to draw from.

    Returns:
        `NoisyLabels`.

    Raises:
        ValueError: If an argument is out of range, or the labels are not class ids.

    Example:

    >>> from keras_logitclip import noise
    >>> noise.pair_flip([0, 1, 2], 1.0, 3, seed=0).labels.tolist()
    [1, 2, 0]

    References:
        - [Han et al., 2018](https://arxiv.org/abs/1804.06872)
    """
    rate, given = check_rate(rate), num_classes
    num_classes = count_classes(given, labels=labels)
    transition = _to_one_class(np.roll(np.arange(num_classes), -1), rate)
    return _draw(labels, given, transition, "pair flip", rate, exact, seed)


def from_transition(
    labels: ArrayLike,
    matrix: ArrayLike,
    *,
    exact: bool = False,
    seed: int | np.random.Generator,
) -> NoisyLabels:
    """Draws labels with the probabilities of a transition matrix.

    Rows are the clean classes. Some libraries have them as columns: transpose such a
    matrix.

    Args:
        labels: Clean class ids, integers of shape `(samples,)`, such as a list, an
            array or a pandas Series.
        matrix: Array of shape `(classes, classes)`: `matrix[i, j]` is the
            probability of label `j` for a sample of class `i`. Rows sum to 1.
        exact: With `False`, each label is drawn independently, and the realised rate
            varies. With `True`, the number of flips from each class to each other class
            is the expected one, rounded up or down by the method of largest remainders.
            Defaults to `False`.
        seed: A seed, or a `numpy.random.Generator` to draw from.

    Returns:
        `NoisyLabels`, whose `asked_rate` is the expected rate of these labels.

    Raises:
        ValueError: If the matrix is not square, has negative entries or rows that do
            not sum to 1, or if the labels are not class ids.

    Example:

    >>> from keras_logitclip import noise
    >>> matrix = [[0.5, 0.5], [0.0, 1.0]]
    >>> noise.from_transition([0, 0, 0, 0, 1], matrix, exact=True, seed=0).transition
    array([[0.5, 0.5],
           [0. , 1. ]])

    References:
        - [Patrini et al., 2017](https://arxiv.org/abs/1609.03683)
    """
    matrix = check_transition_matrix("matrix", matrix)
    matrix = matrix / matrix.sum(1, keepdims=True)
    clean = check_class_ids(labels, len(matrix))
    rate = float(np.mean(1 - matrix.diagonal()[clean]))
    classes = np.arange(len(matrix))
    transition = Transition(
        matrix.diagonal(), lambda label: Row(classes, matrix[label])
    )
    return _draw(clean, len(matrix), transition, "transition matrix", rate, exact, seed)


def _to_one_class(mapping, rate):
    """Returns the transition matrix of a map of the classes."""
    diagonal = np.where(mapping == np.arange(len(mapping)), 1, 1 - rate)

    def row(label):
        probabilities = {mapping[label]: rate} | {label: diagonal[label]}
        labels = sorted(probabilities)
        return Row(np.array(labels), np.array([probabilities[y] for y in labels]))

    return Transition(diagonal, row)


def _draw(labels, num_classes, transition, kind, rate, exact, seed):
    clean = check_class_ids(labels, len(transition.diagonal))
    rng = check_seed(seed)
    if check_flag("exact", exact):
        kind, noisy = f"{kind}, exact counts", draw_exactly(clean, transition, rng)
    else:
        noisy = draw_independently(clean, transition, rng)
    return NoisyLabels(noisy, clean, num_classes, kind, rate, describe_seed(seed))


def _check_mapping(mapping):
    """Returns a map of the classes as an array if all entries are classes."""
    try:
        if isinstance(mapping, dict):
            raise TypeError
        targets = [operator.index(target) for target in mapping]
    except TypeError:
        raise ValueError(
            "Invalid value for argument `mapping`: expected a sequence of integers, "
            "the class that each class is mistaken for, such as `(1, 0, 2)` for three "
            f"classes of which the first two are confused. Received: {mapping!r}"
        ) from None
    if len(targets) < 2:
        raise ValueError(
            "Invalid value for argument `mapping`: expected at least two classes. "
            f"Received: {mapping!r}"
        )
    for label, target in enumerate(targets):
        if not 0 <= target < len(targets):
            raise ValueError(
                "Invalid value for argument `mapping`: expected classes in [0, "
                f"{len(targets)}), because the length of the mapping is the number of "
                f"classes. Received: mapping[{label}]={target}"
            )
    return np.array(targets)
