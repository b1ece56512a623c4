"""The report of `arcmtp bench mtp` as text."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from statistics import median
from typing import Any

from arcmtp.bench.compare import Model
from arcmtp.bench.mtp import Report, Request
from arcmtp.engine.loading import Draft


def aggregate(passes: Sequence[Sequence[Request]]) -> dict[str, Any]:
    """Sums over the requests of one pass; passes differ in time alone, of which this is the median."""
    requests = passes[0]
    drafted, accepted = sum(r.drafted for r in requests), sum(r.accepted for r in requests)
    return {
        "n_requests": len(requests),
        "total_predicted": sum(len(r.ids) for r in requests),
        "total_draft": drafted,
        "total_draft_accepted": accepted,
        "aggregate_accept_rate": round(accepted / drafted, 4) if drafted else None,
        "wall_s_total": round(median(sum(r.seconds for r in one) for one in passes), 3),
    }


def speeds(passes: Sequence[Sequence[Request]]) -> list[float]:
    """Decoded tokens per second of each pass, over all its requests."""
    return [sum(r.decoded for r in one) / (sum(r.decode_seconds for r in one) or 1) for one in passes]


def as_markdown(report: Report) -> str:
    """A table of classes and an aggregate per draft length, then speed by draft length and the cost of steps."""
    parts = [part for k, passes in report.passes.items() for part in _of_one_length(k, passes)]
    parts += ["\n".join(_speed_table(report)), _verdict(report), "\n".join(_step_table(report))]
    return "\n\n".join(parts)


def as_json(report: Report, model: Model) -> str:
    """The same numbers as one object, and which model they are of."""
    lengths = [
        {
            "draft": k,
            "requests": [_row(of_class) for of_class in zip(*passes, strict=True)],
            "aggregate": aggregate(passes),
            "tokens_per_second": [round(speed, 2) for speed in speeds(passes)],
        }
        for k, passes in report.passes.items()
    ]
    steps = [asdict(step) for step in report.steps]
    content = {"lengths": lengths, "differences": report.differences(), "steps": steps}
    return json.dumps({**model._asdict(), **content}, indent=1)


def _row(requests: Sequence[Request]) -> dict[str, Any]:
    """One class; its requests differ in time alone."""
    first = requests[0]
    return {
        "class": first.name,
        "pred": len(first.ids),
        "draft": first.drafted,
        "acc": first.accepted,
        "rate": round(first.accepted / first.drafted, 3) if first.drafted else None,
        "tok/s": round(median(r.tokens_per_second for r in requests), 1),
    }


def _of_one_length(k: Draft, passes: Sequence[Sequence[Request]]) -> Iterator[str]:
    rows = [_row(of_class) for of_class in zip(*passes, strict=True)]
    lines = [f"| k = {k} | pred | draft | acc | rate | tok/s |", "|---|---:|---:|---:|---:|---:|"]
    for row in rows:
        cells = ["–" if value is None else str(value) for value in row.values()]
        lines.append(f"| {' | '.join(cells)} |")
    yield "\n".join(lines)
    yield json.dumps(aggregate(passes))


def _speed_table(report: Report) -> Iterator[str]:
    yield "| k | tokens/s | lowest – highest | × first |"
    yield "|---:|---:|---:|---:|"
    first = median(speeds(next(iter(report.passes.values()))))
    for k, passes in report.passes.items():
        rates = speeds(passes)
        yield (
            f"| {k} | {median(rates):.1f} | {min(rates):.1f} – {max(rates):.1f} | {median(rates) / (first or 1):.2f} |"
        )


def _verdict(report: Report) -> str:
    return "\n".join(report.differences()) or "The tokens are identical at every k."


def _step_table(report: Report) -> Iterator[str]:
    yield "| step of | ms | × one row | × its bytes | time / bytes |"
    yield "|---|---:|---:|---:|---:|"
    for s in report.steps:
        yield (
            f"| {s.rows} row{'s' * (s.rows > 1)} | {s.milliseconds:.2f} | {s.of_one_row:.2f} | {s.of_its_bytes:.2f} | "
            f"{s.of_one_row / s.of_its_bytes:.2f} |"
        )
