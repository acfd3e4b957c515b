"""The process that `test_tuning_processes` starts: a search.

python -m tests.processes.tuning_worker URL WORKERS HOLD [kill]

Prints the result. No training begins while the file HOLD exists. With `kill`, one of
the worker processes is killed in the middle of a training, and HOLD is removed.
"""

import json
import multiprocessing
import os
import sys
import threading
from pathlib import Path

import keras
import numpy as np
import optuna
import sqlalchemy

from keras_logitclip import noise
from keras_logitclip import tuning
from tests.subprocesses import wait_for

LABELS = np.arange(240) % 4
X = np.eye(4, dtype="float32")[LABELS]
NOISY = noise.symmetric(LABELS, 0.3, 4, exact=True, seed=0)
NAME = "processes"
POLICY = "mixed_bfloat16"
# The environment variable by which worker processes know the file.
HOLD = "TUNING_WORKER_HOLD"


class Held(keras.Sequential):
    """Waits before it is trained, so that a test can meet the training."""

    def fit(self, *arguments, **options):
        hold = Path(os.environ[HOLD])
        wait_for(lambda: not hold.exists(), "the test")
        return super().fit(*arguments, **options)


def build_model():
    # Set by `main`, which worker processes do not call.
    assert keras.config.dtype_policy().name == POLICY
    return Held([keras.Input((4,)), keras.layers.Dense(4)])


def wait_until_running(url, count):
    """Waits until so many trials are being trained."""

    def count_running(connection):
        # Not with Optuna, which would make the tables, as the search does.
        query = "SELECT COUNT(*) FROM trials WHERE state = 'RUNNING'"
        return connection.execute(sqlalchemy.text(query)).scalar()

    def are_running():
        with engine.connect() as connection:
            if not sqlalchemy.inspect(connection).has_table("trials"):
                return False
            return count_running(connection) >= count

    engine = sqlalchemy.create_engine(url)
    try:
        wait_for(are_running, f"{count} trainings")
    finally:
        engine.dispose()


def kill_one(url, hold):
    wait_until_running(url, 2)
    multiprocessing.active_children()[0].kill()
    Path(hold).unlink()


def main(url, workers, hold, kill=None):
    os.environ[HOLD] = hold
    keras.config.set_dtype_policy(POLICY)
    if kill:
        threading.Thread(target=kill_one, args=(url, hold), daemon=True).start()
    found = tuning.search_tau(
        build_model,
        X,
        NOISY.labels,
        taus=[0.3, 1.0, float("inf")],
        epochs=2,
        storage=url,
        study_name=NAME,
        workers=int(workers),
        # A process of this machine that was killed is noticed without it.
        grace_period=600,
        verbose=False,
    )
    print(json.dumps({"best": found.best_tau, "rows": found.rows}))


if __name__ == "__main__":
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    main(*sys.argv[1:])
