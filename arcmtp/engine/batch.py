"""Cycles, drafts and the step that verifies them, of several sequences at once."""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from arcmtp.engine.results import Cycle
from arcmtp.model.blocks.head import SamplingMode
from arcmtp.model.network import Network
from arcmtp.model.stage import LaunchList
from arcmtp.ops.launch import STEP_ROWS
from arcmtp.runtime import _host

if TYPE_CHECKING:
    from arcmtp.engine.sequence import TokenSequence


@dataclass
class _UnderWay:
    members: list[TokenSequence]
    event: _host.Event
    marks: list[int] = field(default_factory=list)  # before the first draft call, and after each call and the step
    host_us: list[float] = field(default_factory=list)  # of each draft call
    captured: list[bool] = field(default_factory=list)


class Batch:
    """Runs the cycles of sequences that are all in one network, each in its slot.

    The device keeps what changes from cycle to cycle; the host writes it when another set of sequences is to go on.
    A GPU has the next cycle already while one is read: nothing in it waits for the host.
    """

    def __init__(self, network: Network) -> None:
        self.network = network
        self._members: list[TokenSequence] = []
        self._drafts: list[LaunchList] = []
        self._step: LaunchList
        self._under_way: deque[_UnderWay] = deque()
        self._drafted = False  # since the last first draft call

    def cycle(self, sequences: Sequence[TokenSequence]) -> list[tuple[TokenSequence, Cycle]]:
        """A further cycle of sequences of one draft length, as many as `most_runs` allows; each belongs to this batch
        and has begun. Those that are further on already give theirs later."""
        if list(sequences) != self._members:
            self.dissolve()
        if not any(sequence.unread for sequence in sequences):
            if not self._members:
                self.form(list(sequences))
            while len(self._under_way) <= self._ahead:
                self._under_way.append(self._submit())
            self._collect()
        return [(sequence, sequence.unread.popleft()) for sequence in sequences if sequence.unread]

    def dissolve(self) -> None:
        """Wait for what is under way, and leave every sequence so that it can go on in another batch, or none.

        The tokens accepted last have keys from drafting in the MTP block's cache; a first draft call mends that.
        """
        while self._under_way:
            self._collect()
        if self._drafted:
            self._drafted = False
            self.network.stage.submit(self._drafts[0])
            self.network.device.wait()
        self._members = []

    def abandon(self) -> None:
        """Forget what is under way, of which nothing is known any more, once the device has done with it."""
        self._under_way.clear()
        self._drafted = False
        self._members = []

    def leave(self, sequence: TokenSequence) -> None:
        """Advance `sequence` no further."""
        if sequence in self._members:
            self.dissolve()

    @property
    def _ahead(self) -> int:
        # The CPU driver runs a graph's kernels on the waiting thread too, but only if that waits for the whole queue:
        # 48 tokens/s on two cores, and 27 when it waits for the graph's event.
        return 0 if self.network.device.is_cpu or any(member.top for member in self._members) else 1

    def form(self, members: list[TokenSequence]) -> None:
        """Write what a cycle finds of the one before it, as if each sequence had only just begun."""
        network, w, runs = self.network, self.network.controls, len(members)
        rows = members[0].draft + 1
        choice = SamplingMode(any(member.by_options for member in members), any(member.top > 0 for member in members))
        self._step = network.step(rows, choice, runs)
        self._drafts = [network.draft(index, rows, choice, runs) for index in range(1, rows)]
        first = np.array([[len(member.slot.ids) for member in members]])
        last = np.array([member.last for member in members], np.int32)
        w.slots.write(np.array([member.slot.index for member in members], np.int32))
        w.ids.write(last)
        w.positions.write((first + np.arange(rows)[:, None]).astype(np.int32))
        if self._drafts:
            w.sampled.write(last)
            w.accepted.fill(0)
            assert network.mtp is not None
            carried = network.mtp.carried.tensor
            size = carried.nbytes // network.slots
            for run, member in enumerate(members):
                network.step_hidden.copy_from(carried, size, run * size, member.slot.index * size)
        self._members = members

    def _submit(self) -> _UnderWay:
        network, stage, graphs = self.network, self.network.stage, self.network.stage.graphs
        timed = bool(self._drafts) and any(member.log is not None for member in self._members)
        marks, host_us, captured = [], [], []
        if timed:
            marks.append(network.stage.timeline.mark())
        for piece in self._drafts:
            captures, began = graphs.statistics.captures, time.perf_counter()
            stage.submit(piece)
            host_us.append((time.perf_counter() - began) * 1e6)
            captured.append(graphs.statistics.captures > captures)
            if timed:
                marks.append(network.stage.timeline.mark())
        event = stage.submit(self._step)
        self._drafted = bool(self._drafts)
        if timed:
            marks.append(network.stage.timeline.mark())
        return _UnderWay(self._members, event, marks, host_us, captured)

    def _collect(self) -> None:
        """Wait for the oldest cycle under way and hand it to its sequences."""
        oldest = self._under_way[0]
        oldest.event.wait() if self._ahead else self.network.device.wait()
        self._under_way.popleft()
        marks = oldest.marks
        between = [self.network.stage.timeline.microseconds(a, b) for a, b in itertools.pairwise(marks)]
        for run, member in enumerate(oldest.members):
            cycle = member.take(run, len(oldest.members))
            if cycle is not None and cycle.tokens and member.log is not None and marks:
                member.log.add(
                    member.cycles_taken, between, oldest.host_us, oldest.captured, cycle.accepted, len(cycle.tokens)
                )


def most_runs(draft: int) -> int:
    """How many sequences with so many drafts a cycle can advance."""
    return STEP_ROWS // (draft + 1)
