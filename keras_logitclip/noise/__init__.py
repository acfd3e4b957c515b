"""Generators of label noise that return the noisy and the clean labels."""

from keras_logitclip.noise._class_dependent import asymmetric
from keras_logitclip.noise._class_dependent import from_transition
from keras_logitclip.noise._class_dependent import pair_flip
from keras_logitclip.noise._class_dependent import symmetric
from keras_logitclip.noise._confusions import CIFAR10_CONFUSIONS
from keras_logitclip.noise._confusions import CIFAR100_ALPHABETICAL_BLOCKS
from keras_logitclip.noise._confusions import CIFAR100_SUPERCLASSES
from keras_logitclip.noise._confusions import FASHION_MNIST_CONFUSIONS
from keras_logitclip.noise._confusions import MNIST_CONFUSIONS
from keras_logitclip.noise._instance_dependent import instance_dependent
from keras_logitclip.noise._noisy_labels import NoisyLabels
from keras_logitclip.noise._open_set import OpenSetInputs
from keras_logitclip.noise._open_set import open_set

__all__ = [
    "CIFAR10_CONFUSIONS",
    "CIFAR100_ALPHABETICAL_BLOCKS",
    "CIFAR100_SUPERCLASSES",
    "FASHION_MNIST_CONFUSIONS",
    "MNIST_CONFUSIONS",
    "NoisyLabels",
    "OpenSetInputs",
    "asymmetric",
    "from_transition",
    "instance_dependent",
    "open_set",
    "pair_flip",
    "symmetric",
]


def __dir__():
    return __all__
