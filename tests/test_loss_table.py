"""The table in docs/losses.md says what the code does."""

import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_logitclip import losses
from tests.running import to_numpy

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "examples"))

import loss_table  # noqa: E402


def test_every_preset_has_a_row():
    assert list(loss_table.ROWS) == list(losses.PRESETS)


@pytest.mark.parametrize("name", losses.PRESETS)
def test_symmetric_losses_are_those_of_constant_sum(name):
    logits = 3 * np.random.default_rng(0).normal(size=(20, 10)).astype("float32")
    loss = losses.preset(name, 10)
    labels = np.repeat(np.arange(10), 20)
    values = to_numpy(loss.call(labels, keras.ops.tile(logits, (10, 1))))
    sums = values.reshape(10, 20).sum(0)
    constant = np.ptp(sums) <= 1e-5 * np.abs(sums).max()
    assert constant == loss_table.ROWS[name].symmetric


# On a backend that computes losses in float64; elsewhere, a last digit may differ.
@pytest.mark.once
def test_documented_table_is_what_the_command_prints():
    table = loss_table.make_table(tau=1.0, classes=10)
    assert table in (ROOT / "docs" / "losses.md").read_text()
