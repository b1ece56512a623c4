"""The figures of a card: of its architecture, from machine.toml, and of its profile."""

from __future__ import annotations

import functools
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from arcmtp.errors import ArcmtpError
from arcmtp.runtime.card import Card, Hardware, cards

PATH = Path(__file__).with_name("machine.toml")
Case = Literal["best", "expected", "worst"]
CASES: tuple[Case, ...] = ("best", "expected", "worst")
ENGINES = 8  # vector engines of an Xe core
THREADS = {128: 8, 256: 4}  # of a vector engine, by registers of a thread
TEAM_MEMORY = 128 << 10  # bytes of an Xe core
PCIE_GIGATRANSFERS = {3: 8, 4: 16, 5: 32}  # a second and lane, by generation
PCIE_BITS = 128 / 130  # of a transfer that are data, in these generations


@dataclass(frozen=True)
class Machine:
    """A card in one of the cases. Those without a unit are explained in machine.toml."""

    cores: int
    clock: float  # Hz
    memory: float  # bytes a second
    pcie: float  # the same
    l2_bytes: float
    l1_bytes: float
    l1_messages: float
    pipes_together: float
    math_cycles: float
    dpas_row_cycles: float
    dpas_least_cycles: float
    start_cycles: float
    experts_kept: float
    launch_us: float
    node_us: float
    asked_between: float
    case: Case


@functools.cache
def figures() -> dict[str, dict[str, float]]:
    """machine.toml."""
    return tomllib.loads(PATH.read_text(encoding="utf-8"))


def machine(hardware: Hardware, case: Case) -> Machine:
    """A card in a case."""
    of = {name: figure[case] for name, figure in figures().items()}
    spec, share, pcie_share = 1e9 * hardware.spec_bandwidth_gbs, of.pop("bandwidth_share"), of.pop("pcie_share")
    measured = hardware.measured_bandwidth_gbs
    memory = 1e9 * measured if measured and case == "expected" else share * spec
    pcie = 1e9 * PCIE_GIGATRANSFERS[hardware.pcie_generation] * hardware.pcie_lanes * PCIE_BITS / 8
    measured = hardware.measured_pcie_gbs
    pcie = 1e9 * measured if measured and case == "expected" else pcie_share * pcie
    clock = 1e6 * hardware.clock_mhz * of.pop("clock_share")
    return Machine(cores=hardware.xe_cores, clock=clock, memory=memory, pcie=pcie, case=case, **of)


def hardware_of(name: str) -> tuple[Card, Hardware]:
    """The profile of that name and its hardware.

    Raises ArcmtpError, naming the profiles that have hardware figures, for another one.
    """
    known = [card.profile for card in cards().values() if card.hardware]
    card = cards().get(name)
    if card is None:
        raise ArcmtpError(f"card is {name!r}; known are {', '.join(known)}")
    if card.hardware is None:
        raise ArcmtpError(f"card {name!r} has no hardware figures in its profile; known are {', '.join(known)}")
    return card, card.hardware
