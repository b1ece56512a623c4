"""The likeliest tokens against their reference: the same ids and bits, since a subtraction is all the arithmetic."""

import math

import numpy as np
import pytest

from arcmtp.ops import sampling
from arcmtp.ops.launch import MAX_ROWS
from arcmtp.ops.sampling import STATS, Sampling, Vocabulary
from arcmtp.ops.top_logprobs import MAX_TOP, reference
from arcmtp.selftest.operators.top_logprobs import UNTOUCHED, VOCAB, Case
from tests.ops.bench import Bench, agree, interleaved
from tests.ops.conftest import ROW_COUNTS, RUN_ROWS, RUN_SLOTS, SLOTS


@pytest.fixture(scope="module")
def small(bench: Bench) -> Case:
    (case,) = Case.of(bench, VOCAB)
    return case


@pytest.mark.avx2
@pytest.mark.parametrize("rows", ROW_COUNTS)
def test_rows_give_the_references_tokens_and_log_probabilities(small: Case, rows: int) -> None:
    agree(small.differences("random", 3 * np.random.default_rng(rows).standard_normal((rows, VOCAB))))


def test_vocabularies_of_any_size_are_covered(bench: Bench) -> None:
    for case in Case.of(bench, 1, 15, 64, 65, 90, 129, 2041, 4096, 49_651):
        rng = np.random.default_rng(case.op.vocab_used)
        logits = rng.standard_normal((2, case.op.vocab_used))
        agree(case.differences(f"{case.op.vocab_used}", logits, (1, MAX_TOP)))


def test_full_vocabularies_and_larger_ones_are_covered(bench: Bench) -> None:
    for case in Case.of(bench, 248_077, 270_001):  # the latter has more than 64 blocks
        vocab = case.op.vocab_used
        rng = np.random.default_rng(vocab)
        logits = 2.5 * rng.standard_normal((2, vocab))
        logits[1, vocab - 70 :] += 50
        agree(case.differences(f"{vocab}", logits, (20, MAX_TOP)))


def adversarial() -> dict[str, np.ndarray]:
    rng, column = np.random.default_rng(2), np.arange(VOCAB)
    normal = rng.standard_normal(VOCAB)
    return {
        "flat": np.zeros(VOCAB),
        "one_hot": np.where(column == 700, 30.0, 0.0),
        "one_hot_at_the_end": np.where(column == VOCAB - 1, 30.0, -4.0),
        "few_levels": np.round(normal),
        "two_levels": np.where(normal > 1, 2.0, -1.0),
        "ties_across_quads": np.where(np.isin(column, [3, 63, 64, 500, 1002]), 9.0, normal),
        "signed_zeros": np.where(normal > 0, 0.0, -0.0),
        "rising": np.linspace(-20, 20, VOCAB),
        "falling": np.linspace(20, -20, VOCAB),
        "one_quad_is_best": np.where(column // 64 == 9, 20 + normal, normal),
        "tiny": normal * 1e-30,
        "smallest_numbers": np.where(normal > 0, np.finfo(np.float32).min, -np.inf),
        "mostly_impossible": np.where(column % 90 == 1, normal, -np.inf),
        "one_possible": np.where(column == 1002, -50.0, -np.inf),
        "impossible": np.full(VOCAB, -np.inf),
        "nan": np.full(VOCAB, np.nan),
        "half_nan": np.where(rng.random(VOCAB) < 0.5, np.nan, normal),
        "nan_in_odd_columns": np.where(column % 2 == 1, np.nan, normal),
        "nan_at_the_ends": np.where((column == 0) | (column == VOCAB - 1), np.nan, normal),
        "three_certain": np.where(np.isin(column, [9, 600, 601]), np.inf, normal),
    }


@pytest.mark.avx2
def test_adversarial_logits_give_the_references_tokens(small: Case) -> None:
    rows = np.stack(list(adversarial().values()))
    for first in range(0, len(rows), MAX_ROWS):
        agree(small.differences("adversarial", rows[first : first + MAX_ROWS]))


def test_the_reference_lists_what_the_definitions_say() -> None:
    logits = np.array([[1, 3, np.nan, 3, -np.inf, 99]], np.float32)
    ids, logprobs = reference(logits, np.array([4], np.float32), 6, np.array([0]), 5)
    assert ids.tolist() == [[0, 1, 3, 0, -1, -1, -1]]
    assert logprobs.tolist() == [[-3, -1, -1, -3, -np.inf, -np.inf, -np.inf]]


def test_the_count_is_read_when_the_launch_runs_and_none_leaves_only_the_chosen_token(small: Case) -> None:
    logits = np.random.default_rng(3).standard_normal((3, VOCAB)).astype(np.float32)
    chosen, log_sum = np.array([5, 1002, 64]), np.array([7, 8, 9], np.float32)
    stats = np.stack([log_sum] * STATS, axis=1)
    launch = small.launch(logits, small.bench.array(stats), small.bench.ints(chosen))
    for count in (0, 30, 0, MAX_TOP, 2):
        ids, logprobs = small.results(launch, 3, count)
        want_ids, want = reference(logits, log_sum, count, chosen, VOCAB)
        assert np.array_equal(ids[:, : count + 1], want_ids) and np.array_equal(logprobs[:, : count + 1], want)
        assert np.all(ids[:, count + 1 :] == UNTOUCHED) and np.all(logprobs[:, count + 1 :] == UNTOUCHED)
    assert not small.counters.read(np.int32, MAX_ROWS).any()
    small.scratch.fill(0xFF)
    small.results(launch, 3, 0)
    assert np.all(small.scratch.read(np.uint8, small.scratch.nbytes) == 0xFF)  # no column was looked at


def test_a_row_has_the_same_bits_at_any_row_count_and_place_among_nan_rows(small: Case) -> None:
    row = np.random.default_rng(4).standard_normal(VOCAB)
    want_ids, want = small.run(row[None], 40, np.array([77]), np.array([6.5]))
    for rows in ROW_COUNTS:
        for place in range(rows):
            logits, log_sum = np.full((rows, VOCAB), np.nan), np.full(rows, np.nan)
            logits[place], log_sum[place] = row, 6.5
            ids, logprobs = small.run(logits, 40, np.full(rows, 77), log_sum)
            assert np.array_equal(ids[place], want_ids[0]) and np.array_equal(logprobs[place], want[0])


@pytest.mark.parametrize("rows", RUN_ROWS)
def test_runs_in_any_slots_give_what_each_gives_alone(small: Case, rows: int) -> None:
    rng = np.random.default_rng(rows)
    counts = dict(zip(RUN_SLOTS, (20, 0, MAX_TOP), strict=True))
    logits = rng.standard_normal((3, rows, VOCAB))
    chosen, log_sum = rng.integers(0, VOCAB, (3, rows)), rng.uniform(5, 9, (3, rows)).astype(np.float32)
    stats = small.bench.array(np.stack([interleaved(log_sum)] * STATS, axis=1))
    launch = small.launch(interleaved(logits), stats, small.bench.ints(interleaved(chosen)), RUN_SLOTS)
    ids, logprobs = small.results(launch, 3 * rows, *(counts.get(slot, -1) for slot in range(SLOTS)))
    for run, slot in enumerate(RUN_SLOTS):
        want_ids, want = small.run(logits[run], counts[slot], chosen[run], log_sum[run])
        assert np.array_equal(ids[run::3], want_ids) and np.array_equal(logprobs[run::3], want)


def test_what_sampling_leaves_on_the_device_gives_log_probabilities(bench: Bench) -> None:
    vocab, rows = 96, 8
    logits = 4 * np.random.default_rng(5).standard_normal((rows, vocab)).astype(np.float32)
    sample, (case,) = Sampling(Vocabulary(vocab, vocab), bench.geometry), Case.of(bench, vocab)
    targets, chosen = bench.ints([-1] * rows), bench.poisoned(rows * 4)
    stats, partials = bench.poisoned(rows * STATS * 4), bench.poisoned(math.prod(sample.partials_shape(rows)) * 4)
    sampled = sample.launch(
        rows, logits=bench.array(logits), targets=targets, ids=chosen, stats=stats, partials=partials,
        arrivals=bench.zeros(rows * 4), row_count=targets,
    )  # fmt: skip
    bench.run(sampled)
    ids, logprobs = case.results(case.launch(logits, stats, chosen), rows, vocab)
    assert np.array_equal(ids[:, 0], ids[:, 1]) and np.array_equal(logprobs[:, 0], logprobs[:, 1])
    assert np.array_equal(np.sort(ids[:, 1 : vocab + 1]), np.tile(np.arange(vocab), (rows, 1)))
    _, want = sampling.reference(logits, ids[:, 1], vocab)
    np.testing.assert_allclose(logprobs[:, 1], want[:, 2], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(np.exp(logprobs[:, 1 : vocab + 1]).sum(axis=1), 1, rtol=1e-5)
