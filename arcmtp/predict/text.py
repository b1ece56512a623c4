"""The report of `arcmtp predict` for people, and as JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from arcmtp.predict.machine import figures
from arcmtp.predict.report import Report, Speed, Table
from arcmtp.predict.times import KernelTime, Range

LEAST_SHARE = 0.01  # of a launch list, that a kernel has a line for
PREDICTED = (
    "Predicted: counted instructions and bytes, and figures of the card of which many are guesses.\n"
    "No card has run it. Ranges are from all figures at their best to all at their worst."
)
KERNELS = ("", "launches", "µs", "range", "share", "bound by", "DRAM", "dpas")


def as_text(report: Report) -> str:
    """The report in tables of Markdown."""
    options = report.options
    accepted = ", ".join(f"{share:g}" for share in options.acceptance)
    asked = [f"--requant {options.requant}"] * bool(options.requant)
    asked += [f"drafts of {options.draft_vocab:,} tokens"] * bool(options.draft_vocab)
    parts = [f"{report.model} on {report.card}{', ' if asked else ''}{', '.join(asked)}", PREDICTED]
    parts += [
        _speeds("decode, without drafts", report.decode, "tokens/s"),
        _speeds("prompt, and its first token", report.prompt, "tokens/s"),
        _speeds("draft calls", report.draft, ""),
        _speeds("steps", report.verify, ""),
        _speeds(f"drafts, accepted in {accepted} of the cycles", report.mtp, "tokens/s"),
    ]
    return "\n\n".join([part for part in parts if part] + [*map(_kernels, report.tables)])


def as_json(report: Report) -> str:
    """The report as one object, with the figures of the card that it is made of."""
    return json.dumps({**_plain(report), "figures": figures()})


def _plain(value: Any) -> Any:
    """Of dataclasses, with the bound of each kernel."""
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if not dataclasses.is_dataclass(value):
        return value
    found = {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    return found | ({"bound": value.bound} if isinstance(value, KernelTime) else {})


def _speeds(title: str, speeds: Sequence[Speed], unit: str) -> str:
    if not speeds:
        return ""
    heads = (title, "KV cache", *([unit, "range"] if unit else []), "ms", "range", "launches")
    rows = [
        [
            speed.what, speed.kv_type, *(_range(speed.per_second, _short) if speed.per_second else []),
            *_range(speed.seconds, _ms), str(speed.launches),
        ]
        for speed in speeds
    ]  # fmt: skip
    return markdown([heads, *rows])


def _kernels(table: Table) -> str:
    """A line for each kernel that takes a hundredth of the time; the others are added up."""
    total = table.time.seconds.expected
    shown = [kernel for kernel in table.time.kernels if kernel.seconds.expected >= LEAST_SHARE * total]
    rows = [list(_kernel(kernel, total)) for kernel in shown]
    whole = ["all", str(table.time.launches), *_range(table.time.seconds, _us), "", "", "", ""]
    return markdown([(table.what, *KERNELS[1:]), *rows, whole])


def _kernel(kernel: KernelTime, total: float) -> Iterator[str]:
    yield f"{kernel.block} {kernel.title}".strip()
    yield str(kernel.launches)
    yield from _range(kernel.seconds, _us)
    yield f"{kernel.seconds.expected / total:.0%}"
    yield kernel.bound
    yield f"{kernel.share('DRAM', 'PCIe'):.0%}"
    yield f"{kernel.share('dpas'):.0%}"


def _range(of: Range, text: Callable[[float], str]) -> list[str]:
    low, high = sorted((of.best, of.worst))
    return [text(of.expected), f"{text(low)} – {text(high)}"]


def _us(seconds: float) -> str:
    return f"{1e6 * seconds:,.0f}"


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:,.0f}" if seconds >= 0.1 else f"{1e3 * seconds:.3g}"


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table, its columns aligned; the first one flush left."""
    widths = [max(3, *map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *rest in rows:
        cells = [first.ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(rest, widths[1:], strict=True))]
        lines.append(f"| {' | '.join(cells)} |")
    rule = "|".join(["", "-" * (widths[0] + 2), *("-" * (w + 1) + ":" for w in widths[1:]), ""])
    return "\n".join([lines[0], rule, *lines[1:]])
