"""The benches on which every operator test sequences, and what the tests share."""

from dataclasses import replace
from functools import cache

import pytest

from arcmtp.runtime.card import Card, cards
from arcmtp.runtime.device import Device
from arcmtp.selftest import bench as shared
from tests.ops.bench import Bench
from tests.ops.twin import TwinBench

B70 = "arc-pro-b70"
GEOMETRY = pytest.param(B70, marks=pytest.mark.geometry)
EMULATED = pytest.param("emulated", marks=pytest.mark.emulated)
# For operators whose kernels are the same in every geometry.
without_geometry = pytest.mark.parametrize("bench", ["cpu", EMULATED], indirect=True)

ROW_COUNTS = shared.ROW_COUNTS
CHUNK_COUNTS = (9, 17, 64, 512)  # counted when the kernel runs
# (how many rows there are, what the launch is told) for operators that do not know sequences
LAUNCHED_ROWS = (
    *((rows, rows) for rows in (*ROW_COUNTS, 9, 17, 32)),
    (9, 32),  # at most so many
    *((rows, 0) for rows in CHUNK_COUNTS),
)
SLOTS, RUN_SLOTS, RUN_ROWS = shared.SLOTS, shared.RUN_SLOTS, shared.RUN_ROWS
FREE_SLOTS = (1,)  # take no part


@cache
def cpu_device(card: Card | None = None) -> Device:
    """The CPU device, in its own geometry or in a card's; what one test has compiled the others have too."""
    return Device("cpu", card)


@pytest.fixture(scope="session", params=["cpu", GEOMETRY, EMULATED])
def bench(request: pytest.FixtureRequest) -> Bench:
    """The CPU device in its own and in a card's geometry, and the emulated card beside the CPU device."""
    if request.param == "cpu":
        return Bench(cpu_device())
    if request.param == B70:
        return Bench(cpu_device(with_short_chunks(cards()[B70])))
    card = with_short_chunks(request.getfixturevalue("emulated_card").card)
    return TwinBench(Bench(Device("level_zero:gpu", card)), Bench(cpu_device(card)))


def with_short_chunks(card: Card) -> Card:
    """Without room for more rows than these tests have, whose work-groups would only begin and end. Models are tested
    with all of it (tests/battlemage)."""
    return replace(card, geometry=replace(card.geometry, chunk_rows=max(CHUNK_COUNTS)))
