"""Compares the training of a small model with and without clipping.

    KERAS_BACKEND=torch python -m benchmarks.fit_step --cores 1

The model is small (64-128-10, in batches of 128), so the cost of the loss is visible.
`fit` trains epochs of 100 steps with both losses in random order. The median times are
compared.
"""

import argparse
import datetime

import numpy as np

from benchmarks import harness

CSV = harness.ROOT / "benchmarks" / "results" / "fit_step.csv"
TAU = 1.0
BATCH, STEPS = 128, 100
FEATURES, WIDTH, CLASSES = 64, 128, 10
ROUNDS = 60


def make_steps():
    """Returns the `Step` of each loss, which is an epoch of its own model."""
    import keras

    from keras_logitclip import LogitClipLoss

    rng = np.random.default_rng(0)
    x = rng.normal(size=(BATCH * STEPS, FEATURES)).astype("float32")
    y = rng.integers(CLASSES, size=BATCH * STEPS).astype("int32")
    losses = {
        "keras": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        "loss": LogitClipLoss("sparse_categorical_crossentropy", TAU),
    }

    def make_step(loss):
        layers = [keras.layers.Dense(WIDTH, "relu"), keras.layers.Dense(CLASSES)]
        model = keras.Sequential([keras.Input((FEATURES,)), *layers])
        model.compile("sgd", loss)
        return harness.Step(lambda: model.fit(x, y, BATCH, verbose=0))

    return {name: make_step(loss) for name, loss in losses.items()}


def measure(backend, rounds):
    """Returns a row for each loss."""
    steps = make_steps()
    for step in steps.values():
        step.run()
    durations = harness.time_alternating(steps, rounds, None)
    case = harness.Case(BATCH, CLASSES, "float32", "fit")
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    common = {"date": now, **harness.describe_environment(backend), **case._asdict()}
    reference = durations["keras"].median
    return [
        {**common, **harness.make_row(name, times, times.median / reference, None)}
        for name, times in durations.items()
    ]


def format_report(rows):
    """Returns a Markdown table of the newest ratios, by device."""
    newest = {
        (row["device"], row["backend"]): float(row["ratio_to_keras"])
        for row in sorted(rows, key=lambda row: row["date"])
        if row["candidate"] == "loss"
    }
    lines = ["| device | backend | clipped / plain |", "| --- | --- | ---: |"]
    lines += [
        f"| {device} | {backend} | {ratio:.2f} |"
        for (device, backend), ratio in sorted(newest.items())
    ]
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=harness.parse_positive(int), default=ROUNDS)
    parser.add_argument("--csv", type=harness.Path, default=CSV)
    parser.add_argument("--report", action="store_true", help="measure nothing")
    harness.add_cores(parser)
    arguments = parser.parse_args()
    harness.use_cores(arguments.cores)
    if not arguments.report:
        backend = harness.current_backend(parser)
        harness.append_rows(arguments.csv, measure(backend, arguments.rounds))
    print(format_report(harness.read_rows(arguments.csv)))


if __name__ == "__main__":
    main()
