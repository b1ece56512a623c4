"""From times of launches to a table of operators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import fmean, median
from typing import NamedTuple

import numpy as np

from arcmtp.model.stage import LaunchList
from arcmtp.profile.recorder import Submission
from arcmtp.runtime.launch import Cost, Launch, Work


@dataclass(frozen=True)
class Workload:
    """What launches run on: rows, how many keys the last row sees, how many routed experts each layer uses, and
    how many a row does."""

    count: int
    context: int
    experts: Sequence[int]
    experts_used: int

    def cost(self, launch: Launch) -> Cost:
        """The cost of a launch on these rows."""
        experts = self.experts_used if launch.layer is None else self.experts[launch.layer]
        return launch.cost(Work(self.count, self.context, experts))


class Timed(NamedTuple):
    """A launch list whose launches were timed, and what it ran on."""

    submission: Submission
    workload: Workload


@dataclass(frozen=True)
class OperatorTimes:
    """An operator in the layers of one kind. Times are µs on the device; bytes and operations are of all calls."""

    layer_kind: str  # "gdn", "attention", "mtp"; "" outside layers
    operator: str
    part: str
    calls: int
    total_us: float
    mean_us: float
    p50_us: float
    p95_us: float
    share: float  # of the phase
    bytes: int
    gigabytes_per_second: float
    of_read_bandwidth: float
    operations: int
    operations_per_second: float

    @property
    def title(self) -> str:
        """Operator and part."""
        return f"{self.operator} {self.part}".rstrip()


@dataclass(frozen=True)
class Phase:
    """The operators of a prompt, a plain step, the drafts of a cycle or its verify: of one unit in the following.

    `slowdown`: how much longer it takes when launches are timed one by one, the marks' own time apart; all operators'
    times are divided by it, so that together they never exceed `eager_us`.
    """

    units: int  # timed launch by launch
    launches: int
    eager_us: float  # as a whole, without graphs; median
    explained: float  # share of it that is operators' time
    unexplained_us: float
    unexplained_share: float  # of the time of all units
    slowdown: float
    operators: list[OperatorTimes]


@dataclass
class _Calls:
    microseconds: list[float] = field(default_factory=list)
    cost: Cost = field(default_factory=lambda: Cost(0))


def phase(
    units: Sequence[Sequence[Timed]], whole_us: Sequence[float], lists: Mapping[str, LaunchList], mark_us: float,
    read_gbs: float,
) -> Phase:  # fmt: skip
    """The table of a phase. units: timed launch by launch; whole_us: the same timed as a whole; mark_us: of a mark."""
    eager_us = median(whole_us)
    net_us = [sum(net_microseconds(timed.submission, mark_us) for timed in unit) for unit in units]
    slowdown = max(1.0, median(net_us) / eager_us)
    calls: dict[tuple[str, str, str], _Calls] = {}
    for submission, workload in (timed for unit in units for timed in unit):
        for launch, times in zip(lists[submission.name], pairwise(submission.device), strict=True):
            group = calls.setdefault((launch.block, launch.operator, launch.part), _Calls())
            group.microseconds.append(max(times[1] - times[0] - mark_us, 0.0) / slowdown)
            group.cost += workload.cost(launch)
    unexplained_us = eager_us - median(net_us) / slowdown
    unexplained_us = max(unexplained_us, 0.0)  # what rounding left below 0
    total_us = sum(sum(group.microseconds) for group in calls.values()) + len(units) * unexplained_us
    return Phase(
        units=len(units),
        launches=sum(len(timed.submission.device) - 1 for timed in units[0]),
        eager_us=eager_us,
        explained=1 - unexplained_us / eager_us,
        unexplained_us=unexplained_us,
        unexplained_share=len(units) * unexplained_us / total_us,
        slowdown=slowdown,
        operators=[_row(*key, group, total_us, read_gbs) for key, group in calls.items()],
    )


def net_microseconds(submission: Submission, mark_us: float) -> float:
    """Device time of a launch list that was timed launch by launch, without the marks."""
    return submission.microseconds - mark_us * (len(submission.device) - 1)


def _row(kind: str, operator: str, part: str, calls: _Calls, phase_us: float, read_gbs: float) -> OperatorTimes:
    times, total = calls.microseconds, sum(calls.microseconds)
    seconds = max(total, 1e-3) * 1e-6  # no launch takes less than a nanosecond
    gbs = calls.cost.nbytes / seconds / 1e9
    return OperatorTimes(
        kind, operator, part, len(times), total, fmean(times), median(times), float(np.percentile(times, 95)),
        total / phase_us, calls.cost.nbytes, gbs, gbs / read_gbs, calls.cost.operations,
        calls.cost.operations / seconds,
    )  # fmt: skip
