"""A profile: what `arcmtp profile` prints, writes as JSON (schema.json) and draws."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from arcmtp.engine.auto_drafts import Estimate
from arcmtp.profile.descriptions import DeviceDescription, Memory, ModelDescription
from arcmtp.profile.phases import Phase

FORMAT = 3  # of the JSON file; a field that changes its meaning or goes away makes it 4


@dataclass(frozen=True)
class GenerationDescription:
    """What was generated, and how launch lists are submitted when nothing is timed."""

    prompt_tokens: int
    generated_tokens: int
    draft: int
    graphs: bool


@dataclass(frozen=True)
class Speed:
    """Tokens per second of decoding, so that what timing costs can be seen."""

    nothing_timed: float  # mean of the middle half (`phases.middle`) of the rounds
    launch_lists_timed: float  # the same
    launches_timed: float  # eager, every other cycle launch by launch


@dataclass(frozen=True)
class LaunchListTimes:
    """One launch list three ways: means of the middle half, in µs of the device."""

    name: str
    replayed_us: float
    eager_us: float
    launches_us: float  # sum of its launches timed one by one, without the marks' time


@dataclass(frozen=True)
class GraphReport:
    """How graphs were reused when the launch lists of decoding were replayed; times are the host's."""

    captures: int
    replays: int
    reuse_rate: float  # share of the replays of a graph that was there already
    nodes: dict[str, int]
    capture_ms: float
    finalise_ms: float
    host_us_per_replay: float
    launch_lists: list[LaunchListTimes]


@dataclass(frozen=True)
class CycleTimes:
    """One cycle as it is generated; µs."""

    draft_us: list[float]  # each call, on the device, those whose work was skipped too
    verify_us: float  # on the device
    wall_us: float
    drafted: int  # tokens
    accepted: int
    tokens: int


@dataclass(frozen=True)
class Drafting:
    """What drafting takes and gives. Shares are of the time of all cycles."""

    call_mean_us: float
    call_p50_us: float
    call_p95_us: float
    acceptance: float  # share of the drafts
    acceptance_by_position: list[float]  # share of the cycles that accepted the first draft, the second, …
    mean_accepted_length: float  # tokens a cycle
    drafting_share: float
    verifying_share: float
    host_share: float  # the rest
    cycles: list[CycleTimes]


@dataclass(frozen=True)
class DraftLengths:
    """How `auto` chose in generations of this prompt."""

    tokens_per_second: float  # mean of the middle half of the generations after the first
    acceptance: list[float]  # share of the 1st, the 2nd, … drafts that were accepted behind accepted ones
    estimates: list[Estimate]
    chosen: list[int]  # drafts of each cycle of the last generation


@dataclass(frozen=True)
class Report:
    """Everything that a profile found."""

    format: int
    arcmtp: str
    model: ModelDescription
    device: DeviceDescription
    run: GenerationDescription
    speed: Speed
    mark_us: float  # what a time mark takes on the device
    phases: dict[str, Phase]  # "prompt", "decode"; with drafts "draft" and "verify"
    graphs: GraphReport
    drafting: Drafting | None
    draft_lengths: DraftLengths | None  # of a profile with draft "auto"
    memory: Memory


def as_json(report: Report) -> str:
    """The report as schema.json describes it."""
    return json.dumps(asdict(report), indent=1)
