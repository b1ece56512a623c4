"""Input rows of the MTP block against float64, in every order of rows."""


import numpy as np
import pytest

from arcmtp.ops.draft_input import order
from arcmtp.ops.launch import CARRIED_ROWS, compiled_rows
from arcmtp.selftest.operators.draft_input import VOCAB, Case, compare
from tests.ops.bench import Bench, agree, interleaved
from tests.ops.conftest import CHUNK_COUNTS, LAUNCHED_ROWS, ROW_COUNTS, RUN_ROWS, RUN_SLOTS, SLOTS


@pytest.mark.avx2
def test_embedding_and_hidden_row_are_normed(bench: Bench) -> None:
    agree(compare(bench))


def test_the_last_accepted_row_comes_first_with_the_bits_that_it_has_alone(bench: Bench) -> None:
    case = Case(bench, 256)
    for rows in ROW_COUNTS:
        tokens = case.rng.integers(0, VOCAB, rows)
        hidden = case.rng.standard_normal((rows, 256)).astype(np.float32)
        alone = np.concatenate([case.run("draft", tokens[r : r + 1], hidden[r : r + 1])[0] for r in range(rows)])
        for last in range(rows):
            stale = hidden.copy()
            stale[last + 1 :] = np.nan  # of rows that were rejected
            got, positions = case.run("step", tokens, stale, accepted=[last])
            rank = order(rows, last)
            np.testing.assert_array_equal(got[: last + 1], alone[rank[: last + 1]])
            np.testing.assert_array_equal(positions, [100 - last + row for row in rank])


@pytest.mark.parametrize("rows", RUN_ROWS)
def test_the_last_accepted_rows_of_all_runs_come_before_the_others(bench: Bench, rows: int) -> None:
    case = Case(bench, 96)
    accepted, positions = [rows - 1, 0, rows // 2], [100, 7, 3000]
    tokens = [case.rng.integers(0, VOCAB, rows) for _ in RUN_SLOTS]
    hidden = [case.rng.standard_normal((rows, 96)).astype(np.float32) for _ in RUN_SLOTS]
    for last, values in zip(accepted, hidden, strict=True):
        values[last + 1 :] = np.nan
    alone = [
        case.run("step", tokens[run], hidden[run], accepted=accepted[run : run + 1], positions=positions[run : run + 1])
        for run in range(3)
    ]
    together = interleaved(tokens), interleaved(hidden)
    for launched in {compiled_rows(3 * rows), 3 * rows, 32 if rows > 1 else 3}:
        got, got_positions = case.run("step", *together, launched, accepted, positions, slots=RUN_SLOTS)
        for run, (want, want_positions) in enumerate(alone):
            np.testing.assert_array_equal(got[run::3], want)
            np.testing.assert_array_equal(got_positions[run::3], want_positions)


def test_a_row_has_the_bits_that_it_has_alone(bench: Bench) -> None:
    case = Case(bench, 256)
    row = case.rng.standard_normal((1, 256)).astype(np.float32)
    alone, _ = case.run("draft", np.array([11]), row)
    for rows, launched in LAUNCHED_ROWS:
        hidden = np.full((rows, 256), np.nan, np.float32)
        hidden[rows // 2] = row
        tokens = np.full(rows, 11)
        np.testing.assert_array_equal(case.run("draft", tokens, hidden, launched)[0][rows // 2], alone[0])


@pytest.mark.parametrize("position", [0, 1, CARRIED_ROWS, 1000])
def test_rows_of_a_prompt_take_the_hidden_row_before_them_and_the_first_its_slots(bench: Bench, position: int) -> None:
    case = Case(bench, 256)
    carried = np.full((SLOTS, CARRIED_ROWS, 256), np.nan, np.float32)
    first = carried[2, (position - 1) % CARRIED_ROWS]
    first[:] = case.rng.standard_normal(256)
    for rows in (1, *CHUNK_COUNTS):
        tokens = case.rng.integers(0, VOCAB, rows)
        hidden = case.rng.standard_normal((rows, 256)).astype(np.float32)
        before = np.concatenate([[first], hidden[:-1]])
        hidden[-1] = np.nan
        positions = range(position, position + rows)
        got, _ = case.run("prompt", tokens, hidden, 0, positions=positions, carried=carried, slots=[2])
        np.testing.assert_array_equal(got, case.run("draft", tokens, before, 0)[0])


@pytest.mark.parametrize("position", [1, 60, CARRIED_ROWS, 1000])
def test_rows_left_out_take_the_carried_hidden_row_of_the_position_before_them(bench: Bench, position: int) -> None:
    case = Case(bench, 256)
    for rows in (1, 5, CARRIED_ROWS):
        tokens, before = case.rng.integers(0, VOCAB, rows), case.rng.standard_normal((rows, 256)).astype(np.float32)
        positions = np.arange(position, position + rows)
        carried = np.full((SLOTS, CARRIED_ROWS, 256), np.nan, np.float32)
        carried[2, (positions - 1) % CARRIED_ROWS] = before
        unused = np.full((rows, 256), np.nan, np.float32)
        got, _ = case.run("carried", tokens, unused, 0, positions=positions.tolist(), carried=carried, slots=[2])
        np.testing.assert_array_equal(got, case.run("draft", tokens, before, 0)[0])


def test_a_zero_hidden_row_stays_zero(bench: Bench) -> None:
    got, _ = Case(bench, 256).run("draft", np.array([3]), np.zeros((1, 256), np.float32))
    assert not got[0, 256:].any() and got[0, :256].any()


@pytest.mark.parametrize(("pending", "kept"), [(0, [6]), (1, [5, 6]), (6, [0, 6]), (7, [6])])
def test_rows_of_a_chunk_are_carried_before_those_that_go_on_from_them(
    bench: Bench, pending: int, kept: list[int]
) -> None:
    case = Case(bench, 96)
    rows, carried = case.rng.standard_normal((10, 96)).astype(np.float32), bench.poisoned(SLOTS * CARRIED_ROWS * 96 * 4)
    launch = case.op.carry(
        hidden=bench.array(rows), positions=bench.ints(range(195, 205)), row_count=bench.ints([7]),
        chunk_pending=bench.ints([pending]), carried=carried, slot=bench.ints([2]),
    )  # fmt: skip
    bench.run(launch)
    found = carried.read(np.float32, SLOTS * CARRIED_ROWS * 96).reshape(-1, 96)
    places = [2 * CARRIED_ROWS + (195 + row) % CARRIED_ROWS for row in kept]
    np.testing.assert_array_equal(found[places], rows[kept])
    assert np.isnan(np.delete(found, places, axis=0)).all()
