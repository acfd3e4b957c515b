"""A few random draws of `make fuzz`, and a fault that they notice."""

import pytest

from tests.fuzz import check
from tests.fuzz.tally import Tally

pytestmark = pytest.mark.gradients


def test_a_few_configurations():
    tally = Tally(seed=0)
    for number in range(3):
        assert tally.add(number) == []
    assert tally.draws > 0


def test_a_wrong_gradient_is_a_failure(monkeypatch):
    compute = check.values_and_gradients

    def wrong(*args):
        value, gradient = compute(*args)
        return value, 1.001 * gradient

    monkeypatch.setattr(check, "values_and_gradients", wrong)
    tally = Tally(seed=0)
    (line,) = tally.add(0)
    assert line.startswith("check(seed=0, configuration=0, draw=")
    assert tally.failures == 1
