"""Maps of classes to similar classes, for asymmetric noise.

Entry `i` of a map is the class that class `i` is mistaken for, or `i` itself if the
class keeps its labels.
"""

from keras_logitclip.noise._cifar100 import CIFAR100_CLASSES
from keras_logitclip.noise._cifar100 import CIFAR100_HIERARCHY


def _confuse(num_classes, pairs):
    return tuple(pairs.get(label, label) for label in range(num_classes))


def _next_of(groups):
    pairs = {
        label: group[(place + 1) % len(group)]
        for group in groups
        for place, label in enumerate(group)
    }
    return _confuse(len(pairs), pairs)


CIFAR10_CONFUSIONS = _confuse(10, {9: 1, 2: 0, 4: 7, 3: 5, 5: 3})
"""Maps truck to automobile, bird to airplane, deer to horse, and swaps cat and dog."""

MNIST_CONFUSIONS = _confuse(10, {7: 1, 2: 7, 3: 8, 5: 6, 6: 5})
"""Maps 7 to 1, 2 to 7, 3 to 8, and swaps 5 and 6."""

FASHION_MNIST_CONFUSIONS = _confuse(10, {6: 0, 5: 7, 7: 9, 2: 4, 4: 2})
"""Maps shirt to T-shirt, sandal to sneaker, sneaker to boot; swaps pullover and coat.

There is no usual map in the literature. This one is defined by this package.
"""

CIFAR100_SUPERCLASSES = _next_of(
    [[CIFAR100_CLASSES.index(name) for name in names]
     for names in CIFAR100_HIERARCHY.values()]
)  # fmt: skip
"""Maps each class to the next one of its superclass, and the last one to the first."""

CIFAR100_ALPHABETICAL_BLOCKS = _next_of(
    [range(first, first + 5) for first in range(0, 100, 5)]
)
"""Maps each id to the next one from 5i to 5i + 4, and the last one to the first.

These blocks are alphabetical neighbours. Much published code uses them by mistake as
superclasses.
"""
