"""Searches whose trainings are real ones: one on each backend, the rest once."""

import keras
import numpy as np
import pytest

from keras_logitclip import noise
from keras_logitclip._jobs.batches import ShuffledBatches

optuna = pytest.importorskip("optuna")
datasets = pytest.importorskip("sklearn.datasets")

from keras_logitclip import tuning  # noqa: E402

pytestmark = pytest.mark.gradients

X, LABELS = datasets.load_digits(return_X_y=True)
X = (X / 16).astype("float32")
TRAINING, TEST = slice(0, 1400), slice(1400, None)
NOISY = noise.symmetric(LABELS[TRAINING], 0.4, 10, seed=0)


def build_model(*hidden):
    return keras.Sequential([keras.Input((64,)), *hidden, keras.layers.Dense(10)])


def build_random_model():
    """With dropout: what a training draws at random shows in its scores."""
    return build_model(keras.layers.Dense(32, "relu"), keras.layers.Dropout(0.5))


def search(tmp_path, build_model=build_model, **arguments):
    return tuning.search_tau(
        build_model,
        X[TRAINING],
        NOISY.labels,
        clean_data=(X[TEST], LABELS[TEST]),
        storage=f"sqlite:///{tmp_path}/search.db",
        verbose=False,
        **arguments,
    )


def trials(tmp_path):
    storage = f"sqlite:///{tmp_path}/search.db"
    return optuna.load_study(study_name="search_tau", storage=storage).trials


def test_the_same_twice(tmp_path):
    def optimizer(steps):
        schedule = keras.optimizers.schedules.CosineDecay(0.1, steps)
        return keras.optimizers.SGD(schedule, momentum=0.9)

    settings = {"taus": [0.5], "epochs": 10, "optimizer": optimizer}
    first, second = (
        search(tmp_path, build_random_model, study_name=name, **settings)
        for name in ("a", "b")
    )
    assert first.rows == second.rows
    assert first.epochs_spent == 10
    assert first.rows[0]["clean_accuracy"] > 0.3


@pytest.mark.once
def test_a_training_is_the_same_whatever_was_trained_before(tmp_path):
    def rows(*taus):
        name = str(taus)
        storage = {"study_name": name, "taus": taus, "epochs": 2}
        return search(tmp_path, build_random_model, **storage).rows

    assert rows(0.5, 1.0) == rows(0.5) + rows(1.0)


@pytest.mark.once
def test_each_seed_has_a_training_of_its_own(tmp_path):
    search(tmp_path, build_random_model, taus=[1.0], seeds=2, epochs=3)
    one, other = (trial.intermediate_values for trial in trials(tmp_path))
    assert one != other


@pytest.mark.once
def test_the_score_is_the_mean_of_the_last_tenth_of_the_epochs(tmp_path):
    optimizer = keras.optimizers.Adam(0.1)  # Its steps are too long to converge.
    found = search(tmp_path, taus=[5.0], epochs=20, optimizer=optimizer)
    (trial,) = trials(tmp_path)
    accuracies = [trial.intermediate_values[epoch] for epoch in range(1, 21)]
    assert found.rows[0]["accuracy"] == pytest.approx(np.mean(accuracies[-2:]))
    assert max(accuracies) > np.mean(accuracies[-2:])  # Or this would show nothing.


@pytest.mark.once
def test_digits_find_a_sensible_threshold(tmp_path):
    found = search(
        tmp_path,
        taus=[0.001, 1.0, 200.0],
        epochs=8,
        # Much too small a threshold hardly learns, much too large a one memorizes.
        optimizer=keras.optimizers.SGD(0.5, momentum=0.9),
    )
    assert found.best_tau == 1.0
    assert found.cost == 3
    accuracies = {row["tau"]: row["accuracy"] for row in found.rows}
    assert accuracies[1.0] == max(accuracies.values())
    assert max(row["clean_accuracy"] for row in found.rows) > 0.8


def test_each_epoch_has_all_samples_in_an_order_of_its_own():
    seen = []

    class Recorded(ShuffledBatches):
        def __getitem__(self, index):
            x, y = super().__getitem__(index)
            seen.append(x["a"][:, 0])
            np.testing.assert_array_equal(x["a"][:, 0], 2 * y)
            return x["a"], y

    ids = np.arange(10)
    batches = Recorded({"a": 2.0 * ids[:, None]}, ids, batch_size=4, seed=0)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    model.fit(batches, epochs=3, verbose=0)
    # Keras may look at some batches once more to learn their shape.
    orders = np.concatenate(seen)[-30:].reshape(3, 10)
    np.testing.assert_array_equal(np.sort(orders), np.tile(2 * ids, (3, 1)))
    assert len({tuple(order) for order in orders}) == 3
    # Keras would exchange whole batches, too.
    before = batches.order
    batches.on_epoch_end()
    assert (batches.order != before).any()
