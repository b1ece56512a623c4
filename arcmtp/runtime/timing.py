"""Device time between points of a queue's work.

| way | on | a mark is |
|---|---|---|
| `tags` | Level Zero | a profiling tag |
| `barriers` | the CPU device, whose events of graph replays tell nonsense | a barrier, whose event does |
| `not executed` | Intel's driver without hardware | a tag that is never passed: there is no time |
"""

import time
from typing import Literal

from arcmtp.errors import ArcmtpError
from arcmtp.runtime import _host
from arcmtp.runtime.device import Device

Way = Literal["tags", "barriers", "not executed"]

KNOWN_WORK_BYTES = 1 << 20


class Timeline:
    """Time marks on a device's queue, numbered from 0; the latest `capacity` of them can be read.

    `way` is how the device tells time, found by trying once. Raises ArcmtpError for fewer than two marks.
    """

    def __init__(self, device: Device, capacity: int) -> None:
        if capacity < 2:
            raise ArcmtpError(f"capacity is {capacity}; it must be at least 2, the marks that a time lies between")
        self._marks = _host.TimeMarks(device.queue, capacity)
        self.way: Way = "tags" if _host.takes_profiling_tags(device.sycl_device) else "barriers"
        if not self._tells_time(device):
            self.way = "not executed"

    def mark(self) -> int:
        """Mark this point of the queue's work, without waiting; the mark's number."""
        return self._marks.mark()

    def submit(self, launches: _host.LaunchList) -> int:
        """Submit `launches` one by one, with a mark before the first and after each; the number of the first mark."""
        return self._marks.submit(launches)

    def microseconds(self, first: int, last: int) -> float | None:
        """Device time from mark `first` to mark `last`.

        None where nothing is executed, while the work before one of them has not finished, and for a mark that is
        not among the latest.
        """
        return None if self.way == "not executed" else self._marks.microseconds(first, last)

    def _tells_time(self, device: Device) -> bool:
        """Whether work takes time, and no more than the host waits for it."""
        device.wait()
        began = time.perf_counter()
        first = self.mark()
        device.zeros(KNOWN_WORK_BYTES)
        last = self.mark()
        device.wait()
        waited = (time.perf_counter() - began) * 1e6
        elapsed = self.microseconds(first, last)
        return elapsed is not None and 0 < elapsed <= waited
