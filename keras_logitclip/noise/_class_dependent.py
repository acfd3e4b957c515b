"""Noise that depends on the class alone: all of it is a transition matrix."""

import operator

import numpy as np

from keras_logitclip._arguments import check_flag
from keras_logitclip._arguments import check_num_classes
from keras_logitclip._arguments import check_rate
from keras_logitclip._arguments import check_seed
from keras_logitclip._arguments import check_transition_matrix
from keras_logitclip._arguments import describe_seed
from keras_logitclip._labels import check_class_ids
from keras_logitclip.noise._noisy_labels import NoisyLabels
from keras_logitclip.noise._transition import Transition
from keras_logitclip.noise._transition import draw_exactly
from keras_logitclip.noise._transition import draw_independently


def symmetric(
    labels: np.ndarray,
    rate: float,
    num_classes: int,
    *,
    include_true_class: bool = False,
    exact: bool = False,
    seed: int | np.random.Generator,
) -> NoisyLabels:
    """Flips labels to any other class, all of them equally likely.

    Formula:

    ```python
    transition[i, i] = 1 - rate
    transition[i, j] = rate / (num_classes - 1)  # j != i
    ```

    Args:
        labels: Clean class ids, integers of shape `(samples,)`.
        rate: Probability that a label is replaced, in [0, 1].
        num_classes: Number of classes, at least 2.
        include_true_class: Whether a label may be replaced by itself, as in some
            published code: the real rate is then
            `rate * (num_classes - 1) / num_classes`. Defaults to `False`.
        exact: Whether to flip the expected number of labels, as in
            `from_transition`. Defaults to `False`.
        seed: A seed, or a `numpy.random.Generator` to draw from.

    Returns:
        `NoisyLabels`.

    Raises:
        ValueError: If an argument is out of range or labels are no class ids.

    Example:

    >>> from keras_logitclip import noise
    >>> noise.symmetric([0, 1, 2, 0, 1, 2], 0.5, 3, exact=True, seed=0)
    NoisyLabels(kind='symmetric, exact counts', asked_rate=0.5, rate=0.5, \
samples=6, num_classes=3, seed=0)

    References:
        - [van Rooyen et al., 2015](https://arxiv.org/abs/1505.07634)
    """
    rate, num_classes = check_rate(rate), check_num_classes(num_classes)
    kind, targets = "symmetric", num_classes - 1
    if check_flag("include_true_class", include_true_class):
        kind, targets = "symmetric, true class included", num_classes
    stay = 1 - rate * (num_classes - 1) / targets

    def row(label):
        probabilities = np.full(num_classes, rate / targets)
        probabilities[label] = stay
        return probabilities

    transition = Transition(np.full(num_classes, stay), row)
    return _draw(labels, transition, kind, rate, exact, seed)


def asymmetric(
    labels: np.ndarray,
    rate: float,
    mapping: tuple[int, ...],
    *,
    exact: bool = False,
    seed: int | np.random.Generator,
) -> NoisyLabels:
    """Flips the labels of some classes to a class that looks alike.

    Every flip is drawn from the clean label: where cats become dogs and dogs
    become cats, none is flipped twice.

    Formula:

    ```python
    transition[i, i] = 1 - rate
    transition[i, mapping[i]] = rate  # 1 in all if mapping[i] == i
    ```

    Args:
        labels: Clean class ids, integers of shape `(samples,)`.
        rate: Probability that a label of a class with a confusion is flipped, in
            [0, 1]. Of all labels, fewer are: half as many with
            `CIFAR10_CONFUSIONS`, which leaves five of ten classes alone.
        mapping: For each class, the class that it is mistaken for; itself for a
            class to leave alone. Ready are `CIFAR10_CONFUSIONS`,
            `MNIST_CONFUSIONS`, `FASHION_MNIST_CONFUSIONS` (of this package; the
            literature has none in common), `CIFAR100_SUPERCLASSES` (the next
            class of the superclass) and `CIFAR100_ALPHABETICAL_BLOCKS` (the next
            of five alphabetical neighbours, which much published code takes for
            superclasses).
        exact: Whether to flip the expected number of labels, as in
            `from_transition`. Defaults to `False`.
        seed: A seed, or a `numpy.random.Generator` to draw from.

    Returns:
        `NoisyLabels`.

    Raises:
        ValueError: If an argument is out of range, if labels are no class ids, or
            if the mapping leads out of the classes.

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
    return _draw(labels, transition, "asymmetric", rate, exact, seed)


def pair_flip(
    labels: np.ndarray,
    rate: float,
    num_classes: int,
    *,
    exact: bool = False,
    seed: int | np.random.Generator,
) -> NoisyLabels:
    """Flips labels to the next class, and those of the last class to the first.

    Formula:

    ```python
    transition[i, i] = 1 - rate
    transition[i, (i + 1) % num_classes] = rate
    ```

    Args:
        labels: Clean class ids, integers of shape `(samples,)`.
        rate: Probability that a label is flipped, in [0, 1].
        num_classes: Number of classes, at least 2.
        exact: Whether to flip the expected number of labels, as in
            `from_transition`. Defaults to `False`.
        seed: A seed, or a `numpy.random.Generator` to draw from.

    Returns:
        `NoisyLabels`.

    Raises:
        ValueError: If an argument is out of range or labels are no class ids.

    Example:

    >>> from keras_logitclip import noise
    >>> noise.pair_flip([0, 1, 2], 1.0, 3, seed=0).labels.tolist()
    [1, 2, 0]

    References:
        - [Han et al., 2018](https://arxiv.org/abs/1804.06872)
    """
    rate, num_classes = check_rate(rate), check_num_classes(num_classes)
    transition = _to_one_class(np.roll(np.arange(num_classes), -1), rate)
    return _draw(labels, transition, "pair flip", rate, exact, seed)


def from_transition(
    labels: np.ndarray,
    matrix: np.ndarray,
    *,
    exact: bool = False,
    seed: int | np.random.Generator,
) -> NoisyLabels:
    """Draws labels from a matrix of probabilities: rows are the clean classes.

    Some libraries have the clean classes as columns: transpose such a matrix.

    Args:
        labels: Clean class ids, integers of shape `(samples,)`.
        matrix: Array of shape `(classes, classes)`: `matrix[i, j]` is the
            probability of label `j` for a sample of class `i`. Rows sum to 1.
        exact: `False` draws each label by itself, and the realised rate varies.
            `True` flips as many labels of each class to each other class as are
            expected. Where that is no whole number, it is rounded up or down so
            that the sum over the classes is rounded, too (largest remainders).
            Defaults to `False`.
        seed: A seed, or a `numpy.random.Generator` to draw from.

    Returns:
        `NoisyLabels`, whose `asked_rate` is the one expected for these labels.

    Raises:
        ValueError: If the matrix is not square, has negative entries or
            rows that do not sum to 1, or if labels are no class ids.

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
    transition = Transition(matrix.diagonal(), matrix.__getitem__)
    return _draw(clean, transition, "transition matrix", rate, exact, seed)


def _to_one_class(mapping, rate):
    """Returns the transition of classes that are each mistaken for one class."""
    diagonal = np.where(mapping == np.arange(len(mapping)), 1, 1 - rate)

    def row(label):
        probabilities = np.zeros(len(mapping))
        probabilities[mapping[label]] = rate
        probabilities[label] = diagonal[label]
        return probabilities

    return Transition(diagonal, row)


def _draw(labels, transition, kind, rate, exact, seed):
    num_classes = len(transition.diagonal)
    clean, rng = check_class_ids(labels, num_classes), check_seed(seed)
    if check_flag("exact", exact):
        kind, noisy = f"{kind}, exact counts", draw_exactly(clean, transition, rng)
    else:
        noisy = draw_independently(clean, transition, rng)
    return NoisyLabels(noisy, clean, num_classes, kind, rate, describe_seed(seed))


def _check_mapping(mapping):
    """Returns a map of the classes as an array if it leads to classes."""
    try:
        if isinstance(mapping, dict):
            raise TypeError
        targets = [operator.index(target) for target in mapping]
    except TypeError:
        raise ValueError(
            "Invalid value for argument `mapping`: expected a sequence of integers, "
            "for each class the one that it is mistaken for, such as `(1, 0, 2)` for "
            "three classes of which the first two are confused. "
            f"Received: {mapping!r}"
        ) from None
    if len(targets) < 2:
        raise ValueError(
            "Invalid value for argument `mapping`: expected at least two classes. "
            f"Received: {mapping!r}"
        )
    for label, target in enumerate(targets):
        if not 0 <= target < len(targets):
            raise ValueError(
                "Invalid value for argument `mapping`: expected classes in "
                f"[0, {len(targets)}), the mapping's length being their number. "
                f"Received: mapping[{label}]={target}"
            )
    return np.array(targets)
