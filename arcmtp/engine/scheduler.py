"""Whose turn it is: streams that read their prompts and streams that decode share the device."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from arcmtp.engine.batch import Batch, most_runs
from arcmtp.engine.sequence import TokenSequence
from arcmtp.engine.slot import Slot
from arcmtp.model.network import Network
from arcmtp.ops.launch import BLOCK_ROWS

if TYPE_CHECKING:
    from arcmtp.engine.stream import Stream

BLOCK_ROWS_BESIDE = 128  # tokens of a prompt between two cycles of streams that decode


@dataclass(eq=False)
class _Run:
    """A stream on the device."""

    stream: Stream
    sequence: TokenSequence
    boundary: int  # where the checkpoint of its prompt should be
    resumed: bool = False

    def waits_for(self, other: _Run) -> bool:
        """Whether the other prompt, which is being read, comes to a checkpoint that this one can go on from."""
        prompt, shared = self.stream.prompt_ids, other.boundary
        return (
            other.resumed
            and not self.resumed
            and max(self.sequence.slot.reusable(prompt), len(other.sequence.slot.ids)) < shared < len(prompt)
            and other.stream.prompt_ids[:shared] == prompt[:shared]
        )


class Scheduler:
    """Advances streams in turns: a cycle of every stream that decodes, then a block of one prompt.

    Prompts take turns too, so that a short one does not wait for a long one. A stream keeps its slot until it ends;
    what that has seen stays there for a prompt that goes on from it, and what its checkpoint has seen can be copied to
    other slots, so that prompts with the same beginning evaluate it once.
    boundary: where the checkpoint of a prompt should be.
    """

    def __init__(self, network: Network, boundary: Callable[[Sequence[int]], int]) -> None:
        self.batch = Batch(network)
        self._boundary = boundary
        self._slots = [Slot(network, index) for index in range(network.slots)]
        self._free = list(self._slots)  # the longest unused first
        self._running: dict[Stream, _Run] = {}  # the first started first
        self._reading: deque[_Run] = deque()  # the next to read first
        self._decoding: list[_Run] = []

    @property
    def free(self) -> int:
        """How many streams can start without another one ending."""
        return len(self._free)

    def start(self, stream: Stream) -> None:
        """Give a stream the free slot that has seen the most of its prompt; where none is free, the stream that started
        first ends."""
        if not self._free:
            self.end(next(iter(self._running)))
        slot = max(self._free, key=lambda slot: slot.reusable(stream.prompt_ids))
        sequence = TokenSequence(self.batch, slot, stream.sampler, stream.draft, stream.top, stream.log)
        self._free.remove(slot)
        run = self._running[stream] = _Run(stream, sequence, self._boundary(stream.prompt_ids))
        self._reading.append(run)

    def end(self, stream: Stream) -> None:
        """Advance a stream no further; harmless if that was done."""
        run = self._running.pop(stream, None)
        if run is None:
            return
        (self._reading if run in self._reading else self._decoding).remove(run)
        run.sequence.end()
        self._free.append(run.sequence.slot)
        stream.ended = True

    def end_all(self) -> None:
        """End every stream."""
        for stream in list(self._running):
            self.end(stream)

    def take_slot(self) -> Slot:
        """A slot for a sequence outside of all streams, which end."""
        self.end_all()
        return self._free[0]

    def advance(self) -> None:
        """One turn of all streams that have started. Should it be interrupted or fail, they have all ended."""
        try:
            self._advance()
        except BaseException:
            self.batch.abandon()
            for run in self._running.values():
                run.sequence.slot.lose()
            self.end_all()
            raise

    def _advance(self) -> None:
        began, reading, decoding = time.perf_counter(), list(self._reading), list(self._decoding)
        for draft in sorted({run.sequence.draft for run in decoding}):
            alike, most = [run for run in decoding if run.sequence.draft == draft], most_runs(draft)
            for first in range(0, len(alike), most):
                self._cycle(alike[first : first + most])
        if reading:
            run = next(run for run in reading if not any(map(run.waits_for, reading)))
            self._read(run, BLOCK_ROWS_BESIDE if self._decoding else BLOCK_ROWS)
        seconds = time.perf_counter() - began
        for run in reading:
            run.stream.prompt_seconds += seconds
        for run in decoding:
            run.stream.decode_seconds += seconds

    def _cycle(self, runs: list[_Run]) -> None:
        streams = {run.sequence: run.stream for run in runs}
        for sequence, cycle in self.batch.cycle(list(streams)):
            streams[sequence].push(cycle, sequence.bytes_to_host)
        for stream in streams.values():
            if stream.finished:
                self.end(stream)

    def _read(self, run: _Run, rows: int) -> None:
        """A block of a prompt, and the first token if it was the last."""
        self._resume(run)
        complete = run.sequence.read(rows)
        self._reading.remove(run)
        (self._decoding if complete else self._reading).append(run)
        if complete:
            run.stream.push(run.sequence.begin(run.stream.max_tokens, run.stream.stop_ids))
            if run.stream.finished:
                self.end(run.stream)

    def _resume(self, run: _Run) -> None:
        """Go to where the slot, or a copy of another slot's checkpoint, has seen the most of the prompt."""
        if run.resumed:
            return
        prompt, slot = run.stream.prompt_ids, run.sequence.slot
        other = max(self._slots, key=lambda other: other.shareable(prompt))
        if other.shareable(prompt) > slot.reusable(prompt):
            slot.share(other)
        run.stream.cached_tokens = run.sequence.resume(prompt, run.boundary)
        run.resumed = True
