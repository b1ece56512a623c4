"""Both geometries on the CPU device, and what operator tests share."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from arcmtp.runtime import _host
from arcmtp.runtime.card import Geometry, load
from arcmtp.runtime.compiler import Kernel, Program
from arcmtp.runtime.device import Device
from arcmtp.runtime.memory import Buffer
from arcmtp.runtime.paths import profile_dir

ROW_COUNTS = (1, 2, 3, 4, 5, 6, 7, 8)  # compiled for exactly these
BLOCK_COUNTS = (9, 17, 64, 512)  # counted when the kernel runs


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

    def run(self, program: Program, kernel: Kernel, groups: int, *arguments: Any) -> None:
        launches = _host.LaunchList()
        program.launch(launches, kernel, groups, *arguments)
        self.device.run(launches)


@pytest.fixture(scope="session")
def device() -> Device:
    return Device("cpu")


@pytest.fixture(scope="session", params=["cpu", "arc-pro-b70"])
def bench(request: pytest.FixtureRequest, device: Device) -> Bench:
    return Bench(device, load(profile_dir() / f"{request.param}.toml").geometry)
