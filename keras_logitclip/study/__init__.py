"""Studies, which compare methods over noises, losses and seeds."""

try:
    from keras_logitclip.study._config import Study
    from keras_logitclip.study._config import load
    from keras_logitclip.study._report import write_report
except ModuleNotFoundError as error:
    if error.name not in ("msgspec", "pandas"):
        raise
    raise ImportError(
        f"Studies need {error.name}, which is not installed. Install it with: "
        'pip install "keras-logitclip[study]"'
    ) from error
from keras_logitclip.study._plan import Cell
from keras_logitclip.study._run import run

__all__ = ["Cell", "Study", "load", "run", "write_report"]


def __dir__():
    return __all__
