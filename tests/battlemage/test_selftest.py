"""`arcmtp selftest` on the emulated card: short parts always, all of them by make emulate-all."""

import pytest

from arcmtp.runtime.device import Device
from arcmtp.selftest.findings import Figure
from arcmtp.selftest.registry import PARTS, Part
from arcmtp.selftest.run import run_part
from arcmtp.selftest.subject import Subject

pytestmark = pytest.mark.emulated
SHORT = ("dpas", "draft_chain", "launches", "bandwidth")


@pytest.fixture(scope="module")
def subject(emulated_card: Device) -> Subject:
    return Subject(emulated_card.sycl_device.filter_string)


PARAMETERS = [
    pytest.param(part, id=part.name, marks=() if part.name in SHORT else pytest.mark.nightly) for part in PARTS
]


@pytest.mark.parametrize("part", PARAMETERS)
def test_every_part_passes_and_tells_no_time(part: Part, subject: Subject) -> None:
    result = run_part(part, lambda: subject)
    assert result.problem == "" and result.findings
    figures = [finding for finding in result.findings if isinstance(finding, Figure)]
    assert all(figure.value is None for figure in figures)
    assert all(figure.predicted for figure in figures) and bool(figures) == (part.group == "figures")
