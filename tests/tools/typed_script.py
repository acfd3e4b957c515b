"""A script of a user with type checkers, for `test_types.py`. It is never run."""

from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
import numpy.typing as npt

import keras_logitclip
from keras_logitclip import LogitClip
from keras_logitclip import LogitClipLoss
from keras_logitclip import bounds
from keras_logitclip import callbacks
from keras_logitclip import datasets
from keras_logitclip import losses
from keras_logitclip import metrics
from keras_logitclip import noise
from keras_logitclip import ops
from keras_logitclip import tuning


def build_model() -> keras.Model:
    layers = [keras.Input((64,)), keras.layers.Dense(10), LogitClip(1.5)]
    return keras.Sequential(layers)


def load() -> tuple[npt.NDArray[np.float64], noise.NoisyLabels]:
    (x, y), _ = datasets.load("digits", data_dir=None).splits()
    return x.reshape(-1, 64) / 16, noise.symmetric(y, 0.4, seed=0)


def make_noises(labels: Sequence[int]) -> list[noise.NoisyLabels]:
    rng = np.random.default_rng(0)
    matrix = [[0.9, 0.1], [0.2, 0.8]]
    return [
        noise.symmetric(np.array(labels, "uint8"), 0.4, 10, seed=rng),
        noise.asymmetric(labels, 0.4, list(noise.CIFAR10_CONFUSIONS), seed=0),
        noise.pair_flip(tuple(labels), 0.4, exact=True, seed=0),
        noise.from_transition(labels, matrix, seed=0),
        noise.instance_dependent([[1, 2], [3, 4]], [0, 1], 0.1, scale=1, seed=0),
        noise.NoisyLabels([0, 1], clean=[0, 0]),
        datasets.load_human_labels(Path("CIFAR-10_human.pt"), "worse", [6, 9]),
    ]


def train(tau: float) -> dict[str, float]:
    x, noisy = load()
    model = build_model()
    loss = LogitClipLoss(losses.GeneralizedCrossEntropy(q=0.7), tau)
    model.compile("sgd", loss, metrics=[metrics.ClippedFraction(tau)])
    monitor = callbacks.MemorizationMonitor(x, noisy, output="digits")
    model.fit(x, noisy.labels, callbacks=[monitor])
    noisy.plot(class_names=[str(digit) for digit in range(noisy.num_classes)])
    largest = bounds.max_probability(tau, noisy.num_classes)
    return {**monitor.measure(model), "largest": largest}


def search(x: npt.NDArray[np.float64], labels: list[int]) -> float | None:
    rates = (0.1, 0.3)
    taus = [1, 1.5]
    found = tuning.search_tau(
        build_model, x, labels, epochs=9, taus=taus, learning_rates=rates
    )
    found.plot().figure.savefig("taus.png")
    return found.best_learning_rate


study = keras_logitclip.study.load("study.toml")
correction = losses.ForwardCorrection(make_noises([0, 1])[0].transition)
config = LogitClipLoss(correction, tau=1.0).get_config()
norms = ops.logit_norm(np.ones((2, 3)), p=float("inf"))
value = float(losses.preset("NCE+AGCE", num_classes=10)([0], norms))
