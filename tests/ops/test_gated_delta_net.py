"""GATED_DELTA_NET against the float64 recurrence, and to the bit however tokens are fed.

Float32 sums of up to 128 products over some 50 tokens stay within 1e-5 of the largest output.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from arcmtp.formats.activations import dequantise, quantise
from arcmtp.ops.gated_delta_net import WINDOW, Columns, GatedDeltaNet, Heads, reference
from arcmtp.ops.launch import CHUNK_ROWS, Consumers
from arcmtp.runtime.memory import Buffer
from tests.ops.bench import Bench, interleaved
from tests.ops.conftest import FREE_SLOTS, ROW_COUNTS, RUN_ROWS, RUN_SLOTS, SLOTS

TOLERANCE = 1e-5
EPS = 1e-6
TINY = Heads(k=2, v=4, k_dim=64, v_dim=64)


@dataclass(frozen=True)
class Step:
    """A step of `rows` rows of which the first `accepted` are tokens of the sequence; the others are NaN."""

    rows: int
    accepted: int


@dataclass(frozen=True)
class Chunk:
    rows: int


Fed = Step | Chunk


class Case:
    """A layer with random weights, compiled for some row counts."""

    def __init__(self, bench: Bench, heads: Heads, row_counts: Iterable[int]) -> None:
        self.bench, self.heads = bench, heads
        z = heads.channels + 16  # columns that belong to nobody lie between and behind the segments
        beta = z + heads.outputs
        self.columns = Columns(stride=beta + 48, z=z, beta=beta, alpha=beta + 16)
        self.op = GatedDeltaNet(heads, self.columns, EPS, Consumers(quantised=True, plain=True), bench.geometry)
        bench.compile(self.op.kernel(rows) for rows in row_counts)
        rng = np.random.default_rng(heads.k_dim)
        self.weights = [
            values.astype(np.float32)
            for values in (
                rng.uniform(-1, 1, (heads.channels, WINDOW + 1)),
                -rng.uniform(0.01, 2, heads.v),
                rng.standard_normal(heads.v),
                rng.uniform(0.5, 1.5, heads.v_dim),
            )
        ]
        names = ("conv", "a", "dt_bias", "norm")
        self.device_weights = {name: bench.array(each) for name, each in zip(names, self.weights, strict=True)}

    def tokens(self, count: int) -> np.ndarray:
        """Projections [count, stride]; what belongs to nobody is NaN."""
        h, c = self.heads, self.columns
        x = np.full((count, c.stride), np.nan, np.float32)
        for begin, width in ((0, h.channels), (c.z, h.outputs), (c.beta, h.v), (c.alpha, h.v)):
            x[:, begin : begin + width] = np.random.default_rng(begin).standard_normal((count, width))
        return x

    def feed(self, tokens: np.ndarray, way: Iterable[Fed]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Output [tokens, outputs], its codes and scales side by side, and the state [V heads, v_dim, k_dim] with every
        token committed.

        Whatever a launch has no business with is NaN: rejected rows, rows behind the last, pending rows behind the
        accepted ones, and, for a step, even the row count.
        """
        bench, op = self.bench, self.op
        memory = bench.array(np.zeros(self.heads.v, op.head_dtype))
        position, pending = 0, 0
        plain, packed = [], []
        for fed in (*way, Chunk(0)):
            self._poison(memory, [pending])
            count = fed.accepted if isinstance(fed, Step) else fed.rows
            out = self._run(fed, self._rows(fed.rows, tokens[position : position + count]), memory, [pending])
            plain.append(out[0][:count])
            packed.append(out[1][:count])
            position += count
            pending = count if isinstance(fed, Step) else 0
        assert position == len(tokens)
        state = memory.read(op.head_dtype, self.heads.v)["state"]
        return np.concatenate(plain), np.concatenate(packed), state

    def feed_runs(
        self, tokens: Sequence[np.ndarray], rows: int, accepted: Sequence[Sequence[int]]
    ) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """What `feed` gives for each of several sequences whose steps run together in RUN_SLOTS: step i of sequence u
        accepts accepted[u][i] of its `rows` rows. A slot that belongs to none is NaN and stays so."""
        bench, op, sequences = self.bench, self.op, range(len(tokens))
        memory = bench.poisoned(SLOTS * op.state_bytes)
        for slot in RUN_SLOTS:
            memory.fill(0, slot * op.state_bytes, op.state_bytes)
        pending = [0 if slot in RUN_SLOTS else -1 for slot in range(SLOTS)]
        position = [0 for _ in sequences]
        results: list[list[tuple[np.ndarray, np.ndarray]]] = [[] for _ in sequences]
        for step in range(len(accepted[0])):
            self._poison(memory, pending)
            counts = [accepted[run][step] for run in sequences]
            given = [self._rows(rows, tokens[run][position[run] : position[run] + counts[run]]) for run in sequences]
            out = self._run(Step(rows, rows), interleaved(given), memory, pending, RUN_SLOTS)
            for run, slot in enumerate(RUN_SLOTS):
                plain, packed = (values[run :: len(sequences)][: counts[run]] for values in out)
                results[run].append((plain, packed))
                position[run] += counts[run]
                pending[slot] = counts[run]
        assert position == [len(part) for part in tokens]
        for slot in RUN_SLOTS:
            self._run(Chunk(0), self._rows(0, tokens[0][:0]), memory, pending, [slot])
        heads = memory.read(op.head_dtype, SLOTS * self.heads.v).reshape(SLOTS, -1)
        assert (heads[list(FREE_SLOTS)].view(np.uint8) == 0xFF).all()
        states = heads["state"]
        return [
            (np.concatenate([plain for plain, _ in each]), np.concatenate([packed for _, packed in each]), states[slot])
            for each, slot in zip(results, RUN_SLOTS, strict=True)
        ]

    def _rows(self, rows: int, tokens: np.ndarray) -> np.ndarray:
        """Projections of `rows` rows that begin with `tokens`, and of one behind them; the others are NaN."""
        x = np.full((rows + 1, self.columns.stride), np.nan, np.float32)
        x[: len(tokens)] = tokens
        return x

    def _poison(self, memory: Buffer, pending: Sequence[int]) -> None:
        """pending: how many rows of each slot are, or -1 if it belongs to nobody."""
        values = memory.read(self.op.head_dtype, len(pending) * self.heads.v).reshape(len(pending), -1)
        for slot, count in enumerate(pending):
            if count >= 0:
                values[slot]["history"][:, WINDOW + count :] = np.nan
                for name in ("pending_keys", "pending_deltas", "pending_decays"):
                    values[slot][name][:, count:] = np.nan
        memory.write(values)

    def _run(
        self, fed: Fed, projected: np.ndarray, memory: Buffer, pending: Sequence[int], slots: Sequence[int] = (0,)
    ) -> tuple[np.ndarray, np.ndarray]:
        bench, width = self.bench, self.heads.outputs
        rows = fed.rows * len(slots)
        quantised, plain = bench.activation_rows(rows + 1, width), bench.poisoned((rows + 1) * width * 4)
        step = isinstance(fed, Step)
        launch = self.op.launch(
            fed.rows if step else 0, bench.batch(slots), projected=bench.array(projected), **self.device_weights,
            memory=memory, pending_count=bench.ints(pending), row_count=bench.ints([-1 if step else rows]),
            quantised=quantised, plain=plain,
        )  # fmt: skip
        bench.run(launch)
        out = bench.rows(plain, rows, width)
        return out, np.hstack(bench.read_activations(quantised, out))


@pytest.fixture(scope="module")
def tiny(bench: Bench) -> Case:
    return Case(bench, TINY, (*ROW_COUNTS, 0))


def one_by_one(count: int) -> list[Fed]:
    return [Step(1, 1)] * count


@pytest.mark.avx2
@pytest.mark.parametrize("heads", [Heads(2, 2, 64, 64), Heads(2, 4, 128, 128), Heads(2, 6, 48, 96)])
def test_a_sequence_gives_the_reference_output_and_state(bench: Bench, heads: Heads) -> None:
    case = Case(bench, heads, (3, 0))
    tokens = case.tokens(50)
    tokens[10:13, case.columns.alpha : case.columns.alpha + heads.v] = np.array([[60], [-60], [300]])
    tokens[20:30, : heads.channels] *= 1e-3  # here the norms' epsilons count
    want, want_state = reference(case.op, tokens, *case.weights)
    ways: list[list[Fed]] = [
        [Chunk(50)],
        [Step(3, 1), Step(3, 3), Step(3, 2), Chunk(40), Step(3, 3), Step(3, 1)],
    ]
    for way in ways:
        plain, packed, state = case.feed(tokens, way)
        np.testing.assert_allclose(plain, want, atol=TOLERANCE * np.abs(want).max(), rtol=0)
        np.testing.assert_allclose(state, want_state.swapaxes(1, 2), atol=TOLERANCE * np.abs(want_state).max(), rtol=0)
        codes, scales = quantise(plain)
        seen = dequantise(*np.hsplit(packed, [heads.outputs]))
        np.testing.assert_allclose(seen, dequantise(codes, scales), atol=1.01 * scales.max())
        assert np.mean(seen == dequantise(codes, scales)) > 0.99


def test_tokens_give_the_same_bits_however_they_are_fed(tiny: Case) -> None:
    tokens = tiny.tokens(64)
    want = tiny.feed(tokens, one_by_one(64))
    ways: list[list[Fed]] = [
        [Chunk(64)],
        [Chunk(rows) for rows in (1, 2, 3, 9, 17, 1, 1, 30)],
        [Step(4, 4)] * 16,
        [Step(8, accepted) for accepted in (1, 2, 3, 4, 5, 6, 7, 8, 8, 7, 6, 5, 2)],
        [Step(rows, rows) for rows in (*ROW_COUNTS, *ROW_COUNTS[:-1])],
        [Step(4, 3), Step(4, 0), Step(4, 1), Chunk(1), Step(5, 0), Step(5, 2), Chunk(2), Step(1, 0), Chunk(55)],
        [Chunk(9), *one_by_one(2), Chunk(3), Step(3, 1), Chunk(0), Step(8, 4), Chunk(45)],
    ]
    for way in ways:
        for got, expected in zip(tiny.feed(tokens, way), want, strict=True):
            assert np.array_equal(got, expected), way


def test_a_whole_prompt_chunk_gives_the_bits_of_single_tokens(tiny: Case) -> None:
    tokens = tiny.tokens(CHUNK_ROWS + 5)
    want = tiny.feed(tokens, one_by_one(len(tokens)))
    for got, expected in zip(tiny.feed(tokens, [Chunk(CHUNK_ROWS), Chunk(5)]), want, strict=True):
        assert np.array_equal(got, expected)


def test_a_sequence_of_zeros_stays_zero(tiny: Case) -> None:
    ways: list[list[Fed]] = [[Chunk(9)], one_by_one(9)]
    for way in ways:
        plain, _, state = tiny.feed(np.zeros((9, tiny.columns.stride), np.float32), way)
        assert not plain.any() and not state.any()


@pytest.mark.parametrize("rows", RUN_ROWS)
def test_runs_in_any_slots_give_what_each_gives_alone(tiny: Case, rows: int) -> None:
    accepted = {
        1: [[1, 1, 0, 1, 1], [1, 0, 1, 1, 1], [0, 1, 1, 0, 1]],
        3: [[3, 1, 0, 2, 3], [1, 3, 3, 0, 2], [2, 0, 1, 3, 1]],
        8: [[8, 1, 0, 5, 3], [2, 8, 7, 0, 6], [0, 4, 1, 8, 2]],
    }[rows]
    ends = np.cumsum([sum(counts) for counts in accepted])
    tokens = np.split(tiny.tokens(ends[-1]), ends[:-1])
    together = tiny.feed_runs(tokens, rows, accepted)
    for part, counts, results in zip(tokens, accepted, together, strict=True):
        alone = tiny.feed(part, [Step(rows, count) for count in counts])
        for got, want in zip(results, alone, strict=True):
            assert np.array_equal(got, want)
