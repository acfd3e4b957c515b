"""`search_tau`: the paper's search, with a fraction of its trainings."""

import hashlib
import json
from collections.abc import Callable
from collections.abc import Sequence

import keras
import numpy as np

from keras_logitclip._arguments import check_count
from keras_logitclip._arguments import check_p
from keras_logitclip._jobs import queue
from keras_logitclip._jobs.batches import check_inputs
from keras_logitclip._jobs.processes import exit_with_parent
from keras_logitclip._jobs.processes import work_in_processes
from keras_logitclip.tuning import _checks
from keras_logitclip.tuning import _study
from keras_logitclip.tuning._plan import planned_trainings
from keras_logitclip.tuning._progress_bar import ProgressBar
from keras_logitclip.tuning._result import TauSearch
from keras_logitclip.tuning._training import Task


def search_tau(
    build_model: Callable[[], keras.Model],
    x,
    y,
    *,
    loss: keras.losses.Loss | str | Callable = "sparse_categorical_crossentropy",
    taus: Sequence[float] | None = None,
    validation_split: float = 0.1,
    epochs: int,
    optimizer: keras.optimizers.Optimizer | str | Callable = "adam",
    batch_size: int = 128,
    p: float = 2,
    seeds: int = 1,
    seed: int = 0,
    clean_data: tuple | None = None,
    storage: str | None = None,
    study_name: str = "search_tau",
    workers: int = 1,
    grace_period: int = 60,
    verbose: bool = True,
) -> TauSearch:
    """Searches the threshold `tau` with noisy labels alone.

    As in the paper, a part of the training data is held out with its noisy labels,
    and the threshold with the best accuracy there is the best. Label noise lowers
    that accuracy for every threshold alike, so no clean labels are needed.

    Not every threshold is trained: of more than four, three that are spread over the
    range, and then the one next to the top of a parabola through their accuracies. All
    trainings are full ones, because memorization comes late. So a search costs four
    trainings at most. With `seeds=n` the best two are trained with `n` seeds each and
    compared by their mean: two more trainings for each further seed. Accuracies are
    means of the last epochs, a tenth of a training.

    The search is an Optuna study. One that was interrupted goes on where it stopped
    when it is called again with the same arguments; one that is complete returns its
    result at once. Any number of calls, also on different machines, can work on one
    study of a PostgreSQL server (SQLite is for processes of one machine). A training
    whose process died is started anew by another one.

    Args:
        build_model: Function without arguments that returns a new model, not
            compiled, that returns logits.
        x: Training inputs: an array, or a list, tuple or dictionary of arrays.
        y: Their noisy labels: class ids, integers of shape `(samples,)`.
        loss: What to clip the logits for, as in `LogitClipLoss`; it has to accept
            class ids. Defaults to `"sparse_categorical_crossentropy"`.
        taus: The thresholds, greater than zero. Defaults to `None`, which means
            those of the paper: `1 / tau` is 0.1, 0.5, 1, 1.5, ..., 5.
        validation_split: The share of each class to hold out. Defaults to `0.1`.
        epochs: Epochs of a full training.
        optimizer: Name of a Keras optimizer, an instance to copy, or a function from
            the number of training steps to an instance. A learning rate that decays
            needs the function, so that it does so in short trainings, too. Defaults
            to `"adam"`.
        batch_size: Samples per step. Defaults to `128`.
        p: Order of the norm, as in `LogitClipLoss`. Defaults to `2`.
        seeds: How many seeds to train the best two thresholds with. Defaults to `1`.
        seed: Seed of the split and, counting up, of the trainings. It becomes the
            global random seed. Defaults to `0`.
        clean_data: Inputs and clean labels of a test set, to see in the result how
            the thresholds do there; the search does not use them. Defaults to `None`.
        storage: URL of the database, `"sqlite:///..."` or `"postgresql://..."`, the
            latter with the package psycopg. Defaults to `None`, which means the
            file `<study_name>.db` in the working directory.
        study_name: Name of the study. Defaults to `"search_tau"`.
        workers: Number of processes to start on this machine. Above 1, `build_model`
            has to be a function that they can import, and a script needs the usual
            `if __name__ == "__main__":`. Defaults to `1`: no other process.
        grace_period: Seconds without sign of life after which a training counts as
            crashed. Defaults to `60`.
        verbose: Whether to show a progress bar. Defaults to `True`.

    Returns:
        A `TauSearch`.

    Raises:
        ValueError: Before any training starts: if an argument is out of range, if the
            split leaves a class without samples, if `build_model` returns a compiled
            model or one that returns probabilities (a sigmoid inside of a subclassed
            model goes unnoticed), or if there is a study of that name with other
            settings.
        ImportError: If Optuna is not installed.
        RuntimeError: If all worker processes died.

    Example:

    ```python
    from keras_logitclip import LogitClipLoss
    from keras_logitclip import tuning

    found = tuning.search_tau(build_model, x_train, noisy_labels, epochs=60)
    print(found)
    loss = LogitClipLoss("sparse_categorical_crossentropy", tau=found.best_tau)
    ```

    References:
        - [Wei et al., 2023](https://arxiv.org/abs/2212.04055)
    """
    taus = _checks.check_taus(taus)
    epochs = check_count("epochs", epochs)
    batch_size = check_count("batch_size", batch_size)
    seeds = check_count("seeds", seeds)
    seed, workers = check_count("seed", seed, 0), check_count("workers", workers)
    grace_period = check_count("grace_period", grace_period)
    url = _study.check_storage(storage, study_name)
    labels = _checks.check_labels(y)
    inputs = check_inputs(x, len(labels))
    training, validation = _checks.split(labels, validation_split, seed)
    _checks.check_optimizer(optimizer)
    task = Task(
        build_model=build_model,
        inputs=inputs,
        labels=labels,
        train=training,
        validation=validation,
        clean_data=_checks.check_clean_data(clean_data),
        loss=loss,
        p=check_p(p),
        optimizer=optimizer,
        epochs=epochs,
        batch_size=batch_size,
        seed=seed,
    )
    if workers > 1:
        _checks.check_pickles(task)
    queue.import_optuna("`search_tau`")
    parameters = _checks.check_model(task)
    settings = {
        "epochs": epochs,
        "batch_size": batch_size,
        "seeds": seeds,
        "taus": taus,
        "p": task.p,
        "seed": seed,
        "validation_split": validation_split,
        "loss": _describe(loss),
        "optimizer": _describe(optimizer),
        "model": f"{_describe(build_model)}, {parameters} parameters",
        "data": _fingerprint(inputs, labels),
        "backend": keras.config.backend(),
    }
    study_arguments = (url, study_name, settings, grace_period)
    study = queue.open_study(*study_arguments)
    planned = epochs * planned_trainings(len(taus), seeds)
    with ProgressBar(study, planned, verbose) as bar:
        if workers == 1:
            _study.work(
                study, task, taus, seeds, grace_period, bar.count_epoch, bar.refresh
            )
        else:
            work_in_processes(
                workers,
                _work_in_process,
                (task, taus, seeds, study_arguments),
                is_complete=lambda: not _study.progress_of(study, taus, seeds).missing,
                on_poll=bar.refresh,
            )
    return TauSearch(
        best_tau=_study.progress_of(study, taus, seeds).ranking[0],
        rows=_study.rows_of(study),
        epochs=epochs,
        epochs_spent=_study.epochs_spent(study),
        study_name=study_name,
    )


def _work_in_process(task, taus, seeds, study_arguments):
    study = queue.open_study(*study_arguments)
    grace_period = study_arguments[-1]
    _study.work(
        study, task, taus, seeds, grace_period, exit_with_parent, exit_with_parent
    )


def _describe(value) -> str:
    """Returns what tells a loss, optimizer or function from another one."""
    if isinstance(value, str):
        return value
    if isinstance(value, keras.losses.Loss | keras.optimizers.Optimizer):
        config = {"class": type(value).__name__, **value.get_config()}
        return json.dumps(config, sort_keys=True, default=str)
    name = getattr(value, "__qualname__", type(value).__qualname__)
    return f"{getattr(value, '__module__', None)}.{name}"


def _fingerprint(inputs, labels) -> str:
    """Returns a hash of the labels and of a thousand inputs."""
    digest = hashlib.sha256(labels.astype("int64").tobytes())
    rows = np.unique(np.linspace(0, len(labels) - 1, 1000).astype("int64"))
    for array in keras.tree.flatten(inputs):
        digest.update(f"{array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array[rows]).tobytes())
    return digest.hexdigest()[:16]
