"""A kernel that asks memory for what a later launch reads."""

from functools import partial

import numpy as np
import pytest

from arcmtp.runtime.device import Device
from arcmtp.runtime.launch import Cost, Kernel, Launch, parameters, writes
from arcmtp.runtime.tensor import I32, U8, Arena, Kind
from scripts.battlemage.count_launches import Emulator, counts_of, only

MESSAGE = 256  # bytes

@pytest.mark.emulated
@pytest.mark.parametrize("nbytes", [0, MESSAGE, 64 << 10, 65 << 10])
def test_threads_share_what_is_asked_for(emulated_card: Device, nbytes: int) -> None:
    """The emulator ends where a message names memory that does not exist."""
    arena = Arena()
    out = arena.tensor("out", I32, 16)
    weights = arena.tensor("weights", U8, nbytes, kind=Kind.WEIGHTS)
    arena.allocate(emulated_card)
    weights.region.buffer = emulated_card.alloc(nbytes or MESSAGE)
    body = "if (simd::group_index() + simd::team_rank() == 0)\n        simd::store<int, 16>(out, vec<int, 16>(7));"
    kernel = Kernel("stores", "", "formats.hpp", parameters(out=writes(I32)), body=body, team=8)
    launch = Launch(kernel, 4, 1, {"out": out}, lambda work: Cost(0)).asking(weights, nbytes)
    run = partial(emulated_card.run, emulated_card.bind([launch]))
    assert counts_of(only(Emulator().reports(run)))["messages.global_prefetch"] == nbytes // MESSAGE
    assert np.all(out.read() == 7)
