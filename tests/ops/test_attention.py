"""Attention against float64 over a cache rounded as its format rounds.

A key that float32 arithmetic rounds to the other side moves a score: for halves by 2^-11 of one product, and 2e-5 of
the largest output was seen. So does a code, of a key or of a query.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest

from arcmtp.errors import ArcmtpError
from arcmtp.formats.activations import quantise
from arcmtp.formats.kv_cache import KEY_TILE, KV_F16, KV_FORMATS, KV_Q8, KV_TURBO3, KV_TURBO4, KvFormat
from arcmtp.ops.attention import Attention, Columns, Heads, Projected, reference, rope_table, rotate
from arcmtp.ops.launch import Consumers, compiled_rows
from arcmtp.ops.norm import reference as norm_reference
from arcmtp.runtime.launch import Kernel, kernels_of
from arcmtp.runtime.memory import Buffer
from tests.ops.bench import Bench, interleaved
from tests.ops.conftest import CHUNK_COUNTS, FREE_SLOTS, ROW_COUNTS, RUN_ROWS, RUN_SLOTS, SLOTS

TOLERANCE = {KV_F16: 1e-4, KV_Q8: 1e-3, KV_TURBO4: 1e-3, KV_TURBO3: 1e-3}
MOST_LOST = {KV_F16: 4e-4, KV_Q8: 0.008, KV_TURBO4: 0.11, KV_TURBO3: 0.2}  # of the norm of normal values
CONTEXT = 1088
THETA, EPS = 1e7, 1e-6
nightly = pytest.mark.nightly
SPAN_TWO_TILES = 60  # positions from here on are in the second tile after four rows


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


every_format = pytest.mark.parametrize("kv", KV_FORMATS.values(), ids=KV_FORMATS)


def formats_often(*often: KvFormat) -> pytest.MarkDecorator:
    """Every format; on the emulated card, which takes 5 s for such a test, the others by make emulate-all alone."""
    marks = {kv: () if kv in often else nightly for kv in KV_FORMATS.values()}
    return pytest.mark.parametrize("kv", [pytest.param(kv, id=kv.name, marks=marks[kv]) for kv in marks])


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
            assert self.bench.written(partials, len(rows)).any(axis=1).all()
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


def assert_close(got: np.ndarray, want: np.ndarray, kv: KvFormat = KV_F16) -> None:
    np.testing.assert_allclose(got, want, atol=TOLERANCE[kv] * np.abs(want).max(), rtol=0)


@formats_often(KV_F16, KV_TURBO4)
def test_every_row_of_long_blocks_attends_to_its_prefix(bench: Bench, kv: KvFormat) -> None:
    length = bench.repeats(1000, least=300)
    case = Case(bench, SMALL, length, kv=kv)
    assert_close(case.fill(length), case.expected(0, length), kv)


@formats_often(KV_F16)
@pytest.mark.parametrize("rows", [1, 3])
def test_a_step_attends_to_any_length_of_context_in_a_poisoned_cache(bench: Bench, rows: int, kv: KvFormat) -> None:
    case = Case(bench, SMALL, 1000, kv=kv)
    most = bench.repeats(1000, least=200)
    for length in [length for length in (1, 2, 15, 16, 17, 63, 64, 65, 200, 1000) if length <= most]:
        past = length - rows
        if past < 0:
            continue
        case.forget()
        if past:
            case.fill(past)
        assert_close(case.run(past, case.rows[past:length]), case.expected(past, length), kv)


@pytest.mark.avx2
@formats_often(KV_F16)
@pytest.mark.parametrize("shape", SHAPES)
def test_head_counts_and_dimensions_give_the_reference(bench: Bench, shape: Shape, kv: KvFormat) -> None:
    if shape.head_dim % kv.dims:
        with pytest.raises(ArcmtpError, match=f"{shape.head_dim} dimensions; a KV cache of type {kv.name} takes"):
            operator(bench, shape, kv)
        return
    past = bench.repeats(148, least=70)
    case = Case(bench, shape, past + 2, kv=kv)
    assert_close(case.fill(past), case.expected(0, past), kv)
    assert_close(case.run(past, case.rows[past:]), case.expected(past, past + 2), kv)


@formats_often(KV_F16, KV_TURBO4)
def test_a_row_has_the_same_bits_at_any_row_count_whatever_later_rows_hold(bench: Bench, kv: KvFormat) -> None:
    most = bench.repeats(512, least=17)
    past, length = SPAN_TWO_TILES, SPAN_TWO_TILES + most
    case = Case(bench, SMALL, length, kv=kv)
    case.fill(past)
    alone = np.concatenate([case.run(i, case.rows[i : i + 1]) for i in range(past, length)])
    for count in [count for count in ROW_COUNTS + CHUNK_COUNTS if count <= most]:
        for place in {0, count // 2, count - 1}:
            rows = case.rows[past : past + count].copy()
            rows[place + 1 :] = np.nan
            for chunk in (False, True):
                case.forget()
                case.fill(past)
                got = case.run(past, rows, chunk)
                assert np.array_equal(got[: place + 1], alone[: place + 1]), f"row {place} of {count}, {chunk=}"


@formats_often(KV_F16)
def test_rows_that_were_written_over_leave_nothing_behind(bench: Bench, kv: KvFormat) -> None:
    case = Case(bench, SMALL, 80, kv=kv)
    case.fill(SPAN_TWO_TILES)
    want = case.run(SPAN_TWO_TILES, case.rows[60:68])
    case.run(SPAN_TWO_TILES, np.full((8, case.shape.columns.stride), np.nan, np.float32))
    assert np.array_equal(case.run(SPAN_TWO_TILES, case.rows[60:68]), want)


@formats_often(KV_F16)
def test_rows_that_do_not_see_the_next_tile_of_their_split_keep_its_sums(bench: Bench, kv: KvFormat) -> None:
    past = KEY_TILE * splits(bench) - 2
    case = Case(bench, SMALL, past + 4, kv=kv)
    case.fill(past)
    alone = np.concatenate([case.run(i, case.rows[i : i + 1]) for i in range(past, past + 4)])
    assert np.array_equal(case.run(past, case.rows[past:]), alone)


@formats_often(KV_F16)
def test_a_value_that_is_no_number_makes_no_number_of_the_rows_that_see_it(bench: Bench, kv: KvFormat) -> None:
    case = Case(bench, SMALL, 20, kv=kv)
    case.rows[10, case.shape.columns.v + 3] = np.nan
    got = case.run(0, case.rows)
    assert np.isfinite(got[:10]).all() and np.isnan(got[10:, 3]).all()


@formats_often(KV_F16)
@pytest.mark.parametrize("rows", [pytest.param(1, marks=nightly), 3, pytest.param(8, marks=nightly)])
def test_runs_in_any_slots_give_what_each_gives_alone(bench: Bench, rows: int, kv: KvFormat) -> None:
    last_split = KEY_TILE * splits(bench)  # behind it come tiles of the first split again
    alone, together = (Case(bench, SMALL, 3 * (last_split + rows), slots, kv) for slots in (1, SLOTS))
    sequences = np.split(together.rows, 3)
    for past in ((last_split - 2, 0, KEY_TILE - 1), (KEY_TILE, last_split, 2 * KEY_TILE - rows)):
        together.forget()
        for tokens, before, slot in zip(sequences, past, RUN_SLOTS, strict=True):
            together.chunks(tokens[:before], slot)
        parts = [tokens[before : before + rows] for tokens, before in zip(sequences, past, strict=True)]
        got, packed = together.run_all(past, parts, RUN_SLOTS), together.quantised
        for run, (before, slot) in enumerate(zip(past, RUN_SLOTS, strict=True)):
            alone.forget()
            alone.chunks(sequences[run][:before])
            assert np.array_equal(got[run::3], alone.run(before, parts[run])), f"run {run} after {before}"
            assert np.array_equal(packed[run::3], alone.quantised)
            assert np.array_equal(together.cache(slot), alone.cache(0))
        assert all((together.cache(slot) == 0xFF).all() for slot in FREE_SLOTS)
        assert not together.counters.read(np.int32, together.counters.nbytes // 4).any()


@formats_often(KV_F16)
@pytest.mark.parametrize("rows", RUN_ROWS)
def test_keys_and_values_are_stored_at_any_positions_of_their_slots(bench: Bench, rows: int, kv: KvFormat) -> None:
    alone, together = (Case(bench, SMALL, 3 * rows, slots, kv) for slots in (1, SLOTS))
    first, parts = (700, 0, KEY_TILE - 1), np.split(together.rows, 3)
    together.store(first, parts, RUN_SLOTS)
    for before, part, slot in zip(first, parts, RUN_SLOTS, strict=True):
        alone.forget()
        alone.run(before, part)  # whose sums are of poison
        assert np.array_equal(together.cache(slot), alone.cache(0))
    assert all((together.cache(slot) == 0xFF).all() for slot in FREE_SLOTS)


def test_quantised_rows_are_those_of_the_plain_ones(bench: Bench) -> None:
    case = Case(bench, SMALL, 12)
    for first, end in ((0, 9), (9, 12)):
        want = np.hstack(quantise(case.run(first, case.rows[first:end])))
        assert np.array_equal(case.quantised, want)


def test_rope_angles_keep_their_precision_at_the_end_of_the_longest_context() -> None:
    table = rope_table(262144, 64, THETA)
    assert table.shape == (262144, 2, 32)
    assert table.dtype == np.float32
    for i in (0, 1, 31):
        angle = 262143 * THETA ** (-2 * i / 64)
        assert table[-1, 0, i] == np.float32(math.cos(angle))
        assert table[-1, 1, i] == np.float32(math.sin(angle))


@pytest.mark.parametrize(("shape", "said"), [(Shape(4, 1, 48, 16), "48 dim"), (Shape(4, 1, 64, 8), "8 dim")])
def test_dimensions_that_the_kernels_do_not_take_are_refused(bench: Bench, shape: Shape, said: str) -> None:
    with pytest.raises(ArcmtpError, match=said):
        operator(bench, shape)


@every_format
@pytest.mark.parametrize("shape", [REAL, SMALL])
def test_a_cache_holds_what_its_twin_in_python_stores_and_loads(bench: Bench, shape: Shape, kv: KvFormat) -> None:
    case = Case(bench, shape, 130, kv=kv)
    case.rows[7, shape.columns.v :] = 0  # a head of nothing
    case.store([0], [case.rows], [0])
    of_cache = case.op.cache_shape(CONTEXT)
    stored = case.caches.read(kv.dtype, math.prod(of_cache)).reshape(of_cache)
    of_values = slice(shape.columns.v, shape.columns.v + shape.kv_heads * shape.head_dim)
    written = case.rows[:128, of_values].reshape(128, shape.kv_heads, shape.head_dim)
    twin = kv.store(np.zeros_like(written), written)
    bits = f"u{kv.dtype.itemsize}"
    assert np.array_equal(stored[1, :, :128].view(bits), twin[1].view(bits))
    keys, values = kv.load(stored, shape.head_dim)
    assert np.array_equal(values[:128], kv.load(twin, shape.head_dim)[1])
    assert not values[7].any()
    assert np.isnan(keys[130:]).all() and np.isfinite(keys[:130]).all()
    expected = case.keys(130)
    lost = np.linalg.norm(keys[:130] - expected) / np.linalg.norm(expected)
    assert MOST_LOST[kv] / 2 < lost < MOST_LOST[kv]


def test_spans_are_whole_tiles_of_each_part(bench: Bench) -> None:
    for kv in KV_FORMATS.values():
        shape = operator(bench, SMALL, kv).cache_shape(CONTEXT)
        spans, part = kv.spans(shape, 0, 130), CONTEXT * kv.nbytes(SMALL.head_dim)
        assert spans == [(i * part, 144 * kv.nbytes(SMALL.head_dim)) for i in range(2 * SMALL.kv_heads)]


def test_bytes_of_a_position_by_format() -> None:
    assert [kv.nbytes(256) for kv in KV_FORMATS.values()] == [512, 272, 132, 100]


def test_a_cache_holds_whole_tiles_of_keys(bench: Bench) -> None:
    op = operator(bench, SMALL)
    assert op.cache_shape(1) == op.cache_shape(64) == (2, 2, 64, 64)
    assert op.cache_shape(65) == (2, 2, 128, 64)
