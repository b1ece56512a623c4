"""From times of launches to a table of operators."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import fmean, median
from typing import NamedTuple, TypeVar

import numpy as np

from arcmtp.model.stage import LaunchList
from arcmtp.profile.recorder import Submission
from arcmtp.runtime.launch import Cost, Launch, Work

T = TypeVar("T")


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
    gigabytes_per_second: float | None  # None here and below: a call takes less than a time mark, too little to tell
    of_read_bandwidth: float | None
    operations: int
    operations_per_second: float | None

    @property
    def title(self) -> str:
        """Operator and part."""
        return f"{self.operator} {self.part}".rstrip()


@dataclass(frozen=True)
class Phase:
    """The operators of a prompt, a plain step, the drafts of a cycle or its verify: of one unit in the following.

    All times are means of the middle half (`middle`), and so they add up: those of the operators and `unexplained_us`
    are `eager_us`. `slowdown`: how much longer a unit takes when launches are timed one by one, the marks' own time
    apart; all operators' times are divided by it, so that together they never exceed `eager_us`.
    """

    units: int  # timed launch by launch, and of the middle half
    launches: int
    eager_us: float  # as a whole, without graphs
    explained: float  # share of it that is operators' time
    unexplained_us: float
    unexplained_share: float
    slowdown: float
    operators: list[OperatorTimes]


@dataclass
class _Calls:
    """The launches of an operator; µs without the marks' time, which is the same for each, and so below 0 for some."""

    microseconds: list[float] = field(default_factory=list)
    cost: Cost = field(default_factory=lambda: Cost(0))

    @property
    def total_us(self) -> float:
        return max(sum(self.microseconds), 0.0)


def phase(
    units: Sequence[Sequence[Timed]], whole_us: Sequence[float], lists: Mapping[str, LaunchList], mark_us: float,
    read_gbs: float,
) -> Phase:  # fmt: skip
    """The table of a phase. units: timed launch by launch; whole_us: the same timed as a whole; mark_us: of a mark."""

    def net(unit: Sequence[Timed]) -> float:
        return sum(net_microseconds(timed.submission, mark_us) for timed in unit)

    eager_us, units = middle_mean(whole_us), middle(units, net)
    net_us = fmean(map(net, units))
    slowdown = max(1.0, net_us / eager_us)
    calls: dict[tuple[str, str, str], _Calls] = {}
    for submission, workload in (timed for unit in units for timed in unit):
        for launch, times in zip(lists[submission.name], pairwise(submission.device), strict=True):
            group = calls.setdefault((launch.block, launch.operator, launch.part), _Calls())
            group.microseconds.append(times[1] - times[0] - mark_us)
            group.cost += workload.cost(launch)
    explained_us = min(max(net_us, 0.0), eager_us)
    scale = len(units) * explained_us / (sum(group.total_us for group in calls.values()) or 1.0)
    context = _Context(scale, len(units) * eager_us, mark_us, read_gbs)
    return Phase(
        units=len(units),
        launches=sum(len(timed.submission.device) - 1 for timed in units[0]),
        eager_us=eager_us,
        explained=explained_us / eager_us,
        unexplained_us=eager_us - explained_us,
        unexplained_share=1 - explained_us / eager_us,
        slowdown=slowdown,
        operators=[_row(*key, group, context) for key, group in calls.items()],
    )


def middle(values: Iterable[T], key: Callable[[T], float]) -> list[T]:
    """The values in ascending order without the lowest and the highest quarter: where the machine did something else
    meanwhile, a mean of all would tell of that above all."""
    ordered = sorted(values, key=key)
    cut = (len(ordered) + 1) // 4
    return ordered[cut : len(ordered) - cut]


def middle_mean(values: Iterable[float]) -> float:
    """The mean of `middle`."""
    return fmean(middle(values, float))


def net_microseconds(submission: Submission, mark_us: float) -> float:
    """Device time of a launch list that was timed launch by launch, without the marks."""
    return submission.microseconds - mark_us * (len(submission.device) - 1)


@dataclass(frozen=True)
class _Context:
    """What rows have in common: by how much times are scaled so that they add up, all units' time, a mark's, and the
    read bandwidth."""

    scale: float
    phase_us: float
    mark_us: float
    read_gbs: float


def _row(kind: str, operator: str, part: str, calls: _Calls, context: _Context) -> OperatorTimes:
    times = [max(us, 0.0) * context.scale for us in calls.microseconds]
    total, count, c = calls.total_us * context.scale, len(times), context
    seconds = total * 1e-6 if total > count * c.mark_us else None
    gbs = calls.cost.nbytes / seconds / 1e9 if seconds else None
    return OperatorTimes(
        kind, operator, part, count, total, total / count, median(times), float(np.percentile(times, 95)),
        total / c.phase_us, calls.cost.nbytes, gbs, None if gbs is None else gbs / c.read_gbs, calls.cost.operations,
        calls.cost.operations / seconds if seconds else None,
    )  # fmt: skip
