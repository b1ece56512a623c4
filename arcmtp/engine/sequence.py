"""One sequence on a network: token ids in, token ids out."""

import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from arcmtp.engine.draft_log import DraftLog
from arcmtp.engine.held_state import HeldState
from arcmtp.engine.results import TopLogprobs
from arcmtp.engine.sampling import GREEDY, Sampler
from arcmtp.errors import ArcmtpError
from arcmtp.model.network import Choice, Network, Piece
from arcmtp.ops.accept import RECORD, RECORDS, turn
from arcmtp.ops.launch import BLOCK_ROWS, MAX_ROWS
from arcmtp.ops.top_logprobs import MAX_TOP
from arcmtp.runtime import _host


@dataclass(frozen=True)
class Cycle:
    """What one cycle, drafts and the step that verifies them, adds to a sequence.

    tokens: the accepted drafts and one more, cut where the generation ends. done: it ended with them.
    """

    tokens: list[int]
    logprobs: list[float]  # of the tokens
    top: list[TopLogprobs] | None  # the likeliest tokens in the place of each
    accepted: int  # drafts
    done: bool


@dataclass
class _UnderWay:
    event: _host.Event
    number: int  # of the cycle
    marks: list[int] = field(default_factory=list)  # before the first draft call, and after each call and the step
    host_us: list[float] = field(default_factory=list)  # of each draft call
    captured: list[bool] = field(default_factory=list)


class TokenSequence:
    """Runs one sequence. The device keeps its state; of a cycle only its record comes to the host.

    sampler: how tokens are chosen; none: greedily. draft: 0…7 tokens are drafted in each cycle, which changes nothing
    but the speed. top: how many of the likeliest tokens to give with each position. log: where draft calls are timed.
    held: what the network's state has seen, for a prompt that may go on from there; none: the sequence is a new one.
    progress: called with the count of evaluated tokens after each block of a prompt; what it raises ends that.
    """

    def __init__(
        self, network: Network, sampler: Sampler | None = None, draft: int = 0, top: int = 0,
        log: DraftLog | None = None, held: HeldState | None = None, progress: Callable[[int], None] | None = None,
    ) -> None:  # fmt: skip
        self._network, self._sampler = network, sampler or Sampler(GREEDY, network.config.vocab)
        self._top, self._log = top, log
        choice = Choice(not self._sampler.options.plain, top > 0)
        rows = draft + 1
        self._first, self._step = network.first(choice), network.step(rows, choice)
        self._drafts = [network.draft(index, rows, choice) for index in range(1, rows)]
        self._device, self._buffers = network.device, network.workspace
        self._held, self._progress = held or HeldState(network), progress
        self._last: int | None = None  # chosen and not yet evaluated
        self._submitted = self._read = 0  # cycles, the first choice among them
        self._under_way: deque[_UnderWay] = deque()
        self._drafted = False  # since the last first draft call
        self._ended = False
        self.bytes_to_host = 0  # all that decoding moves between host and device, but for commands
        if held is None:
            self._held.forget()

    def end(self) -> None:
        """Take no further step: the device's state belongs to another sequence."""
        self._finish()
        self._ended = True

    def resume(self, prompt: Sequence[int], boundary: int) -> tuple[list[int], int]:
        """Reuse what the state has seen of a prompt, and evaluate it up to token `boundary`, which becomes the
        checkpoint unless it was evaluated before.

        What of the prompt is left for `prefill`, a token at least, and how many tokens were reused.
        """
        self._sampler.see(prompt)
        reused = self._held.resume(prompt)
        if reused < boundary < len(prompt):
            for _ in self._blocks(prompt[reused:boundary]):
                pass
            self._held.save()
        return list(prompt[len(self._held.ids) :]), reused

    def prefill(self, ids: Sequence[int], limit: int, stop_ids: Collection[int] = ()) -> Cycle:
        """Evaluate the prompt and choose the first token of a generation of at most `limit` tokens, which any of
        `stop_ids` ends."""
        self.extend(ids)
        w = self._buffers
        self._sampler.write(w)
        w.turn.write(turn(limit, stop_ids))
        w.top_count.write(_int32([self._top]))
        self._submitted = self._read = 0
        self._last = None
        w.positions.write(_int32([len(self._held.ids) - 1]))  # of the last evaluated row, from which decoding goes on
        w.source_rows.write(_int32([(len(ids) - 1) % BLOCK_ROWS]))
        self._submit(self._first)
        self._device.wait()
        w.source_rows.write(_int32([0]))
        return self._next_cycle()

    def extend(self, ids: Sequence[int]) -> None:
        """Evaluate further tokens of a prompt and choose nothing."""
        self._sampler.see(ids)
        for _ in self._blocks(ids):
            pass

    def cycles(self) -> Iterator[Cycle]:
        """Go on until the generation is done. ArcmtpError after `end`.

        A GPU has the next cycle already while one is read: nothing in it waits for the host.
        """
        # The CPU driver runs a graph's kernels on the waiting thread too, but only if that waits for the whole queue:
        # 48 tokens/s on two cores, and 27 when it waits for the graph's event.
        ahead = 0 if self._top or self._device.is_cpu else 1
        try:
            while True:
                while len(self._under_way) < ahead + 1:
                    if self._ended:
                        raise ArcmtpError("this generation has ended: its LLM was closed or began another one")
                    self._under_way.append(self._submit_cycle())
                oldest = self._under_way[0]
                oldest.event.wait() if ahead else self._device.wait()
                cycle = self._next_cycle()
                self._under_way.popleft()
                self._record(oldest, cycle)
                if cycle.tokens:
                    yield cycle
                if cycle.done:
                    return
        finally:
            self._finish()

    def _finish(self) -> None:
        """Wait for the cycles under way, since who comes next may free their buffers, and see what they evaluated.

        The tokens accepted last have keys from drafting in the MTP block's cache; a first draft call mends that.
        """
        while self._under_way:
            self._under_way[0].event.wait()
            self._next_cycle()
            self._under_way.popleft()
        if self._drafted:
            self._drafted = False
            self._network.graphs.submit(*self._drafts[0])
            self._device.wait()

    def score(self, ids: Sequence[int], first: int) -> np.ndarray:
        """Log-probabilities, float64 [len(ids) - first], of ids[first:] given all tokens before each of them."""
        scores = []
        for start, rows in self._blocks(ids[:-1]):
            wanted = range(max(first - 1 - start, 0), rows)
            for group in (wanted[i : i + MAX_ROWS] for i in range(0, len(wanted), MAX_ROWS)):
                scores.append(self._score_rows(group, [ids[start + row + 1] for row in group]))
        self._buffers.source_rows.write(np.arange(MAX_ROWS, dtype=np.int32))
        return np.concatenate(scores)

    def _submit(self, piece: Piece) -> _host.Event:
        self._submitted += 1
        return self._network.graphs.submit(*piece)

    def _submit_cycle(self) -> _UnderWay:
        graphs, timed = self._network.graphs, self._log is not None and bool(self._drafts)
        marks, host_us, captured = [], [], []
        if timed:
            marks.append(self._network.timeline.mark())
        for piece in self._drafts:
            captures, began = graphs.statistics.captures, time.perf_counter()
            graphs.submit(*piece)
            host_us.append((time.perf_counter() - began) * 1e6)
            captured.append(graphs.statistics.captures > captures)
            if timed:
                marks.append(self._network.timeline.mark())
        event = self._submit(self._step)
        self._drafted = bool(self._drafts)
        if timed:
            marks.append(self._network.timeline.mark())
        return _UnderWay(event, self._submitted - 1, marks, host_us, captured)

    def _record(self, done: _UnderWay, cycle: Cycle) -> None:
        """Enter the draft calls of a cycle into the log."""
        if self._log is None or not done.marks or not cycle.tokens:
            return
        between = [
            self._network.timeline.microseconds(a, b) for a, b in zip(done.marks, done.marks[1:], strict=False)
        ]
        self._log.add(done.number, between, done.host_us, done.captured, cycle.accepted, len(cycle.tokens))

    def _next_cycle(self) -> Cycle:
        record = self._network.records.view(RECORD)[self._read % RECORDS]
        self._read += 1
        count, done = int(record["count"]), bool(record["done"])
        if not count and not done:
            raise ArcmtpError(f"{self._device.sycl_device.name} accepts kernels and does not run them")
        self.bytes_to_host += RECORD.itemsize
        tokens = record["tokens"][:count].tolist()
        if count and self._last is not None:
            self._held.ids += [self._last, *tokens[:-1]]
        self._last = tokens[-1] if count else self._last
        top = [self._top_of(row) for row in range(count)] if self._top else None
        return Cycle(
            tokens, record["logprobs"][:count].tolist(), top, int(record["accepted"]), done
        )

    def _top_of(self, row: int) -> TopLogprobs:
        first = row * (MAX_TOP + 1) + 1
        ids = self._network.top_ids.view(np.int32)[first : first + self._top].tolist()
        logprobs = self._network.top_logprobs_found.view(np.float32)[first : first + self._top].tolist()
        self.bytes_to_host += 8 * self._top
        return [(token, logprob) for token, logprob in zip(ids, logprobs, strict=True) if token >= 0]

    def _blocks(self, ids: Sequence[int]) -> Iterator[tuple[int, int]]:
        """Evaluate ids in blocks; (index of the first, rows) after each."""
        w = self._buffers
        for start in range(0, len(ids), BLOCK_ROWS):
            block = list(ids[start : start + BLOCK_ROWS])
            seen, self._held.ids = self._held.ids, []  # should this be interrupted, the state is nobody's
            w.ids.write(_int32(block))
            w.positions.write(np.arange(len(seen), len(seen) + len(block), dtype=np.int32))
            w.row_count.write(_int32([len(block)]))
            self._network.graphs.submit("block", self._network.block(), as_graph=False)
            self._device.wait()
            w.pending_count.fill(0)
            self._held.ids = seen + block
            if self._progress:
                self._progress(len(self._held.ids))
            yield start, len(block)

    def _score_rows(self, rows: Sequence[int], targets: Sequence[int]) -> np.ndarray:
        w, padding = self._buffers, MAX_ROWS - len(rows)
        w.source_rows.write(_int32([*rows, *[rows[-1]] * padding]))
        w.targets.write(_int32([*targets, *[-1] * padding]))
        self._device.run(self._network.head(MAX_ROWS))
        return w.stats.read(np.float32, MAX_ROWS * 3).reshape(-1, 3)[: len(rows), 2].astype(np.float64)


def _int32(values: Sequence[int]) -> np.ndarray:
    return np.asarray(values, np.int32)
