"""Cycles, drafts and the step that verifies them, of several sequences at once."""

import itertools
import time
from collections import abc, deque
from dataclasses import dataclass, field

import numpy as np

from arcmtp.engine.draft_policy import DraftPolicy, may_draft, next_length
from arcmtp.engine.sequence import Sequence
from arcmtp.model.blocks.head import SamplingMode
from arcmtp.model.network import Network
from arcmtp.model.stage import LaunchList
from arcmtp.ops.launch import MAX_ROWS, STEP_ROWS
from arcmtp.runtime import _host


@dataclass
class _Cycle:
    """A cycle that the device has been given."""

    members: list[Sequence]
    event: _host.Event = field(init=False)  # of its end
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
        self._members: list[Sequence] = []
        self._mode = SamplingMode()
        self._if_likely = False  # whether the chain of a member may end early
        self._known: dict[tuple[int, int], list[LaunchList]] = {}  # what `_lists` has given for these members
        self._rows = 0  # of each member in the step before; 0: there was none
        self._drafted = False  # since the last first draft call
        self._under_way: deque[_Cycle] = deque()

    def advance(self, sequences: abc.Sequence[Sequence]) -> None:
        """A further cycle of sequences that decode, with equal policies, as many as `most_sequences` allows. Those
        whose cycles are under way already give more."""
        if list(sequences) != self._members:
            self.dissolve()
            self.form([sequence for sequence in sequences if sequence.state == "decoding"])
        if not self._members:
            return
        while len(self._under_way) <= self._ahead:
            self._under_way.append(self._submit())
        self._collect()

    def dissolve(self) -> None:
        """Wait for what is under way, and leave every sequence so that it can go on in another batch, or none.

        The tokens accepted last have keys from drafting in the MTP block's cache; a first draft call mends that.
        """
        while self._under_way:
            self._collect()
        if self._drafted:
            self._drafted = False
            self.network.stage.submit(self.network.draft(1, self._rows, self._mode, len(self._members)))
            self.network.device.wait()
        self._members = []

    def abandon(self) -> None:
        """Forget what is under way, of which nothing is known any more, once the device has done with it."""
        self._under_way.clear()
        self._drafted = False
        self._members = []

    def leave(self, sequence: Sequence) -> None:
        """Advance `sequence` no further."""
        if sequence in self._members:
            self.dissolve()

    @property
    def _ahead(self) -> int:
        # The CPU driver runs a graph's kernels on the waiting thread too, but only if that waits for the whole queue:
        # 48 tokens/s on two cores, and 27 when it waits for the graph's event.
        return 0 if self.network.device.is_cpu or any(member.top for member in self._members) else 1

    def form(self, members: list[Sequence]) -> None:
        """Write what a cycle finds of the one before it, as if each sequence had only just begun."""
        self._members, self._rows, self._known = members, 0, {}
        if not members:
            return
        modes = [member.sampler.mode(member.top) for member in members]
        self._mode = SamplingMode(any(mode.by_options for mode in modes), any(mode.top for mode in modes))
        self._if_likely = any(member.draft_p_min > 0 for member in members)
        network, w = self.network, self.network.controls
        first = np.array([len(member.slot.ids) for member in members], np.int32)
        last = np.array([member.last for member in members], np.int32)
        w.slots.write(np.array([member.slot.index for member in members], np.int32))
        w.ids.write(last)
        w.positions.write(first + np.arange(MAX_ROWS, dtype=np.int32)[:, None])
        if may_draft(members[0].policy):
            w.drafted.write(np.full(len(members), MAX_ROWS, np.int32))
            w.sampled.write(last)
            w.accepted.fill(0)
            assert network.mtp is not None
            carried = network.mtp.carried.tensor
            size = carried.nbytes // network.slots
            for index, member in enumerate(members):
                network.step_hidden.copy_from(carried, size, index * size, member.slot.index * size)

    def _submit(self) -> _Cycle:
        stage, members = self.network.stage, self._members
        drafted = next_length(members[0].policy, [member.history for member in members])
        cycle = _Cycle(members)
        timed = drafted > 0 and any(member.log is not None for member in members)
        if timed:
            cycle.marks.append(stage.timeline.mark())
        *drafts, step = self._lists(self._rows or drafted + 1, drafted)
        for draft in drafts:
            captures, began = stage.graphs.statistics.captures, time.perf_counter()
            stage.submit(draft)
            cycle.host_us.append((time.perf_counter() - began) * 1e6)
            cycle.captured.append(stage.graphs.statistics.captures > captures)
            if timed:
                cycle.marks.append(stage.timeline.mark())
        cycle.event = stage.submit(step)
        self._rows, self._drafted = drafted + 1, drafted > 0
        if timed:
            cycle.marks.append(stage.timeline.mark())
        return cycle

    def _lists(self, before: int, drafted: int) -> list[LaunchList]:
        """The draft calls of a cycle after a step of `before` rows of each member, and its step."""
        if (before, drafted) not in self._known:
            network, mode, sequences = self.network, self._mode, len(self._members)
            calls = range(1, drafted + 1)
            drafts = [network.draft(index, before, mode, sequences, self._if_likely) for index in calls]
            self._known[before, drafted] = [*drafts, network.step(drafted + 1, mode, sequences)]
        return self._known[before, drafted]

    def _collect(self) -> None:
        """Wait for the oldest cycle under way and hand it to its sequences."""
        oldest = self._under_way[0]
        oldest.event.wait() if self._ahead else self.network.device.wait()
        self._under_way.popleft()
        marks = oldest.marks
        between = [self.network.stage.timeline.microseconds(a, b) for a, b in itertools.pairwise(marks)]
        for index, member in enumerate(oldest.members):
            cycle = member.take(index, len(oldest.members))
            if cycle is not None and member.log is not None and marks:
                member.log.add(member.cycles_taken, between, oldest.host_us, oldest.captured, cycle)


def most_sequences(policy: DraftPolicy) -> int:
    """How many sequences with this policy a cycle can advance."""
    return STEP_ROWS // (max(policy.lengths) + 1)
