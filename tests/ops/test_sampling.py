"""Sampling against float64: the log-sum-exp within 1e-6 of the larger of it, the largest logit and 1.

One part is float32's own (half a unit of the last place is 6e-8), the rest is exp's two units and the sums' roundings.
"""

import numpy as np
import pytest

from arcmtp.ops.sampling import STATS, Sampling, Vocabulary, reference
from arcmtp.selftest.operators.sampling import TOLERANCE, Case
from tests.ops.bench import Bench, agree
from tests.ops.conftest import LAUNCHED_ROWS, ROW_COUNTS


@pytest.fixture(scope="module")
def small(bench: Bench) -> Case:
    """1,003 columns: no multiple of 16, fewer blocks than a GPU has work-groups, and the last ones are not full."""
    op = Sampling(Vocabulary(1003, 1024), bench.geometry)
    bench.compile(op.kernel(rows) for rows in (*ROW_COUNTS, 0))
    return Case(bench, op)


@pytest.mark.avx2
@pytest.mark.parametrize("rows", [*ROW_COUNTS, 17, pytest.param(512, marks=pytest.mark.nightly)])
def test_rows_give_the_references_token_and_log_probabilities(small: Case, rows: int) -> None:
    rng = np.random.default_rng(rows)
    agree(small.differences("random", 3 * rng.standard_normal((rows, 1003)), rng.integers(-1, 1003, rows)))


def test_vocabularies_of_any_size_are_covered_exactly_once(bench: Bench) -> None:
    vocabularies = [Vocabulary(used, -(-used // 16) * 16) for used in (1, 15, 16, 17, 127, 129, 8192)]
    ops = [Sampling(vocabulary, bench.geometry) for vocabulary in vocabularies]
    bench.compile(op.kernel(8) for op in ops)
    for op in ops:
        rng = np.random.default_rng(op.vocab_used)
        logits = rng.standard_normal((8, op.vocab_used))
        logits[np.arange(8), rng.integers(0, op.vocab_used, 8)] += 6
        agree(Case(bench, op).differences(f"{op.vocab_used}", logits, rng.integers(0, op.vocab_used, 8)))


def test_the_full_vocabulary_keeps_its_accuracy(bench: Bench) -> None:
    vocab = 248_077
    rng = np.random.default_rng(0)
    rows = np.stack([
        rng.standard_normal(vocab), 8 * rng.standard_normal(vocab), np.zeros(vocab), rng.uniform(-1e-3, 1e-3, vocab),
        np.linspace(-40, 40, vocab), np.linspace(40, -40, vocab), np.full(vocab, -90.0),
    ])  # fmt: skip
    rows[-1, 200_000] = 10
    case = Case(bench, Sampling(Vocabulary(vocab, 248_320), bench.geometry))
    agree(case.differences("all", rows, rng.integers(0, vocab, 7)))


def test_equal_logits_give_the_lowest_column(small: Case) -> None:
    rng = np.random.default_rng(1)
    for places in ([0, 1002], [15, 16], [130, 131, 900], [511, 512], range(1003)):
        logits = rng.uniform(-5, 1, (1, 1003))
        logits[0, list(places)] = 2
        agree(small.differences("ties", logits, np.array([1002])))


def test_each_column_can_win_alone(small: Case) -> None:
    rows = small.bench.repeats(512, least=64)
    columns = np.arange(rows) * 1002 // (rows - 1)
    logits = np.full((rows, 1003), -np.inf)
    logits[np.arange(rows), columns] = -2.5
    ids, stats = small.run(logits, columns)
    assert np.array_equal(ids, columns)
    np.testing.assert_array_equal(stats, np.tile(np.array([-2.5, -2.5, 0], np.float32), (rows, 1)))


def test_infinite_and_nan_logits_keep_to_their_row_and_nan_never_wins(small: Case) -> None:
    rng = np.random.default_rng(2)
    logits = rng.standard_normal((8, 1003)).astype(np.float32)
    targets = rng.integers(0, 1003, 8)
    alone = small.run(logits[:1], targets[:1])
    logits[1] = np.nan
    logits[2] = -np.inf
    logits[3, :1000] = -np.inf
    logits[4, ::2] = np.nan
    logits[5, 7] = np.inf
    logits[7, 5] = -np.inf
    ids, stats = small.run(logits, targets)
    want_ids, want = reference(logits, targets, 1003)
    assert np.array_equal(ids, want_ids)
    assert list(ids[1:3]) == [0, 0] and ids[5] == 7
    assert np.array_equal(stats[:, 0], want[:, 0].astype(np.float32))
    assert np.isnan(stats[[1, 4], 1]).all() and stats[2, 1] == -np.inf
    finite = [0, 3, 6, 7]
    np.testing.assert_allclose(stats[finite, 1], want[finite, 1], rtol=TOLERANCE)
    assert np.array_equal(stats[0], alone[1][0])


def test_a_row_has_the_same_bits_at_any_row_count_and_place_among_nan_rows(small: Case) -> None:
    rng = np.random.default_rng(3)
    row, target = rng.standard_normal((1, 1003)), np.array([77])
    ids, stats = small.run(row, target)
    most = small.bench.repeats(512, least=17)
    for rows, launched in [(rows, launched) for rows, launched in LAUNCHED_ROWS if rows <= most and launched]:
        for place in set([rows - 1, 0, rows // 2][: small.bench.repeats(3, least=1)]):
            logits, targets = np.full((rows, 1003), np.nan), np.full(rows, -1)
            logits[place], targets[place] = row[0], target[0]
            got_ids, got_stats = small.run(logits, targets, launched)
            assert got_ids[place] == ids[0], f"row {place} of {rows}, {launched=}"
            assert np.array_equal(got_stats[place], stats[0]), f"row {place} of {rows}, {launched=}"


def test_a_guarded_launch_writes_nothing_or_all_and_its_counters_are_zero_again(small: Case) -> None:
    logits, bench = np.random.default_rng(4).standard_normal((2, 1003)), small.bench
    want = small.run(logits)
    ids, stats, flag = bench.poisoned(8), bench.poisoned(2 * STATS * 4), bench.zeros(4)
    launch = small.op.launch(
        2, logits=bench.array(small.padded(logits)), targets=bench.ints([-1] * 2), ids=ids, stats=stats,
        partials=small.partials, arrivals=small.arrivals, row_count=bench.ints([2]),
    ).only_if(flag)  # fmt: skip
    bench.run(launch)
    assert not bench.written(ids, 2).any() and not bench.written(stats, 2).any()
    flag.write(np.ones(1, np.int32))
    bench.run(launch)
    assert np.array_equal(bench.rows(ids, 2, 1, np.int32)[:, 0], want[0])
    assert np.array_equal(bench.rows(stats, 2, STATS), want[1])
    assert not small.arrivals.read(np.int32, bench.geometry.chunk_rows).any()


def test_targets_outside_the_vocabulary_are_impossible_and_minus_one_is_the_chosen_token(small: Case) -> None:
    logits = np.zeros((3, 1003))
    logits[:, 70] = 3
    _, stats = small.run(logits, np.array([-1, 1003, 2**31 - 1]))
    assert list(stats[:, 2]) == [stats[0, 0] - stats[0, 1], -np.inf, -np.inf]
    assert stats[0, 0] == 3


def test_columns_that_do_not_fit_the_rows_are_refused() -> None:
    for vocab_used, stride in ((17, 16), (0, 16), (10, 20)):
        with pytest.raises(ValueError, match=str(stride)):
            Vocabulary(vocab_used, stride)
