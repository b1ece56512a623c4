"""`arcmtp bench ops`: µs, GB/s and the fraction of the device's read bandwidth of each operator.

The bandwidth is measured in between, by a kernel that only reads. Of both the best of many short repeats counts, since
other work on the machine only ever makes them slower.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain

from arcmtp.bench.operator_cases import CASES, MAX_LAUNCHES, USED, WEIGHT_BYTES, Bench, Launcher
from arcmtp.errors import ArcmtpError
from arcmtp.ops.bandwidth import ReadBandwidth
from arcmtp.progress import Progress
from arcmtp.runtime.device import Device
from arcmtp.runtime.launch import Cost, Launch, Work, kernels_of

ROWS = (1, 2, 3, 4, 8)


@dataclass(frozen=True)
class OperatorResult:
    """One operator at one shape and row count."""

    operator: str
    shape: str
    rows: int
    us: float  # of a launch
    times_one_row: float
    bytes: int  # that it must move
    gigabytes_per_second: float
    of_read_bandwidth: float
    operations: int
    operations_per_second: float


@dataclass(frozen=True)
class OperatorReport:
    """All that were measured."""

    device: str
    read_gigabytes_per_second: float
    results: list[OperatorResult]


def bench_ops(device: Device, only: str, repeats: int, progress: Progress) -> OperatorReport:
    """Time the cases whose operator and shape contain `only`, each at 1, 2, 3, 4 and 8 rows.

    Raises ArcmtpError if there is none, for fewer than one repeat, and for a device that executes nothing.
    """
    if repeats < 1:
        raise ArcmtpError(f"r is {repeats}; it must be at least 1")
    chosen = [(name, shape, make) for name, shape, make in CASES if only in f"{name} {shape}"]
    if not chosen:
        known = "; ".join(f"{name} {shape}" for name, shape, _ in CASES)
        raise ArcmtpError(f"--only {only} is in the name of no operator and shape; there are: {known}")
    bench = Bench(device)
    read = ReadBandwidth(device, bench.weights)
    timed = []
    for done, (name, shape, make) in enumerate(chosen, start=1):
        launchers = [make(bench, rows) for rows in ROWS]
        first = [launcher(bench.weights.at(0), 0) for launcher in launchers]
        bench.device.compile(kernels_of(chain(*first)))
        costs = [_cost(launches, rows) for launches, rows in zip(first, ROWS, strict=True)]
        timed.append((name, shape, costs, _seconds(bench, read, launchers, costs, repeats)))
        progress("benchmarks", done, len(chosen))
    results = [result for case in timed for result in _results(*case, read.gbs)]
    return OperatorReport(device.sycl_device.name, read.gbs, results)


def _cost(launches: Sequence[Launch], rows: int) -> Cost:
    """Each row chooses experts of its own."""
    return sum((launch.cost(Work(rows, 0, rows * USED)) for launch in launches), Cost(0))


def _seconds(
    bench: Bench, read: ReadBandwidth, launchers: Sequence[Launcher], costs: Sequence[Cost], repeats: int
) -> list[float]:
    """The best seconds of each launcher's launches; they take turns with each other and with the reading kernel."""
    lists = []
    for launcher, cost in zip(launchers, costs, strict=True):
        count = min(max(WEIGHT_BYTES // cost.nbytes, 1), MAX_LAUNCHES)
        apart = WEIGHT_BYTES // count // 64 * 64
        launches = bench.device.bind(chain(*(launcher(bench.weights.at(apart * i), i) for i in range(count))))
        lists.append((launches, count))
        bench.seconds(launches)
    best = [float("inf")] * len(launchers)
    for _ in range(repeats):
        for number, (launches, count) in enumerate(lists):
            best[number] = min(best[number], bench.seconds(launches) / count)
        read.measure()
    return best


def _results(
    operator: str, shape: str, costs: Sequence[Cost], seconds: Sequence[float], read_gbs: float
) -> Iterator[OperatorResult]:
    """One operator at one shape, at each row count."""
    for rows, cost, took in zip(ROWS, costs, seconds, strict=True):
        gbs = cost.nbytes / took / 1e9
        yield OperatorResult(
            operator, shape, rows, took * 1e6, took / seconds[0], cost.nbytes, gbs, gbs / read_gbs,
            cost.operations, cost.operations / took,
        )  # fmt: skip


def as_text(report: OperatorReport, form: str) -> str:
    """The report as a Markdown table (`md`) or as `json`."""
    if form == "json":
        return json.dumps(asdict(report), indent=1)
    lines = ["| operator and shape | rows | µs | × one row | GB/s | of read | Gop/s |", f"|---|{'---:|' * 6}"]
    for r in report.results:
        lines.append(
            f"| {r.operator} {r.shape} | {r.rows} | {r.us:.1f} | {r.times_one_row:.2f} | "
            f"{r.gigabytes_per_second:.1f} | {r.of_read_bandwidth:.2f} | {r.operations_per_second / 1e9:.1f} |"
        )
    return "\n".join([*lines, "", f"{report.device} reads {report.read_gigabytes_per_second:.1f} GB/s"])
