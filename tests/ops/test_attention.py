"""Attention against float64 over a cache rounded as its format rounds.

A key that float32 arithmetic rounds to the other side moves a score: for halves by 2^-11 of one product, and 2e-5 of
the largest output was seen. So does a code, of a key or of a query.
"""

import math

import numpy as np
import pytest

from arcmtp.errors import ArcmtpError
from arcmtp.formats.activations import quantise
from arcmtp.formats.kv_cache import KEY_TILE, KV_F16, KV_FORMATS, KV_Q8, KV_TURBO3, KV_TURBO4, KvFormat
from arcmtp.ops.attention import rope_table
from arcmtp.selftest.operators.attention import (
    CONTEXT,
    REAL,
    SHAPES,
    SMALL,
    THETA,
    Case,
    Shape,
    difference,
    operator,
    splits,
)
from tests.ops.bench import Bench, agree
from tests.ops.conftest import CHUNK_COUNTS, FREE_SLOTS, ROW_COUNTS, RUN_ROWS, RUN_SLOTS, SLOTS

MOST_LOST = {KV_F16: 4e-4, KV_Q8: 0.008, KV_TURBO4: 0.11, KV_TURBO3: 0.2}  # of the norm of normal values
nightly = pytest.mark.nightly
SPAN_TWO_TILES = 60  # positions from here on are in the second tile after four rows




every_format = pytest.mark.parametrize("kv", KV_FORMATS.values(), ids=KV_FORMATS)


def formats_often(*often: KvFormat) -> pytest.MarkDecorator:
    """Every format; on the emulated card, which takes 5 s for such a test, the others by make emulate-all alone."""
    marks = {kv: () if kv in often else nightly for kv in KV_FORMATS.values()}
    return pytest.mark.parametrize("kv", [pytest.param(kv, id=kv.name, marks=marks[kv]) for kv in marks])


def assert_close(got: np.ndarray, want: np.ndarray, kv: KvFormat = KV_F16) -> None:
    agree([difference(kv.name, got, want, kv)])


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
