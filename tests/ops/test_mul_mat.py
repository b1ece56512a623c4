"""MUL_MAT against float64 sums of the same weights and activations: float32 sums of k terms are within 1e-5 of them."""

import numpy as np
import pytest

from arcmtp.formats import matrix as formats
from arcmtp.selftest.operators.mul_mat import TOLERANCE, Case, compare, expected
from tests.ops.bench import Bench, agree
from tests.ops.conftest import LAUNCHED_ROWS, ROW_COUNTS


@pytest.mark.avx2
@pytest.mark.parametrize("k", [256, pytest.param(768, marks=pytest.mark.nightly)])
def test_every_format_gives_the_reference_product(bench: Bench, k: int) -> None:
    agree(compare(bench, k))


def test_inputs_that_fill_no_whole_slices_are_all_counted(bench: Bench) -> None:
    plain_groups = [f for f in formats.FORMATS if f.multiple == 32]
    case = Case(bench, [(fmt, 16) for fmt in plain_groups], 32 * 11, (1,))
    x = case.rng.standard_normal((1, case.k)).astype(np.float32)
    want = expected(x, case.segments, case.weights)
    np.testing.assert_allclose(case.run(x), want, atol=TOLERANCE * np.abs(want).max(), rtol=0)


def test_a_row_has_the_same_bits_at_any_row_count_and_place_among_nan_rows(bench: Bench) -> None:
    shapes = [(formats.W4, 40), (formats.W6_16, 16), (formats.IQ4_XS, 16), (formats.Q3_K, 16), (formats.F32, 1)]
    case = Case(bench, shapes, 256, ROW_COUNTS)
    row = case.rng.standard_normal((1, case.k)).astype(np.float32)
    alone = case.run(row)[0]
    for rows, launched in LAUNCHED_ROWS:
        for place in {0, rows // 2, rows - 1}:
            x = np.full((rows, case.k), np.nan, np.float32)
            x[place] = row
            assert np.array_equal(case.run(x, launched)[place], alone), f"row {place} of {rows}, {launched=}"


def test_weights_in_bf16_give_the_bits_that_they_give_in_f32(bench: Bench) -> None:
    case = Case(bench, [(formats.W4, 40), (formats.BF16, 32), (formats.F32, 32)], 256, ROW_COUNTS)
    _, narrow, wide = case.segments
    values = formats.unpack(formats.BF16, case.weights[narrow.offset :][: narrow.nbytes], 32, case.k)
    in_tiles = values.reshape(-1, 16, case.k).transpose(0, 2, 1)
    case.weights[wide.offset :][: wide.nbytes] = np.ascontiguousarray(in_tiles).view(np.uint8).reshape(-1)
    case.device_weights.write(case.weights)
    for rows, launched in LAUNCHED_ROWS:
        got = case.run(case.rng.standard_normal((rows, case.k)).astype(np.float32), launched)[:, 48:]
        assert np.array_equal(got[:, :32], got[:, 32:]) and np.isfinite(got).all(), (rows, launched)
