"""Studies: methods compared over noises, losses and seeds."""

from keras_logitclip.study._config import Cell
from keras_logitclip.study._config import Study
from keras_logitclip.study._config import load
from keras_logitclip.study._report import write_report
from keras_logitclip.study._run import run

__all__ = ["Cell", "Study", "load", "run", "write_report"]


def __dir__():
    return __all__
