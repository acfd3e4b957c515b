"""The lists of `make faults` fit the current source."""

import pytest

from tests.faults.planting import load_faults
from tests.subprocesses import ROOT

pytestmark = pytest.mark.once


def test_the_text_of_each_fault_is_there_once():
    for fault in load_faults():
        source = (ROOT / fault.file).read_text()
        assert fault.plant(source) != source, fault.name
