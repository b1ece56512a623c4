"""A dense feed-forward's gate and up against float64 products of the same weights and activations."""

import numpy as np
import pytest

from arcmtp.formats.activations import dequantise, quantise
from arcmtp.formats.matrix import F16, W4, W6_K, W8
from arcmtp.ops.launch import Consumers
from arcmtp.selftest.operators.feed_forward import TOLERANCE, Case, K, compare, rows_of
from tests.ops.bench import Bench, agree
from tests.ops.conftest import LAUNCHED_ROWS, ROW_COUNTS


@pytest.mark.avx2
def test_it_gives_the_reference_values(bench: Bench) -> None:
    agree(compare(bench))


def test_gate_and_up_may_read_rows_of_different_forms(bench: Bench) -> None:
    case, x = Case(bench, F16, W8), np.random.default_rng(1).integers(-127, 128, (4, K)).astype(np.float32) / 128
    x[:, ::32] = 127 / 128  # so that int8 rows are exact
    assert np.array_equal(dequantise(*quantise(x)), x)
    agree([case.difference(x)])


@pytest.mark.parametrize(("k", "width"), [(32 * 11, 32), (32, 160), (512, 2048 + 32)])
def test_shapes_that_no_team_or_work_group_divides(bench: Bench, k: int, width: int) -> None:
    case = Case(bench, W4, W4, k, width)
    for rows in (1, 4, 9):
        agree([case.difference(rows_of(rows, k))])


@pytest.mark.parametrize("consumers", [Consumers(True, False), Consumers(False, True)], ids=["int8", "float"])
def test_rows_are_written_in_the_forms_that_are_wanted(bench: Bench, consumers: Consumers) -> None:
    case = Case(bench, W4, W4, consumers=consumers)
    for rows in (4, 17):
        agree([case.difference(rows_of(rows), 0.5 / 127 if consumers.quantised else TOLERANCE)])


def test_a_row_has_the_same_bits_at_any_row_count_and_place_among_nan_rows(bench: Bench) -> None:
    case = Case(bench, W4, W6_K, row_counts=ROW_COUNTS)
    row = rows_of(1)
    alone = case.run(row)[0]
    for rows, launched in LAUNCHED_ROWS:
        for place in {0, rows // 2, rows - 1}:
            x = np.full((rows, K), np.nan, np.float32)
            x[place] = row
            assert np.array_equal(case.run(x, launched)[place], alone), f"row {place} of {rows}, {launched=}"
