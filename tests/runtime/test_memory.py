"""Device memory that cannot be had, and memory that is taken as it is used."""

import resource
from pathlib import Path

import numpy as np
import pytest

from arcmtp.errors import OutOfMemory
from arcmtp.runtime.device import Device
from arcmtp.runtime.memory import HUGE_PAGE_BYTES

MANY = 16


def resident_bytes() -> int:
    """Bytes of memory that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def test_what_the_device_refuses_is_told_with_its_size() -> None:
    device = Device("cpu")
    with pytest.raises(OutOfMemory) as caught:
        device.alloc(1 << 42)
    assert str(caught.value) == f"{device.sycl_device.name} has no 4194304.0 MiB left in one piece"


@pytest.mark.parametrize("in_host_memory", [False, True])
def test_a_buffer_that_is_not_used_at_once_takes_no_more_memory_than_is_written(in_host_memory: bool) -> None:
    device = Device("cpu")
    alloc = device.host_alloc if in_host_memory else device.alloc
    buffer = alloc(MANY * HUGE_PAGE_BYTES, at_once=False)
    before = resident_bytes()
    for place in range(MANY):
        buffer.write(np.ones(1, np.uint8), place * HUGE_PAGE_BYTES)
    assert resident_bytes() - before < HUGE_PAGE_BYTES
