"""The loss and the noise of CONTRIBUTING.md, added as described there."""

import doctest
import importlib
import re
import sys
import textwrap
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_logitclip import LogitClipLoss
from keras_logitclip import bounds
from keras_logitclip import losses
from keras_logitclip import noise
from keras_logitclip.losses import presets
from keras_logitclip.noise import _class_dependent
from keras_logitclip.study import _config
from tests import loss_cases
from tests import test_noise
from tests.running import to_numpy
from tests.running import value_and_vjp_each
from tests.running import with_labels
from tests.samples import logits
from tests.samples import some_labels

TEXT = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text()
# Indented by three spaces; the blocks of a docstring are indented further.
FILE, PRESET, CASE, NOISE, KIND, IN_STUDIES = map(
    textwrap.dedent, re.findall(r"^   ```python\n(.*?)^   ```\n", TEXT, re.M | re.S)
)


@pytest.fixture
def loss(tmp_path, monkeypatch):
    """The class, as if it were a part of the package."""
    (tmp_path / "error_power.py").write_text(FILE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "error_power", raising=False)
    module = importlib.import_module("error_power")
    monkeypatch.setattr(losses, "ErrorPower", module.ErrorPower, raising=False)
    return module.ErrorPower


@pytest.fixture
def case(loss, monkeypatch):
    monkeypatch.setattr(loss_cases, "CASES", {})
    exec(CASE, {**vars(loss_cases), "losses": losses})
    return loss_cases.CASES["EP"]


@pytest.mark.parametrize("kind", ["sparse", "one-hot", "soft"])
@pytest.mark.parametrize("tau", [None, 1.5])
def test_values_and_gradients(case, mode, kind, tau):
    z, labels = logits(), some_labels(kind)
    loss = case.loss(**case.arguments)
    expected = reference
    if tau is not None:
        loss = LogitClipLoss(loss, tau)
        expected = lambda y, z: reference(y, clip(z, tau))  # noqa: E731
    call = {"EP": with_labels(loss.call, labels.given)}
    value, gradient = value_and_vjp_each(call, z, mode)["EP"]
    values = loss_cases.value(expected, labels.weights, z)
    np.testing.assert_allclose(value, values, rtol=1e-5, atol=1e-6)
    if gradient is not None:
        gradients = loss_cases.gradient(expected, labels.weights, z)
        np.testing.assert_allclose(gradient, gradients, rtol=1e-5, atol=1e-6)
    if tau is None:
        of_case = loss_cases.value(case.formula, labels.weights, z, **case.arguments)
        np.testing.assert_allclose(of_case, values, rtol=1e-12)


def reference(y, z):
    p = np.exp(z) / np.exp(z).sum(-1, keepdims=True)
    return (y * (1 - p) ** 3).sum(-1)


def clip(z, tau):
    length = np.sqrt((z**2).sum(-1, keepdims=True))
    return np.where(length.real > tau, tau * z / length, z)


@pytest.mark.once
def test_its_example(loss):
    runner = doctest.DocTestRunner()
    for example in doctest.DocTestFinder().find(loss, globs={}):
        runner.run(example)
    assert runner.summarize(verbose=False) == (0, 4)


@pytest.mark.once
def test_its_preset(loss, monkeypatch):
    names = {**vars(presets), "ErrorPower": loss}
    monkeypatch.setattr(presets, "PRESETS", eval(f"{{{PRESET}}}", names))
    assert losses.preset("EP", 10).get_config() == {
        **loss().get_config(),
        "name": "ep",
    }


@pytest.mark.once
def test_it_is_saved(loss):
    given = LogitClipLoss(loss(2.0), 1.0)
    config = keras.saving.serialize_keras_object(given)
    again = keras.saving.deserialize_keras_object(config)
    assert again.loss.exponent == 2.0
    z, ids = logits(), some_labels("sparse").given
    assert to_numpy(again(ids, z)) == to_numpy(given(ids, z))


@pytest.mark.once
def test_its_bounds(loss):
    actual = bounds.loss_bounds(loss(3.0), tau=2.0, num_classes=5)
    cross_entropies = np.array(bounds.cross_entropy_bounds(2.0, 5))
    np.testing.assert_allclose(actual, (1 - np.exp(-cross_entropies)) ** 3, rtol=1e-5)


@pytest.fixture
def kind(monkeypatch):
    """The noise, as if it were a part of the package and of its tests."""
    names = {**vars(_class_dependent)}
    exec(NOISE, names)
    monkeypatch.setattr(noise, "neighbours", names["neighbours"], raising=False)
    kinds = {}
    exec(KIND, {**vars(test_noise), "KINDS": kinds})
    return kinds["neighbours"]


@pytest.mark.once
@pytest.mark.parametrize("num_classes", [2, 5])
def test_its_labels(kind, num_classes):
    labels = np.arange(1000 * num_classes) % num_classes
    noisy = kind.draw(labels, 0.3, num_classes, exact=True, seed=0)
    matrix = kind.matrix(0.3, num_classes)
    np.testing.assert_allclose(noisy.transition, matrix, atol=1e-12)
    drawn = kind.draw(labels, 0.3, seed=0)
    np.testing.assert_allclose(drawn.transition, matrix, atol=0.05)
    assert repr(drawn).startswith("NoisyLabels(kind='neighbours', asked_rate=0.3")


@pytest.mark.once
def test_it_is_a_kind_of_studies(kind):
    names = {**vars(_config)}
    exec(IN_STUDIES, names)
    made = names["Neighbours"](rate=0.3)
    assert getattr(noise, made.kind) is kind.draw
    assert made.name == "neighbours 0.3"
