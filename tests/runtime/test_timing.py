"""Marks around work on the CPU device; scripts/battlemage/dry_run.py puts them on the device without hardware."""

import time

import pytest

from arcmtp.errors import ArcmtpError
from arcmtp.runtime import _host
from arcmtp.runtime.device import Device
from arcmtp.runtime.graphs import GraphCache
from arcmtp.runtime.launch import INT, parameters, writes
from arcmtp.runtime.tensor import F32
from arcmtp.runtime.timing import Timeline
from tests.launches import kernel, launch

BODY = "float v = *x; for (int i = 0; i < turns; ++i) v = v * 0.5f + 1.0f; *x = v;"
WORK = kernel("work", parameters(x=writes(F32), turns=INT), BODY)
SHORT, LONG = 20_000, 20_000_000  # turns, the latter some 50 ms
CLOCKS = 0.01  # how far the device's clock and the host's may drift apart


@pytest.fixture(scope="module")
def device() -> Device:
    return Device("cpu")


@pytest.fixture
def timeline(device: Device) -> Timeline:
    return Timeline(device, 64)


def work(device: Device, *turns: int) -> _host.LaunchList:
    x = device.zeros(4)
    return device.bind(launch(WORK, x=x, turns=count) for count in turns)


def known(timeline: Timeline, first: int, last: int) -> float:
    elapsed = timeline.microseconds(first, last)
    assert elapsed is not None
    return elapsed


@pytest.mark.parametrize("graphs", [False, True])
def test_marks_are_as_far_apart_as_what_the_host_sees_between_them(
    device: Device, timeline: Timeline, graphs: bool
) -> None:
    cache, launches = GraphCache(device, graphs), work(device, LONG)
    cache.submit("work", launches)
    device.wait()
    outside = time.perf_counter()
    first = timeline.mark()
    device.wait()
    inside = time.perf_counter()
    cache.submit("work", launches)
    device.wait()
    inside = time.perf_counter() - inside
    last = timeline.mark()
    device.wait()
    outside = time.perf_counter() - outside
    assert (1 - CLOCKS) * inside * 1e6 <= known(timeline, first, last) <= (1 + CLOCKS) * outside * 1e6


def test_a_mark_waits_for_the_work_before_it_and_the_host_for_neither(device: Device, timeline: Timeline) -> None:
    launches = work(device, *[LONG] * 6)
    first = timeline.mark()
    launches.submit(device.queue)
    last = timeline.mark()
    assert timeline.microseconds(first, last) is None
    device.wait()
    assert known(timeline, first, last) > 0


def test_single_launches_are_told_apart_and_add_up(device: Device, timeline: Timeline) -> None:
    launches = work(device, SHORT, LONG, SHORT)
    rounds = []
    for _ in range(3):  # whatever else the machine does only adds time: the smallest counts
        first = timeline.submit(launches)
        last = timeline.mark() - 1
        device.wait()
        assert last - first == len(launches)
        rounds.append([known(timeline, mark, mark + 1) for mark in range(first, last)])
        assert sum(rounds[-1]) == pytest.approx(known(timeline, first, last))
    before, long, after = (min(times) for times in zip(*rounds, strict=True))
    assert max(before, after) < long


def test_the_oldest_marks_are_overwritten(device: Device) -> None:
    timeline = Timeline(device, 4)
    marks = [timeline.mark() for _ in range(5)]
    device.wait()
    assert marks == list(range(marks[0], marks[0] + 5))
    assert timeline.microseconds(marks[0], marks[1]) is None
    assert known(timeline, marks[1], marks[4]) >= 0


def test_a_mark_that_was_never_put_has_no_time(device: Device, timeline: Timeline) -> None:
    mark = timeline.mark()
    device.wait()
    assert timeline.microseconds(mark, mark) == 0
    assert timeline.microseconds(mark, mark + 1) is None


def test_the_cpu_device_tells_time_by_barriers(timeline: Timeline) -> None:
    assert timeline.way == "barriers"


def test_one_mark_is_too_few(device: Device) -> None:
    with pytest.raises(ArcmtpError, match="capacity is 1; it must be at least 2"):
        Timeline(device, 1)
