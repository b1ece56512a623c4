"""Time of a step and of draft calls of the bundled model, by launches and by graphs."""

from __future__ import annotations

from functools import partial

from arcmtp.model.blocks.head import SamplingMode
from arcmtp.model.stage import LaunchList
from arcmtp.predict.steps import Steps
from arcmtp.predict.times import ListTime
from arcmtp.runtime.graphs import GraphCache
from arcmtp.selftest.findings import Figure, Findings, Note
from arcmtp.selftest.parts.bandwidth import NO_TIME
from arcmtp.selftest.parts.launches import timed
from arcmtp.selftest.subject import Subject

ROUNDS = 20
ROWS = 3  # of the step that verifies two drafts


def run(subject: Subject) -> Findings:
    """Each list again and again at the beginning of an empty sequence, where a step changes nothing; the best time."""
    subject.llm.new_sequence()
    network, mode = subject.llm.network, SamplingMode()
    steps = Steps(network, subject.hardware) if subject.hardware else None
    lists: dict[str, tuple[LaunchList, ListTime | None]] = {
        "step of 1 row": (network.step(1, mode), steps.step(1, 0) if steps else None),
        f"step of {ROWS} rows": (network.step(ROWS, mode), steps.step(ROWS, 0) if steps else None),
        "first draft call": (network.draft(1, ROWS, mode), steps.draft(1, ROWS, 0) if steps else None),
        "further draft call": (network.draft(2, ROWS, mode), steps.draft(2, ROWS, 0) if steps else None),
    }
    rounds = 1 if subject.emulated else ROUNDS
    for enabled in (False, True):
        graphs = GraphCache(subject.device, enabled)
        for name, (launches, predicted) in lists.items():
            submit = partial(graphs.submit, launches.name, launches.bound)
            seconds = min(timed(submit, subject.device.wait) for _ in range(rounds + 1))
            if not subject.emulated:
                way = "as a graph" if enabled else f"{len(launches)} launches"
                yield Figure(f"{name}, {way}", 1e6 * seconds, "µs", _microseconds(predicted) if enabled else None)
    if subject.emulated:
        yield Note(NO_TIME)


def _microseconds(time: ListTime | None) -> tuple[float, float, float] | None:
    if time is None:
        return None
    return 1e6 * time.seconds.best, 1e6 * time.seconds.expected, 1e6 * time.seconds.worst
