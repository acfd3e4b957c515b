"""Real data sets and human labels, from files or downloads."""

from keras_logitclip.datasets._human_labels import load_human_labels
from keras_logitclip.datasets._load import Dataset
from keras_logitclip.datasets._load import load

__all__ = ["Dataset", "load", "load_human_labels"]


def __dir__():
    return __all__
