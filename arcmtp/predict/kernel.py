"""How long a launch takes on a card: the largest of what it asks of memory, caches, pipes and threads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from arcmtp.predict.counts import Counts, counts_of
from arcmtp.predict.machine import ENGINES, TEAM_MEMORY, THREADS, Machine
from arcmtp.runtime.launch import Launch, Work
from arcmtp.runtime.tensor import Tensor


@dataclass(frozen=True)
class Load:
    """What a launch asks for. host_bytes: of nbytes those in host memory. asks: bytes for a later launch; asked: of
    nbytes those that earlier launches asked for."""

    nbytes: int
    host_bytes: int
    groups: int
    team: int
    team_memory: int
    registers: int
    counts: Counts
    asks: int = 0
    asked: int = 0


def load_of(launch: Launch, work: Work) -> Load:
    """Of a launch; bytes of memory are those of its cost, each once."""
    counts, registers = counts_of(launch, work)
    nbytes = launch.cost(work).nbytes
    weights, host = launch.arguments.get("weights"), 0
    if isinstance(weights, Tensor) and weights.region.in_host_memory:
        host = nbytes - launch.cost(Work(work.rows, work.context, 0)).nbytes
    kernel = launch.kernel
    return Load(
        nbytes, host, launch.groups, kernel.team, kernel.team_memory, registers, counts, launch.asks, launch.asked
    )


def seconds(load: Load, machine: Machine, between: float = 0) -> Mapping[str, float]:
    """What each part of the card takes for a launch; the launch takes the longest of them.

    between: seconds until the next one. DRAM: of what the launch asks for, a share of that time's bytes comes then.
    L2: in the worst case no load finds its line in L1. Fewer work-groups than Xe cores leave cores idle. Latency: the
    longest thread as if it were alone, or all of them one after the other in each place that the card has for one.
    """
    m, c = machine, load.counts
    mean, longest = (cycles / (load.groups * load.team) for cycles in (c.alone(m.case), c.longest(m.case)))
    waits = max(m.start_cycles + longest, _rounds(load, m) * (m.start_cycles + mean))
    cores = min(m.cores, load.groups)
    core_clock, engine_clock = cores * m.clock, cores * ENGINES * m.clock
    l2 = c.moved_bytes if m.case == "worst" else c.line_bytes
    messages = c.messages + c.team_messages
    asks = max(load.asks - m.asked_between * between * m.memory, 0)
    return {
        "DRAM": (load.nbytes - load.host_bytes - load.asked + asks) / m.memory,
        "PCIe": load.host_bytes / m.pcie,
        "L2": l2 / core_clock / m.l2_bytes,
        "L1": max((c.moved_bytes + c.team_bytes) / m.l1_bytes, messages / m.l1_messages) / core_clock,
        "dpas": max(c.dpas_rows * m.dpas_row_cycles, c.dpas * m.dpas_least_cycles) / engine_clock,
        "float pipe": c.floats / engine_clock,
        "integer pipe": (c.integers + c.math * m.math_cycles) / engine_clock,
        "issue": c.instructions / m.pipes_together / engine_clock,
        "latency": waits / m.clock,
    }


def _rounds(load: Load, m: Machine) -> float:
    """How often the card is filled with threads."""
    threads = load.groups * load.team
    of_core = ENGINES * THREADS[load.registers] // load.team
    if load.team_memory:
        of_core = min(of_core, TEAM_MEMORY // load.team_memory)
    return max(1, threads / (m.cores * max(of_core, 1) * load.team))
