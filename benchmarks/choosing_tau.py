"""Compares ways to choose the threshold `tau`, on two data sets with known noise.

    KERAS_BACKEND=jax python -m benchmarks.choosing_tau --data-dir FOLDER

Each case (data, model, recipe, noise, seed) is trained with every `tau` of a grid,
without clipping and with what `bounds.tau_for_noise_rate` says; then
`tuning.search_tau` chooses from the same grid with noisy labels alone. The clean test
labels only measure.

`--searches` does the searches, for the cases whose grid is trained. `--report` prints
the tables and trains nothing.

Rows go to a CSV file as they are ready. What is in it is not done again, so the script
can be interrupted, and several processes can share the work: `--part 1/2` and
`--part 2/2`, each with `--results` of its own.
"""

import argparse
import csv
import functools
import gc
import itertools
import math
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

RESULTS = Path(__file__).parents[1] / "docs/results/choosing_tau.csv"
GRID = (0.2, 1 / 3, 0.5, 2 / 3, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0)
NUM_CLASSES = 10
DATA = ("digits", "fashion_mnist")
MODELS = ("mlp", "cnn")
RECIPES = ("sgd", "adam")
# Tried on the digits alone, with the noise of 40%.
OTHER_RECIPES = ("sgd_constant", "adamw_steps")
NOISES = (
    ("clean", 0.0),
    ("symmetric", 0.2),
    ("symmetric", 0.4),
    ("symmetric", 0.6),
    ("asymmetric", 0.4),
    ("instance", 0.4),
)
# What the results say: a value for each optimizer.
OPTIMIZER_TAUS = {"sgd": 0.2, "adam": 1.5, "adamw": 1.5}
EPOCHS = {"digits": 60, "fashion_mnist": 30}
BATCH_SIZE = {"digits": 64, "fashion_mnist": 128}
SEEDS = (0, 1, 2)
VALIDATION_SPLIT = 0.1


class Case(NamedTuple):
    data: str
    model: str
    recipe: str
    noise: str
    rate: float
    seed: int


class Row(NamedTuple):
    """One training, or one search: then `tau` is what it found."""

    data: str
    model: str
    recipe: str
    noise: str
    rate: float
    seed: int
    method: str
    tau: float
    noisy_accuracy: float
    accuracy: float
    memorized: float
    trainings: float
    seconds: float


def load(data, data_dir):
    """Returns images and labels; the test images as many as the training ones."""
    from sklearn.model_selection import train_test_split

    from keras_logitclip import datasets

    if data == "digits":
        x_train, y_train, x_test, y_test, _ = datasets.load("digits")
    else:
        x_train, y_train, x_test, y_test, _ = datasets.load(data, data_dir)
        x_train, _, y_train, _ = train_test_split(
            x_train, y_train, train_size=10_000, stratify=y_train, random_state=0
        )
    scale = 16 if data == "digits" else 255
    images = [x[..., None].astype("float32") / scale for x in (x_train, x_test)]
    return images[0], y_train, images[1], y_test


def add_noise(case, x, y):
    from keras_logitclip import noise

    if case.noise == "asymmetric":
        mapping = {
            "digits": noise.MNIST_CONFUSIONS,
            "fashion_mnist": noise.FASHION_MNIST_CONFUSIONS,
        }[case.data]
        return noise.asymmetric(y, case.rate, mapping, seed=case.seed)
    if case.noise == "instance":
        features = x.reshape(len(x), -1)
        return noise.instance_dependent(
            features, y, case.rate, NUM_CLASSES, scale=1.0, seed=case.seed
        )
    return noise.symmetric(y, case.rate, NUM_CLASSES, seed=case.seed)


def build_model(data, model):
    import keras
    from keras import layers

    size = 8 if data == "digits" else 28
    hidden = {
        "mlp": [
            layers.Flatten(),
            layers.Dense(256, activation="relu"),
            layers.Dense(256, activation="relu"),
        ],
        "cnn": [
            layers.Conv2D(16, 3, 1 if size == 8 else 2, "same", activation="relu"),
            layers.Conv2D(32, 3, 2, "same", activation="relu"),
            layers.Flatten(),
            layers.Dense(64, activation="relu"),
        ],
    }
    return keras.Sequential(
        [keras.Input((size, size, 1)), *hidden[model], layers.Dense(NUM_CLASSES)]
    )


def make_optimizer(recipe, steps):
    import keras

    def decaying(rate):
        return keras.optimizers.schedules.PiecewiseConstantDecay(
            [int(0.4 * steps), int(0.7 * steps)], [rate, rate / 10, rate / 100]
        )

    if recipe == "sgd":
        # Keras decouples the decay: with this momentum, 5e-4 in the loss is 5e-3 here.
        return keras.optimizers.SGD(decaying(0.1), momentum=0.9, weight_decay=5e-3)
    if recipe == "sgd_constant":
        return keras.optimizers.SGD(0.1, momentum=0.9)
    if recipe == "adamw_steps":
        return keras.optimizers.AdamW(decaying(1e-3), weight_decay=0.1)
    return keras.optimizers.Adam(1e-3)


def train(case, arrays, noisy, tau):
    """Trains on what `tuning.search_tau` trains on, in the same order.

    Returns:
        Accuracies on the held-out noisy labels and on the test set, as mean of the
        last epochs; and the share of wrong labels that the model predicts.
    """
    import keras

    from keras_logitclip import LogitClipLoss
    from keras_logitclip._jobs.batches import ShuffledBatches
    from keras_logitclip.tuning._checks import split

    x, _, x_test, y_test = arrays
    rows, held_out = split(noisy.labels, VALIDATION_SPLIT, case.seed)
    measured = np.concatenate([x[held_out], x_test])
    expected = np.concatenate([noisy.labels[held_out], y_test])
    epochs = EPOCHS[case.data]
    keras.utils.set_random_seed(case.seed)
    model = build_model(case.data, case.model)
    batches = ShuffledBatches(
        x[rows], noisy.labels[rows], BATCH_SIZE[case.data], case.seed
    )
    model.compile(
        make_optimizer(case.recipe, epochs * len(batches)),
        LogitClipLoss("sparse_categorical_crossentropy", tau),
    )
    correct = []

    def measure(epoch, logs):
        if epoch >= epochs - epochs // 10:
            predicted = model.predict_on_batch(measured).argmax(-1)
            correct.append(predicted == expected)

    recorder = keras.callbacks.LambdaCallback(on_epoch_end=measure)
    model.fit(batches, epochs=epochs, callbacks=[recorder], verbose=0)
    share = np.mean(correct, axis=0)
    wrong = rows[noisy.flipped[rows]]
    memorized = math.nan
    if len(wrong):
        predicted = model.predict_on_batch(x[wrong]).argmax(-1)
        memorized = np.mean(predicted == noisy.labels[wrong])
    return share[: len(held_out)].mean(), share[len(held_out) :].mean(), memorized


def search(case, arrays, noisy):
    """Searches with noisy labels alone; returns the best `tau` and the cost."""
    from keras_logitclip import tuning

    with tempfile.TemporaryDirectory() as folder:
        found = tuning.search_tau(
            lambda: build_model(case.data, case.model),
            arrays[0],
            noisy.labels,
            taus=GRID,
            validation_split=VALIDATION_SPLIT,
            epochs=EPOCHS[case.data],
            optimizer=lambda steps: make_optimizer(case.recipe, steps),
            batch_size=BATCH_SIZE[case.data],
            seed=case.seed,
            storage=f"sqlite:///{folder}/search.db",
            verbose=False,
        )
    return found.best_tau, found.cost


def planned(case):
    """Returns what is to be done for a case: methods with their thresholds."""
    from keras_logitclip import bounds

    methods = [("grid", tau) for tau in GRID]
    methods.append(("none", math.inf))
    if case.rate:
        rule = float(bounds.tau_for_noise_rate(case.rate, NUM_CLASSES))
        methods.append(("tau_for_noise_rate", rule))
    return methods


def cases(part):
    """Returns the cases of a part, all of one seed before those of the next."""
    number, parts = map(int, part.split("/"))
    combinations = [
        Case(data, model, recipe, noise, rate, seed)
        for seed in SEEDS
        for data, model in itertools.product(DATA, MODELS)
        for recipe in RECIPES
        for noise, rate in NOISES
    ]
    others = [
        Case("digits", model, recipe, noise, rate, seed)
        for seed in SEEDS
        for model, recipe in itertools.product(MODELS, OTHER_RECIPES)
        for noise, rate in NOISES
        if rate == 0.4
    ]
    ordered = sorted(combinations + others, key=lambda case: case.seed)
    return ordered[number - 1 :: parts]


def read(path):
    """Returns the rows of a results file, none if there is no such file."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [
            Row(**{name: Row.__annotations__[name](row[name]) for name in Row._fields})
            for row in csv.DictReader(file)
        ]


def append(path, row):
    is_new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if is_new:
            writer.writerow(Row._fields)
        writer.writerow([f"{v:.6g}" if isinstance(v, float) else v for v in row])
    print(*row[: Row._fields.index("memorized")], flush=True)


def run_trainings(part, data_dir, path):
    """Trains what is not yet in the results file."""
    done = {(*case_of(row), row.method, row.tau) for row in read(path)}
    load_once = functools.cache(load)
    for case in cases(part):
        missing = [
            (method, tau)
            for method, tau in planned(case)
            if (*case, method, rounded(tau)) not in done
        ]
        if missing:
            arrays = load_once(case.data, data_dir)
            noisy = add_noise(case, *arrays[:2])
        for method, tau in missing:
            start = time.perf_counter()
            measured = train(case, arrays, noisy, tau)
            gc.collect()  # Compiled functions refer to the model, and it to them.
            seconds = time.perf_counter() - start
            append(path, Row(*case, method, tau, *measured, 1.0, seconds))


def run_searches(part, data_dir, path):
    """Searches where the grid is trained and no search is in the results file."""
    load_once = functools.cache(load)
    for case in cases(part):
        rows = [row for row in read(path) if case_of(row) == case]
        grid = {row.tau: row for row in rows if row.method == "grid"}
        searched = any(row.method == "search" for row in rows)
        if searched or not grid.keys() >= set(map(rounded, GRID)):
            continue
        arrays = load_once(case.data, data_dir)
        start = time.perf_counter()
        tau, cost = search(case, arrays, add_noise(case, *arrays[:2]))
        # What is judged is the choice: the accuracy is that of the grid's training.
        found = grid[rounded(tau)]._replace(
            method="search", trainings=cost, seconds=time.perf_counter() - start
        )
        append(path, found)


def case_of(row):
    return Case(*row[: len(Case._fields)])


def rounded(number):
    """Returns a number with the digits that the results file has."""
    return float(f"{number:.6g}")


def print_report(path):
    """Prints the accuracies by ways to choose, and how far each is below the best."""
    groups = {}
    for row in read(path):
        groups.setdefault(case_of(row)._replace(seed=0), []).append(row)
    lost = {way: [] for way in WAYS}
    header = ("data, model, recipe", "noise", "seeds (searched)", "best (tau)", *WAYS)
    print(f"| {' | '.join(header)} |\n|{'---|' * len(header)}")
    for case, rows in sorted(groups.items(), key=lambda group: order(group[0])):
        best_tau, best = best_of_grid(rows)
        chosen = {way: choose(rows) for way, choose in WAYS.items()}
        for way, found in chosen.items():
            if found:
                lost[way].append(below(found, constant(best_tau)(rows)))
        cells = [
            f"{case.data}, {case.model}, {case.recipe}",
            f"{case.noise} {case.rate:g}" if case.rate else case.noise,
            seeds_of(rows),
            f"{100 * best:.1f} ({best_tau:.3g})",
            *map(shown, chosen.values()),
        ]
        print(f"| {' | '.join(cells)} |")
    print()
    print("| points below the best of the grid | mean | worst | within 1 | within 2 |")
    print("|---|---|---|---|---|")
    for way, values in lost.items():
        if not values:
            continue
        points = 100 * np.array(values)
        print(
            f"| {way} | {points.mean():.1f} | {points.max():.1f} "
            f"| {(points <= 1).sum()} of {len(points)} "
            f"| {(points <= 2).sum()} of {len(points)} |"
        )


def order(case):
    """Returns the sort key of the report: recipes of all data sets first."""
    recipes = (*RECIPES, *OTHER_RECIPES)
    return (
        case.recipe in OTHER_RECIPES,
        DATA.index(case.data),
        MODELS.index(case.model),
        recipes.index(case.recipe),
        NOISES.index((case.noise, case.rate)),
    )


def best_of_grid(rows):
    """Returns the threshold with the best mean test accuracy, and that accuracy."""
    accuracies = {}
    for row in rows:
        if row.method == "grid":
            accuracies.setdefault(row.tau, []).append(row.accuracy)
    means = {tau: np.mean(values) for tau, values in accuracies.items()}
    tau = max(means, key=means.get)
    return tau, means[tau]


def below(found, best):
    """Returns by how much the one is below the other, over the seeds of the former."""
    seeds = [row.seed for row in found]
    reference = np.mean([row.accuracy for row in best if row.seed in seeds])
    return reference - np.mean([row.accuracy for row in found])


def by_method(method):
    return lambda rows: [row for row in rows if row.method == method]


def constant(tau):
    return lambda rows: [row for row in by_method("grid")(rows) if row.tau == tau]


def by_optimizer(rows):
    """Takes a value for each optimizer, found in these results themselves."""
    return constant(OPTIMIZER_TAUS[rows[0].recipe.split("_")[0]])(rows)


def by_noisy_accuracy(rows):
    """Takes for each seed the best of the whole grid on the held-out noisy labels."""
    grid = by_method("grid")(rows)
    return [
        max(
            (row for row in grid if row.seed == seed),
            key=lambda row: (row.noisy_accuracy, row.tau),
        )
        for seed in sorted({row.seed for row in grid})
    ]


def seeds_of(rows):
    """Returns how many seeds the grid has, and how many of them were searched."""
    counts = [len({row.seed for row in by_method(m)(rows)}) for m in ("grid", "search")]
    return f"{counts[0]} ({counts[1]})"


def shown(rows):
    """Returns the accuracy of the rows, and what was chosen where that differs."""
    if not rows:
        return ""
    taus = sorted({row.tau for row in rows if row.method == "search"})
    chosen = f" ({', '.join(f'{tau:.2g}' for tau in taus)})" if taus else ""
    return f"{100 * np.mean([row.accuracy for row in rows]):.1f}{chosen}"


WAYS = {
    "no clipping": by_method("none"),
    "tau = 1": constant(1.0),
    "tau_for_noise_rate": by_method("tau_for_noise_rate"),
    "search_tau": by_method("search"),
    "whole grid by noisy labels": by_noisy_accuracy,
    "by optimizer": by_optimizer,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", help="folder of the Fashion-MNIST files")
    parser.add_argument("--part", default="1/1", help="share of the work, such as 1/2")
    parser.add_argument("--searches", action="store_true", help="search, do not train")
    parser.add_argument("--report", action="store_true", help="print the tables")
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    if arguments.report:
        print_report(arguments.results)
        return
    run = run_searches if arguments.searches else run_trainings
    run(arguments.part, arguments.data_dir, arguments.results)


if __name__ == "__main__":
    main()
