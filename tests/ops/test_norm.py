"""RMS norm against float64: float32 sums of k squares stay within 1e-5 relative of it."""

import numpy as np
import pytest

from arcmtp.ops.norm import reference
from arcmtp.selftest.operators.norm import EPS, Case, compare
from tests.ops.bench import Bench, agree
from tests.ops.conftest import LAUNCHED_ROWS


@pytest.mark.avx2
def test_the_sum_of_the_slots_is_normed_and_quantised(bench: Bench) -> None:
    agree(compare(bench))


def test_a_gathered_row_is_the_row_that_was_asked_for(bench: Bench) -> None:
    case, rng = Case(bench, 256, 3, gather=True), np.random.default_rng(0)
    x = rng.standard_normal((20, 256)).astype(np.float32)
    partials = rng.standard_normal((20, 3, 256)).astype(np.float32)
    _, plain, _ = case.run(x, partials, 2, np.array([19, 4]))
    want = reference((x + partials.sum(1))[[19, 4]], case.weight, EPS)
    np.testing.assert_allclose(plain, want, rtol=1e-5, atol=1e-5)


def test_a_row_has_the_same_bits_at_any_row_count_among_nan_rows(bench: Bench) -> None:
    case, rng = Case(bench, 256, 3), np.random.default_rng(2)
    row, parts = rng.standard_normal((1, 256)).astype(np.float32), rng.standard_normal((1, 3, 256)).astype(np.float32)
    alone = [a[0] for a in case.run(row, parts, 1)]
    for rows, launched in LAUNCHED_ROWS:
        place = rows // 2
        x, partials = np.full((rows, 256), np.nan, np.float32), np.full((rows, 3, 256), np.nan, np.float32)
        x[place], partials[place] = row, parts
        for got, want in zip(case.run(x, partials, rows, launched=launched), alone, strict=True):
            assert np.array_equal(got[place], want), (rows, launched)


def test_a_row_of_zeros_gives_zeros(bench: Bench) -> None:
    case = Case(bench, 256, 3)
    _, plain, seen = case.run(np.zeros((1, 256), np.float32), np.zeros((1, 3, 256), np.float32), 1)
    assert not plain.any() and not seen.any()
