"""A profile as sections of lines and tables, and those as text for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from arcmtp.profile.phases import Phase
from arcmtp.profile.report import Drafting, DraftLengths, GraphReport, Report

TITLES = {"prompt": "Prompt", "decode": "Plain step", "draft": "Drafts of a cycle", "verify": "Verify"}
OUTSIDE = "–"  # of any layer
UNTOLD = "–"  # a rate of launches that take less than a time mark


@dataclass(frozen=True)
class Section:
    """A title, lines, and a table whose first `names` columns are text."""

    title: str
    lines: list[str]
    header: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    names: int = 1


def as_text(report: Report) -> str:
    """The whole report."""
    parts = ["\n".join(head(report))]
    for section in sections(report):
        rows = table(section.header, section.rows, section.names) if section.rows else []
        parts.append("\n".join([section.title.upper(), *section.lines, *rows]))
    return "\n\n".join(parts)


def head(report: Report) -> list[str]:
    """Model, device, what was generated, and how fast."""
    d, r, s = report.device, report.run, report.speed
    versions = ", ".join(f"{name} {version}" for name, version in d.versions.items())
    return [
        f"{report.model.file} on {d.name} ({d.filter_string}, driver {d.driver}, profile {d.profile})",
        f"{versions}; the device reads {d.read_gigabytes_per_second:.1f} GB/s",
        f"prompt of {r.prompt_tokens} tokens, {r.generated_tokens} generated, {r.draft} drafts a cycle, "
        f"{'graphs' if r.graphs else 'no graphs'}",
        f"decoding: {s.nothing_timed:.1f} tokens/s with nothing timed, {s.launch_lists_timed:.1f} with launch lists "
        f"timed, {s.launches_timed:.1f} with every other cycle timed launch by launch; "
        f"a time mark ({d.timed_by}) takes {report.mark_us:.1f} µs",
    ]


def sections(report: Report) -> Iterator[Section]:
    """All that follows the head."""
    for name, phase in report.phases.items():
        yield _phase(name, phase)
    yield _graphs(report.graphs)
    if report.drafting:
        yield _drafting(report.drafting)
    if report.draft_lengths:
        yield _draft_lengths(report.draft_lengths)
    yield _memory(report)


def _phase(name: str, phase: Phase) -> Section:
    scaled = f"; timed so it takes {phase.slowdown:.2f} times as long" if phase.slowdown > 1 else ""
    line = (
        f"{phase.eager_us:.0f} µs on average without graphs, {phase.launches} launches explain {phase.explained:.1%} "
        f"({phase.units} timed launch by launch{scaled})"
    )
    header = (
        "operator", "layers", "calls", "total µs", "mean", "p50", "p95", "share", "MB", "GB/s", "of read", "Gop/s",
    )  # fmt: skip
    rows = [
        (
            o.title, o.layer_kind or OUTSIDE, str(o.calls), f"{o.total_us:.0f}", f"{o.mean_us:.1f}", f"{o.p50_us:.1f}",
            f"{o.p95_us:.1f}", f"{o.share:.1%}", f"{o.bytes / 1e6:.2f}", _rate(o.gigabytes_per_second),
            _rate(o.of_read_bandwidth), _rate(o.operations_per_second, 1e9),
        )
        for o in sorted(phase.operators, key=lambda o: -o.total_us)
    ]  # fmt: skip
    rest = (
        "unexplained", OUTSIDE, str(phase.units), f"{phase.units * phase.unexplained_us:.0f}",
        f"{phase.unexplained_us:.1f}", "", "", f"{phase.unexplained_share:.1%}", "", "", "", "",
    )  # fmt: skip
    return Section(TITLES[name], [line], header, [*rows, rest], names=2)


def _rate(value: float | None, unit: float = 1.0) -> str:
    return UNTOLD if value is None else f"{value / unit:.2f}"


def _graphs(g: GraphReport) -> Section:
    line = (
        f"{g.replays} replays of {len(g.nodes)} graphs, {g.reuse_rate:.1%} reused, {g.captures} captures "
        f"({g.capture_ms:.2f} ms and {g.finalise_ms:.2f} ms to finalise), "
        f"{g.host_us_per_replay:.1f} µs of the host a replay"
    )
    header = ("launch list", "nodes", "replayed µs", "eager µs", "its launches µs", "replayed / launches")
    rows = [
        (
            t.name, str(g.nodes[t.name]), f"{t.replayed_us:.0f}", f"{t.eager_us:.0f}", f"{t.launches_us:.0f}",
            f"{t.replayed_us / t.launches_us:.2f}",
        )
        for t in g.launch_lists
    ]  # fmt: skip
    return Section("Graphs", [line], header, rows)


def _drafting(d: Drafting) -> Section:
    positions = enumerate(d.acceptance_by_position, start=1)
    lines = [
        f"{len(d.cycles)} cycles of {d.mean_accepted_length:.2f} tokens, {d.acceptance:.2f} of the drafts accepted "
        f"({', '.join(f'{place}: {share:.2f}' for place, share in positions)})",
        f"a draft call takes {d.call_mean_us:.0f} µs on the device (p50 {d.call_p50_us:.0f}, p95 {d.call_p95_us:.0f})",
        f"of the time: drafting {d.drafting_share:.1%}, verifying {d.verifying_share:.1%}, "
        f"host and gaps {d.host_share:.1%}",
    ]
    return Section("Drafting", lines)


def _draft_lengths(d: DraftLengths) -> Section:
    shares = ", ".join(f"{place}: {share:.2f}" for place, share in enumerate(d.acceptance, start=1))
    lines = [f"auto gives {d.tokens_per_second:.1f} tokens/s; accepted behind accepted drafts {shares}"]
    header = ("drafts", "µs a cycle", "tokens expected", "× no drafts", "cycles", "of the last generation")
    rows = [
        (
            str(e.length), OUTSIDE if e.us is None else f"{e.us:.0f}", f"{e.tokens:.2f}",
            OUTSIDE if e.gain is None else f"{e.gain:.2f}", str(e.cycles), str(d.chosen.count(e.length)),
        )
        for e in d.estimates
    ]  # fmt: skip
    return Section("Draft length", lines, header, rows)


def _memory(report: Report) -> Section:
    m = report.memory
    sizes = {
        **{f"weights, {name}": nbytes for name, nbytes in m.weights.items()},
        "KV cache": m.kv_cache,
        "recurrent states": m.recurrent_states,
        "checkpoints": m.checkpoints,
        "scratch": m.scratch,
        "experts in host memory": m.experts_in_host_memory,
        "device in all": m.device_total,
        "peak of the process": m.process_peak,
    }
    rows = [(name, f"{nbytes / 2**20:.2f}") for name, nbytes in sizes.items()]
    return Section("Memory", [], ("what", "MiB"), rows)


def table(header: Sequence[str], rows: Sequence[Sequence[str]], names: int = 1) -> list[str]:
    """Lines of aligned columns: the first `names` columns to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if place < names else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (header, *rows)
    ]
