"""A kernel that asks memory for what a later launch reads."""

from functools import partial

import numpy as np
import pytest

from arcmtp.runtime.device import Device
from arcmtp.runtime.launch import ASK_BYTES, INT, Cost, Kernel, Launch, parameters, writes
from arcmtp.runtime.tensor import I32, U8, Arena, Kind
from scripts.battlemage.count_launches import Emulator, counts_of, only

TEAM, GROUPS = 8, 4


def check_shares(device: Device, count: int) -> None:
    """Each piece is done, and none behind the last."""
    out = device.array(np.zeros((count + 1) * 16, np.int32))
    body = f"share<{TEAM}>(count, [=](int i) {{ simd::store<int, 16>(out + 16 * i, vec<int, 16>(i + 1)); }});"
    declared = parameters(out=writes(I32), count=INT)
    kernel = Kernel("shares", "", "formats.hpp", declared, body=body, team=TEAM, includes=("ahead.hpp",))
    launch = Launch(kernel, GROUPS, 1, {"out": out, "count": count}, lambda work: Cost(0))
    device.run(device.bind([launch]))
    want = np.repeat([*range(1, count + 1), 0], 16)
    assert np.array_equal(out.read(np.int32, want.size), want)


COUNTS = pytest.mark.parametrize("count", [0, 1, TEAM * GROUPS, 100])


@COUNTS
def test_each_piece_is_done_by_a_thread(count: int) -> None:
    check_shares(Device("cpu"), count)


@pytest.mark.emulated
@COUNTS
def test_each_piece_is_done_by_one_thread_of_the_card(emulated_card: Device, count: int) -> None:
    """Two that do the same piece are a race."""
    check_shares(emulated_card, count)


@pytest.mark.emulated
@pytest.mark.parametrize("nbytes", [0, ASK_BYTES, 64 << 10, 65 << 10])
def test_a_kernel_asks_for_so_many_bytes_behind_its_work(emulated_card: Device, nbytes: int) -> None:
    """The emulator ends where a message names memory that does not exist."""
    arena = Arena()
    out = arena.tensor("out", I32, 16)
    weights = arena.tensor("weights", U8, nbytes, kind=Kind.WEIGHTS)
    arena.allocate(emulated_card)
    weights.region.buffer = emulated_card.alloc(nbytes or ASK_BYTES)
    body = "if (simd::group_index() + simd::team_rank() == 0)\n        simd::store<int, 16>(out, vec<int, 16>(7));"
    kernel = Kernel("stores", "", "formats.hpp", parameters(out=writes(I32)), body=body, team=TEAM)
    launch = Launch(kernel, GROUPS, 1, {"out": out}, lambda work: Cost(0)).asking(weights, nbytes)
    run = partial(emulated_card.run, emulated_card.bind([launch]))
    assert counts_of(only(Emulator().reports(run)))["messages.global_prefetch"] == nbytes // ASK_BYTES
    assert np.all(out.read() == 7)
