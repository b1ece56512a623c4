"""What bounds a launch: each part of the card, in loads that it alone limits."""

from dataclasses import fields, replace

import pytest

from arcmtp.predict.counts import Counts
from arcmtp.predict.kernel import Load, seconds
from arcmtp.predict.machine import CASES, Machine, machine
from arcmtp.runtime.card import cards

B70 = cards()["arc-pro-b70"].hardware
assert B70
EXPECTED = machine(B70, "expected")
NONE = Load(0, 0, groups=3200, team=8, team_memory=0, registers=128, counts=Counts())


def bound(load: Load, m: Machine = EXPECTED) -> tuple[str, float]:
    took = seconds(load, m)
    name = max(took, key=lambda part: took[part])
    return name, took[name]


def counted(**counts: float) -> Load:
    return replace(NONE, counts=Counts(**counts))


def test_bytes_take_the_bandwidth_of_where_they_lie() -> None:
    name, took = bound(replace(NONE, nbytes=536_000_000))
    assert name == "DRAM" and took == pytest.approx(1e-3)
    name, took = bound(replace(NONE, nbytes=536_000_000, host_bytes=536_000_000))
    assert name == "PCIe" and took == pytest.approx(536e6 / (0.76 * 63.015e9), rel=1e-3)


def test_what_earlier_launches_asked_for_is_there_and_what_it_asks_for_comes_partly_between_launches() -> None:
    of_launch = replace(NONE, nbytes=536_000_000, asked=53_600_000, asks=26_800_000)
    between = 10e-6
    for case, share in zip(CASES, (1, 0.5, 0), strict=True):
        assert B70
        m = machine(B70, case)
        left = 536e6 - 53.6e6 + 26.8e6 - share * between * m.memory
        assert seconds(of_launch, m, between)["DRAM"] == pytest.approx(left / m.memory)
    few = replace(of_launch, asks=1000)
    assert seconds(few, EXPECTED, 10e-6)["DRAM"] == pytest.approx(0.9e-3)


@pytest.mark.parametrize(
    ("load", "name", "cycles"),
    [
        (counted(line_bytes=48e9), "L2", 1e9 / 32),
        (counted(moved_bytes=128e9), "L1", 1e9 / 32),
        (counted(team_bytes=128e9), "L1", 1e9 / 32),
        (counted(messages=1e9), "L1", 2e9 / 32),
        (counted(dpas=1e8, dpas_rows=8e8), "dpas", 8e8 * 2.2 / 256),
        (counted(dpas=1e9, dpas_rows=1e9), "dpas", 1e9 * 4 / 256),
        (counted(floats=1e9), "float pipe", 1e9 / 256),
        (counted(integers=1e9, math=1e8), "integer pipe", 1.4e9 / 256),
        (counted(instructions=1e9), "issue", 1e9 / 2 / 256),
    ],
)
def test_each_part_has_its_rate(load: Load, name: str, cycles: float) -> None:
    longest, took = bound(load)
    assert longest == name and took == pytest.approx(cycles / EXPECTED.clock)


def test_few_work_groups_leave_cores_idle() -> None:
    one = replace(counted(floats=1e9), groups=1)
    assert bound(one)[1] == pytest.approx(32 * bound(counted(floats=1e9))[1])


def test_all_threads_take_as_long_as_there_are_places_for() -> None:
    four = replace(NONE, groups=1024, counts=Counts(alone_expected=8192 * 5000, longest_expected=8192 * 9000))
    assert seconds(four, EXPECTED)["latency"] == pytest.approx(4 * (300 + 5000) / EXPECTED.clock)


def test_no_launch_ends_before_its_longest_thread() -> None:
    team = replace(NONE, groups=1, team=16, counts=Counts(alone_expected=16 * 4000, longest_expected=16 * 10_000))
    name, took = bound(team)
    assert name == "latency" and took == pytest.approx((300 + 10_000) / EXPECTED.clock)


def test_each_case_has_its_own_cycles() -> None:
    assert B70
    counts = Counts(alone_best=8192 * 10, alone_expected=8192 * 20, alone_worst=8192 * 30)
    for case, cycles in zip(CASES, (10, 20, 30), strict=True):
        m = machine(B70, case)
        waits = 4 * (m.start_cycles + cycles) / m.clock
        assert seconds(replace(NONE, groups=1024, counts=counts), m)["latency"] == pytest.approx(waits)


@pytest.mark.parametrize(
    ("load", "rounds"),
    [
        (replace(NONE, groups=256), 1),
        (replace(NONE, groups=1024), 4),
        (replace(NONE, groups=256, registers=256), 2),
        (replace(NONE, groups=256, team_memory=64 << 10), 4),
    ],
)
def test_more_threads_than_fit_run_in_rounds(load: Load, rounds: int) -> None:
    assert seconds(load, EXPECTED)["latency"] == pytest.approx(rounds * 300 / EXPECTED.clock)


@pytest.mark.parametrize("name", [name for name, card in cards().items() if card.hardware])
def test_no_part_is_slower_in_a_better_case(name: str) -> None:
    hardware = cards()[name].hardware
    assert hardware
    load = Load(10**7, 10**6, 100, 8, 8192, 128, Counts(*(1e6 + i for i in range(len(fields(Counts))))))
    best, expected, worst = (seconds(load, machine(hardware, case)) for case in CASES)
    assert all(best[part] <= expected[part] <= worst[part] for part in best)
