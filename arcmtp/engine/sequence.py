"""One sequence on a network: token ids in, token ids out."""

from collections import deque
from collections.abc import Iterator, Sequence

import numpy as np

from arcmtp.engine.results import TopLogprobs
from arcmtp.engine.sampling import Sampler
from arcmtp.errors import ArcmtpError
from arcmtp.model.network import Network
from arcmtp.ops.launch import BLOCK_ROWS, MAX_ROWS
from arcmtp.runtime import _host


def _int32(values: Sequence[int]) -> np.ndarray:
    return np.asarray(values, np.int32)


class TokenSequence:
    """Runs one sequence. The device keeps its state; between two steps only the chosen token comes to the host."""

    def __init__(self, network: Network, sampler: Sampler | None = None) -> None:
        """A sampler whose options are plain, or none: the device chooses greedily."""
        self._network, self._sampler = network, sampler
        by_options = sampler is not None and not sampler.options.plain
        self._first_choice, self._step = network.head(1, 0, by_options), network.step(by_options)
        self._graph = "step 1 by options" if by_options else "step 1"
        self._device, self._buffers = network.device, network.workspace
        self._length = 0  # tokens evaluated in blocks
        self._chosen = 0
        self._ended = False
        network.reset()

    def end(self) -> None:
        """Take no further step: the device's state belongs to another sequence."""
        self._ended = True

    def prefill(self, ids: Sequence[int]) -> int:
        """Evaluate the prompt and choose the first token; its id."""
        self.extend(ids)
        w = self._buffers
        if self._sampler is not None:
            self._sampler.write(w)
        w.positions.write(_int32([self._length - 1]))  # of the last evaluated row, from which decoding goes on
        w.source_rows.write(_int32([(len(ids) - 1) % BLOCK_ROWS]))
        self._device.run(self._first_choice)
        w.source_rows.write(_int32([0]))
        return self._next_token()

    def extend(self, ids: Sequence[int]) -> None:
        """Evaluate further tokens of a prompt and choose nothing."""
        if self._sampler is not None:
            self._sampler.see(ids)
        for _ in self._blocks(ids):
            pass

    def steps(self, count: int, overlap: bool = True) -> Iterator[int]:
        """Choose up to `count` further tokens, each from the one before; their ids. ArcmtpError after `end`.

        With `overlap` a GPU has the next step already while a token is read: nothing in it waits for the host.
        """
        # The CPU driver runs a graph's kernels on the waiting thread too, but only if that waits for the whole queue:
        # 48 tokens/s on two cores, and 27 when it waits for the graph's event.
        ahead = 1 if overlap and not self._device.is_cpu else 0
        under_way: deque[_host.Event] = deque()
        try:
            for left in range(count, 0, -1):
                if self._ended:
                    raise ArcmtpError("this generation has ended: its LLM was closed or began another one")
                while len(under_way) < min(ahead + 1, left):
                    under_way.append(self._network.graphs.submit(self._graph, self._step))
                event = under_way.popleft()
                event.wait() if ahead else self._device.wait()
                yield self._next_token()
        finally:  # who leaves early may free the buffers next
            for event in under_way:
                event.wait()

    def top_logprobs(self, count: int) -> TopLogprobs:
        """The `count` likeliest tokens of the row that was sampled last."""
        vocab_used = self._network.sampling.vocab_used
        logits = self._buffers.logits.read(np.float32, vocab_used).astype(np.float64)
        logprobs = logits - logits.max()
        logprobs -= np.log(np.exp(logprobs).sum())
        best = np.argsort(-logprobs, kind="stable")[:count]
        return [(int(token), float(logprobs[token])) for token in best]

    def score(self, ids: Sequence[int], first: int) -> np.ndarray:
        """Log-probabilities, float64 [len(ids) - first], of ids[first:] given all tokens before each of them."""
        scores = []
        for start, rows in self._blocks(ids[:-1]):
            wanted = range(max(first - 1 - start, 0), rows)
            for group in (wanted[i : i + MAX_ROWS] for i in range(0, len(wanted), MAX_ROWS)):
                scores.append(self._score_rows(group, [ids[start + row + 1] for row in group]))
        return np.concatenate(scores)

    def _blocks(self, ids: Sequence[int]) -> Iterator[tuple[int, int]]:
        """Evaluate ids in blocks; (index of the first, rows) after each."""
        w = self._buffers
        for start in range(0, len(ids), BLOCK_ROWS):
            block = ids[start : start + BLOCK_ROWS]
            w.ids.write(_int32(block))
            w.positions.write(np.arange(self._length, self._length + len(block), dtype=np.int32))
            w.row_count.write(_int32([len(block)]))
            self._device.run(self._network.trunk(0))
            w.pending_count.fill(0)
            self._length += len(block)
            yield start, len(block)

    def _score_rows(self, rows: Sequence[int], targets: Sequence[int]) -> np.ndarray:
        w, padding = self._buffers, MAX_ROWS - len(rows)
        w.source_rows.write(_int32([*rows, *[rows[-1]] * padding]))
        w.targets.write(_int32([*targets, *[-1] * padding]))
        self._device.run(self._network.head(MAX_ROWS))
        return w.stats.read(np.float32, MAX_ROWS * 3).reshape(-1, 3)[: len(rows), 2].astype(np.float64)

    def _next_token(self) -> int:
        token = int(self._network.chosen.view(np.int32)[self._chosen])
        self._chosen += 1
        return token
