"""`arcmtp bench ops`: µs, GB/s and the fraction of the device's read bandwidth of each operator.

The bandwidth is measured in between, by a kernel that only reads. Of both the best of many short repeats counts, since
other work on the machine only ever makes them slower.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from arcmtp.bench.operator_cases import CASES, MAX_LAUNCHES, WEIGHT_BYTES, Bench, Case
from arcmtp.engine.loading import Progress
from arcmtp.errors import ArcmtpError
from arcmtp.ops.bandwidth import ReadBandwidth
from arcmtp.runtime import _host
from arcmtp.runtime.device import Device

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
        cases = [make(bench, rows) for rows in ROWS]
        timed.append((name, shape, cases, _seconds(bench, read, cases, repeats)))
        progress("benchmarks", done, len(chosen))
    results = [
        _result(name, shape, rows, case, best, seconds[0], read.gbs)
        for name, shape, cases, seconds in timed
        for rows, case, best in zip(ROWS, cases, seconds, strict=True)
    ]
    return OperatorReport(device.sycl_device.name, read.gbs, results)


def _seconds(bench: Bench, read: ReadBandwidth, cases: Sequence[Case], repeats: int) -> list[float]:
    """The best seconds per launch of each case; they take turns with each other and with the reading kernel."""
    program = bench.device.program(kernel for case in cases for kernel in case.kernels)
    lists = []
    for case in cases:
        count = min(max(WEIGHT_BYTES // case.cost.nbytes, 1), MAX_LAUNCHES)
        launches = _host.LaunchList()
        for i in range(count):
            case.launch(program, launches, bench.weights.at(WEIGHT_BYTES // count // 64 * 64 * i), i)
        lists.append((launches, count))
        bench.seconds(launches)
    best = [float("inf")] * len(cases)
    for _ in range(repeats):
        for number, (launches, count) in enumerate(lists):
            best[number] = min(best[number], bench.seconds(launches) / count)
        read.measure()
    return best


def _result(
    operator: str, shape: str, rows: int, case: Case, seconds: float, one_row_seconds: float, read_gbs: float
) -> OperatorResult:
    gbs = case.cost.nbytes / seconds / 1e9
    return OperatorResult(
        operator, shape, rows, seconds * 1e6, seconds / one_row_seconds, case.cost.nbytes, gbs, gbs / read_gbs,
        case.cost.operations, case.cost.operations / seconds,
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
