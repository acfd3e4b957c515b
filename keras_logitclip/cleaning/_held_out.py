"""`held_out_logits`, which is cross-validation with a clipped loss."""

import gc
import hashlib
import io
import os
import warnings
from collections.abc import Callable
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from typing import NamedTuple

import keras
import numpy as np

from keras_logitclip._arguments import check_count
from keras_logitclip._jobs import arrays
from keras_logitclip._jobs import checks
from keras_logitclip._jobs import files
from keras_logitclip._jobs import processes
from keras_logitclip._jobs import queue
from keras_logitclip._jobs import storage as storages
from keras_logitclip._jobs.description import describe
from keras_logitclip._jobs.description import describe_model
from keras_logitclip._jobs.description import fingerprint
from keras_logitclip._jobs.description import keras_settings
from keras_logitclip._jobs.progress import progress_bar
from keras_logitclip._jobs.training import count_steps
from keras_logitclip._jobs.training import fit
from keras_logitclip._jobs.training import make_optimizer
from keras_logitclip.losses import LogitClipLoss

_NAME = "held_out_logits"
_DIGEST = "sha256"


class Task(NamedTuple):
    """Holds what all trainings share."""

    build_model: Callable
    data: tuple  # Inputs and labels.
    fold_of: np.ndarray  # The fold of each sample.
    loss: Any
    tau: float
    normalize_gradient: bool
    optimizer: Any
    callbacks: Sequence
    epochs: int
    batch_size: int
    seed: int

    def make_loss(self) -> LogitClipLoss:
        normalized = {"normalize_gradient": self.normalize_gradient}
        return LogitClipLoss(self.loss, self.tau, **normalized)

    def make_optimizer(self, samples: int) -> keras.optimizers.Optimizer:
        return make_optimizer(self.optimizer, count_steps(self, samples))


def held_out_logits(
    build_model: Callable[[], keras.Model],
    x,
    y,
    *,
    folds: int = 5,
    epochs: int,
    optimizer: keras.optimizers.Optimizer | str | Callable = "adam",
    loss: keras.losses.Loss | str | Callable = "sparse_categorical_crossentropy",
    tau: float = 1.5,
    normalize_gradient: bool = False,
    batch_size: int = 128,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    seed: int = 0,
    folder: str | os.PathLike = _NAME,
    workers: int = 1,
    grace_period: int = 60,
    verbose: bool = True,
) -> np.ndarray:
    """Computes logits of each sample with a model that was not trained on it.

    This is cross-validation: the samples are split into folds, and for each fold a new
    model is trained on the others, with clipped logits, and predicts it. A model that
    was trained on a wrong label may have memorized it, and cannot detect it.

    Each class is spread evenly over the folds. If a class has only one sample, the
    model that predicts it has never seen this class, with a warning.

    Finished work is kept in a folder: an SQLite file, and a file of logits for each
    fold. The same call with the same arguments resumes an interrupted one. A call with
    other arguments, data or models is refused. If a file is damaged, its fold is
    trained again. Several calls at the same time on one machine share the work.

    Args:
        build_model: Function without arguments that returns a new, uncompiled model.
            The model returns logits.
        x: Inputs: an array, or a list, tuple or dictionary of arrays. On TensorFlow
            also texts, for a model that takes them.
        y: Their labels, some of which are wrong: class ids, integers of shape
            `(samples,)`.
        folds: Number of folds and trainings. Defaults to `5`.
        epochs: Epochs of each training.
        optimizer: Name of a Keras optimizer, an instance to copy, or a function of
            `steps`, the number of training steps, that returns an optimizer. Set the
            learning rate first: `tuning.search_tau` finds one. Defaults to `"adam"`.
        loss: The loss of the clipped logits, as in `LogitClipLoss`. It has to accept
            class ids. Defaults to `"sparse_categorical_crossentropy"`.
        tau: The threshold, `inf` for no clipping. Defaults to `1.5`.
        normalize_gradient: As in `LogitClipLoss`. Defaults to `False`.
        batch_size: Samples per step. Defaults to `128`.
        callbacks: Callbacks, copied for each training, which has no validation data.
            Defaults to `()`.
        seed: Seed of the folds and of the trainings. It sets the global random seed.
            Defaults to `0`.
        folder: Folder of finished work. Defaults to `"held_out_logits"` in the working
            directory.
        workers: Number of processes on this machine. With more than one, the functions
            that you pass have to be importable, and a script needs
            `if __name__ == "__main__":`. Defaults to `1`, which means only the calling
            process.
        grace_period: Seconds without a sign of life after which a training counts as
            crashed, if its process is not visible. Defaults to `60`.
        verbose: Whether to show a progress bar. Defaults to `True`.

    Returns:
        The unclipped logits, float32, of shape `(samples, classes)`.

    Raises:
        ValueError: Before any training starts, if an argument is out of range, if the
            model is compiled or returns probabilities, or if the folder has results of
            other settings. After a training, if its logits are not finite.
        ConnectionError: If the database cannot be opened or fails.
        ImportError: If Optuna is not installed.
        RuntimeError: If all worker processes died.

    Example:

    ```python
    from keras_logitclip import cleaning

    logits = cleaning.held_out_logits(
        build_model, x_train, y_train, epochs=30, folder="my_data"
    )
    print(cleaning.estimate_noise(y_train, logits))
    ```
    """
    folds, seed = check_count("folds", folds, 2), check_count("seed", seed, 0)
    data = checks.check_data(x, y)
    task = Task(
        build_model=build_model,
        data=data,
        fold_of=_folds(data[1], folds, seed),
        loss=loss,
        tau=tau,
        normalize_gradient=normalize_gradient,
        optimizer=optimizer,
        callbacks=callbacks,
        epochs=epochs,
        batch_size=batch_size,
        seed=seed,
    )
    storages.import_optuna("`held_out_logits`", "cleaning")
    options = {"workers": workers, "grace_period": grace_period}
    task = checks.check_task(task, task.make_loss(), data, **options)
    folder, settings = Path(folder), _settings(task, folds)
    folder.mkdir(parents=True, exist_ok=True)
    study = _open(folder, settings)
    jobs = [_job(study, folder, fold) for fold in range(folds)]
    with (
        storages.explained_errors(),
        progress_bar(
            folder.name, folds * task.epochs, lambda: _done(study, task, jobs), verbose
        ) as show,
    ):
        processes.work(
            workers,
            _work,
            (folder, settings, task, jobs, grace_period),
            is_complete=lambda: not _missing(study, jobs),
            on_progress=show,
        )
        trials = queue.complete_trials(study)
    parts = [_read(_path(folder, job), trials[job]) for job in jobs]
    return _joined(task.fold_of, parts, folder)


def _folds(labels, folds, seed):
    """Returns the fold of each sample, and warns of classes with one sample."""
    if folds > len(labels):
        raise ValueError(
            "Invalid value for argument `folds`: expected at most the number of "
            f"samples. Received: folds={folds}, {len(labels)} samples"
        )
    classes, counts = np.unique(labels, return_counts=True)
    lonely = classes[counts == 1].tolist()
    if lonely:
        warnings.warn(
            f"{len(lonely)} of {len(classes)} classes have only one sample: "
            f"{lonely[:10]}. The model that predicts it has never seen its class, so "
            "its label looks wrong.",
            stacklevel=3,
        )
    return arrays.folds_of(labels, folds, seed)


def _settings(task, folds):
    """Returns everything that determines the logits, by names."""
    one_sample = arrays.take(task.data[0], [0])
    samples = int(np.sum(task.fold_of != 0))
    return {
        "folds": folds,
        "tau": task.tau,
        "normalize_gradient": task.normalize_gradient,
        "epochs": task.epochs,
        "batch_size": task.batch_size,
        "seed": task.seed,
        "data": fingerprint(task.data),
        "model": describe_model(task.build_model, one_sample),
        "loss": describe(task.loss),
        "optimizer": describe(task.make_optimizer(samples)),
        "callbacks": describe(task.callbacks),
        **keras_settings(),
    }


def _open(folder, settings):
    url = storages.file_url(folder / f"{_NAME}.db")
    remedy = f"another folder than {str(folder)!r}"
    return storages.open_study(url, _NAME, settings, remedy=remedy)


def _job(study, folder, fold):
    """Returns the job of a fold: the finished one, unless its file is damaged.

    A job has the fold and the number of earlier jobs whose file was damaged.
    """
    trials = queue.complete_trials(study)
    attempts = sorted(job for job in trials if job[1] == fold)
    if attempts and _read(_path(folder, attempts[-1]), trials[attempts[-1]]) is None:
        return ("fold", fold, len(attempts))
    return attempts[-1] if attempts else ("fold", fold, 0)


def _missing(study, jobs):
    complete = queue.complete_trials(study)
    return [job for job in jobs if job not in complete]


def _done(study, task, jobs):
    """Returns the number of finished epochs, and the number of folds as text."""
    trained = len(jobs) - len(_missing(study, jobs))
    steps = sum(t.last_step or 0 for t in queue.trials_of(study, "RUNNING"))
    return trained * task.epochs + steps, f"{trained}/{len(jobs)} folds"


def _work(folder, settings, task, jobs, grace_period, on_progress):
    """Trains the missing folds. Other processes can do the same."""
    study = _open(folder, settings)

    def run(trial, job):
        def report(epoch, logs):
            trial.report(logs["accuracy"], epoch)
            on_progress("")

        logits, accuracy = train(task, job[1], report)
        trial.set_user_attr(_DIGEST, _write(_path(folder, job), logits))
        return accuracy

    queue.work(study, lambda: _missing(study, jobs), run, grace_period, on_progress)


def train(task: Task, fold: int, on_epoch_end: Callable) -> tuple[np.ndarray, float]:
    """Returns the logits of a fold, and the share of its labels that they predict."""
    held_out = task.fold_of == fold
    training = arrays.take(task.data, ~held_out)
    model, _ = fit(
        task,
        training,
        task.make_optimizer(len(training[1])),
        task.make_loss(),
        task.seed,
        on_epoch_end,
    )
    inputs, labels = arrays.take(task.data, held_out)
    logits = model.predict(inputs, batch_size=task.batch_size, verbose=0)
    del model
    gc.collect()  # Compiled functions refer to the model, and it to them.
    if not np.isfinite(logits).all():
        raise ValueError(
            "Expected finite logits of a trained model. Try a smaller learning rate of "
            f"the optimizer. Received: NaN or infinity, for fold {fold}"
        )
    return logits.astype("float32"), float(np.mean(logits.argmax(1) == labels))


def _path(folder, job):
    return folder / f"fold-{job[1]}.npy"


def _write(path, logits):
    """Writes logits, and returns the checksum of the file."""
    files.remove_unfinished(path)
    contents = io.BytesIO()
    np.save(contents, logits)
    files.write_bytes(path, contents.getvalue())
    return hashlib.sha256(contents.getvalue()).hexdigest()


def _read(path, trial):
    """Returns the logits of a trial, `None` if they are missing or damaged."""
    contents = path.read_bytes() if path.is_file() else b""
    if hashlib.sha256(contents).hexdigest() != trial.user_attrs.get(_DIGEST):
        return None
    return np.load(io.BytesIO(contents), allow_pickle=False)


def _joined(fold_of, parts, folder):
    """Returns the logits of all folds, in the order of the samples."""
    for fold, part in enumerate(parts):
        if part is None:
            raise OSError(
                f"The logits of fold {fold} in {folder} are damaged. The same call "
                "trains this fold again, and keeps the others."
            )
    logits = np.empty((len(fold_of), parts[0].shape[1]), "float32")
    for fold, part in enumerate(parts):
        logits[fold_of == fold] = part
    return logits
