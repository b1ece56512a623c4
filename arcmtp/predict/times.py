"""Predicted seconds of launches that run one after the other, as a range, and by kernel."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from arcmtp.predict.kernel import load_of, seconds
from arcmtp.predict.machine import CASES, Case, machine
from arcmtp.runtime.card import Hardware
from arcmtp.runtime.launch import Launch, Work

LAUNCH = "launch"  # what bounds a launch that takes less than the time between two launches


@dataclass(frozen=True)
class Range:
    """A quantity in the three cases of machine.toml; of seconds the best is the least."""

    best: float
    expected: float
    worst: float

    def __add__(self, other: Range) -> Range:
        return Range(*(getattr(self, case) + getattr(other, case) for case in CASES))

    def of(self, function: Callable[[float], float]) -> Range:
        """A function of it, in each case."""
        return Range(*(function(getattr(self, case)) for case in CASES))


NOTHING = Range(0, 0, 0)


@dataclass(frozen=True)
class KernelTime:
    """The launches of an operator in one place of a launch list, together.

    bounds: seconds that each part of the card takes in the expected case, and those between launches.
    """

    block: str
    title: str
    launches: int
    seconds: Range  # with those between launches
    bounds: dict[str, float]

    @property
    def bound(self) -> str:
        """What takes the longest."""
        return max(self.bounds, key=lambda name: self.bounds[name])

    def share(self, *names: str) -> float:
        """Of the expected seconds without those between launches, what parts of the card need."""
        return sum(self.bounds[name] for name in names) / (self.seconds.expected - self.bounds[LAUNCH])


@dataclass(frozen=True)
class ListTime:
    """A launch list, or several one after the other."""

    seconds: Range
    launches: int
    kernels: tuple[KernelTime, ...]  # the longest first


class Predictor:
    """Times of launches on a card. experts: of a layer of the model, and how many of them a row chooses."""

    def __init__(self, hardware: Hardware, experts: int = 0, used: int = 0) -> None:
        self._machines = {case: machine(hardware, case) for case in CASES}
        self._experts, self._used = experts, used

    def work(self, rows: int, context: int, case: Case = "expected") -> Work:
        """Of rows of which the last one sees `context` keys. Of experts those that rows choose where each keeps some of
        the row before it, and has nothing else in common with any."""
        if not self._experts:
            return Work(rows, context, 0)
        first = self._used / self._experts
        further = first * (1 - self._machines[case].experts_kept)
        return Work(rows, context, self._experts * (1 - (1 - first) * (1 - further) ** (rows - 1)))

    def time(self, launches: Iterable[Launch], rows: int, context: int, as_graph: bool) -> ListTime:
        """Of launches that are replayed as a graph, or submitted; rows, context: as of `work`."""
        works = {case: self.work(rows, context, case) for case in CASES}
        kernels: dict[tuple[str, str], list[KernelTime]] = {}
        for launch in launches:
            kernels.setdefault((launch.block, launch.title), []).append(self._kernel(launch, works, as_graph))
        return _list(map(_together, kernels.values()))

    def _kernel(self, launch: Launch, works: Mapping[Case, Work], as_graph: bool) -> KernelTime:
        loads = {work: load_of(launch, work) for work in set(works.values())}
        took = dict[Case, float]()
        for case, m in self._machines.items():
            between = 1e-6 * (m.node_us if as_graph else m.launch_us)
            bounds = dict(seconds(loads[works[case]], m, between))
            took[case] = max(bounds.values()) + between
            if case == "expected":
                expected = {**bounds, LAUNCH: between}
        return KernelTime(launch.block, launch.title, 1, Range(**took), expected)


def times(parts: Iterable[tuple[ListTime, float]]) -> ListTime:
    """Launch lists one after the other, each so often."""
    rows: dict[tuple[str, str], list[KernelTime]] = {}
    for part, count in parts:
        for kernel in part.kernels:
            rows.setdefault((kernel.block, kernel.title), []).append(_repeated(kernel, count))
    return _list(map(_together, rows.values()))


def _repeated(kernel: KernelTime, count: float) -> KernelTime:
    bounds = {name: count * value for name, value in kernel.bounds.items()}
    again = kernel.seconds.of(lambda value: count * value)
    return replace(kernel, launches=round(count * kernel.launches), seconds=again, bounds=bounds)


def _together(kernels: Sequence[KernelTime]) -> KernelTime:
    bounds = {name: sum(kernel.bounds[name] for kernel in kernels) for name in kernels[0].bounds}
    total = sum((kernel.seconds for kernel in kernels), NOTHING)
    return replace(kernels[0], launches=sum(kernel.launches for kernel in kernels), seconds=total, bounds=bounds)


def _list(kernels: Iterable[KernelTime]) -> ListTime:
    ordered = sorted(kernels, key=lambda kernel: -kernel.seconds.expected)
    total = sum((kernel.seconds for kernel in ordered), NOTHING)
    return ListTime(total, sum(kernel.launches for kernel in ordered), tuple(ordered))
