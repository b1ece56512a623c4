"""What a launch costs, and a node of a graph: those of a long list of launches that do next to nothing."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import numpy as np

from arcmtp.predict.machine import CASES, machine
from arcmtp.runtime.graphs import GraphCache
from arcmtp.runtime.launch import INT, Cost, Kernel, Launch, parameters, writes
from arcmtp.runtime.tensor import I32
from arcmtp.selftest.findings import Figure, Findings, equal
from arcmtp.selftest.subject import Subject

ADD = Kernel("selftest_add", "", "formats.hpp", parameters(x=writes(I32), add=INT), body="*x = *x + add;")
FEW, MANY = 8, 264
ROUNDS, EMULATED_ROUNDS = 30, 1


def run(subject: Subject) -> Findings:
    """Microseconds by which a list grows for each launch, one by one and as a graph. Every launch adds to a word."""
    device, rounds = subject.device, EMULATED_ROUNDS if subject.emulated else ROUNDS
    value = device.zeros(4)
    bound = {
        count: device.bind(
            Launch(ADD, 1, 1, {"x": value, "add": add}, lambda work: Cost(8)) for add in range(1, count + 1)
        )
        for count in (FEW, MANY)
    }  # fmt: skip
    expected = 0
    for what, enabled in (("launch", False), ("node of a graph", True)):
        graphs, best = GraphCache(device, enabled), dict.fromkeys(bound, float("inf"))
        for _ in range(rounds + 1):  # in the first one graphs are captured
            for count, launches in bound.items():
                submit = partial(graphs.submit, f"{count}", launches)
                best[count] = min(best[count], timed(submit, device.wait))
        expected += (rounds + 1) * sum(count * (count + 1) // 2 for count in bound)
        yield equal(f"{what}: sum", value.read(np.int32, 1), np.array([expected], np.int32))
        each = 1e6 * (best[MANY] - best[FEW]) / (MANY - FEW)
        yield Figure(what, None if subject.emulated else each, "µs", _predicted(subject, enabled))


def timed(submit: Callable[[], object], wait: Callable[[], None]) -> float:
    """Seconds until what is submitted has ended."""
    began = time.perf_counter()
    submit()
    wait()
    return time.perf_counter() - began


def _predicted(subject: Subject, as_graph: bool) -> tuple[float, float, float] | None:
    if not subject.hardware:
        return None
    machines = [machine(subject.hardware, case) for case in CASES]
    best, expected, worst = (m.node_us if as_graph else m.launch_us for m in machines)
    return best, expected, worst
