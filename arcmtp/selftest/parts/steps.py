"""Time of a step and of draft calls of the bundled model, by launches and by graphs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from arcmtp.model.blocks.head import SamplingMode
from arcmtp.model.stage import LaunchList
from arcmtp.predict.steps import Steps
from arcmtp.predict.times import ListTime
from arcmtp.runtime.graphs import GraphCache
from arcmtp.selftest.findings import Figure, Findings
from arcmtp.selftest.parts.launches import timed
from arcmtp.selftest.subject import Subject

ROUNDS = 20
ROWS = 3  # of the step that verifies two drafts


def run(subject: Subject) -> Findings:
    """Each list again and again at the beginning of an empty sequence, where a step changes nothing; the best time."""
    subject.llm.new_sequence()
    network, mode = subject.llm.network, SamplingMode()
    steps = Steps(network, subject.hardware) if subject.hardware else None
    lists: dict[str, tuple[LaunchList, Callable[[Steps, bool], ListTime]]] = {
        "step of 1 row": (network.step(1, mode), lambda of, as_graph: of.step(1, 0, as_graph)),
        f"step of {ROWS} rows": (network.step(ROWS, mode), lambda of, as_graph: of.step(ROWS, 0, as_graph)),
        "first draft call": (network.draft(1, ROWS, mode), lambda of, as_graph: of.draft(1, ROWS, 0, as_graph)),
        "further draft call": (network.draft(2, ROWS, mode), lambda of, as_graph: of.draft(2, ROWS, 0, as_graph)),
    }
    rounds = 1 if subject.emulated else ROUNDS
    for as_graph in (False, True):
        graphs = GraphCache(subject.device, as_graph)
        for name, (launches, predict) in lists.items():
            submit = partial(graphs.submit, launches.name, launches.bound)
            seconds = min(timed(submit, subject.device.wait) for _ in range(rounds + 1))
            way = "as a graph" if as_graph else f"{len(launches)} launches"
            us = None if subject.emulated else 1e6 * seconds
            yield Figure(f"{name}, {way}", us, "µs", _microseconds(predict(steps, as_graph)) if steps else None)


def _microseconds(time: ListTime) -> tuple[float, float, float]:
    return 1e6 * time.seconds.best, 1e6 * time.seconds.expected, 1e6 * time.seconds.worst
