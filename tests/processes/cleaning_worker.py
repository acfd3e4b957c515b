"""The process that `test_cleaning_processes` starts: held-out logits.

python -m tests.processes.cleaning_worker FOLDER WORKERS HOLD

Prints a hash of the logits. No training begins while the file HOLD exists.
"""

import os
import sys

import keras

from keras_logitclip import cleaning
from keras_logitclip._jobs.description import fingerprint
from tests.processes.tuning_worker import HOLD
from tests.processes.tuning_worker import NOISY
from tests.processes.tuning_worker import POLICY
from tests.processes.tuning_worker import X
from tests.processes.tuning_worker import build_model


def main(folder, workers, hold):
    os.environ[HOLD] = hold
    keras.config.set_dtype_policy(POLICY)
    logits = cleaning.held_out_logits(
        build_model,
        X,
        NOISY.labels,
        folds=3,
        epochs=2,
        folder=folder,
        workers=int(workers),
        # A process of this machine that was killed is noticed without it.
        grace_period=600,
        verbose=False,
    )
    print(fingerprint(logits))


if __name__ == "__main__":
    main(*sys.argv[1:])
