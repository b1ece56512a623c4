"""Figures of the card."""

import dataclasses

import pytest

from arcmtp import ArcmtpError
from arcmtp.predict.machine import CASES, Machine, figures, hardware_of, machine
from arcmtp.runtime.card import cards


def test_each_figure_has_three_cases_in_order_and_a_source() -> None:
    for name, figure in figures().items():
        assert set(figure) == {*CASES, "source"}, name
        best, expected, worst = (figure[case] for case in CASES)
        assert best <= expected <= worst or best >= expected >= worst, name
        assert len(str(figure["source"])) > 4


def test_a_measured_bandwidth_is_expected_and_others_are_a_share_of_the_specified_one() -> None:
    made = {name: machine(card.hardware, "expected") for name, card in cards().items() if card.hardware}
    memory = {name: round(m.memory / 1e9) for name, m in made.items()}
    assert memory == {"arc-b570": 334, "arc-b580": 402, "arc-pro-b50": 197, "arc-pro-b60": 401, "arc-pro-b70": 536}
    assert made["arc-b580"].pcie == 12e9 and made["arc-pro-b70"].pcie == pytest.approx(0.76 * 63.015e9, rel=1e-3)


def test_int8_operations_a_second_are_those_of_the_maker() -> None:
    tops = {"arc-b580": 233, "arc-pro-b60": 197, "arc-pro-b70": 367}
    for name, of_maker in tops.items():
        hardware = cards()[name].hardware
        assert hardware
        m = machine(hardware, "best")
        a_cycle = 2 * 16 * 32 / m.dpas_row_cycles  # multiplications and additions of an engine
        assert 8 * m.cores * m.clock * a_cycle / 1e12 == pytest.approx(of_maker, rel=0.01)


@pytest.mark.parametrize(("name", "why"), [("arc-x", "card is 'arc-x'"), ("cpu", "card 'cpu' has no hardware figures")])
def test_another_card_is_refused_with_those_that_are_known(name: str, why: str) -> None:
    known = "arc-b570, arc-b580, arc-pro-b50, arc-pro-b60, arc-pro-b70"
    with pytest.raises(ArcmtpError, match=f"{why}.*known are {known}"):
        hardware_of(name)


def test_every_field_is_given() -> None:
    hardware = cards()["arc-pro-b70"].hardware
    assert hardware
    m = machine(hardware, "worst")
    assert m.case == "worst" and m.cores == 32
    given = {field.name: getattr(m, field.name) for field in dataclasses.fields(Machine)}
    assert given.pop("experts_kept") == given.pop("asked_between") == 0 and all(given.values())
