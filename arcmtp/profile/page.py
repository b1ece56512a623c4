"""A profile as one HTML file with charts, which needs nothing from a network."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from jinja2 import Environment

from arcmtp.model.network import Network
from arcmtp.profile.charts import Bar, Point, Span, bars, histogram, roofline, timeline
from arcmtp.profile.phases import OperatorTimes, Phase
from arcmtp.profile.recorder import Submission
from arcmtp.profile.recordings import Recordings, TimedCycle
from arcmtp.profile.report import Drafting, Report
from arcmtp.profile.tables import TITLES, head, sections

KINDS = {"gdn": "k0", "attention": "k1", "mtp": "k2", "": "k3"}
LEGEND = [("GDN layers", "k0"), ("attention layers", "k1"), ("MTP block", "k2"), ("elsewhere", "k3")]
TEMPLATE = "page.html"


@dataclass(frozen=True)
class Chart:
    """A chart and what stands above it."""

    title: str
    text: str
    svg: str


def as_html(report: Report, recordings: Recordings, network: Network) -> str:
    """The whole page."""
    template = Path(__file__).with_name(TEMPLATE).read_text(encoding="utf-8")
    page = Environment(autoescape=True, trim_blocks=True).from_string(template)
    return page.render(
        title=f"{report.model.file} on {report.device.name}",
        head=head(report)[1:],
        legend=LEGEND,
        charts=list(_charts(report, recordings, network)),
        tables=list(sections(report)),
    )


def _charts(report: Report, recordings: Recordings, network: Network) -> Iterator[Chart]:
    for name, phase in report.phases.items():
        text = f"µs of {phase.eager_us:.0f}, on average, without graphs; the last row is what no launch explains"
        yield Chart(f"{TITLES[name]}: time by operator", text, _by_operator(phase))
    yield Chart("A cycle as it is generated", "The one of median length; µs", _cycle(recordings))
    yield Chart("A step, launch by launch", "The one of median length, without graphs; µs", _step(recordings, network))
    if report.drafting:
        yield from _drafting_charts(report.drafting)
    phases = {name: phase for name, phase in report.phases.items() if name != "draft"}
    for name, phase in phases.items():
        text = "Dashed: what the measured read bandwidth allows; scratch and caches may lie above it"
        if points := _points(phase):
            svg = roofline("roofline", points, report.device.read_gigabytes_per_second)
            yield Chart(f"{TITLES[name]}: roofline", text, svg)


def _by_operator(phase: Phase) -> str:
    rows = [
        Bar(
            o.title, o.total_us / phase.units, f"{o.total_us / phase.units:.0f} ({o.share:.0%})", KINDS[o.layer_kind],
            _hint(o),
        )
        for o in sorted(phase.operators, key=lambda o: -o.total_us)
    ]  # fmt: skip
    rest = Bar("unexplained", phase.unexplained_us, f"{phase.unexplained_us:.0f} ({phase.unexplained_share:.0%})", "k3")
    return bars("time by operator", [*rows, rest])


def _hint(o: OperatorTimes) -> str:
    if o.gigabytes_per_second is None or o.of_read_bandwidth is None:
        return f"{o.title}: {o.mean_us:.1f} µs a call, less than a time mark"
    return f"{o.title}: {o.gigabytes_per_second:.1f} GB/s, {o.of_read_bandwidth:.0%} of read bandwidth"


def _cycle(recordings: Recordings) -> str:
    cycle = _median(recordings.recorded[-1].cycles)
    spans = [Span("host", "submit", *one.host, "k3") for one in cycle.submissions]
    spans.append(Span("host", "wait", max(one.host[1] for one in cycle.submissions), cycle.host[1], "k3"))
    drafts = cycle.submissions[:-1]
    names = [*(draft.name.partition(" after")[0] for draft in drafts), "verify" if drafts else "step"]
    kinds = [*("k2" for _ in drafts), "k0"]
    for submission, name, kind in zip(cycle.submissions, names, kinds, strict=True):
        spans.append(Span("queue", name, submission.device[0], submission.device[-1], kind))
    return timeline("timeline of a cycle", spans, "µs")


def _step(recordings: Recordings, network: Network) -> str:
    recording = recordings.drafted or recordings.plain
    step = _median([cycle for cycle in recording.cycles if cycle.split]).submissions[-1]
    return timeline("timeline of a step", list(_launch_spans(step, network)), "µs")


def _launch_spans(step: Submission, network: Network) -> Iterator[Span]:
    """The launches of each layer kind on a track of its own."""
    for launch, times in zip(network.stage.lists[step.name], pairwise(step.device), strict=True):
        yield Span(launch.block or "other", launch.title, *times, KINDS[launch.block])


def _drafting_charts(d: Drafting) -> Iterator[Chart]:
    positions = [
        Bar(f"draft {place}", share, f"{share:.0%}", "k2") for place, share in enumerate(d.acceptance_by_position, 1)
    ]
    text = "Share of the cycles that accepted the draft"
    yield Chart("Acceptance by position", text, bars("acceptance", positions, full=1.0))
    calls = [us for cycle in d.cycles for us in cycle.draft_us]
    text = f"How often a call took so long; {len(calls)} calls"
    yield Chart("Draft calls", text, histogram("draft calls", calls, "µs"))
    shares = {"drafting": d.drafting_share, "verifying": d.verifying_share, "host and gaps": d.host_share}
    kinds = {"drafting": "k2", "verifying": "k0", "host and gaps": "k3"}
    rows = [Bar(name, max(share, 0.0), f"{share:.0%}", kinds[name]) for name, share in shares.items()]
    yield Chart("Where a cycle's time goes", "Shares of all cycles", bars("shares", rows, full=1.0))


def _points(phase: Phase) -> list[Point]:
    """On the roofline, of operators that take long enough to tell."""
    return [
        Point(f"{o.title} {o.layer_kind}", o.operations / o.bytes, o.operations_per_second, KINDS[o.layer_kind])
        for o in phase.operators
        if o.operations_per_second
    ]


def _median(cycles: list[TimedCycle]) -> TimedCycle:
    """The cycle whose step took the median of their times."""
    ordered = sorted(cycles, key=lambda cycle: cycle.submissions[-1].microseconds)
    return ordered[len(ordered) // 2]
