"""GATED_DELTA_NET against the float64 recurrence.

Float32 sums of up to 128 products over some 50 tokens stay within 1e-5 of the largest output.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from arcmtp.formats.activations import dequantise
from arcmtp.ops.gated_delta_net import WINDOW, Columns, GatedDeltaNet, Heads, reference
from arcmtp.ops.launch import Consumers
from arcmtp.runtime.memory import Buffer
from arcmtp.selftest.bench import FREE_SLOTS, RUN_SLOTS, SLOTS, Bench, int8_rows, interleaved, require
from arcmtp.selftest.findings import Difference, close

TOLERANCE = 1e-5
EPS = 1e-6
SHAPES = (Heads(2, 2, 64, 64), Heads(2, 4, 128, 128), Heads(2, 6, 48, 96))


@dataclass(frozen=True)
class Step:
    """A step of `rows` rows of which the first `accepted` are tokens of the sequence; the others are NaN."""

    rows: int
    accepted: int


@dataclass(frozen=True)
class Chunk:
    """A prompt chunk whose last `pending` rows stay pending."""

    rows: int
    pending: int = 0


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
            pending = count if isinstance(fed, Step) else fed.pending
        require(position == len(tokens), "the way does not feed all tokens")
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
        require(position == [len(part) for part in tokens], "the steps do not feed all tokens")
        for slot in RUN_SLOTS:
            self._run(Chunk(0), self._rows(0, tokens[0][:0]), memory, pending, [slot])
        heads = memory.read(op.head_dtype, SLOTS * self.heads.v).reshape(SLOTS, -1)
        require((heads[list(FREE_SLOTS)].view(np.uint8) == 0xFF).all(), "a slot of no sequence was written")
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
            chunk_pending=bench.ints([fed.pending if isinstance(fed, Chunk) else -1]), quantised=quantised, plain=plain,
        )  # fmt: skip
        bench.run(launch)
        out = bench.rows(plain, rows, width)
        return out, np.hstack(bench.read_activations(quantised, out))


def compare(bench: Bench) -> Iterator[Difference]:
    """Heads of several shapes, fed as a chunk and as steps of which some rows are rejected."""
    for heads in SHAPES:
        yield from differences(bench, heads)


def differences(bench: Bench, heads: Heads) -> Iterator[Difference]:
    """Output and state of 50 tokens, some with extreme decays, some so small that the norms' epsilons count."""
    case = Case(bench, heads, (3, 0))
    tokens = case.tokens(50)
    tokens[10:13, case.columns.alpha : case.columns.alpha + heads.v] = np.array([[60], [-60], [300]])
    tokens[20:30, : heads.channels] *= 1e-3
    want, want_state = reference(case.op, tokens, *case.weights)
    ways: dict[str, list[Fed]] = {
        "chunk": [Chunk(50)],
        "steps": [Step(3, 1), Step(3, 3), Step(3, 2), Chunk(30), Chunk(10, pending=6), Step(3, 3), Step(3, 1)],
    }
    for name, way in ways.items():
        what = f"{heads.v} heads of {heads.k_dim} x {heads.v_dim}, {name}"
        plain, packed, state = case.feed(tokens, way)
        yield close(f"{what}: output", plain, want, atol=TOLERANCE * np.abs(want).max())
        yield close(f"{what}: state", state, want_state.swapaxes(1, 2), atol=TOLERANCE * np.abs(want_state).max())
        yield from int8_rows(what, plain, dequantise(*np.hsplit(packed, [heads.outputs])))
