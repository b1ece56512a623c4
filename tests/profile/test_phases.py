"""Times of launches as a table whose parts add up."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from arcmtp.profile.phases import Phase, Timed, Workload, middle, middle_mean, phase
from arcmtp.profile.recorder import Submission
from arcmtp.runtime.launch import Cost, Kernel, Launch, parameters


class TimedLists:
    """Launch lists of two operators, 100 bytes each, whose launches take what they are told, and a mark of 5 µs."""

    MARK_US = 5.0

    def __init__(self) -> None:
        cost = lambda work: Cost(100, 50)  # noqa: E731
        launches = [Launch(Kernel(name, "", "x.hpp", parameters()), 1, 1, {}, cost) for name in ("fast", "slow")]
        self.lists: Any = {"step": launches}

    def unit(self, *us: float) -> list[Timed]:
        ends = np.cumsum([0.0, *(each + self.MARK_US for each in us)]).tolist()
        return [Timed(Submission("step", (0.0, 0.0), tuple(ends), True), Workload(1, 1, [], 0))]

    def phase(self, units: list[list[Timed]], whole_us: list[float]) -> Phase:
        return phase(units, whole_us, self.lists, self.MARK_US, 1.0)


def test_parts_add_up_to_the_mean_of_the_middle_half() -> None:
    timed = TimedLists()
    found = timed.phase([timed.unit(1, 9), timed.unit(3, 27), timed.unit(2, 18), timed.unit(900, 9)], [9, 30, 50, 800])
    assert (found.units, found.eager_us, found.slowdown) == (2, 40, 1)
    assert [(o.operator, o.total_us) for o in found.operators] == [("fast", 5), ("slow", 45)]
    assert (found.unexplained_us, found.explained) == (15, 0.625)
    assert [o.gigabytes_per_second is None for o in found.operators] == [True, False]  # 2.5 µs, less than a mark
    assert [o.share for o in found.operators] == [5 / 80, 45 / 80]


def test_operators_never_explain_more_than_there_is() -> None:
    timed = TimedLists()
    found = timed.phase([timed.unit(-4, 30), timed.unit(-4, 30)], [20, 20])
    assert (found.slowdown, found.explained, found.unexplained_us) == (1.3, 1, 0)
    assert [(o.total_us, o.gigabytes_per_second) for o in found.operators] == [(0, None), (40, pytest.approx(0.005))]


def test_what_operators_leave_unexplained_is_never_less_than_nothing() -> None:
    timed = TimedLists()
    for eager_us in range(3, 60):
        for sevenths in range(1, 60):
            found = timed.phase([timed.unit(1, eager_us - 1 + sevenths / 7)], [eager_us])
            assert (found.unexplained_us, found.unexplained_share) == (0, 0)


def test_the_middle_half_leaves_out_a_quarter_at_each_end() -> None:
    halves = [middle(range(count), float) for count in range(1, 10)]
    assert halves[:4] == [[0], [0, 1], [1], [1, 2]]
    assert halves[4:] == [[1, 2, 3], [1, 2, 3, 4], [2, 3, 4], [2, 3, 4, 5], [2, 3, 4, 5, 6]]
    assert middle_mean([5, 1, 900, 3]) == 4
