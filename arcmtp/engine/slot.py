"""One of a network's places for a sequence: what its state has seen, and how it comes to see more."""

from collections.abc import Collection, Sequence

import numpy as np

from arcmtp.engine.cycle import TopLogprobs
from arcmtp.engine.prefix_cache import SPACING, Checkpoint, PrefixCache, common
from arcmtp.engine.sampling import Sampler
from arcmtp.engine.scores import Scores, join
from arcmtp.errors import ArcmtpError
from arcmtp.model.blocks.head import SamplingMode
from arcmtp.model.network import Network
from arcmtp.ops.accept import RECORD, RECORDS, turn
from arcmtp.ops.draft_chain import draft_floor
from arcmtp.ops.launch import MAX_ROWS
from arcmtp.ops.sampling import STATS
from arcmtp.ops.top_logprobs import MAX_TOP


class Slot:
    """The evaluated tokens of the sequence in place `index` of a network.

    Keys and values lie by position and may be left behind; recurrent state cannot be taken back, so it can go on only
    where it is, or from a checkpoint of the cache. Either way it is, to the bit, that of a fresh sequence with the same
    tokens.
    """

    def __init__(self, network: Network, cache: PrefixCache, index: int = 0) -> None:
        self.index = index
        self.ids: list[int] = []
        self.checkpoint = 0  # tokens before the deepest checkpoint that has seen the beginning of `ids` alone
        self.cache = cache
        self._network = network
        self._last_row = 0  # of the chunk that was evaluated last
        records = network.controls.records.view().view(RECORD)
        self._records = records[index * RECORDS : (index + 1) * RECORDS]  # host memory, where each step leaves one

    def forget(self) -> None:
        """Begin a new sequence."""
        self.lose()
        self._network.reset(self.index)

    def lose(self) -> None:
        """Nothing is known of the state any more."""
        self.checkpoint, self.ids = 0, []

    def reusable(self, prompt: list[int], cached: int) -> int:
        """How many tokens of `prompt` need be neither evaluated nor copied again, where a checkpoint has seen `cached`
        of them; the last one always is evaluated."""
        seen = common(self.ids, prompt[:-1])
        return seen if seen == len(self.ids) else min(seen, cached)

    def resume(self, prompt: list[int]) -> int:
        """Go to the state after as many tokens of `prompt` as are known, but for the last one; how many there are. What
        the slot has seen otherwise becomes a checkpoint, unless it is within SPACING tokens of one."""
        found = self.cache.find(prompt[:-1])
        cached = found.tokens if found else 0
        seen = common(self.ids, prompt[:-1])
        if seen == len(self.ids) and seen >= cached:
            self.checkpoint = cached
            if not seen:
                self.forget()
            return seen
        if len(self.ids) - self.checkpoint >= SPACING:
            self.save(spared=found)
        if found:
            self.cache.restore(found, self.index, seen)
            self.ids, self.checkpoint = prompt[:cached], cached
        else:
            self.forget()
        return cached

    def save(self, spared: Checkpoint | None = None) -> None:
        """Make the state a checkpoint, if there is room for one; spared: one that must not go for it."""
        if self.ids and self.cache.enabled:
            self._save(self.ids, spared)

    def extend(self, ids: Sequence[int]) -> None:
        """Evaluate further tokens, any number of them."""
        most = self._network.chunk_rows
        for start in range(0, len(ids), most):
            self._evaluate(ids[start : start + most])

    def extend_past(self, ids: Sequence[int], pending: int) -> None:
        """Evaluate further tokens, at most a chunk of them, and make the state before the last `pending` ones, at most
        MAX_ROWS, a checkpoint, if there is room for one."""
        self._evaluate(ids, pending)
        self._save(self.ids[:-pending], None)
        self._network.controls.pending_count.write(_int32([pending]), 4 * self.index)

    def catch_up(self, whole: int) -> None:
        """Bring the evaluated tokens from position `whole` on, at most CARRIED_ROWS, into the MTP block's KV cache."""
        if missing := self.ids[whole:]:
            self._steer_chunk(missing, whole)
            self._network.stage.run(self._network.catch_up())

    def begin_drafts(self, p_min: float) -> None:
        """End chains of drafts of the generation that begins behind a draft less likely than `p_min`."""
        self._network.controls.draft_floors.write(np.array([draft_floor(p_min)], np.float32), 4 * self.index)

    def choose_first(self, sampler: Sampler, limit: int, stop_ids: Collection[int], top: int) -> None:
        """Begin a generation of at most `limit` tokens, which any of `stop_ids` ends, and choose its first token: that
        after the last token of the chunk that was evaluated last, which is all that the device has done since.

        top: how many of the likeliest tokens to find with each position."""
        network, w, words = self._network, self._network.controls, turn(limit, stop_ids)
        sampler.write(w, self.index)
        w.turns.write(words, self.index * words.nbytes)
        w.top_counts.write(_int32([top]), 4 * self.index)
        w.positions.write(_int32([len(self.ids) - 1]))
        w.source_rows.write(_int32([self._last_row]))
        network.stage.submit(network.first(sampler.mode(top)))
        network.device.wait()
        w.source_rows.write(_int32([0]))

    def record(self, step: int) -> np.void:
        """What step `step` of a generation under way, its first choice being step 0, has left in host memory: a
        `RECORD`. ArcmtpError if it gave no token."""
        record: np.void = self._records[step % RECORDS]
        if not record["count"]:
            raise ArcmtpError(f"{self._network.device.sycl_device.name} accepts kernels and does not run them")
        return record

    def top_of(self, row: int, count: int) -> TopLogprobs:
        """The `count` likeliest tokens in the place of row `row` of the step that ran last."""
        first = row * (MAX_TOP + 1) + 1
        ids = self._network.controls.top_ids.view()[first : first + count].tolist()
        logprobs = self._network.controls.top_logprobs.view()[first : first + count].tolist()
        return [(token, logprob) for token, logprob in zip(ids, logprobs, strict=True) if token >= 0]

    def score(self, ids: Sequence[int], first: int) -> np.ndarray:
        """Evaluate ids[:-1]; log-probabilities, float64 [len(ids) - first], of ids[first:] given all tokens before
        each."""
        scores, most = [], self._network.chunk_rows
        for start in range(0, len(ids) - 1, most):
            chunk = ids[start : min(start + most, len(ids) - 1)]
            self._evaluate(chunk)
            row = max(first - 1 - start, 0)
            scores.append(self.score_chunk(row, ids[start + row + 1 : start + len(chunk) + 1]))
        return join(scores).logprobs.astype(np.float64)

    def score_chunk(self, row: int, targets: Sequence[int], top: int = 0) -> Scores:
        """Scores of `targets`, the tokens that come after row `row` and as many further ones of the chunk that was
        evaluated last, which is all that the device has done since; top: as in `choose_first`."""
        w = self._network.controls
        w.top_counts.write(_int32([top]), 4 * self.index)
        groups = range(0, len(targets), MAX_ROWS)
        scores = [self._score_rows(row + start, targets[start : start + MAX_ROWS], top) for start in groups]
        w.source_rows.write(np.arange(MAX_ROWS, dtype=np.int32))
        w.targets.write(np.full(MAX_ROWS, -1, np.int32))
        return join(scores)

    def _save(self, ids: list[int], spared: Checkpoint | None) -> None:
        self.cache.save(ids, self.index, spared)
        self.checkpoint = len(ids)

    def _evaluate(self, ids: Sequence[int], pending: int = 0) -> None:
        """One chunk. Its last `pending` rows are no part of the state, nor counted as pending yet."""
        assert 0 < len(ids) <= self._network.chunk_rows
        self._steer_chunk(ids, len(self.ids), pending)
        self._network.stage.submit(self._network.chunk(), as_graph=False)
        self._network.controls.pending_count.fill(0, 4 * self.index, 4)
        self._network.device.wait()
        self.ids += ids
        self._last_row = len(ids) - 1

    def _steer_chunk(self, ids: Sequence[int], position: int, pending: int = 0) -> None:
        """Let a launch list of a prompt chunk work on tokens of this slot, the first of them at `position`; the last
        `pending` rows stay pending."""
        w = self._network.controls
        w.chunk_ids.write(_int32(ids))
        w.chunk_positions.write(np.arange(position, position + len(ids), dtype=np.int32))
        w.chunk_slot.write(_int32([self.index]))
        w.row_count.write(_int32([len(ids)]))
        w.chunk_pending.write(_int32([pending]))

    def _score_rows(self, first: int, targets: Sequence[int], top: int) -> Scores:
        w, count = self._network.controls, len(targets)
        w.source_rows.write(first + np.minimum(np.arange(MAX_ROWS, dtype=np.int32), count - 1))
        w.targets.write(_int32([*targets, *[-1] * (MAX_ROWS - count)]))
        self._network.stage.run(self._network.logits(MAX_ROWS, SamplingMode(top=top > 0)))
        logprobs = w.stats.read(MAX_ROWS * STATS).reshape(-1, STATS)[:count, 2]
        of_rows = (tensor.view().reshape(-1, MAX_TOP + 1) for tensor in (w.top_ids, w.top_logprobs))
        return Scores(logprobs.copy(), *(numbers[:count, 1 : top + 1].copy() for numbers in of_rows))


def _int32(values: Sequence[int]) -> np.ndarray:
    return np.asarray(values, np.int32)
