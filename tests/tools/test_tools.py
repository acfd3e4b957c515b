"""Scikit-learn's searches, KerasTuner and TensorBoard with clipped models."""

import sys

import keras
import numpy as np
import pytest

from keras_logitclip import LogitClip
from keras_logitclip import LogitClipLoss
from keras_logitclip import noise
from keras_logitclip.callbacks import MemorizationMonitor
from keras_logitclip.metrics import ClippedFraction
from keras_logitclip.metrics import MeanLogitNorm
from tests.running import BACKEND

sklearn = pytest.importorskip("sklearn")

from sklearn.base import clone  # noqa: E402
from sklearn.datasets import load_digits  # noqa: E402
from sklearn.model_selection import GridSearchCV  # noqa: E402
from sklearn.model_selection import ShuffleSplit  # noqa: E402

pytestmark = pytest.mark.gradients

SAMPLES = 400
DIGITS, CLEAN = load_digits(return_X_y=True)
X, CLEAN = (DIGITS[:SAMPLES] / 16).astype("float32"), CLEAN[:SAMPLES]
NOISY = noise.symmetric(CLEAN, 0.4, 10, exact=True, seed=0)

# With so small a threshold hardly anything is learned: the other one is better.
BAD_TAU, GOOD_TAU = TAUS = (1e-4, 1.0)


def build_model(*last_layers):
    return keras.Sequential(
        [
            keras.Input((64,)),
            keras.layers.Dense(32, "relu"),
            keras.layers.Dense(10),
            *last_layers,
        ]
    )


def compile_model(model, loss, **arguments):
    model.compile(keras.optimizers.SGD(0.2, momentum=0.9), loss, **arguments)
    return model


def sparse_clipped_loss(tau):
    return LogitClipLoss("sparse_categorical_crossentropy", tau=tau)


class TestScikitLearn:
    @staticmethod
    def build(X, y, tau):
        """A model as `SKLearnClassifier` asks for it: `y` is one-hot there."""
        assert y.shape == (len(X), 10)
        loss = LogitClipLoss("categorical_crossentropy", tau=tau)
        return compile_model(build_model(), loss)

    def test_grid_search(self):
        search = GridSearchCV(
            keras.wrappers.SKLearnClassifier(self.build),
            {"model_kwargs": [{"tau": tau} for tau in TAUS]},
            cv=ShuffleSplit(1, test_size=0.25, random_state=0),
        )
        search.fit(X, NOISY.labels, epochs=8, verbose=0)
        bad, good = search.cv_results_["mean_test_score"]
        # Of the held-out labels, 40% are wrong.
        assert bad < 0.3 < good < 0.7
        assert search.best_params_ == {"model_kwargs": {"tau": GOOD_TAU}}
        assert search.best_estimator_.model_.loss.tau == GOOD_TAU
        assert np.mean(search.predict(X) == CLEAN) > 0.7

    def test_clone_and_set_params(self):
        first = keras.wrappers.SKLearnClassifier(self.build, model_kwargs={"tau": 1})
        second = clone(first).set_params(model_kwargs={"tau": 2})
        taus = [
            estimator.fit(X, NOISY.labels, verbose=0).model_.loss.tau
            for estimator in (clone(first), second)
        ]
        assert taus == [1, 2]

    def test_model_instead_of_a_function(self):
        loss = LogitClipLoss("categorical_crossentropy", tau=1.0)
        model = compile_model(build_model(LogitClip(tau=2.0)), loss)
        classifier = clone(keras.wrappers.SKLearnClassifier(model))
        classifier.fit(X, NOISY.labels, verbose=0)
        assert classifier.model_ is not model
        assert classifier.model_.loss.tau == 1.0
        norms = np.linalg.norm(classifier.model_.predict(X, verbose=0), axis=-1)
        assert norms.max() == pytest.approx(2.0)

    def test_clone_loses_fit_kwargs(self):
        """As of Keras 3.15: what `fit` takes is for the search's own `fit`."""
        classifier = keras.wrappers.SKLearnClassifier(
            self.build, model_kwargs={"tau": 1}, fit_kwargs={"epochs": 3}
        )
        assert clone(classifier).model_kwargs == {"tau": 1}
        assert clone(classifier).fit_kwargs is None


def build_with_layer(hp):
    model = build_model(LogitClip(hp.Choice("tau", TAUS)))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return compile_model(model, loss, metrics=["accuracy"])


def build_with_loss(hp):
    loss = sparse_clipped_loss(hp.Choice("tau", TAUS))
    return compile_model(build_model(), loss, metrics=["accuracy"])


# The best model's optimizer is new: it lacks variables of the one that was saved.
@pytest.mark.filterwarnings("ignore:Skipping variable loading for optimizer")
# KerasTuner asks for the name of the thread as Python 3.10 has deprecated it.
@pytest.mark.filterwarnings(
    r"ignore:(currentThread|getName)\(\) is deprecated:DeprecationWarning"
)
@pytest.mark.parametrize(
    ("build", "tau_of"),
    [
        pytest.param(build_with_loss, lambda model: model.loss.tau, id="loss"),
        pytest.param(
            build_with_layer,
            lambda model: model.layers[-1].tau,
            id="layer",
            marks=pytest.mark.once,
        ),
    ],
)
def test_keras_tuner(build, tau_of, tmp_path):
    keras_tuner = pytest.importorskip("keras_tuner")

    def make_tuner():
        return keras_tuner.GridSearch(
            build, objective="val_accuracy", directory=tmp_path, project_name="tau"
        )

    tuner = make_tuner()
    training, validation = slice(None, 300), slice(300, None)
    tuner.search(
        X[training],
        NOISY.labels[training],
        validation_data=(X[validation], NOISY.labels[validation]),
        epochs=8,
        verbose=0,
    )
    found = trials_of(tuner)
    assert found.keys() == set(TAUS)
    assert found[BAD_TAU] < found[GOOD_TAU]
    (best,) = tuner.get_best_models()

    reloaded = make_tuner()
    assert trials_of(reloaded) == found
    assert reloaded.get_best_hyperparameters()[0].values == {"tau": GOOD_TAU}
    (same,) = reloaded.get_best_models()
    assert tau_of(best) == tau_of(same) == GOOD_TAU
    logits = same.predict_on_batch(X)
    np.testing.assert_array_equal(logits, best.predict_on_batch(X))
    assert np.mean(np.argmax(logits, -1) == CLEAN) > 0.7


def trials_of(tuner):
    """The score of each trial, by its tau."""
    trials = tuner.oracle.trials.values()
    return {trial.hyperparameters["tau"]: trial.score for trial in trials}


MEMORIZATION = {"memorized", "recovered", "clean_accuracy"}
METRICS = {"mean_logit_norm", "clipped_fraction"}


def fit_with(callbacks):
    metrics = [MeanLogitNorm(), ClippedFraction(tau=2.0)]
    model = compile_model(build_model(), sparse_clipped_loss(2.0), metrics=metrics)
    return model.fit(
        X,
        NOISY.labels,
        validation_data=(X[:100], CLEAN[:100]),
        epochs=3,
        callbacks=callbacks,
        verbose=0,
    ).history


def read_events(folder):
    """The scalars of each epoch, by their names, from TensorBoard's files."""
    event_accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator"
    )
    tensor_util = pytest.importorskip("tensorboard.util.tensor_util")
    events = event_accumulator.EventAccumulator(str(folder)).Reload()
    names = [tag for tag in events.Tags()["tensors"] if tag.startswith("epoch_")]
    return {
        name.removeprefix("epoch_"): [
            tensor_util.make_ndarray(event.tensor_proto).item()
            for event in sorted(events.Tensors(name), key=lambda event: event.step)
        ]
        for name in names
    }


def test_tensorboard(tmp_path):
    # Keras writes TensorBoard's files with TensorFlow, whatever the backend is.
    pytest.importorskip("tensorflow")
    before, after = (
        keras.callbacks.TensorBoard(tmp_path / place) for place in ("before", "after")
    )
    history = fit_with([before, MemorizationMonitor(X, NOISY, SAMPLES), after])
    names = METRICS | {f"val_{name}" for name in METRICS} | MEMORIZATION
    assert set(history) == names | {"loss", "val_loss"}
    assert all(len(set(history[name])) > 1 for name in names)

    # What a callback adds to the logs, only those that follow it see.
    for place, unseen in {"before": MEMORIZATION, "after": set()}.items():
        written = read_events(tmp_path / place / "train")
        validation = read_events(tmp_path / place / "validation")
        for name in validation.keys() & history.keys():
            written[f"val_{name}"] = validation[name]
        assert set(written) - {"learning_rate"} == set(history) - unseen
        for name in set(history) - unseen:
            np.testing.assert_allclose(written[name], history[name], rtol=1e-6)


if BACKEND != "tensorflow":

    def test_tensorboard_needs_tensorflow(tmp_path, monkeypatch):
        """As of Keras 3.15: also where only `tensorboard` is installed."""
        for name in ("tensorflow", "tensorflow.summary"):
            monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(ModuleNotFoundError, match="tensorflow"):
            fit_with([keras.callbacks.TensorBoard(tmp_path)])
