"""Searches with real trainings, one on each backend and the rest once."""

import keras
import numpy as np
import pytest

from keras_logitclip import noise

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
    """The model has dropout, so that random numbers of a training affect its scores."""
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
        # A much too small threshold hardly learns, and a much too large one memorizes.
        optimizer=keras.optimizers.SGD(1.0, momentum=0.9),
    )
    assert found.best_tau == 1.0
    assert found.cost == 3
    accuracies = {row["tau"]: row["accuracy"] for row in found.rows}
    assert accuracies[1.0] == max(accuracies.values())
    assert max(row["clean_accuracy"] for row in found.rows) > 0.8


SEEN = []


class Watching(keras.callbacks.Callback):
    """Records its arguments in the first epoch of each training."""

    epochs = 0

    def on_epoch_begin(self, epoch, logs=None):
        self.epochs += 1
        if self.epochs == 1:
            rate = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
            SEEN.append((self.model.loss.tau, round(rate, 5)))


def sgd(steps, learning_rate):
    schedule = keras.optimizers.schedules.CosineDecay(learning_rate, steps)
    return keras.optimizers.SGD(schedule)


OPTIMIZERS = {
    "name": "sgd",
    "instance": keras.optimizers.Adam(0.7),
    "function": sgd,
    "scaled": keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.7)),
}


@pytest.mark.once
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_each_training_has_its_rate_and_callbacks_of_its_own(tmp_path, name):
    watching = Watching()
    SEEN.clear()
    rates = {"learning_rates": [0.01, 0.1], "optimizer": OPTIMIZERS[name]}
    found = search(tmp_path, taus=[1], epochs=2, callbacks=[watching], **rates)
    assert sorted(SEEN) == [(1.0, 0.01), (1.0, 0.1)]
    assert found.best_learning_rate in (0.01, 0.1)
    assert watching.epochs == 0


@pytest.mark.once
def test_a_training_can_be_stopped_early(tmp_path):
    stopping = keras.callbacks.EarlyStopping("val_accuracy", patience=1, min_delta=1.0)
    found = search(tmp_path, taus=[1.0, 2.0], epochs=30, callbacks=[stopping])
    assert found.epochs_spent == 4
    assert [row["accuracy"] for row in found.rows] == [
        trial.intermediate_values[2] for trial in trials(tmp_path)
    ]


@pytest.mark.once
def test_validation_data_are_what_is_compared(tmp_path):
    others = (X[TEST], (LABELS[TEST] + 1) % 10)
    optimizer = keras.optimizers.Adam(0.01)
    options = {"taus": [1.0], "epochs": 5, "optimizer": optimizer}
    (row,) = search(tmp_path, validation_data=others, **options).rows
    assert row["accuracy"] < 0.1 < 0.5 < row["clean_accuracy"]


def test_texts(tmp_path):
    words = np.array([f"word{label} the" for label in LABELS[:200]])
    vectorization = keras.layers.TextVectorization(output_mode="multi_hot")
    if keras.config.backend() == "tensorflow":
        vectorization.adapt(words)

    def build_model():
        text = keras.Input((), dtype="string")
        logits = keras.layers.Dense(10)(vectorization(text))
        return keras.Model(text, logits)

    def search():
        return tuning.search_tau(
            build_model,
            words,
            LABELS[:200],
            clean_data=(words, LABELS[:200]),
            taus=[1.0],
            epochs=3,
            optimizer=keras.optimizers.Adam(0.1),
            storage=f"sqlite:///{tmp_path}/search.db",
            verbose=False,
        )

    if keras.config.backend() == "tensorflow":
        (row,) = search().rows
        assert row["accuracy"] == row["clean_accuracy"] == 1
    else:
        with pytest.raises(ValueError, match="TensorFlow only.*Received: texts"):
            search()
        assert not list(tmp_path.iterdir())
