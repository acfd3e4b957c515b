"""A search for the threshold `tau` without clean labels."""

from keras_logitclip.tuning._result import TauSearch
from keras_logitclip.tuning._search import search_tau

__all__ = ["TauSearch", "search_tau"]


def __dir__():
    return __all__
