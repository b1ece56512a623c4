"""Sampling with options against its reference: the same token wherever the best is ahead by more than rounding."""

from dataclasses import replace

import numpy as np
import pytest

from arcmtp.ops import sampling
from arcmtp.ops.gumbel_sampling import (
    BIAS_SHIFT,
    BIASES,
    IN_PROMPT,
    Options,
    gumbel,
    kept,
    philox,
    reference,
    scores,
    uniform_words,
)
from arcmtp.ops.launch import MAX_ROWS
from arcmtp.runtime.launch import parameters, reads, writes
from arcmtp.runtime.tensor import F32, U32
from arcmtp.selftest.operators.gumbel_sampling import MARGIN, PLAIN, SETTINGS, VOCAB, GumbelBench, differences
from tests.launches import kernel, launch
from tests.ops.bench import Bench, agree
from tests.ops.conftest import ROW_COUNTS, without_geometry

nightly = pytest.mark.nightly


@pytest.fixture(scope="module")
def small(bench: Bench) -> GumbelBench:
    (case,) = GumbelBench.of(bench, VOCAB)
    return case


def check(case: GumbelBench, settings: list[Options], logits: np.ndarray, count: int = 16) -> None:
    """The kernel chooses the reference's token of a row of logits at `count` positions, for every setting."""
    agree(differences(case, settings, logits, case.bench.repeats(count, least=2)))


WORDS = kernel(
    "words", parameters(counters=reads(U32), key=reads(U32), out=writes(U32)),
    "Words w[4]; for (int i = 0; i < 4; ++i) w[i] = simd::load<simd::u32, 16>(counters + 16 * i);"
    "philox(w, key[0], key[1]); for (int i = 0; i < 4; ++i) simd::store<simd::u32, 16>(out + 16 * i, w[i]);",
    header="philox.hpp",
)  # fmt: skip
NOISE = kernel(
    "noise", parameters(words=reads(U32), out=writes(F32)),
    "const int at = simd::group_index() * 16;"
    "simd::store<float, 16>(out + at, gumbel(simd::load<simd::u32, 16>(words + at)));",
    header="philox.hpp",
)  # fmt: skip


@pytest.mark.avx2
@without_geometry
def test_words_are_those_of_philox_4x32_10(bench: Bench) -> None:
    known = [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ]  # fmt: skip
    rng = np.random.default_rng(0)
    counters = rng.integers(0, 2**32, (16, 4), np.uint32)
    counters[:3] = [counter for counter, _, _ in known]
    for counter, key, want in known:
        assert tuple(philox(np.array(counter, np.uint32), key)) == want
        out, columns, keys = bench.zeros(256), np.ascontiguousarray(counters.T), np.array(key, np.uint32)
        bench.run(launch(WORDS, counters=bench.array(columns), key=bench.array(keys), out=out))
        assert np.array_equal(out.read(np.uint32, 64).reshape(4, 16).T, philox(counters, key))


@without_geometry
def test_noise_is_accurate_to_the_ends_of_its_range(bench: Bench) -> None:
    rng = np.random.default_rng(1)
    ends = np.arange(64, dtype=np.uint32)
    middle = (2**31 + np.arange(-64, 64)).astype(np.uint32)
    words = np.concatenate([ends, ~ends, middle, rng.integers(0, 2**32, 4096, np.uint32)])
    out = bench.zeros(words.nbytes)
    bench.run(launch(NOISE, len(words) // 16, words=bench.array(words), out=out))
    got, want = out.read(np.float32, len(words)), gumbel(words)
    assert np.abs(got - want).max() < 4e-6
    assert want.min() > -3.14 and want.max() < 22.88


@pytest.mark.parametrize("spread", [pytest.param(0.1, marks=nightly), 3, pytest.param(12, marks=nightly)])
def test_ordinary_logits_give_the_references_token(small: GumbelBench, spread: float) -> None:
    rng = np.random.default_rng(int(spread))
    check(small, SETTINGS, spread * rng.standard_normal(VOCAB))


def adversarial() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(2)
    normal = rng.standard_normal(VOCAB)
    cases = {
        "flat": np.zeros(VOCAB),
        "flat_and_far_below_zero": np.full(VOCAB, -90.0),
        "one_hot": np.where(np.arange(VOCAB) == 700, 30.0, 0.0),
        "few_levels": np.round(normal),
        "two_levels": np.where(normal > 1, 2.0, -1.0),
        "tie_at_the_top": np.where(np.isin(np.arange(VOCAB), [3, 500, 1002]), 9.0, normal),
        "signed_zeros": np.where(normal > 0, 0.0, -0.0),
        "rising": np.linspace(-20, 20, VOCAB),
        "falling": np.linspace(20, -20, VOCAB),
        "tiny": normal * 1e-30,
        "mostly_impossible": np.where(np.arange(VOCAB) % 90 == 1, normal, -np.inf),
        "one_possible": np.where(np.arange(VOCAB) == 1002, -50.0, -np.inf),
        "impossible": np.full(VOCAB, -np.inf),
        "nan": np.full(VOCAB, np.nan),
        "half_nan": np.where(np.arange(VOCAB) % 2 == 0, np.nan, normal),
        "one_certain": np.where(np.arange(VOCAB) == 77, np.inf, normal),
        "three_certain": np.where(np.isin(np.arange(VOCAB), [9, 600, 601]), np.inf, normal),
    }
    return cases


@pytest.mark.parametrize("name", adversarial())
def test_adversarial_logits_give_the_references_token(small: GumbelBench, name: str) -> None:
    settings = SETTINGS[-small.bench.repeats(len(SETTINGS), least=2) :]
    check(small, settings, adversarial()[name], count=8)


@nightly
def test_exactly_k_of_equal_scores_survive_and_they_are_the_first(small: GumbelBench) -> None:
    logits = np.full(VOCAB, -1.0)
    logits[[50, 900]] = 3
    for k in (1, 2, 3, 7, 70):
        ids = small.draw([replace(PLAIN, temperature=50, top_k=k)], logits, 60 * k)
        first = [50, 900, *(c for c in range(VOCAB) if c != 50)][:k]
        assert set(ids[0]) == set(first[:2] if k <= 2 else first)


@nightly
def test_a_share_of_equal_scores_keeps_the_first_of_them(small: GumbelBench) -> None:
    ids = small.draw([replace(PLAIN, top_p=19.5 / VOCAB)], np.zeros(VOCAB), 1000)
    assert set(ids[0]) == set(range(20))


@nightly
def test_top_p_counts_within_what_top_k_leaves(small: GumbelBench) -> None:
    logits = np.zeros(VOCAB)
    logits[[5, 6, 7, 8]] = np.log([50, 30, 15, 5]) + 3
    ids = small.draw([replace(PLAIN, top_k=4, top_p=0.9), replace(PLAIN, top_k=4, top_p=0.75)], logits, 400)
    assert set(ids[0]) == {5, 6, 7} and set(ids[1]) == {5, 6}


def test_the_reference_keeps_what_the_definitions_say() -> None:
    score = np.log(np.array([0.05, 0.5, 0.15, 0.3], np.float32))
    for options, want in (
        (Options(temperature=1), {0, 1, 2, 3}),
        (Options(temperature=1, top_k=3), {1, 2, 3}),
        (Options(temperature=1, top_p=0.75), {1, 3}),
        (Options(temperature=1, top_p=0.85), {1, 2, 3}),
        (Options(temperature=1, min_p=0.2), {1, 2, 3}),
        (Options(temperature=1, min_p=0.4), {1, 3}),
        (Options(temperature=1, top_k=3, top_p=0.83), {1, 3}),  # 0.8 of 0.95
        (Options(temperature=1, top_p=1e-6), {1}),
    ):
        assert set(np.flatnonzero(kept(options, score))) == want, options


def test_penalties_and_biases_are_those_of_the_definitions() -> None:
    options = Options(temperature=0.5, repetition=2, presence=0.25, frequency=0.5, adjusts=True)
    logits = np.array([4, 4, 4, -4, -4, 4, 1], np.float32)
    states = np.array([0, IN_PROMPT, 1, IN_PROMPT | 3, 0, 1 << BIAS_SHIFT, 2 << BIAS_SHIFT | 1], np.int32)
    biases = np.array([0, -1.5, 3], np.float32)
    want = [8, 4, 2 * (2 - 0.75), 2 * (-8 - 1.75), -8, 5, 2 * (2 - 0.75)]
    assert list(scores(options, logits, states, biases)) == want


PENALISED = [  # state, logit, and what repetition 1.5, presence 0.75, frequency 0.5 and a bias of -2 leave of it
    (0, 3.0, 3.0),
    (IN_PROMPT, 3.0, 2.0),
    (IN_PROMPT, -3.0, -4.5),
    (1, 3.0, 0.75),
    (4, 6.0, 1.25),
    (IN_PROMPT | 4, -1.0, -4.25),
    (1 << BIAS_SHIFT, 3.0, 1.0),
    (1 << BIAS_SHIFT | 2, 1.0, -3.25),
]


@pytest.mark.parametrize(("state", "logit", "left"), PENALISED)
def test_a_rival_wins_exactly_from_the_penalised_logit_on(
    small: GumbelBench, state: int, logit: float, left: float
) -> None:
    options = Options(repetition=1.5, presence=0.75, frequency=0.5, adjusts=True)
    logits, states, biases = np.full((2, VOCAB), -90.0), np.zeros(VOCAB), np.zeros(BIASES)
    logits[:, 500], states[500], biases[1] = logit, state, -2
    logits[:, 900] = left - 0.01, left + 0.01
    assert list(small.run(options, logits, states=states, biases=biases)[0]) == [500, 900]


def test_inputs_of_earlier_rows_are_penalised_like_generated_tokens(small: GumbelBench) -> None:
    logits = np.zeros((5, VOCAB))
    logits[:, [70, 300, 301]] = 3, 2.5, 1
    ids, _ = small.run(Options(presence=1, adjusts=True), logits, inputs=[301, 70, 300, 70, 999])
    assert list(ids) == [70, 300, 70, 70, 70]  # after 70: 2 and 2.5, after both: 2 and 1.5
    ids, _ = small.run(Options(frequency=1, adjusts=True), logits, inputs=[301, 70, 300, 70, 70])
    assert list(ids) == [70, 300, 70, 300, 300]  # after 70, 300, 70, 70: 0 and 1.5


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_penalties_and_biases_of_every_row_give_the_references_token(small: GumbelBench, temperature: float) -> None:
    rng = np.random.default_rng(3)
    biases = np.concatenate([[0], 4 * rng.standard_normal(BIASES - 1)]).astype(np.float32)
    biases[3] = -np.inf
    for seed in range(small.bench.repeats(8, least=2)):
        logits = np.stack([2 * rng.standard_normal(VOCAB)] * MAX_ROWS).astype(np.float32)
        states = np.where(rng.random(VOCAB) < 0.6, 0, rng.integers(0, 4, VOCAB) | IN_PROMPT * rng.integers(0, 2, VOCAB))
        states |= np.where(rng.random(VOCAB) < 0.9, 0, rng.integers(1, BIASES, VOCAB)) << BIAS_SHIFT
        options = Options(
            temperature=temperature, top_k=(0, 30)[seed % 2], repetition=1.3, presence=0.7, frequency=-0.4,
            adjusts=True, seed=seed,
        )  # fmt: skip
        inputs = [0, *rng.permutation(np.argsort(-logits[0])[:4]), 17, 17, 17]
        ids, _ = small.run(options, logits, 40, states=states, biases=biases, inputs=inputs)
        for row, token in enumerate(ids):
            before = states + np.bincount(inputs[1 : row + 1], minlength=VOCAB)
            want, ahead = reference(options, 41 + row, logits[row], before.astype(np.int32), biases)
            assert token == want or ahead < MARGIN


def test_the_full_vocabulary_gives_the_references_token(bench: Bench) -> None:
    rng = np.random.default_rng(4)
    vocab = 248_077
    logits = 2.5 * rng.standard_normal(vocab)
    logits[rng.integers(0, vocab, 60)] += np.linspace(4, 14, 60)
    (case,) = GumbelBench.of(bench, vocab)
    check(case, [Options(), PLAIN, replace(PLAIN, top_k=30), replace(PLAIN, top_p=0.9)], logits, count=2)


def test_vocabularies_of_any_size_are_covered(bench: Bench) -> None:
    for case in GumbelBench.of(bench, 1, 15, 64, 65, 129):
        logits = np.random.default_rng(case.vocab_used).standard_normal(case.vocab_used)
        settings = [Options(), PLAIN, replace(PLAIN, top_k=9, top_p=0.9)]
        check(case, settings, logits, bench.repeats(16, least=2))


@pytest.mark.avx2
def test_a_row_is_the_same_at_any_row_count_and_place_among_nan_rows(small: GumbelBench) -> None:
    rng = np.random.default_rng(5)
    row, states = 2 * rng.standard_normal((1, VOCAB)), rng.integers(0, 3, VOCAB)
    settings = [replace(o, adjusts=True, presence=0.3) for o in (SETTINGS[-3], Options(), PLAIN, SETTINGS[11])]
    for options in settings[: small.bench.repeats(4, least=1)]:
        ids, stats = small.run(options, row, 100, np.array([77]), states)
        for rows in ROW_COUNTS:
            for place in set([rows - 1, 0, rows // 2][: small.bench.repeats(3, least=1)]):
                logits, targets = np.full((rows, VOCAB), np.nan), np.full(rows, -1)
                logits[place], targets[place] = row[0], 77
                got, got_stats = small.run(options, logits, 100 - place, targets, states)
                assert got[place] == ids[0] and np.array_equal(got_stats[place], stats[0])


def test_seed_choice_and_position_each_change_the_noise(small: GumbelBench) -> None:
    settings = [PLAIN, PLAIN, replace(PLAIN, seed=12), replace(PLAIN, choice=1), replace(PLAIN, seed=11 + 2**32)]
    count = small.bench.repeats(64, least=8)
    ids = small.draw(settings, np.zeros(VOCAB), count)
    assert np.array_equal(ids[0], ids[1])
    assert all((ids[0] != other).mean() > 0.87 for other in ids[2:])
    assert (ids[0, 1:] != ids[0, :-1]).mean() > 0.87


def test_stats_are_those_of_the_logits_as_they_are(small: GumbelBench) -> None:
    rng = np.random.default_rng(6)
    logits, targets = 4 * rng.standard_normal((8, VOCAB)).astype(np.float32), rng.integers(-1, VOCAB + 1, 8)
    options = Options(temperature=0.3, top_k=3, presence=2, adjusts=True)
    targets[5] = -1
    ids, stats = small.run(options, logits, targets=targets, states=rng.integers(0, 2, VOCAB))
    assert ids[5] != logits[5].argmax(), "the likeliest token says nothing about the chosen one here"
    _, want = sampling.reference(logits, np.where(targets == VOCAB, 0, np.where(targets < 0, ids, targets)), VOCAB)
    want[targets == VOCAB, 2] = -np.inf
    np.testing.assert_allclose(stats, want, rtol=1e-6, atol=1e-6)


def test_the_counters_are_zero_again(small: GumbelBench) -> None:
    small.run(Options(temperature=1, top_k=3), np.random.default_rng(7).standard_normal((8, VOCAB)))
    assert not small.counters.read(np.int32, 3 * MAX_ROWS).any()


def test_a_row_by_itself_chooses_what_it_chooses_among_the_rows_of_its_step(small: GumbelBench) -> None:
    rng = np.random.default_rng(9)
    options = Options(temperature=1, top_k=40, presence=3, frequency=1, adjusts=True, seed=5)
    logits = rng.standard_normal((8, VOCAB)).astype(np.float32)
    inputs = rng.integers(0, VOCAB, 8).tolist()
    logits[:, inputs] += 3  # so that penalties decide
    together, _ = small.run(options, logits, inputs=inputs)
    positions = np.arange(8)
    for row in range(8):
        history = replace(small.history(options, positions, inputs=inputs), first=row)
        ids, _ = small.results(history, logits[row : row + 1], np.array([-1]))
        assert ids[0] == together[row]
    plain, _ = small.run(replace(options, presence=0, frequency=0), logits, inputs=inputs)
    assert (plain != together).any()


def test_greedy_chooses_as_the_kernel_without_options_does(small: GumbelBench) -> None:
    rng = np.random.default_rng(8)
    for _ in range(4):
        logits = np.round(rng.standard_normal((8, VOCAB)), 1).astype(np.float32)
        want, _ = sampling.reference(logits, np.full(8, -1), VOCAB)
        assert np.array_equal(small.run(Options(), logits)[0], want)


def test_noise_of_a_column_does_not_depend_on_which_others_are_asked_for() -> None:
    columns = np.arange(1000)
    every = uniform_words(PLAIN, 9, columns)
    assert np.array_equal(uniform_words(PLAIN, 9, columns[::7]), every[::7])
    assert len(np.unique(every)) == 1000
