"""The likeliest tokens against their reference: the same ids and bits, since a subtraction is all the arithmetic."""

import math
from collections.abc import Iterator, Sequence

import numpy as np

from arcmtp.ops.sampling import STATS, Vocabulary
from arcmtp.ops.top_logprobs import MAX_TOP, TopLogprobs, reference
from arcmtp.runtime.launch import Launch
from arcmtp.runtime.memory import Buffer
from arcmtp.selftest.bench import RUN_ROWS, RUN_SLOTS, SLOTS, Bench
from arcmtp.selftest.findings import Difference, equal

VOCAB = 1003  # no multiple of 16
COUNTS = (1, 2, 20, 65, MAX_TOP)
PLACES = MAX_TOP + 1
UNTOUCHED = -7
MOST_ROWS = len(RUN_SLOTS) * max(RUN_ROWS)


class Case:
    """The likeliest tokens of one vocabulary on a bench; scratch memory, counters and results live through all
    launches."""

    def __init__(self, bench: Bench, op: TopLogprobs) -> None:
        self.bench, self.op = bench, op
        self.scratch = bench.poisoned(math.prod(op.scratch_shape(MOST_ROWS)) * 4)
        self.counters = bench.zeros(MOST_ROWS * 4)
        self.counts = bench.poisoned(SLOTS * 4)
        self.ids, self.logprobs = (bench.host_zeros(MOST_ROWS * PLACES * 4) for _ in range(2))

    @classmethod
    def of(cls, bench: Bench, *vocabularies: int) -> "list[Case]":
        """One for each vocabulary, compiled together."""
        ops = [TopLogprobs(Vocabulary(used, -(-used // 32) * 32), bench.geometry) for used in vocabularies]
        bench.compile(op.kernel() for op in ops)
        return [cls(bench, op) for op in ops]

    def launch(self, logits: np.ndarray, stats: Buffer, chosen: Buffer, slots: Sequence[int] = (0,)) -> Launch:
        """For rows of `vocab_used` logits, with NaN in what the vocabulary does not use."""
        columns = self.op.stride - logits.shape[1]
        padded = np.pad(logits.astype(np.float32), ((0, 0), (0, columns)), constant_values=np.nan)
        return self.op.launch(
            len(logits), self.bench.batch(slots), logits=self.bench.array(padded), stats=stats, counts=self.counts,
            chosen=chosen, ids=self.ids, logprobs=self.logprobs, scratch=self.scratch, counters=self.counters,
        )  # fmt: skip

    def results(self, launch: Launch, rows: int, *counts: int) -> tuple[np.ndarray, np.ndarray]:
        """ids and logprobs [rows, MAX_TOP + 1] when the first slots are asked for `counts` tokens."""
        self.counts.write(np.array(counts, np.int32))
        self.ids.write(np.full(MOST_ROWS * PLACES, UNTOUCHED, np.int32))
        self.logprobs.write(np.full(MOST_ROWS * PLACES, UNTOUCHED, np.float32))
        self.bench.run(launch)
        found = self.ids.view(np.int32), self.logprobs.view(np.float32)
        ids, logprobs = (values[: rows * PLACES].reshape(rows, PLACES).copy() for values in found)
        return ids, logprobs

    def run(
        self, logits: np.ndarray, count: int, chosen: np.ndarray, log_sum: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """ids and logprobs [rows, MAX_TOP + 1] of logits [rows, vocab_used]."""
        stats = np.full((len(logits), STATS), np.nan, np.float32)
        stats[:, 1] = log_sum
        launch = self.launch(logits, self.bench.array(stats), self.bench.ints(chosen))
        return self.results(launch, len(logits), count)

    def differences(self, what: str, logits: np.ndarray, counts: tuple[int, ...] = COUNTS) -> Iterator[Difference]:
        """From exactly the reference's results for each count, and from nothing behind them."""
        logits = logits.astype(np.float32)
        rng = np.random.default_rng(len(logits))
        chosen = rng.integers(0, self.op.vocab_used, len(logits))
        log_sum = rng.uniform(-20, 20, len(logits)).astype(np.float32)
        for count in counts:
            ids, logprobs = self.run(logits, count, chosen, log_sum)
            want_ids, want = reference(logits, log_sum, count, chosen, self.op.vocab_used)
            behind = np.full((len(logits), PLACES - count - 1), UNTOUCHED)
            told = f"{what}, {count} likeliest"
            yield equal(f"{told}: tokens", ids, np.concatenate([want_ids, behind], axis=1))
            untouched = behind.astype(np.float32)
            yield equal(f"{told}: log-probabilities", logprobs, np.concatenate([want, untouched], axis=1))


def compare(bench: Bench) -> Iterator[Difference]:
    """Rows of a small vocabulary."""
    (case,) = Case.of(bench, VOCAB)
    for rows in (1, 3, 8):
        yield from case.differences(f"{rows} rows", 3 * np.random.default_rng(rows).standard_normal((rows, VOCAB)))
