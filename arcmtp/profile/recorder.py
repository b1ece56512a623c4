"""Notes when the host submits each launch list, and when the device runs it."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from arcmtp.errors import ArcmtpError
from arcmtp.runtime import _host
from arcmtp.runtime.device import Device
from arcmtp.runtime.graphs import GraphCache
from arcmtp.runtime.timing import Timeline

MARKS = 8192  # that the device keeps; more than any launch list has launches
EMPTY_MARKS = 64  # back to back, to see what one takes


@dataclass(frozen=True)
class Submission:
    """A launch list that was submitted. Times are µs since the recorder began, on the host and on the device."""

    name: str
    host: tuple[float, float]  # submitting began and ended
    device: tuple[float, ...]  # it began, and each launch ended; or it began and ended
    split: bool  # launches were timed one by one

    @property
    def microseconds(self) -> float:
        """Device time in all."""
        return self.device[-1] - self.device[0]


class Recorder(GraphCache):
    """Submits as a GraphCache does, with a time mark before and after each launch list.

    While `split` is set there is a mark after each launch too, graphs are not used, and the host waits for each.
    Raises ArcmtpError for a device that accepts kernels and does not run them.
    """

    def __init__(self, device: Device, enabled: bool) -> None:
        super().__init__(device, enabled)
        self.split = False
        self.submissions: list[Submission] = []
        self._timeline = Timeline(device, MARKS)
        if self._timeline.way == "not executed":
            raise ArcmtpError(f"{device.sycl_device.name} does not execute kernels: there is nothing to time")
        self._under_way: list[tuple[str, tuple[float, float], range, bool]] = []
        self._began, self._last_mark, self._last_us = time.perf_counter(), self._timeline.mark(), 0.0

    def now(self) -> float:
        """µs since the recorder began."""
        return (time.perf_counter() - self._began) * 1e6

    def submit(self, name: str, launches: _host.LaunchList, as_graph: bool = True) -> _host.Event:
        """As `GraphCache.submit`."""
        split = self.split
        if sum(len(marks) for *_, marks, _ in self._under_way) + len(launches) + 2 > MARKS // 2:
            self.collect()
        began = self.now()
        if split:
            first = self._timeline.submit(launches)
            last, event = first + len(launches), _host.LaunchList().submit(self._device.queue)  # passed already
        else:
            first = self._timeline.mark()
            event = super().submit(name, launches, as_graph)
            last = self._timeline.mark()
        self._under_way.append((name, (began, self.now()), range(first, last + 1), split))
        if split:
            self.collect()
        return event

    def collect(self) -> None:
        """Wait for what is under way and enter it into `submissions`."""
        self._device.wait()
        for name, host, marks, split in self._under_way:
            device = tuple(self._microseconds(mark) for mark in marks)
            self.submissions.append(Submission(name, host, device, split))
        self._under_way.clear()

    def mark_microseconds(self) -> float:
        """What a mark takes on the device when nothing lies between it and the next one."""
        marks = [self._timeline.mark() for _ in range(EMPTY_MARKS)]
        self._device.wait()
        times = [self._microseconds(mark) for mark in marks]
        return float(np.median(np.diff(times)))

    def _microseconds(self, mark: int) -> float:
        """Time of a passed mark since the recorder began; to be asked for in ascending order."""
        elapsed = self._timeline.microseconds(self._last_mark, mark)
        assert elapsed is not None
        self._last_mark, self._last_us = mark, self._last_us + elapsed
        return self._last_us
