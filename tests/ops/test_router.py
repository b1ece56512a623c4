"""The router against float64; logits of k float32 products stay within 1e-4 of it."""

import numpy as np
import pytest

from arcmtp.formats.matrix import BF16, F32
from arcmtp.ops.router import reference
from arcmtp.selftest.operators.router import Case, K, compare
from tests.ops.bench import Bench, agree
from tests.ops.conftest import LAUNCHED_ROWS


@pytest.mark.avx2
def test_the_largest_logits_are_chosen_with_their_softmax(bench: Bench) -> None:
    agree(compare(bench))


def test_equal_logits_choose_the_lowest_experts(bench: Bench) -> None:
    case = Case(bench, 64, 8)
    case.router[:] = case.router[0]
    _, _, selected, slots = case.run(np.ones((1, K), np.float32), np.zeros((1, K), np.float32))
    assert selected.tolist() == [list(range(8))]
    np.testing.assert_allclose(slots[0, :8], 1 / 8, rtol=1e-6)


@pytest.mark.parametrize(("experts", "used"), [(40, 3), (100, 8), (256, 8), (256, 10)])
def test_of_many_equal_logits_the_lowest_experts_are_chosen_in_order(bench: Bench, experts: int, used: int) -> None:
    rng = np.random.default_rng(experts)
    case = Case(bench, experts, used, row_counts=(1, 2, 4))
    kinds, kind = case.router[:20].copy(), rng.integers(0, 20, experts)
    case.router[:] = kinds[kind]
    for rows in (1, 2, 4):
        x, y = rng.standard_normal((2, rows, K)).astype(np.float32)
        _, normed, selected, slots = case.run(x, y)
        logits = (normed.astype(np.float64) @ kinds.T)[:, kind]
        want, weights = reference(logits, (normed @ case.gate.T)[:, 0], used)
        assert selected.tolist() == want.tolist(), rows
        np.testing.assert_allclose(slots, weights, atol=1e-4)


def test_weights_in_bf16_give_the_bits_that_they_give_in_f32(bench: Bench) -> None:
    wide, narrow = (Case(bench, 100, 8, (fmt, fmt)) for fmt in (F32, BF16))
    for rows, launched in ((1, 1), (3, 3), (8, 8), (17, 32), (17, 0)):
        x, y = np.random.default_rng(rows).standard_normal((2, rows, K)).astype(np.float32)
        for a, b in zip(wide.run(x, y, launched), narrow.run(x, y, launched), strict=True):
            assert np.array_equal(a, b), (rows, launched)


def test_a_row_has_the_same_bits_at_any_row_count_among_nan_rows(bench: Bench) -> None:
    case = Case(bench, 64, 8)
    row = np.random.default_rng(3).standard_normal((2, 1, K)).astype(np.float32)
    alone = [a[0] for a in case.run(row[0], row[1])]
    for rows, launched in LAUNCHED_ROWS:
        for place in {0, rows - 1}:
            x, y = np.full((2, rows, K), np.nan, np.float32)
            x[place], y[place] = row[:, 0]
            got = case.run(x, y, launched)
            for a, want in zip(got, alone, strict=True):
                assert np.array_equal(a[place], want), (rows, launched)
            assert got[2].min() >= 0 and got[2].max() < 64, "NaN rows choose experts that exist"
