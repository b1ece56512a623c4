"""One sequence on a network: token ids in, token ids out."""

from collections import deque
from collections.abc import Collection, Iterator, Sequence

import numpy as np

from arcmtp.engine.batch import Batch
from arcmtp.engine.draft_log import DraftLog
from arcmtp.engine.results import Cycle, TopLogprobs
from arcmtp.engine.sampling import GREEDY, Sampler
from arcmtp.engine.slot import Slot
from arcmtp.errors import ArcmtpError
from arcmtp.model.blocks.head import SamplingMode
from arcmtp.ops.accept import RECORD, RECORDS, turn
from arcmtp.ops.launch import BLOCK_ROWS, MAX_ROWS
from arcmtp.ops.top_logprobs import MAX_TOP


class TokenSequence:
    """Runs one sequence. The device keeps its state; of a cycle only its record comes to the host.

    batch: which runs its cycles, alone or with others. slot: where it is kept; it goes on from what that has seen.
    sampler: how tokens are chosen; none: greedily. draft: 0…7 tokens are drafted in each cycle, which changes nothing
    but the speed. top: how many of the likeliest tokens to give with each position. log: where draft calls are timed.
    """

    def __init__(
        self, batch: Batch, slot: Slot, sampler: Sampler | None = None, draft: int = 0, top: int = 0,
        log: DraftLog | None = None,
    ) -> None:  # fmt: skip
        self._network, self._batch = batch.network, batch
        self._sampler = sampler or Sampler(GREEDY, batch.network.config.vocab)
        self.slot, self.draft, self.top, self.log = slot, draft, top, log
        self.last = -1  # chosen and not yet evaluated
        self.unread: deque[Cycle] = deque()
        self.cycles_taken = -1  # the first choice is none
        self.bytes_to_host = 0  # all that decoding moves between host and device, but for commands
        self.ended = self._done = False

    @property
    def by_options(self) -> bool:
        """Whether tokens are chosen otherwise than greedily."""
        return not self._sampler.options.plain

    def end(self) -> None:
        """Take no further step: the slot belongs to another sequence."""
        self._batch.leave(self)
        self.ended = True

    def resume(self, prompt: list[int], boundary: int) -> int:
        """Take a prompt to `read`, of which nothing is evaluated that the slot has seen: how many tokens that are. The
        state before token `boundary` becomes the slot's checkpoint, unless the slot is further on."""
        self._sampler.see(prompt)
        self._prompt, self._boundary = prompt, boundary
        return self.slot.resume(prompt)

    def read(self, rows: int) -> bool:
        """Evaluate up to `rows`, at most BLOCK_ROWS, further tokens of the prompt; whether none is left."""
        end = min(len(self.slot.ids) + rows, len(self._prompt))
        if end == len(self._prompt):
            self._batch.dissolve()  # what a batch has to do at its end must not come between the block and `begin`
        while (seen := len(self.slot.ids)) < end:
            self._evaluate(self._prompt[seen : min(self._boundary, end) if seen < self._boundary else end])
            if len(self.slot.ids) == self._boundary:
                self.slot.save()
        return end == len(self._prompt)

    def begin(self, limit: int, stop_ids: Collection[int] = ()) -> Cycle:
        """Choose the first token of a generation of at most `limit` tokens, which any of `stop_ids` ends: that after
        the last token of the block that was evaluated last, which is all that the device has done since."""
        network, w, slot = self._network, self._network.controls, self.slot.index
        self._sampler.write(w, slot)
        w.turns.write(turn(limit, stop_ids), slot * turn(0, ()).nbytes)
        w.top_counts.write(_int32([self.top]), 4 * slot)
        self.last, self.cycles_taken, self._done = -1, -1, False
        w.positions.write(_int32([len(self.slot.ids) - 1]))
        w.source_rows.write(_int32([self._last_row]))
        network.stage.submit(network.first(SamplingMode(self.by_options, self.top > 0)))
        network.device.wait()
        w.source_rows.write(_int32([0]))
        self.take(0, 1)
        return self.unread.popleft()

    def prefill(self, ids: Sequence[int], limit: int, stop_ids: Collection[int] = ()) -> Cycle:
        """`extend`, then `begin`."""
        self.extend(ids)
        return self.begin(limit, stop_ids)

    def extend(self, ids: Sequence[int]) -> None:
        """Evaluate further tokens of a prompt and choose nothing."""
        self._batch.dissolve()
        self._sampler.see(ids)
        for start in range(0, len(ids), BLOCK_ROWS):
            self._evaluate(ids[start : start + BLOCK_ROWS])

    def cycles(self) -> Iterator[Cycle]:
        """Go on alone until the generation is done. ArcmtpError after `end`."""
        try:
            while not self._done or self.unread:
                if self.ended:
                    raise ArcmtpError("this generation has ended: its LLM was closed or began another one")
                yield from (cycle for _, cycle in self._batch.cycle([self]))
        finally:
            self._batch.leave(self)

    def take(self, run: int, runs: int) -> Cycle | None:
        """Read what run `run` of `runs` of a step gave this sequence, into `unread`; None after its end."""
        if self._done:
            return None
        self.cycles_taken += 1
        records = self._network.controls.records.view().view(RECORD)
        record = records[self.slot.index * RECORDS + self.cycles_taken % RECORDS]
        count, self._done = int(record["count"]), bool(record["done"])
        if not count:
            raise ArcmtpError(f"{self._network.device.sycl_device.name} accepts kernels and does not run them")
        self.bytes_to_host += RECORD.itemsize
        tokens = record["tokens"][:count].tolist()
        if self.last >= 0:
            self.slot.ids += [self.last, *tokens[:-1]]
        self.last = tokens[-1]
        top = [self._top_of(row * runs + run) for row in range(count)] if self.top else None
        cycle = Cycle(tokens, record["logprobs"][:count].tolist(), top, int(record["accepted"]), self._done)
        self.unread.append(cycle)
        return cycle

    def score(self, ids: Sequence[int], first: int) -> np.ndarray:
        """Log-probabilities, float64 [len(ids) - first], of ids[first:] given all tokens before each of them."""
        scores = []
        for start in range(0, len(ids) - 1, BLOCK_ROWS):
            block = ids[start : min(start + BLOCK_ROWS, len(ids) - 1)]
            self._evaluate(block)
            wanted = range(max(first - 1 - start, 0), len(block))
            for group in (wanted[i : i + MAX_ROWS] for i in range(0, len(wanted), MAX_ROWS)):
                scores.append(self._score_rows(group, [ids[start + row + 1] for row in group]))
        self._network.controls.source_rows.write(np.arange(MAX_ROWS, dtype=np.int32))
        return np.concatenate(scores)

    def _top_of(self, row: int) -> TopLogprobs:
        first = row * (MAX_TOP + 1) + 1
        ids = self._network.controls.top_ids.view()[first : first + self.top].tolist()
        logprobs = self._network.controls.top_logprobs.view()[first : first + self.top].tolist()
        self.bytes_to_host += 8 * self.top
        return [(token, logprob) for token, logprob in zip(ids, logprobs, strict=True) if token >= 0]

    def _evaluate(self, block: Sequence[int]) -> None:
        self.slot.evaluate(block)
        self._last_row = len(block) - 1

    def _score_rows(self, rows: Sequence[int], targets: Sequence[int]) -> np.ndarray:
        w, padding = self._network.controls, MAX_ROWS - len(rows)
        w.source_rows.write(_int32([*rows, *[rows[-1]] * padding]))
        w.targets.write(_int32([*targets, *[-1] * padding]))
        self._network.stage.run(self._network.logits(MAX_ROWS))
        return w.stats.read(MAX_ROWS * 3).reshape(-1, 3)[: len(rows), 2].astype(np.float64)


def _int32(values: Sequence[int]) -> np.ndarray:
    return np.asarray(values, np.int32)
