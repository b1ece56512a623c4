"""Cycles, drafts and the step that verifies them, of several sequences at once."""

import itertools
import time
from collections import abc, deque
from dataclasses import dataclass, field

import numpy as np

from arcmtp.engine.cycle import Cycle
from arcmtp.engine.draft_policy import next_length
from arcmtp.engine.guide import write_masks
from arcmtp.engine.sequence import Sequence
from arcmtp.model.blocks.head import SamplingMode
from arcmtp.model.network import Network
from arcmtp.model.stage import LaunchList
from arcmtp.ops.launch import CARRIED_ROWS, MAX_ROWS
from arcmtp.runtime import _host

MOST_BEHIND = CARRIED_ROWS - MAX_ROWS  # positions that the MTP block may lack: steps under way need rows too


@dataclass
class _Cycle:
    """A cycle that the device has been given."""

    members: list[Sequence]
    drafted: int  # tokens of each member
    usual: bool = False  # whether it takes the time of others like it
    bound: bool = False  # whether kernels were bound for it, or a graph captured
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
        self._compares = False  # whether all cycles are timed on the device
        self._known: dict[tuple[int, int], list[tuple[LaunchList, ...]]] = {}  # by `_lists` for these members
        self._rows = 0  # of each member in the step before; 0: there was none
        self._drafted = False  # in the cycle before
        self._whole: list[int] = []  # positions of each member up to which the MTP block's KV cache is whole
        self._under_way: deque[_Cycle] = deque()
        self._untold: list[tuple[list[Cycle], int, float | None, bool]] = []  # what the policy has still to note
        self._chosen: int | None = None  # the next cycle's draft length, if it was chosen already
        # Whether the device is given a call's logits before the host knows the draft that they go on from. A CPU would
        # work with one thread fewer while the host waits for the draft alone (`_ahead`).
        self.logits_ahead = not network.device.is_cpu

    def advance(self, sequences: abc.Sequence[Sequence]) -> None:
        """A further cycle of sequences that decode, with equal policies, as many as `most_sequences` allows. Those
        whose cycles are under way already give more."""
        if list(sequences) != self._members:
            self.dissolve()
            self.form([sequence for sequence in sequences if sequence.state == "decoding"])
        if not self._members:
            return
        began = time.perf_counter()
        while len(self._under_way) <= self._ahead:
            self._submit()
        if not self._ahead:  # the host would wait for the device now
            self._chosen = self._choose()
        self._collect(began)

    def dissolve(self) -> None:
        """Wait for what is under way, and leave every sequence so that it can go on in another batch, or none."""
        self._drain()
        if self._members:
            self._keep_whole()
            self._tell()
        self._members = []

    def abandon(self) -> None:
        """Forget what is under way, of which nothing is known any more, once the device has done with it."""
        self._under_way.clear()
        self._untold.clear()
        self._members = []

    def leave(self, sequence: Sequence) -> None:
        """Advance `sequence` no further."""
        if sequence in self._members:
            self.dissolve()

    @property
    def _ahead(self) -> int:
        # The CPU driver runs a graph's kernels on the waiting thread too, but only if that waits for the whole queue:
        # 48 tokens/s on two cores, and 27 when it waits for the graph's event.
        # The masks of a cycle depend on the tokens of the one before.
        waits = self._mode.masked or any(member.top for member in self._members)
        return 0 if self.network.device.is_cpu or waits else 1

    def form(self, members: list[Sequence]) -> None:
        """Write what a cycle finds of the one before it, as if each sequence had only just begun."""
        self._members, self._rows, self._known, self._drafted, self._chosen = members, 0, {}, False, None
        if not members:
            return
        modes = [member.sampler.mode(member.top) for member in members]
        self._mode = SamplingMode(*(any(of_members) for of_members in zip(*modes, strict=True)))
        self._if_likely = any(member.draft_p_min > 0 for member in members)
        # The host waits for each cycle of a CPU and so knows its time; a GPU works while the host does other things.
        self._compares = not self.network.device.is_cpu and len(members[0].policy.lengths) > 1
        network, w = self.network, self.network.controls
        self._whole = [len(member.slot.ids) for member in members]
        first, last = np.array(self._whole, np.int32), np.array([member.last for member in members], np.int32)
        w.slots.write(np.array([member.slot.index for member in members], np.int32))
        w.ids.write(last)
        w.positions.write(first + np.arange(MAX_ROWS, dtype=np.int32)[:, None])
        if network.mtp is not None:
            w.drafted.write(np.full(len(members), MAX_ROWS, np.int32))
            w.sampled.write(last)
            w.accepted.fill(0)
            for index, member in enumerate(members):
                network.mtp.bring_carried(index, member.slot.index, len(member.slot.ids) - 1)

    def _submit(self) -> None:
        stage, members = self.network.stage, self._members
        drafted, self._chosen = self._choose() if self._chosen is None else self._chosen, None
        cycle, made = _Cycle(members, drafted), (len(stage.lists), stage.graphs.statistics.captures)
        if (drafted > 0) is not self._drafted or self._behind >= MOST_BEHIND:
            self._drain()
            self._keep_whole()
        *drafts, step = self._lists(self._rows or drafted + 1, drafted)
        timed = self._compares or (drafted > 0 and any(member.log is not None for member in members))
        if timed:
            cycle.marks.append(stage.timeline.mark())
        for index, draft in enumerate(drafts):
            captures, began = stage.graphs.statistics.captures, time.perf_counter()
            cycle.event = self._submit_call(cycle, index, draft)
            cycle.host_us.append((time.perf_counter() - began) * 1e6)
            cycle.captured.append(stage.graphs.statistics.captures > captures)
            if timed:
                cycle.marks.append(stage.timeline.mark())
        cycle.event = self._submit_call(cycle, drafted, step)
        if timed:
            cycle.marks.append(stage.timeline.mark())
        # The first cycle of another length takes longer on a CPU, whose caches have other kernels.
        cycle.usual = self._rows == drafted + 1
        cycle.bound = made != (len(stage.lists), stage.graphs.statistics.captures)
        self._rows, self._drafted = drafted + 1, drafted > 0
        self._under_way.append(cycle)

    def _choose(self) -> int:
        """The draft length of the next cycle."""
        self._tell()
        return next_length(self._members[0].policy, [member.history for member in self._members])

    def _tell(self) -> None:
        """Let the policy note the cycles that have been read."""
        for told in self._untold:
            self._members[0].policy.note(*told)
        self._untold.clear()

    def _submit_call(self, cycle: _Cycle, index: int, parts: tuple[LaunchList, ...]) -> _host.Event:
        """Submit a draft call, or the step, behind `index` others, with the masks of its last row of each member, which
        are made while the device computes logits."""
        *logits, choice = parts
        if self._mode.masked and index and not self.logits_ahead:
            self.network.device.wait()
        for part in logits:
            self.network.stage.submit(part)
        if self._mode.masked:
            self._make_masks(cycle, index)
        return self.network.stage.submit(choice)

    def _make_masks(self, cycle: _Cycle, row: int) -> None:
        """The masks of row `row` of each member, once the drafts before it are known."""
        controls, guides = self.network.controls, [member.sampler.guide for member in self._members]
        if row:
            if self.logits_ahead:
                cycle.event.wait()
            drafts = controls.told.view()[(row - 1) * len(guides) : row * len(guides)].tolist()
            for guide, draft in zip(guides, drafts, strict=True):
                if guide is not None:
                    guide.draft(draft)
        write_masks(controls, row, guides)

    def _lists(self, before: int, drafted: int) -> list[tuple[LaunchList, ...]]:
        """The draft calls of a cycle after a step of `before` rows of each member, and its step."""
        if (before, drafted) not in self._known:
            lists = self.network.cycle(before, drafted, self._mode, len(self._members), self._if_likely)
            self._known[before, drafted] = lists
        return self._known[before, drafted]

    @property
    def _behind(self) -> int:
        """How many positions the MTP block's KV cache lacks at most, besides the one that a draft call brings."""
        if self.network.mtp is None or self._drafted:
            return 0
        under_way = len(self._under_way)
        return max(len(member.slot.ids) - w for member, w in zip(self._members, self._whole, strict=True)) + under_way

    def _keep_whole(self) -> None:
        """Let the MTP block's KV cache lack nothing, with nothing under way.

        After a cycle with drafts it has keys from drafting for the tokens accepted last, which are written anew. Of
        cycles without drafts it has none: the trunk's hidden rows are there for these.
        """
        network = self.network
        if network.mtp is None:
            return
        if self._drafted:
            network.stage.run(network.keep(self._rows, len(self._members)))
        else:
            for member, whole in zip(self._members, self._whole, strict=True):
                member.slot.catch_up(whole)
        self._whole = [len(member.slot.ids) for member in self._members]

    def _drain(self) -> None:
        while self._under_way:
            self._collect()

    def _collect(self, began: float | None = None) -> None:
        """Wait for the oldest cycle under way and hand it to its sequences; began: when the host began with a cycle
        like this one; None: its time would tell nothing."""
        oldest = self._under_way[0]
        oldest.event.wait() if self._ahead else self.network.device.wait()
        self._under_way.popleft()
        between = [self.network.stage.timeline.microseconds(a, b) for a, b in itertools.pairwise(oldest.marks)]
        cycles = []
        for index, member in enumerate(oldest.members):
            cycle = member.take(index, len(oldest.members))
            if cycle is not None:
                cycles.append(cycle)
                if member.log is not None:
                    member.log.add(member.cycles_taken, between, oldest.host_us, oldest.captured, cycle)
        us = None
        if began is not None and not oldest.bound and len(cycles) == len(oldest.members):
            # A cycle takes what the device needs for it or what the host does, whichever is more.
            us = max((time.perf_counter() - began) * 1e6, sum(us or 0.0 for us in between))
        self._untold.append((cycles, oldest.drafted, us, oldest.usual))
