"""`search_tau`, the search of the paper with a fraction of its trainings."""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
from numpy.typing import ArrayLike

from keras_logitclip._arguments import check_count
from keras_logitclip._arguments import check_number
from keras_logitclip._arguments import check_p
from keras_logitclip._jobs import arrays
from keras_logitclip._jobs import checks
from keras_logitclip._jobs import processes
from keras_logitclip._jobs import queue
from keras_logitclip._jobs import storage as storages
from keras_logitclip._jobs.description import describe
from keras_logitclip._jobs.description import describe_model
from keras_logitclip._jobs.description import fingerprint
from keras_logitclip._jobs.description import keras_settings
from keras_logitclip._jobs.progress import progress_bar
from keras_logitclip.losses import LogitClipLoss
from keras_logitclip.tuning._plan import Plan
from keras_logitclip.tuning._plan import Training
from keras_logitclip.tuning._result import TauSearch
from keras_logitclip.tuning._result import epochs_spent
from keras_logitclip.tuning._result import rows_of
from keras_logitclip.tuning._training import Task
from keras_logitclip.tuning._training import train

# The values of 1 / tau that the paper searches.
PAPER_GRID = (0.1, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0)


def search_tau(
    build_model: Callable[[], keras.Model],
    x: Any,
    y: ArrayLike,
    *,
    loss: keras.losses.Loss | str | Callable = "sparse_categorical_crossentropy",
    taus: Sequence[float] | None = None,
    learning_rates: Sequence[float] | None = None,
    validation_split: float = 0.1,
    validation_data: tuple | None = None,
    epochs: int,
    optimizer: keras.optimizers.Optimizer | str | Callable = "adam",
    callbacks: Sequence[keras.callbacks.Callback] = (),
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
    """Searches for the best `tau` and learning rate with noisy labels only.

    As in the paper, a part of the training data is held out with its noisy labels, and
    the best `tau` has the best accuracy there. Label noise lowers this accuracy for all
    thresholds alike, so clean labels are not needed.

    If there are more than four thresholds, three over the whole range are trained, and
    then the one next to the top of a parabola through their accuracies. All trainings
    are complete ones, because memorization comes late. Accuracies are means over the
    last tenth of the epochs. A search costs at most

    - 4 trainings with one learning rate;
    - R + 3 with R `learning_rates`, which are compared at the threshold next to 1.5.
      The other thresholds are trained with the best of them;
    - 1 more for each learning rate if `inf`, which means no clipping, is among the
      `taus`, because its best learning rate differs;
    - 2 more for each further seed of `seeds`, with which the best two are trained
      again.

    The search is an Optuna study. The same call with the same arguments resumes an
    interrupted search. A call with other arguments, data or models is refused. Any
    number of calls on different machines can share a study of a PostgreSQL server.
    SQLite is for processes of one machine. If a process dies, another one repeats its
    training.

    Args:
        build_model: Function without arguments that returns a new, uncompiled model.
            The model returns logits.
        x: Training inputs: an array, or a list, tuple or dictionary of arrays. On
            TensorFlow also texts, for a model that takes them.
        y: Their noisy labels: class ids, integers of shape `(samples,)`.
        loss: The loss of the clipped logits, as in `LogitClipLoss`. It has to accept
            class ids. Defaults to `"sparse_categorical_crossentropy"`.
        taus: The thresholds, `inf` for no clipping. Defaults to `None`, which means the
            thresholds of the paper: `1 / tau` is 0.1, 0.5, 1, 1.5, ..., 5.
        learning_rates: Learning rates to choose from. Defaults to `None`, which means
            the learning rate of the optimizer.
        validation_split: The share of each class to hold out. Defaults to `0.1`.
        validation_data: Held-out inputs and noisy labels, instead of
            `validation_split`. Defaults to `None`.
        epochs: Epochs of each training.
        optimizer: Name of a Keras optimizer, an instance to copy, or a function that
            returns an optimizer. The function gets `steps`, the number of training
            steps, and with `learning_rates` also `learning_rate`. A schedule needs a
            function. Defaults to `"adam"`.
        callbacks: Callbacks, copied for each training. Defaults to `()`.
        batch_size: Samples per step. Defaults to `128`.
        p: Order of the norm, as in `LogitClipLoss`. Defaults to `2`.
        seeds: Number of seeds with which the best two are trained. Defaults to `1`.
        seed: Seed of the split and first seed of the trainings. It sets the global
            random seed. Defaults to `0`.
        clean_data: Inputs and clean labels of a test set. The result shows its
            accuracy, but the search does not use it. Defaults to `None`.
        storage: URL of the database, `"sqlite:///..."` or `"postgresql://..."`. The
            latter needs the package psycopg. Defaults to `None`, which means the file
            `<study_name>.db` in the working directory.
        study_name: Name of the study. Defaults to `"search_tau"`.
        workers: Number of processes on this machine. With more than one, the functions
            that you pass have to be importable, and a script needs
            `if __name__ == "__main__":`. Defaults to `1`, which means only the calling
            process.
        grace_period: Seconds without a sign of life after which a training on another
            machine counts as crashed. Defaults to `60`.
        verbose: Whether to show a progress bar. Defaults to `True`.

    Returns:
        A `TauSearch`.

    Raises:
        ValueError: Before any training starts, if an argument is out of range, if the
            model is compiled, if `check_model` finds a problem, or if a study of this
            name has other settings.
        ConnectionError: If the database cannot be opened or fails.
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
    if taus is None:
        taus = [1 / inverse for inverse in PAPER_GRID]
    plan = Plan(
        _grid("taus", taus, "(0, inf]"),
        [None]
        if learning_rates is None
        else _grid("learning_rates", learning_rates, "(0, inf)"),
        check_count("seeds", seeds),
    )
    seed = check_count("seed", seed, 0)
    data = checks.check_data(x, y)
    held_out = checks.check_pair("validation_data", validation_data)
    clean_data = checks.check_pair("clean_data", clean_data)
    data_settings = {
        "data": fingerprint(data),
        "validation_split": None if held_out else validation_split,
        "validation_data": held_out and fingerprint(held_out),
        "clean_data": clean_data and fingerprint(clean_data),
    }
    if held_out is None:
        parts = arrays.split(data[1], validation_split, seed)
        data, held_out = (arrays.take(data, rows) for rows in parts)
    task = Task(
        build_model=build_model,
        training_data=data,
        validation_data=held_out,
        clean_data=clean_data,
        loss=loss,
        p=check_p(p),
        optimizer=optimizer,
        callbacks=callbacks,
        epochs=epochs,
        batch_size=batch_size,
        seed=seed,
    )
    storages.import_optuna("`search_tau`")
    url = _url(storage, study_name)
    clipped = LogitClipLoss(loss, 1.0, task.p)
    options = {"workers": workers, "grace_period": grace_period}
    task = checks.check_task(task, clipped, data, held_out, clean_data, **options)
    settings = {**_settings(task, plan), **data_settings}
    study = storages.open_study(url, study_name, settings)
    total = task.epochs * plan.count()
    with (
        storages.explained_errors(),
        progress_bar(
            study_name, total, lambda: (epochs_spent(study), ""), verbose
        ) as show,
    ):
        processes.work(
            workers,
            _work,
            (url, study_name, settings, task, plan, grace_period),
            is_complete=lambda: not _progress(study, plan)[0],
            on_progress=show,
        )
        best = _progress(study, plan)[1][0]
        rows, spent = rows_of(study), epochs_spent(study)
    return TauSearch(best.tau, best.learning_rate, rows, task.epochs, spent, study_name)


def _grid(name, values, interval):
    """Returns the distinct values in ascending order."""
    given = values if isinstance(values, Iterable) else ()
    grid = sorted({check_number(name, value, interval) for value in given})
    if not grid:
        raise ValueError(
            f"Invalid value for argument `{name}`: expected a list of at least one "
            f"number. Received: {name}={values!r}"
        )
    return grid


def _url(storage, study_name):
    """Returns the URL of the database, by default of a file with the study's name."""
    if storage is not None:
        return storages.check_storage(storage)
    name = study_name if isinstance(study_name, str) else ""
    if not name or Path(name).name != name:
        raise ValueError(
            "Invalid value for argument `study_name`: expected a name without slashes, "
            "because it is a file name unless you pass `storage`. Received: "
            f"study_name={study_name!r}"
        )
    return storages.file_url(f"{study_name}.db")


def _settings(task, plan):
    """Returns everything except the data that determines the trainings, by names."""
    one_sample = arrays.take(task.training_data[0], [0])
    return {
        **plan._asdict(),
        "p": task.p,
        "epochs": task.epochs,
        "batch_size": task.batch_size,
        "seed": task.seed,
        "model": describe_model(task.build_model, one_sample),
        "loss": describe(task.loss),
        "optimizer": [describe(task.make_optimizer(r)) for r in plan.learning_rates],
        "callbacks": describe(task.callbacks),
        **keras_settings(),
    }


def _progress(study, plan):
    """Returns the next missing trainings, or the ranking if none is missing."""
    trials = queue.complete_trials(study)
    scores = {Training(*job): trial.value for job, trial in trials.items()}
    return plan.progress(scores)


def _work(url, study_name, settings, task, plan, grace_period, on_progress):
    """Trains until the search is complete. Other processes can do the same."""
    study = storages.open_study(url, study_name, settings)

    def run(trial, job):
        def report(epoch, accuracy):
            trial.report(accuracy, epoch)
            on_progress()

        accuracy, clean_accuracy = train(task, Training(*job), report)
        trial.set_user_attr("clean_accuracy", clean_accuracy)
        return accuracy

    queue.work(study, lambda: _progress(study, plan)[0], run, grace_period, on_progress)
