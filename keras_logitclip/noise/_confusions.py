"""Which class each class is mistaken for: the maps of asymmetric noise.

Entry `i` of a map is the class that class `i` is mistaken for, `i` itself for a
class that is left alone.
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


# Truck to automobile, bird to airplane, deer to horse, cat and dog to each other.
CIFAR10_CONFUSIONS = _confuse(10, {9: 1, 2: 0, 4: 7, 3: 5, 5: 3})

# 7 to 1, 2 to 7, 3 to 8, 5 and 6 to each other.
MNIST_CONFUSIONS = _confuse(10, {7: 1, 2: 7, 3: 8, 5: 6, 6: 5})

# Shirt to T-shirt, sandal to sneaker, sneaker to ankle boot, pullover and coat to
# each other. The literature has no map in common: this one is of this package.
FASHION_MNIST_CONFUSIONS = _confuse(10, {6: 0, 5: 7, 7: 9, 2: 4, 4: 2})

# The next class of the same superclass, and from the last one to the first.
CIFAR100_SUPERCLASSES = _next_of(
    [[CIFAR100_CLASSES.index(name) for name in names]
     for names in CIFAR100_HIERARCHY.values()]
)  # fmt: skip

# The same within the ids 5i to 5i + 4, which are neighbours in the alphabet and no
# superclasses, but what much published code takes for them.
CIFAR100_ALPHABETICAL_BLOCKS = _next_of(
    [range(first, first + 5) for first in range(0, 100, 5)]
)
