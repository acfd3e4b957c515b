"""What `test_tuning_processes` runs: a search, in a process of its own.

python -m tests.across.tuning_worker URL WORKERS [kill]   prints what it found

With `kill`, one of the worker processes is killed in the middle of a training.
"""

import json
import multiprocessing
import sys
import threading
import time

import keras
import numpy as np
import optuna

from keras_logitclip import noise
from keras_logitclip import tuning

LABELS = np.arange(240) % 4
X = np.eye(4, dtype="float32")[LABELS]
NOISY = noise.symmetric(LABELS, 0.3, 4, exact=True, seed=0)
NAME = "processes"


def build_model():
    # Long enough for a test to meet the training.
    time.sleep(1)
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(4)])


def running(url):
    """Returns the trials that are being trained."""
    if NAME not in optuna.get_all_study_names(url):
        return []
    study = optuna.load_study(study_name=NAME, storage=url)
    return study.get_trials(states=(optuna.trial.TrialState.RUNNING,))


def wait_until_running(url, count):
    deadline = time.monotonic() + 100
    while len(running(url)) < count:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def kill_one(url):
    wait_until_running(url, 2)
    multiprocessing.active_children()[0].kill()


def main(url, workers, kill=None):
    if kill:
        threading.Thread(target=kill_one, args=(url,), daemon=True).start()
    found = tuning.search_tau(
        build_model,
        X,
        NOISY.labels,
        taus=[0.3, 1.0, 3.0],
        epochs=2,
        storage=url,
        study_name=NAME,
        workers=int(workers),
        grace_period=3,
        verbose=False,
    )
    print(json.dumps({"best": found.best_tau, "rows": found.rows}))


if __name__ == "__main__":
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    main(*sys.argv[1:])
