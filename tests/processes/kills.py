"""Kills studies at random moments, and compares their results with an undisturbed one.

KERAS_BACKEND=torch python -m tests.processes.kills [--kills 100] [--storage sqlite]

The command `study run` is killed with SIGKILL and started again: with one worker and
with two, on SQLite and, where it is installed, on PostgreSQL. Of two workers, one is
killed, or the command, or all. Fails if a record or a line of the tables differs, is
missing or doubled. A study that is complete before the last kill is followed by a new
one.

A hundred kills take only minutes, because all processes are forked, which avoids
imports, and trainings are simulated: one takes 40 ms, and its measurements are drawn
from the cell and its noisy labels. `test_study_processes` kills real trainings.
"""

import argparse
import contextlib
import gc
import multiprocessing
import os
import random
import signal
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import optuna

from keras_logitclip.__main__ import main as keras_logitclip
from keras_logitclip.study._training import Trainer
from tests.processes import postgresql
from tests.processes.storages import trials_of
from tests.processes.studies import STATES
from tests.processes.studies import children_of
from tests.processes.studies import is_running
from tests.processes.studies import records_in
from tests.processes.studies import sqlite
from tests.study_files import write_study
from tests.subprocesses import LIMIT
from tests.subprocesses import wait_for

STUDY = {
    "backend": "torch",
    "epochs": 4,
    "seeds": 10,
    "noise": [{"kind": "symmetric", "rate": 0.4}, {"kind": "clean"}],
    "methods": [{"losses": ["CE"], "taus": [2.0, 1.0, 0.5, 0.25]}],
}
CELLS = 100
FORK = multiprocessing.get_context("fork")
VICTIMS = ("one worker", "the command", "all")
# Seconds within which a kill comes: one in five after the start of a command, the
# others after the end of a training.
START, TRAINING = 1.0, 0.1
EPOCH_SECONDS = 0.01
MEASURED = [
    "loss",
    "accuracy",
    "noisy_accuracy",
    "memorized",
    "recovered",
    "clean_accuracy",
    "logit_norm",
]


def pretend_to_fit(trainer, cell, noisy, backup, on_epoch_end):
    """Replaces `_fit`: returns the same epochs for the same cell."""
    rng = np.random.default_rng([cell.seed, *noisy.labels, *repr(cell).encode()])
    epochs = {name: [] for name in (*MEASURED, "seconds")}
    for epoch in range(trainer.study.settings.epochs):
        time.sleep(EPOCH_SECONDS)
        for name in MEASURED:
            epochs[name].append(rng.random())
        epochs["seconds"].append(EPOCH_SECONDS)
        on_epoch_end(epoch + 1, epochs)
    return epochs, 0.0


class Command:
    """`study run`, in a process of its own."""

    def __init__(self, path: Path, results: Path, arguments: list):
        self.results = results
        options = ["--results", results, "--grace-period", 3, *arguments]
        self.process = FORK.Process(
            target=_run_command,
            args=(["study", "run", path, *options], results.with_suffix(".log")),
        )
        self.process.start()
        os.setpgid(self.process.pid, self.process.pid)

    @property
    def code(self):
        return self.process.exitcode

    def count_trained(self):
        return len([*self.results.glob("cells/*.json")])

    def kill(self, victim: str) -> bool:
        """Kills one of the processes; returns whether the command goes on."""
        workers = children_of(self.process.pid)
        if victim == "one worker" and workers:
            os.kill(workers[0], signal.SIGKILL)
            return True
        if victim == "the command":
            self.process.kill()
        else:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.join(LIMIT)
        # Workers whose command was killed leave.
        wait_for(lambda: not any(map(is_running, workers)), "orphans")
        return False

    def close(self):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.join()


def _run_command(arguments, log):
    multiprocessing.get_context = lambda method: FORK
    gc.freeze()  # A training that ends looks through what it made, and no more.
    Trainer._fit = pretend_to_fit
    with log.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    keras_logitclip([*map(str, arguments)])


def wait_for_moment(command, start, rng):
    """Waits, at the start of a command also for a moment of that."""
    if start and rng.random() < 0.2:
        time.sleep(rng.uniform(0, start))
        return
    before = command.count_trained()
    wait_for(
        lambda: command.code is not None or command.count_trained() > before,
        "a training",
    )
    time.sleep(rng.uniform(0, TRAINING))


def kill_study(path, results, workers, arguments, kills, rng):
    """Kills a study until it is complete; returns the numbers of kills and starts."""
    counts = Counter()
    arguments = ["--workers", workers, *arguments]
    goes_on = False
    with contextlib.ExitStack() as stack:
        while True:
            if not goes_on:
                command = Command(path, results, arguments)
                stack.callback(command.close)
                counts["starts"] += 1
            if counts["kills"] == kills:
                command.process.join(LIMIT)
            else:
                wait_for_moment(command, 0 if goes_on else START, rng)
            if command.code is None and counts["kills"] < kills:
                victim = rng.choice(VICTIMS) if workers > 1 else "all"
                goes_on = command.kill(victim)
                counts["kills"] += 1
            elif command.code == 0:
                return counts
            else:
                # All of its workers were killed, one by one.
                assert command.code == 2, results.with_suffix(".log").read_text()
                goes_on = False


def count_trials(trials):
    """Returns how many cells were trained again, if only in part, and what is left."""
    # What was taken twice has no epoch the second time.
    begun = Counter(
        tuple(trial.user_attrs["job"]) for trial in trials if trial.last_step
    )
    # Taken twice or killed after the last cell: nobody waits for these any more.
    left = [t for t in trials if t.state in (STATES.RUNNING, STATES.WAITING)]
    return Counter(again=sum(n > 1 for n in begun.values()), left=len(left))


def tables(trials, results):
    """Returns the records of all cells and the table of the report."""
    records = records_in(trials)
    assert len(records) == CELLS, f"{len(records)} of {CELLS} cells are trained"
    for record in records.values():
        del record["study"]
    return records, (results / "summary.csv").read_text()


def kill_studies(folder, workers, server, kills, expected, rng):
    """Kills studies until there are enough kills, and returns the counts."""
    counts, start = Counter(), time.perf_counter()
    while counts["kills"] < kills:
        counts["studies"] += 1
        storage = "postgresql" if server else "sqlite"
        name = f"{storage}-{workers}-{counts['studies']}"
        path, results = write_study(folder, STUDY, f"{name}.toml"), folder / name
        arguments = ["--storage", server.url] if server else []
        left = kills - counts["kills"]
        counts += kill_study(path, results, workers, arguments, left, rng)
        url = server.driver_url if server else sqlite(results)
        trials = trials_of(url, name)
        assert tables(trials, results) == expected, f"{name} differs"
        counts += count_trials(trials)
    return counts, time.perf_counter() - start


def undisturbed(folder):
    path, results = (
        write_study(folder, STUDY, "undisturbed.toml"),
        folder / "undisturbed",
    )
    start = time.perf_counter()
    kill_study(path, results, 1, [], 0, None)
    print(f"Left alone, one worker, SQLite: {time.perf_counter() - start:.0f} s")
    return tables(trials_of(sqlite(results), "undisturbed"), results)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=100, help="kills of each kind")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    storages = ["sqlite"] + ["postgresql"] * (postgresql.find_programs() is not None)
    parser.add_argument("--storage", nargs="+", choices=storages, default=storages)
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    rng = random.Random(options.seed)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        expected = undisturbed(folder)
        for storage in options.storage:
            server = None
            if storage == "postgresql":
                programs = postgresql.find_programs()
                server = stack.enter_context(postgresql.server(programs))
            for workers in options.workers:
                counts, seconds = kill_studies(
                    folder, workers, server, options.kills, expected, rng
                )
                print(
                    f"{storage}, {workers} workers: {counts['kills']} kills, "
                    f"{counts['starts']} starts, {counts['studies']} studies of "
                    f"{CELLS} cells, {counts['again']} cells trained again, "
                    f"{counts['left']} trials left over, {seconds:.0f} s",
                    flush=True,
                )


if __name__ == "__main__":
    main()
