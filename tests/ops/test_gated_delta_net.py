"""GATED_DELTA_NET against the float64 recurrence, and to the bit however tokens are fed.

Float32 sums of up to 128 products over some 50 tokens stay within 1e-5 of the largest output.
"""


import numpy as np
import pytest

from arcmtp.ops.gated_delta_net import Heads
from arcmtp.selftest.operators.gated_delta_net import SHAPES, Case, Chunk, Fed, Step, differences
from tests.ops.bench import Bench, agree
from tests.ops.conftest import ROW_COUNTS, RUN_ROWS

TINY = Heads(k=2, v=4, k_dim=64, v_dim=64)




@pytest.fixture(scope="module")
def tiny(bench: Bench) -> Case:
    return Case(bench, TINY, (*ROW_COUNTS, 0))


def one_by_one(count: int) -> list[Fed]:
    return [Step(1, 1)] * count


@pytest.mark.avx2
@pytest.mark.parametrize("heads", SHAPES)
def test_a_sequence_gives_the_reference_output_and_state(bench: Bench, heads: Heads) -> None:
    agree(differences(bench, heads))


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
        [Chunk(9, 1), Chunk(11, 3), Step(4, 2), Chunk(10, 8), Chunk(16, 8), Chunk(10, 7), Chunk(4, 3), Chunk(2)],
        [Chunk(2, 2), Chunk(8, 8), Step(2, 0), Chunk(3, 2), Chunk(1, 1), Chunk(1), Chunk(49, 5)],
    ]
    for way in ways:
        for got, expected in zip(tiny.feed(tokens, way), want, strict=True):
            assert np.array_equal(got, expected), way


def test_a_whole_prompt_chunk_gives_the_bits_of_single_tokens(tiny: Case) -> None:
    chunk_rows = tiny.bench.geometry.chunk_rows
    tokens = tiny.tokens(chunk_rows + 5)
    want = tiny.feed(tokens, one_by_one(len(tokens)))
    for got, expected in zip(tiny.feed(tokens, [Chunk(chunk_rows), Chunk(5)]), want, strict=True):
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
