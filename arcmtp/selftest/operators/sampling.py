"""Sampling against float64: the log-sum-exp within 1e-6 of the larger of it, the largest logit and 1.

One part is float32's own (half a unit of the last place is 6e-8), the rest is exp's two units and the sums' roundings.
"""

import math
from collections.abc import Iterator

import numpy as np

from arcmtp.ops.sampling import STATS, Sampling, Vocabulary, reference
from arcmtp.selftest.bench import SOME_KERNELS, SOME_ROWS, Bench
from arcmtp.selftest.findings import Difference, close, equal

TOLERANCE = 1e-6


class Case:
    """Sampling from one vocabulary on a bench; scratch memory and counters live through all launches."""

    def __init__(self, bench: Bench, op: Sampling) -> None:
        self.bench, self.op = bench, op
        self.partials = bench.poisoned(math.prod(op.partials_shape(bench.geometry.chunk_rows)) * 4)
        self.arrivals = bench.zeros(bench.geometry.chunk_rows * 4)

    def padded(self, logits: np.ndarray) -> np.ndarray:
        """Rows of the stride, with NaN in what the vocabulary does not use."""
        columns = self.op.stride - logits.shape[1]
        return np.pad(logits.astype(np.float32), ((0, 0), (0, columns)), constant_values=np.nan)

    def run(
        self, logits: np.ndarray, targets: np.ndarray | None = None, launched: int | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """ids [rows] and stats [rows, 3] of logits [rows, vocab_used]."""
        rows, most = len(logits), self.bench.geometry.chunk_rows
        launched = launched or rows
        targets = np.full(rows, -1) if targets is None else targets
        ids, stats = self.bench.poisoned(most * 4), self.bench.poisoned(most * STATS * 4)
        launch = self.op.launch(
            launched, logits=self.bench.array(self.padded(logits)), targets=self.bench.ints(targets), ids=ids,
            stats=stats, partials=self.partials, arrivals=self.arrivals, row_count=self.bench.ints([rows]),
        )  # fmt: skip
        self.bench.run(launch)
        return self.bench.rows(ids, rows, 1, np.int32)[:, 0], self.bench.rows(stats, rows, STATS)

    def differences(
        self, what: str, logits: np.ndarray, targets: np.ndarray | None = None
    ) -> Iterator[Difference]:
        """From the reference, for logits [rows, vocab_used]."""
        targets = np.full(len(logits), -1) if targets is None else targets
        logits = logits.astype(np.float32)
        ids, stats = self.run(logits, targets)
        want_ids, want = reference(logits, targets, self.op.vocab_used)
        yield equal(f"{what}: chosen", ids, want_ids)
        yield equal(f"{what}: largest logits", stats[:, 0], want[:, 0].astype(np.float32))
        bound = TOLERANCE * np.maximum(1, np.abs(want[:, :2]).max(axis=1))
        yield close(f"{what}: log-sums", stats[:, 1] / bound, want[:, 1] / bound, atol=1)
        bound += TOLERANCE * np.abs(want[:, 2])
        yield close(f"{what}: log-probabilities", stats[:, 2] / bound, want[:, 2] / bound, atol=1)


def compare(bench: Bench) -> Iterator[Difference]:
    """A small vocabulary, and the whole one of Qwen3.6."""
    vocabularies = Vocabulary(1003, 1024), Vocabulary(248_077, 248_320)
    small, whole = (Sampling(vocabulary, bench.geometry) for vocabulary in vocabularies)
    bench.compile([*(small.kernel(rows) for rows in SOME_KERNELS), whole.kernel(1)])
    for op, counts in ((small, SOME_ROWS), (whole, (1,))):
        case = Case(bench, op)
        for rows in counts:
            rng = np.random.default_rng(rows)
            logits, targets = 3 * rng.standard_normal((rows, op.vocab_used)), rng.integers(-1, op.vocab_used, rows)
            yield from case.differences(f"{rows} rows of {op.vocab_used}", logits, targets)
