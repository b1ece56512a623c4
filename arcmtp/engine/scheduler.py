"""Whose turn it is: sequences that read their prompts and sequences that decode share the device."""

import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from arcmtp.engine.batch import Batch
from arcmtp.engine.cycle import Cycle
from arcmtp.engine.draft_policy import DraftPolicy, most_sequences
from arcmtp.engine.prefix_cache import SPACING, PrefixCache
from arcmtp.engine.sequence import Sequence, ended
from arcmtp.engine.slot import Slot
from arcmtp.errors import ArcmtpError
from arcmtp.model.network import Network

Doing = Literal["idle", "reading", "decoding"]
CHUNK_ROWS_BESIDE = 128  # tokens of a prompt between two cycles of sequences that decode


@dataclass(frozen=True)
class SlotState:
    """What a slot does, the tokens that it has evaluated, and of the sequence that holds it the prompt's tokens, those
    that need not be evaluated again, and those that cycles gave."""

    doing: Doing
    ids: list[int]
    prompt_tokens: int = 0
    cached_tokens: int = 0
    decoded: int = 0


class Scheduler:
    """Advances sequences in turns: a cycle of every sequence that decodes, then a chunk of one prompt.

    Prompts take turns too, so that a short one does not wait for a long one. A sequence keeps its slot until it ends;
    what that has seen stays there for a prompt that goes on from it, until another prompt gets the slot. Checkpoints of
    all slots are in one cache, so that prompts with the same beginning evaluate it once. Where no slot is free,
    sequences wait for one in the order in which they came.

    All methods but `lend` and `cycles` may be called from any thread. One thread takes a turn, which advances the
    sequences of all; the others wait for its end.
    """

    def __init__(self, network: Network) -> None:
        self._chunk_rows = network.chunk_rows
        self._batch: Batch | None = Batch(network)
        self._cache: PrefixCache | None = PrefixCache(network)
        self._slots = [Slot(network, self._cache, index) for index in range(network.slots)]
        self._free = list(self._slots)  # the longest unused first
        self._waiting: deque[Sequence] = deque()  # for a slot
        self._reading: deque[Sequence] = deque()  # the next to read first
        self._decoding: list[Sequence] = []
        self._lent: Sequence | None = None  # a sequence that `lend` has given a slot
        self._turn_under_way = self._closed = False
        self._asking = 0  # how many threads want that no turn is under way
        self._changed = threading.Condition()  # guards all of the above, which within a turn belong to its thread

    @property
    def batch(self) -> Batch:
        """Runs the cycles; ArcmtpError after `close`."""
        if self._batch is None:
            raise _closed()
        return self._batch

    @property
    def cache(self) -> PrefixCache:
        """The checkpoints of all slots; ArcmtpError after `close`."""
        if self._cache is None:
            raise _closed()
        return self._cache

    @property
    def free(self) -> int:
        """How many sequences can start without waiting for a slot."""
        return len(self._free)

    def slot_state(self, index: int) -> SlotState:
        """What slot `index` does now. Raises ArcmtpError after `close`."""
        with self._changed:
            self._refuse_if_closed()
            slot = self._slots[index]
            held = next((one for one in (*self._reading, *self._decoding) if one.holds(slot)), None)
            ids = list(slot.ids)
        if held is None:
            return SlotState("idle", ids)
        doing: Doing = "decoding" if held.state == "decoding" else "reading"
        return SlotState(doing, ids, len(held.prompt), held.cached_tokens or 0, held.decoded)

    def start(self, sequence: Sequence) -> None:
        """Advance a sequence from now on, as soon as a slot is free; it is given the free slot that has seen the most
        of its prompt. A sequence that was lent a slot ends. Raises ArcmtpError after `close`."""
        with self._changed:
            self._refuse_if_closed()
            self._waiting.append(sequence)
            if not self._turn_under_way:
                self._settle()

    def end(self, sequence: Sequence) -> None:
        """Advance a sequence no further; if a turn is under way, from its end on. Harmless if that was done."""
        sequence.cancelled = True
        with self._changed:
            if not self._turn_under_way:
                self._settle()

    def close(self) -> None:
        """End every sequence and let go of the network, once a turn under way has ended; harmless if that was done."""
        with self.between_turns():
            if not self._closed:
                self._closed = True
                self._end_all()
                self._batch, self._cache, self._slots, self._free = None, None, [], []

    def lend(self, sequence: Sequence) -> None:
        """Give a slot that has seen nothing to a sequence that only `cycles` advances. All others end, and nothing is
        known of them any more."""
        with self.between_turns():
            self._refuse_if_closed()
            self._end_all()
            self.cache.clear()
            for slot in self._slots:
                slot.lose()
            sequence.enter(self._free[0])
            sequence.slot.forget()
            self._lent = sequence

    def cycles(self, sequence: Sequence) -> Iterator[Cycle]:
        """Advance a sequence that was lent a slot until it is done. Raises ArcmtpError if it has ended before."""
        try:
            while sequence.unread or sequence.state == "decoding":
                if not sequence.unread:
                    self.batch.advance([sequence])
                yield sequence.unread.popleft()
            if sequence.state == "ended":
                raise ended()
        finally:
            if sequence is self._lent:
                self.batch.leave(sequence)

    def advance(self) -> None:
        """One turn of all sequences that have started; if another thread takes one, wait for that instead. Should it be
        interrupted or fail, all that have a slot end. Raises ArcmtpError after `close`."""
        with self._changed:
            if self._turn_under_way or self._asking:
                self._changed.wait()
                return
            self._refuse_if_closed()
            self._settle()
            self._turn_under_way = True
        try:
            self._turn()
        finally:
            with self._changed:
                self._turn_under_way = False
                self._changed.notify_all()
                self._settle()

    @contextmanager
    def between_turns(self) -> Iterator[None]:
        """Let no turn be under way: wait for its end, and let none begin."""
        with self._changed:
            self._asking += 1
            try:
                while self._turn_under_way:
                    self._changed.wait()
                yield
            finally:
                self._asking -= 1
                self._changed.notify_all()

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise _closed()

    def _settle(self) -> None:
        """Between turns: end what was cancelled, and let in what waits."""
        for sequence in [*self._waiting, *self._reading, *self._decoding]:
            if sequence.cancelled:
                self._leave(sequence)
        if self._waiting and self._lent is not None:
            self._leave(self._lent)
        while self._waiting and self._free:
            sequence = self._waiting.popleft()
            prompt, cached = sequence.reusable, self._cached(sequence)
            slot = max(self._free, key=lambda slot: slot.reusable(prompt, cached))
            self._free.remove(slot)
            self._reading.append(sequence)
            sequence.enter(slot)

    def _leave(self, sequence: Sequence) -> None:
        """Advance a sequence no further; its slot is free."""
        if sequence in self._waiting:
            self._waiting.remove(sequence)
        else:
            self.batch.leave(sequence)
            if sequence is self._lent:
                self._lent = None
            else:
                self._reading.remove(sequence) if sequence in self._reading else self._decoding.remove(sequence)
                self._free.append(sequence.slot)
        sequence.leave()

    def _end_all(self) -> None:
        lent = [] if self._lent is None else [self._lent]
        for sequence in [*self._waiting, *self._reading, *self._decoding, *lent]:
            self._leave(sequence)

    def _turn(self) -> None:
        began, reading, decoding = time.perf_counter(), list(self._reading), list(self._decoding)
        try:
            self._cycles(decoding)
            if reading:
                sequence = next(one for one in reading if not self._waits(one))
                self._read(sequence, CHUNK_ROWS_BESIDE if self._decoding else self._chunk_rows)
        except BaseException:
            self.batch.abandon()
            self.cache.clear()
            for sequence in [*self._reading, *self._decoding]:
                sequence.slot.lose()
                self._leave(sequence)
            raise
        seconds = time.perf_counter() - began
        for sequence in reading:
            sequence.prompt_seconds += seconds
        for sequence in decoding:
            sequence.decode_seconds += seconds

    def _cycles(self, decoding: list[Sequence]) -> None:
        """A cycle of each sequence; those with equal policies together."""
        groups: dict[DraftPolicy, list[Sequence]] = {}
        for sequence in decoding:
            groups.setdefault(sequence.policy, []).append(sequence)
        for policy, alike in groups.items():
            for first in range(0, len(alike), most_sequences(policy)):
                self.batch.advance(alike[first : first + most_sequences(policy)])
        for sequence in decoding:
            if sequence.state == "finished":
                self._leave(sequence)

    def _read(self, sequence: Sequence, rows: int) -> None:
        """A prompt chunk, and the first token if it was the last."""
        self._resume(sequence)
        if sequence.unevaluated <= rows or sequence.scored:
            self.batch.dissolve()  # what it has to do at its end must not come between the chunk and the head
        sequence.read(rows)
        self._reading.remove(sequence)
        if sequence.unevaluated:
            self._reading.append(sequence)
            return
        self._decoding.append(sequence)
        sequence.begin()
        if sequence.state == "finished":
            self._leave(sequence)

    def _resume(self, sequence: Sequence) -> None:
        """Before the first chunk of a prompt: go to the deepest checkpoint that it begins with, and note where prompts
        that are still to be read part from it."""
        if sequence.cached_tokens is not None:
            return
        sequence.resume()
        for other in [*self._reading, *self._waiting]:
            if other.cached_tokens is None:
                sequence.comes_to(other.reusable)

    def _waits(self, sequence: Sequence) -> bool:
        """Whether a prompt that is being read comes to a checkpoint from which this one can go on, and no other prompt
        from so far."""
        if sequence.cached_tokens is not None:
            return False
        prompt = sequence.reusable
        known = max(self._cached(sequence), sequence.slot.reusable(prompt, 0))
        under_way = [other for other in self._reading if other.cached_tokens is not None]
        return any(other.comes_to(prompt) >= known + SPACING for other in under_way)

    def _cached(self, sequence: Sequence) -> int:
        """How many tokens of a prompt a checkpoint has seen, but for its last one."""
        found = self.cache.find(sequence.reusable[:-1])
        return found.tokens if found else 0


def _closed() -> ArcmtpError:
    return ArcmtpError("this LLM is closed")
