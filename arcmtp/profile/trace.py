"""A profile's recordings as a Chrome trace, which ui.perfetto.dev and chrome://tracing open."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby, pairwise
from typing import Any

from arcmtp.model.network import Network
from arcmtp.model.stage import LaunchList
from arcmtp.profile.recorder import Submission
from arcmtp.profile.recordings import Recording, Recordings, TimedCycle
from arcmtp.runtime.launch import Launch

HOST, QUEUE = 1, 2  # threads
GENERATED, BY_LAUNCH = 1, 2  # processes

Event = dict[str, Any]
Lists = Mapping[str, LaunchList]


def as_trace(recordings: Recordings, network: Network) -> str:
    """JSON. One process is the last generation as it is, the other one that was timed launch by launch; each has a
    thread of the host, one of the device's queue, and counters, and begins at 0."""
    lists = network.stage.lists
    events = [
        *_names(GENERATED, "as generated"),
        *_from_zero(_recording(GENERATED, recordings.recorded[-1], lists)),
        *_names(BY_LAUNCH, "eager, every other cycle launch by launch"),
        *_from_zero(_recording(BY_LAUNCH, recordings.drafted or recordings.plain, lists)),
    ]
    return json.dumps({"displayTimeUnit": "ms", "traceEvents": events})


def _from_zero(events: Iterable[Event]) -> list[Event]:
    events = list(events)
    began = min(event["ts"] for event in events)
    return [{**event, "ts": event["ts"] - began} for event in events]


def _names(process: int, name: str) -> Iterator[Event]:
    yield {"ph": "M", "name": "process_name", "pid": process, "args": {"name": name}}
    for thread, thread_name in ((HOST, "host"), (QUEUE, "queue")):
        yield {"ph": "M", "name": "thread_name", "pid": process, "tid": thread, "args": {"name": thread_name}}


def _recording(process: int, recording: Recording, lists: Lists) -> Iterator[Event]:
    submissions = [*recording.prompt, *(submission for cycle in recording.cycles for submission in cycle.submissions)]
    yield from _spans(process, HOST, ((f"submit {submission.name}", *submission.host) for submission in submissions))
    if recording.prompt:
        yield from _spans(process, QUEUE, [("prompt", recording.prompt[0].device[0], recording.prompt[-1].device[-1])])
        yield from _spans(process, QUEUE, ((one.name, one.device[0], one.device[-1]) for one in recording.prompt))
    tokens = 1
    for number, cycle in enumerate(recording.cycles, start=1):
        tokens += len(cycle.tokens)
        yield from _host_cycle(process, number, cycle, submissions)
        yield from _queue_cycle(process, number, cycle, lists)
        yield from _counters(process, cycle.host[1], accepted=cycle.accepted, tokens=tokens)


def _host_cycle(process: int, number: int, cycle: TimedCycle, submissions: Iterable[Submission]) -> Iterator[Event]:
    """The cycle, and in it the wait after whatever was submitted meanwhile: the cycle after it, on a GPU."""
    began, ended = cycle.host
    submitted = max((one.host[1] for one in submissions if began <= one.host[0] <= ended), default=began)
    yield from _spans(process, HOST, [(f"cycle {number}", began, ended), ("wait", min(submitted, ended), ended)])


def _queue_cycle(process: int, number: int, cycle: TimedCycle, lists: Lists) -> Iterator[Event]:
    *drafts, step = cycle.submissions
    yield from _spans(process, QUEUE, [(f"cycle {number}", cycle.submissions[0].device[0], step.device[-1])])
    if drafts:
        yield from _spans(process, QUEUE, [("draft", drafts[0].device[0], drafts[-1].device[-1])])
    for submission in cycle.submissions:
        name = "verify" if submission is step and drafts else submission.name
        yield from _spans(process, QUEUE, [(name, submission.device[0], submission.device[-1])])
        if submission.split:
            yield from _launches(process, list(zip(lists[submission.name], pairwise(submission.device), strict=True)))


def _launches(process: int, launches: list[tuple[Launch, tuple[float, float]]]) -> Iterator[Event]:
    """The launches of one launch list inside spans of their layers."""
    for (layer, kind), group in groupby(launches, key=lambda launch: (launch[0].layer, launch[0].block)):
        members = list(group)
        if layer is not None:
            began, ended = members[0][1][0], members[-1][1][1]
            yield from _spans(process, QUEUE, [(f"layer {layer} ({kind})", began, ended)])
        yield from _spans(process, QUEUE, ((launch.title, *times) for launch, times in members))


def _spans(process: int, thread: int, spans: Iterable[tuple[str, float, float]]) -> Iterator[Event]:
    for name, began, ended in spans:
        yield {"ph": "X", "name": name, "pid": process, "tid": thread, "ts": began, "dur": ended - began}


def _counters(process: int, at: float, **values: int) -> Iterator[Event]:
    for name, value in values.items():
        yield {"ph": "C", "name": name, "pid": process, "ts": at, "args": {name: value}}
