"""Device memory that cannot be had."""

import pytest

from arcmtp.errors import OutOfMemory
from arcmtp.runtime.device import Device


def test_what_the_device_refuses_is_told_with_its_size() -> None:
    device = Device("cpu")
    with pytest.raises(OutOfMemory) as caught:
        device.alloc(1 << 42)
    assert str(caught.value) == f"{device.sycl_device.name} has no 4194304.0 MiB left in one piece"
