"""Both expert launches against float64 products of the same weights and activations."""

import numpy as np
import pytest

from arcmtp.formats.matrix import (
    W4,
    Format,
)
from arcmtp.ops.launch import Consumers
from arcmtp.ops.norm import Norm
from arcmtp.runtime.card import cards
from arcmtp.selftest.operators.experts import FORMATS, SHARED_WIDTH, USED, WIDTH, Case, K, choose, differences
from tests.ops.bench import Bench, agree
from tests.ops.conftest import EMULATED, GEOMETRY, LAUNCHED_ROWS


@pytest.mark.avx2
@pytest.mark.parametrize(("routed", "shared"), FORMATS)
def test_experts_give_the_reference_sums(
    bench: Bench, routed: tuple[Format, Format, Format], shared: tuple[Format, Format]
) -> None:
    agree(differences(Case(bench, routed, shared), routed, shared, (1, 4, 17, 75)))


def test_widths_that_no_work_group_divides(bench: Bench) -> None:
    routed, shared = (W4, W4, W4), (W4, W4)
    case = Case(bench, routed, shared, width=288, shared_width=160)
    agree(differences(case, routed, shared, (1, 4, 17, 75)))


def test_a_row_has_the_same_bits_at_any_row_count_among_nan_rows(bench: Bench) -> None:
    case, rng = Case(bench, (W4, W4, W4), (W4, W4)), np.random.default_rng(2)
    row, chosen = rng.standard_normal((1, K)).astype(np.float32), choose(rng, 1)
    hidden, shared = case.run_gate_up(row, chosen)
    slots = rng.uniform(0.1, 1, (1, USED + 1)).astype(np.float32)
    partials = case.run_down(hidden, shared, chosen, slots)
    for rows, launched in LAUNCHED_ROWS:
        place, selected = rows // 2, choose(rng, rows)
        selected[place] = chosen
        x, h = np.full((rows, K), np.nan, np.float32), np.full((rows, USED, WIDTH), np.nan, np.float32)
        s, w = np.full((rows, SHARED_WIDTH), np.nan, np.float32), np.full((rows, USED + 1), np.nan, np.float32)
        x[place], h[place], s[place], w[place] = row[0], hidden[0], shared[0], slots[0]
        got_hidden, got_shared = case.run_gate_up(x, selected, launched)
        assert np.array_equal(got_hidden[place], hidden[0]), (rows, launched)
        assert np.array_equal(got_shared[place], shared[0]), (rows, launched)
        assert np.array_equal(case.run_down(h, s, selected, w, launched)[place], partials[0]), (rows, launched)


def test_lists_of_an_experts_rows_hold_all_of_them(bench: Bench) -> None:
    """Of one row, of a row more than the threads of a team share evenly, and of a whole chunk that chooses alike."""
    case, rng = Case(bench, (W4, W4, W4), (W4, W4), row_counts=(1, 0)), np.random.default_rng(3)
    x, selected = rng.standard_normal((171, K)).astype(np.float32), choose(rng, 171)
    chunk, _ = case.run_gate_up(x, selected)
    for row in (0, 170):
        one = slice(row, row + 1)
        alone, _ = case.run_gate_up(x[one], selected[one])
        np.testing.assert_array_equal(case.run_gate_up(x[one], selected[one], launched=0)[0], alone)
        np.testing.assert_array_equal(chunk[one], alone)
    whole = np.tile(selected[:1], (bench.geometry.chunk_rows, 1))
    got, _ = case.run_gate_up(np.tile(x[:1], (len(whole), 1)), whole)
    np.testing.assert_array_equal(got, np.tile(chunk[:1], (len(whole), 1, 1)))


@pytest.mark.parametrize("bench", [GEOMETRY, EMULATED], indirect=True)
@pytest.mark.parametrize("gather", [False, True])
def test_the_last_team_norms_the_only_row_as_a_launch_of_its_own_does(bench: Bench, gather: bool) -> None:
    case, rng = Case(bench, (W4, W4, W4), (W4, W4), row_counts=(1,)), np.random.default_rng(4)
    norm = Norm(K, 1e-6, USED + 1, Consumers(quantised=True, plain=True), bench.geometry, gather)
    hidden = rng.standard_normal((1, USED, WIDTH)).astype(np.float32)
    shared = rng.standard_normal((1, SHARED_WIDTH)).astype(np.float32)
    slots = rng.uniform(0.1, 1, (1, USED + 1)).astype(np.float32)
    x, weight = (bench.array(rng.standard_normal((1, K)).astype(np.float32)) for _ in range(2))
    selected, arrivals = choose(rng, 1), bench.zeros(4)

    def run(merged: bool) -> list[np.ndarray]:
        down, partials = case.down_launch(hidden, shared, selected, slots, 1)
        x_out, plain, quantised = bench.poisoned(K * 4), bench.poisoned(K * 4), bench.activation_rows(1, K)
        after = norm.launch(
            1, x=x, partials=partials, x_out=x_out, weight=weight, source_rows=bench.ints([0]), quantised=quantised,
            plain=plain, row_count=bench.ints([1]),
        )  # fmt: skip
        bench.run(down.then(after, arrivals) if merged else [down, after])
        normed = bench.rows(plain, 1, K)
        return [bench.rows(x_out, 1, K), normed, *bench.read_activations(quantised, normed)]

    expected = run(merged=False)
    for _ in range(3):  # the counter is zero again
        for one, other in zip(run(merged=True), expected, strict=True):
            np.testing.assert_array_equal(one, other)


def test_on_a_cpu_a_norm_stays_a_launch_of_its_own() -> None:
    one_row = Norm(K, 1e-6, 3, Consumers(quantised=True, plain=False), cards()["cpu"].geometry).kernel(1)
    assert not one_row.at_last
