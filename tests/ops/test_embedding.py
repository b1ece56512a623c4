"""Embedding rows equal `formats.unpack` bit for bit: the kernel does the same float32 operations in the same order."""

import numpy as np
import pytest

from arcmtp.formats import matrix as formats
from arcmtp.selftest.operators.embedding import Case, compare
from tests.ops.bench import POISON, Bench, agree
from tests.ops.conftest import LAUNCHED_ROWS, ROW_COUNTS, without_geometry

pytestmark = without_geometry


@pytest.mark.avx2
def test_every_format_gives_the_unpacked_bits_of_every_row(bench: Bench) -> None:
    agree(compare(bench))


def test_a_row_whose_last_work_group_is_not_full_ends_where_it_should(bench: Bench) -> None:
    case = Case(bench, formats.W4_MIN, n=16, k=32 * 11)
    got = case.run(np.array([5]), 2)
    assert np.array_equal(got[:1], case.want(np.array([5])))
    assert np.all(got[1] == POISON)


def test_any_number_of_rows_gives_each_its_token_and_nothing_behind_them(bench: Bench) -> None:
    case = Case(bench, formats.W6_16, n=100, k=256)
    bench.compile(case.op.kernel(rows) for rows in (*ROW_COUNTS, 0))
    for rows, launched in LAUNCHED_ROWS:
        ids = case.rng.integers(0, 100, rows)
        got = case.run(ids, bench.geometry.chunk_rows + 1, launched)
        assert np.array_equal(got[:rows], case.want(ids)), f"{rows} rows, {launched=}"
        assert np.all(got[rows:] == POISON), f"{rows} rows, {launched=}"


def test_ids_outside_the_vocabulary_give_its_first_and_last_row(bench: Bench) -> None:
    case = Case(bench, formats.F16, n=20, k=64)
    ids = np.array([-1, 20, -(2**31), 2**31 - 1])
    assert np.array_equal(case.run(ids, 4), case.want(np.array([0, 19, 0, 19])))
