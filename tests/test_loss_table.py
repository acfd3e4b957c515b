"""The table in docs/losses.md says what the code does."""

import sys
from pathlib import Path

import numpy as np
import pytest

from keras_logitclip import losses
from tests.running import apply_each
from tests.running import with_labels
from tests.samples import logits

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "examples"))

import loss_table  # noqa: E402


def test_symmetric_losses_are_those_of_constant_sum():
    per_label = [apply_each(presets_with(label), logits()) for label in range(10)]
    for name in losses.PRESETS:
        sums = sum(values[name] for values in per_label)
        constant = np.ptp(sums) <= 1e-5 * np.abs(sums).max()
        assert constant == loss_table.is_symmetric(losses.PRESETS[name].loss), name


def presets_with(label):
    ids = np.full(6, label)
    return {
        name: with_labels(losses.preset(name, 10).call, ids) for name in losses.PRESETS
    }


# On a backend that computes losses in float64; elsewhere, a last digit may differ.
@pytest.mark.once
def test_documented_table_is_what_the_command_prints():
    table = loss_table.make_table(tau=1.0, classes=10)
    assert table in (ROOT / "docs" / "losses.md").read_text()
