"""Accepting rows against a plain loop, with stale words behind every row that does not count."""

from collections.abc import Iterator, Sequence

import numpy as np

from arcmtp.ops.accept import DONE, LEFT, RECORD, RECORDS, STEP, Accept, reference, turn
from arcmtp.ops.launch import CARRIED_ROWS, MAX_ROWS
from arcmtp.selftest.bench import ROW_COUNTS, Bench
from arcmtp.selftest.findings import Difference, equal

VOCAB, STRIDE, STOP = 20, 32, 7
HIDDEN = 1024  # a row is copied by 2 KiB: twice


class Turn:
    """A sequence between two steps: what `accept` keeps for it."""

    def __init__(self, bench: Bench, position: int, limit: int) -> None:
        self.bench, self.op = bench, Accept(STRIDE, HIDDEN)
        self.turns = bench.array(turn(limit, [STOP, 3]))
        self.positions = bench.array(np.arange(position, position + MAX_ROWS, dtype=np.int32))
        self.pending_count, self.accepted = bench.poisoned(4), bench.poisoned(4)
        self.states = bench.zeros(STRIDE * 4)
        self.records = bench.host_zeros(RECORDS * RECORD.itemsize)
        self.ids, self.carried = bench.poisoned(MAX_ROWS * 4), bench.poisoned(CARRIED_ROWS * HIDDEN * 4)
        rng = np.random.default_rng(position)
        self.logits = rng.standard_normal((MAX_ROWS, STRIDE)).astype(np.float32)
        self.stats = rng.standard_normal((MAX_ROWS, 3)).astype(np.float32)
        self.hidden = rng.standard_normal((MAX_ROWS, HIDDEN)).astype(np.float32)

    def step(
        self, sampled: Sequence[int], ids: Sequence[int], evaluated: bool = True, drafted: int = MAX_ROWS
    ) -> np.void:
        """The record of a step that evaluates `ids`, of which `drafted` at most were guessed, and chooses `sampled`."""
        bench, rows = self.bench, len(ids)
        self.ids.write(np.array(ids, np.int32))
        number = int(self.turns.read(np.int32, STEP + 1)[STEP])
        launch = self.op.launch(
            rows, evaluated, bench.batch(), sampled=bench.ints(sampled), logits=bench.array(self.logits),
            stats=bench.array(self.stats), ids=self.ids, positions=self.positions, pending_count=self.pending_count,
            drafted=bench.ints([drafted]), accepted=self.accepted, turns=self.turns, states=self.states,
            records=self.records, hidden=bench.array(self.hidden), carried=self.carried,
        )  # fmt: skip
        bench.run(launch)
        return self.records.view(RECORD)[number % RECORDS].copy()

    def words(self) -> dict[str, list[int]]:
        names = ("ids", "positions", "pending_count", "accepted", "turns")
        return {name: getattr(self, name).read(np.int32, getattr(self, name).nbytes // 4).tolist() for name in names}


def compare(bench: Bench) -> Iterator[Difference]:
    """Steps of every row count, of which some rows count."""
    op = Accept(STRIDE, HIDDEN)
    bench.compile(op.kernel(rows, True) for rows in ROW_COUNTS)
    rng = np.random.default_rng(1)
    for case in range(16):
        rows, left = case % MAX_ROWS + 1, int(rng.integers(1, 12))
        sampled, ids = rng.integers(0, VOCAB, rows), rng.integers(0, VOCAB, rows)
        right = int(rng.integers(0, rows))
        ids[1 : 1 + right] = sampled[:right]
        yield from of_step(f"step {case} of {rows} rows", Turn(bench, case, left), sampled, ids, left)


def of_step(
    what: str, sequence: Turn, sampled: np.ndarray, ids: np.ndarray, left: int, drafted: int = MAX_ROWS,
    evaluated: bool = True,
) -> Iterator[Difference]:  # fmt: skip
    """Of all that a step leaves for a sequence that may have `left` more tokens."""
    position = int(sequence.positions.read(np.int32, 1)[0])
    record = sequence.step(sampled.tolist(), ids.tolist(), evaluated, drafted)
    tokens, done = reference(sampled.tolist(), ids.tolist(), left, [STOP, 3], drafted)
    count, words = len(tokens), sequence.words()
    got = [int(record[name]) for name in ("count", "done", "accepted", "drafted")]
    yield equal(f"{what}: record", np.array(got), np.array([count, done, count - 1, min(drafted, len(ids) - 1)]))
    yield equal(f"{what}: tokens", record["tokens"][:count], np.array(tokens))
    logprobs = sequence.logits[np.arange(count), tokens] - sequence.stats[:count, 1]
    yield equal(f"{what}: log-probabilities", record["logprobs"][:count], logprobs)
    next_positions = np.arange(position + count, position + count + MAX_ROWS)
    yield equal(f"{what}: positions", np.array(words["positions"]), next_positions)
    kept = [words["ids"][0], *words["pending_count"], *words["accepted"], words["turns"][DONE], words["turns"][LEFT]]
    pending = count if evaluated else -1  # as it was
    want = [tokens[-1], pending, count - 1, done, left - count]
    yield equal(f"{what}: what the next step finds", np.array(kept), np.array(want))
    counts = sequence.states.read(np.int32, VOCAB)
    yield equal(f"{what}: counts of tokens", counts, np.bincount(tokens, minlength=VOCAB))
    carried = sequence.carried.read(np.float32, CARRIED_ROWS * HIDDEN).reshape(CARRIED_ROWS, HIDDEN)
    expected = np.full_like(carried, np.nan)
    expected[(position + count - 1) % CARRIED_ROWS] = sequence.hidden[count - 1]
    yield equal(f"{what}: hidden row that is carried on", carried, expected)
