"""Both geometries on the CPU device, and what operator tests share."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from arcmtp.ops.launch import Runs
from arcmtp.runtime import _host
from arcmtp.runtime.card import Geometry, load
from arcmtp.runtime.compiler import Kernel, Program
from arcmtp.runtime.device import Device
from arcmtp.runtime.memory import Buffer
from arcmtp.runtime.paths import profile_dir

ROW_COUNTS = (1, 2, 3, 4, 5, 6, 7, 8)  # compiled for exactly these
BLOCK_COUNTS = (9, 17, 64, 512)  # counted when the kernel runs
# (how many rows there are, what the launch is told) for operators that do not know runs
LAUNCHED_ROWS = (
    *((rows, rows) for rows in (*ROW_COUNTS, 9, 17, 32)),
    (9, 32),  # at most so many
    *((rows, 0) for rows in BLOCK_COUNTS),
)
POISON = 0xFFFFFFFF
SLOTS = 4
RUN_SLOTS = (2, 0, 3)  # of three runs
FREE_SLOTS = (1,)  # take no part
RUN_ROWS = (1, 3, 8)  # rows of each run


@dataclass(frozen=True)
class Bench:
    """A CPU device whose kernels run in the geometry of one card profile."""

    device: Device
    geometry: Geometry

    def program(self, kernels: Iterable[Kernel]) -> Program:
        return self.device.program(kernels)

    def array(self, values: np.ndarray) -> Buffer:
        return self.device.array(np.ascontiguousarray(values))

    def poisoned(self, nbytes: int) -> Buffer:
        """A buffer whose floats are NaN and whose integers are -1, so that nothing unwritten passes for a result."""
        buffer = self.device.alloc(nbytes)
        buffer.fill(0xFF)
        return buffer

    def runs(self, slots: Sequence[int] = (0,)) -> Runs:
        """Runs in these slots."""
        return Runs(len(slots), self.array(np.array(slots, np.int32)))

    def rows(self, buffer: Buffer, rows: int, width: int) -> np.ndarray:
        """float32 [rows, width] of a buffer that was poisoned; nothing behind them has been written."""
        bits = buffer.read(np.uint32, buffer.nbytes // 4).reshape(-1, width)
        assert (bits[rows:] == POISON).all(), "a row behind the last was written"
        return bits[:rows].view(np.float32)

    def run(self, program: Program, kernel: Kernel, groups: int, *arguments: Any) -> None:
        launches = _host.LaunchList()
        program.launch(launches, kernel, groups, *arguments)
        self.device.run(launches)


def interleaved(runs: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
    """[rows * runs, …] of [rows, …] for each run: row r of run u is row r * runs + u."""
    return np.stack(list(runs), axis=1).reshape(-1, *runs[0].shape[1:])


@pytest.fixture(scope="session")
def device() -> Device:
    return Device("cpu")


@pytest.fixture(scope="session", params=["cpu", "arc-pro-b70"])
def bench(request: pytest.FixtureRequest, device: Device) -> Bench:
    return Bench(device, load(profile_dir() / f"{request.param}.toml").geometry)
