"""Attention against float64 over a cache rounded as its format rounds.

A key that float32 arithmetic rounds to the other side moves a score: for halves by 2^-11 of one product, and 2e-5 of
the largest output was seen. So does a code, of a key or of a query.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from arcmtp.formats.kv_cache import KV_F16, KV_FORMATS, KV_Q8, KV_TURBO3, KV_TURBO4, KvFormat
from arcmtp.ops.attention import Attention, Columns, Heads, Projected, reference, rope_table, rotate
from arcmtp.ops.launch import Consumers, compiled_rows
from arcmtp.ops.norm import reference as norm_reference
from arcmtp.runtime.launch import Kernel, kernels_of
from arcmtp.runtime.memory import Buffer
from arcmtp.selftest.bench import ROW_COUNTS, Bench, interleaved, require
from arcmtp.selftest.findings import Difference, close

TOLERANCE = {KV_F16: 1e-4, KV_Q8: 1e-3, KV_TURBO4: 1e-3, KV_TURBO3: 1e-3}
CONTEXT = 1088
THETA, EPS = 1e7, 1e-6


@dataclass(frozen=True)
class Shape:
    q_heads: int
    kv_heads: int
    head_dim: int
    rope_dim: int

    @property
    def columns(self) -> Columns:
        """Keys before values, with unused columns between and behind them."""
        k = 2 * self.q_heads * self.head_dim + 16
        v = k + self.kv_heads * self.head_dim + 16
        return Columns(v + self.kv_heads * self.head_dim + 16, k, v)


REAL = Shape(16, 2, 256, 64)
SMALL = Shape(8, 2, 64, 16)
SHAPES = (REAL, Shape(4, 1, 64, 16), Shape(2, 2, 64, 32), Shape(3, 1, 32, 16))


def operator(bench: Bench, shape: Shape, kv: KvFormat = KV_F16) -> Attention:
    heads = Heads(shape.q_heads, shape.kv_heads, shape.head_dim, shape.rope_dim)
    geometry = replace(bench.geometry, attention_splits=splits(bench))
    return Attention(heads, shape.columns, EPS, Consumers(quantised=True, plain=True), geometry, kv)


def splits(bench: Bench) -> int:
    """Fewer than a card's: some hundred keys are four tiles of each split then, which a team takes at once."""
    return min(bench.geometry.attention_splits, 4 if bench.geometry.kind == "gpu" else 8)


def cache_bytes(op: Attention, context: int) -> int:
    return math.prod(op.cache_shape(context)) * op.kv.dtype.itemsize


def kernels(bench: Bench, shape: Shape, kv: KvFormat, row_counts: Sequence[int]) -> list[Kernel]:
    """For steps and stores of these row counts, and chunks."""
    op, sequences, something = operator(bench, shape, kv), bench.batch(), bench.zeros(4)
    inputs = dict.fromkeys(("projected", "q_norm", "k_norm", "rope", "positions", "caches"), something)
    of_chunk = inputs | {"row_count": something}
    scratch, out = (dict.fromkeys(names, something) for names in (("partials", "counters"), ("quantised", "plain")))
    steps = [op.step(rows, sequences, CONTEXT, **inputs, **scratch, **out) for rows in row_counts]
    stores = [op.store(rows, sequences, CONTEXT, **of_chunk) for rows in (*row_counts, 0)]
    return kernels_of([*steps, *stores, op.chunk(sequences, CONTEXT, **of_chunk, **out)])


class Case:
    """One layer on a bench with `length` random rows of projections, and its caches."""

    def __init__(self, bench: Bench, shape: Shape, length: int, slots: int = 1, kv: KvFormat = KV_F16) -> None:
        rng = np.random.default_rng(length)
        self.bench, self.shape, self.slots = bench, shape, slots
        self.rows = rng.standard_normal((length, shape.columns.stride)).astype(np.float32)
        self.q_norm, self.k_norm = rng.uniform(0.5, 1.5, (2, shape.head_dim)).astype(np.float32)
        self.rope = rope_table(CONTEXT, shape.rope_dim, THETA)
        self.kv, self.op = kv, operator(bench, shape, kv)
        shapes, counts = ((SMALL,), ROW_COUNTS) if shape == SMALL else (SHAPES, (2,))
        held = [each for each in shapes if each.head_dim % kv.dims == 0]
        bench.compile(kernel for each in held for kernel in kernels(bench, each, kv, counts))
        self.width = shape.q_heads * shape.head_dim
        self.weights = {
            "q_norm": bench.array(self.q_norm), "k_norm": bench.array(self.k_norm), "rope": bench.array(self.rope)
        }  # fmt: skip
        self.counters = bench.zeros(slots * shape.kv_heads * 4)
        self.forget()

    def forget(self) -> None:
        """Empty caches, of NaN."""
        self.caches = self.bench.poisoned(self.slots * cache_bytes(self.op, CONTEXT))

    def cache(self, slot: int) -> np.ndarray:
        """The bytes of a cache."""
        return self.caches.read(np.uint8, self.caches.nbytes).reshape(self.slots, -1)[slot]

    def run(self, first: int, rows: np.ndarray, chunk: bool = False, slot: int = 0) -> np.ndarray:
        """Rows at positions from `first`; compiled for their count up to 8, counted at run time above or as a `chunk`.
        [rows, width]"""
        return self.run_all([first], [rows], [slot], chunk)

    def run_all(
        self, first: Sequence[int], sequences: Sequence[np.ndarray], slots: Sequence[int], chunk: bool = False
    ) -> np.ndarray:
        """Rows of several sequences, each at positions from its `first`. [rows of all sequences, width]"""
        rows, per_sequence = interleaved(sequences), len(sequences[0])
        launched = 0 if chunk else compiled_rows(per_sequence)
        quantised = self.bench.activation_rows(len(rows), self.width)
        plain = self.bench.poisoned(len(rows) * self.width * 4)
        partials = self.bench.poisoned(math.prod(self.op.partials_shape(len(rows))) * 4)
        inputs, in_slots = self.inputs(first, rows, per_sequence), self.bench.batch(slots)
        out = {"quantised": quantised, "plain": plain}
        if launched:
            scratch = {"partials": partials, "counters": self.counters}
            self.bench.run(self.op.step(launched, in_slots, CONTEXT, **inputs, **scratch, **out))
        else:
            inputs["row_count"] = self.bench.ints([len(rows)])
            store = self.op.store(0, in_slots, CONTEXT, **inputs)
            self.bench.run([store, self.op.chunk(in_slots, CONTEXT, **inputs, **out)])
        result = plain.read(np.float32, len(rows) * self.width).reshape(len(rows), -1)
        if launched:  # every row has scratch of its own, or sequences that overlap in time would disturb each other
            written = self.bench.written(partials, len(rows)).any(axis=1).all()
            require(written, "a row has no scratch memory of its own")
        self.quantised = np.hstack(self.bench.read_activations(quantised, result))
        return result

    def store(self, first: Sequence[int], sequences: Sequence[np.ndarray], slots: Sequence[int]) -> None:
        """Only put the keys and values of the rows of several sequences into their caches."""
        rows, per_sequence = interleaved(sequences), len(sequences[0])
        inputs, count = self.inputs(first, rows, per_sequence), self.bench.ints([len(rows)])
        self.bench.run(self.op.store(len(rows), self.bench.batch(slots), CONTEXT, **inputs, row_count=count))

    def inputs(self, first: Sequence[int], rows: np.ndarray, per_sequence: int) -> dict[str, Buffer]:
        """What every launch is given. rows: those of all sequences, `per_sequence` of each."""
        positions = self.bench.ints(np.add.outer(np.arange(per_sequence), first))
        return {"projected": self.bench.array(rows), **self.weights, "positions": positions, "caches": self.caches}

    def fill(self, length: int) -> np.ndarray:
        """The first `length` rows as chunks of at most 512."""
        return np.concatenate(self.chunks(self.rows[:length]))

    def chunks(self, rows: np.ndarray, slot: int = 0) -> list[np.ndarray]:
        """Rows at positions from 0 as chunks of at most 512."""
        return [self.run(i, rows[i : i + 512], True, slot) for i in range(0, len(rows), 512)]

    def keys(self, end: int) -> np.ndarray:
        """float64 [end, kv heads, dim]: the keys of the first rows before a cache rounds them."""
        s, at = self.shape, self.shape.columns.k
        projected = self.rows[:end, at : at + s.kv_heads * s.head_dim].reshape(end, s.kv_heads, s.head_dim)
        return rotate(norm_reference(projected, self.k_norm, EPS), self.rope[:end])

    def expected(self, first: int, end: int) -> np.ndarray:
        s, c = self.shape, self.shape.columns
        queries = self.rows[first:end, : 2 * self.width].reshape(end - first, s.q_heads, 2, s.head_dim)
        k, v = (
            self.rows[:end, at : at + s.kv_heads * s.head_dim].reshape(end, s.kv_heads, s.head_dim) for at in (c.k, c.v)
        )
        rows = Projected(queries[:, :, 0], queries[:, :, 1], k, v)
        out = reference(rows, (self.q_norm, self.k_norm), self.rope, EPS, self.kv)
        return out.reshape(end - first, -1)


def difference(what: str, got: np.ndarray, want: np.ndarray, kv: KvFormat = KV_F16) -> Difference:
    """Of rows of outputs."""
    return close(what, got, want, atol=TOLERANCE[kv] * np.abs(want).max())


def compare(bench: Bench) -> Iterator[Difference]:
    """Every type of KV cache: a prompt chunk, then a step of two rows, behind more than one tile of keys."""
    past = 70
    for kv in KV_FORMATS.values():
        shapes = [shape for shape in SHAPES if shape.head_dim % kv.dims == 0]
        for shape in shapes:
            case = Case(bench, shape, past + 2, kv=kv)
            what = f"{kv.name}, {shape.q_heads} heads of {shape.head_dim} on {shape.kv_heads}"
            yield difference(f"{what}: chunk of {past} rows", case.fill(past), case.expected(0, past), kv)
            step = case.run(past, case.rows[past:])
            yield difference(f"{what}: step of 2 rows", step, case.expected(past, past + 2), kv)
