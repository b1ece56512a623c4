"""Chi-square tests of 20,000 draws and more against exact distributions, with fixed seeds: p-values above 1e-4."""

import math

import numpy as np
import pytest

from arcmtp.ops.gumbel_sampling import BIAS_SHIFT, BIASES, IN_PROMPT, Options
from arcmtp.selftest.operators.gumbel_sampling import GumbelBench
from tests.ops.bench import Bench
from tests.ops.conftest import EMULATED, GEOMETRY, cpu_device

VOCAB = 50
DRAWS = 20_000
LEAST_P = 1e-4
LOGITS = np.round(1.7 * np.random.default_rng(0).standard_normal(VOCAB), 3).astype(np.float32)
STATES = np.array([0, 0, 1, 3, IN_PROMPT, IN_PROMPT | 2, 1 << BIAS_SHIFT, 2 << BIAS_SHIFT | 1] * 7, np.int32)[:VOCAB]
BIAS = np.zeros(BIASES, np.float32)
BIAS[1:3] = 1.5, -1.0


def softmax(scores: np.ndarray) -> np.ndarray:
    shares = np.exp(scores - scores.max())
    return shares / shares.sum()


def only(probabilities: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """What is left of a distribution, of which only some tokens are kept."""
    left = np.zeros_like(probabilities)
    left[keep] = probabilities[keep]
    return left / left.sum()


def penalised(repetition: float, presence: float, frequency: float) -> np.ndarray:
    count = STATES & 0xFFFFF
    x = LOGITS.astype(np.float64) + BIAS[STATES >> BIAS_SHIFT]
    seen = (count > 0) | (STATES & IN_PROMPT > 0)
    x = np.where(seen, np.where(x > 0, x / repetition, x * repetition), x)
    return x - presence * (count > 0) - frequency * count


P = softmax(LOGITS.astype(np.float64))
ORDER = np.argsort(-P)
BEFORE = np.cumsum(P[ORDER]) - P[ORDER]
K12 = only(P, ORDER[:12])
TOP_P_OF_K12 = K12[ORDER].cumsum() - K12[ORDER] < 0.8
# Each setting with its distribution, worked out from the definitions and not by the operator's reference.
SETTINGS: dict[str, tuple[Options, np.ndarray]] = {
    "plain": (Options(temperature=1, seed=1), P),
    "another_choice": (Options(temperature=1, seed=1, choice=3), P),
    "cold": (Options(temperature=0.5, seed=2), softmax(2 * LOGITS.astype(np.float64))),
    "hot": (Options(temperature=4, seed=3), softmax(LOGITS / 4.0)),
    "top_k": (Options(temperature=1, top_k=12, seed=4), K12),
    "top_p": (Options(temperature=1, top_p=0.8, seed=2**40), only(P, ORDER[BEFORE < 0.8])),
    "min_p": (Options(temperature=1, min_p=0.05, seed=6), only(P, (P / P.max()) >= 0.05)),
    "all_filters": (
        Options(temperature=1, top_k=12, top_p=0.8, min_p=0.35, seed=7),
        only(P, np.isin(np.arange(VOCAB), ORDER[TOP_P_OF_K12]) & (P / P.max() >= 0.35)),
    ),
    "penalties_and_biases": (
        Options(temperature=1, repetition=1.4, presence=0.5, frequency=0.25, adjusts=True, seed=8),
        softmax(penalised(1.4, 0.5, 0.25)),
    ),
    "penalties_and_filters": (
        Options(temperature=1.25, top_k=8, repetition=1.4, presence=-0.5, frequency=0.1, adjusts=True, seed=9),
        only(
            softmax(penalised(1.4, -0.5, 0.1) / 1.25),
            np.argsort(-penalised(1.4, -0.5, 0.1))[:8],
        ),
    ),
}  # fmt: skip


def chi_square_p(counts: np.ndarray, probabilities: np.ndarray) -> float:
    """The p-value of counts, by Wilson and Hilferty's approximation; cells with under 8 expected draws count as one."""
    assert not counts[probabilities == 0].any(), "an impossible token was drawn"
    expected = probabilities * counts.sum()
    rare = expected < 8
    seen, want = np.append(counts[~rare], counts[rare].sum()), np.append(expected[~rare], expected[rare].sum())
    statistic, freedom = float(((seen - want)[want > 0] ** 2 / want[want > 0]).sum()), int((want > 0).sum()) - 1
    spread = 2 / (9 * freedom)
    return math.erfc(((statistic / freedom) ** (1 / 3) - (1 - spread)) / math.sqrt(2 * spread)) / 2


@pytest.fixture(scope="module")
def case() -> GumbelBench:
    """In the CPU's geometry, where 20,000 draws take a second; the test below covers the other one."""
    (case,) = GumbelBench.of(Bench(cpu_device()), VOCAB)
    return case


@pytest.mark.parametrize("bench", [GEOMETRY, EMULATED], indirect=True)
def test_both_geometries_draw_the_same(case: GumbelBench, bench: Bench) -> None:
    (other,) = GumbelBench.of(bench, VOCAB)
    settings = [options for options, _ in SETTINGS.values()]
    count = bench.repeats(200, least=2)
    ids, other_ids = (each.draw(settings, LOGITS, count, STATES, BIAS) for each in (case, other))
    assert np.array_equal(ids, other_ids)


@pytest.mark.parametrize("name", SETTINGS)
def test_draws_follow_the_exact_distribution(case: GumbelBench, name: str) -> None:
    options, probabilities = SETTINGS[name]
    (ids,) = case.draw([options], LOGITS, DRAWS, STATES, BIAS)
    p = chi_square_p(np.bincount(ids, minlength=VOCAB), probabilities)
    print(f"{name}: p = {p:.4f}")
    assert p > LEAST_P


def test_draws_of_many_seeds_at_one_position_follow_it_too(case: GumbelBench) -> None:
    ids = case.draw([Options(temperature=1, seed=seed) for seed in range(2500)], LOGITS, 8)
    assert chi_square_p(np.bincount(ids.ravel(), minlength=VOCAB), P) > LEAST_P


@pytest.mark.parametrize("apart", [1, 2, 8])
def test_draws_at_different_positions_are_independent(case: GumbelBench, apart: int) -> None:
    logits = np.full(VOCAB, -np.inf)
    logits[[0, 1, 16, 32, 49]] = np.log([0.3, 0.25, 0.2, 0.15, 0.1])
    p = np.exp(logits)
    (ids,) = case.draw([Options(temperature=1, seed=5)], logits, DRAWS)
    pairs = np.bincount(ids[:-apart] * VOCAB + ids[apart:], minlength=VOCAB * VOCAB)
    assert chi_square_p(pairs, np.outer(p, p).ravel()) > LEAST_P


def test_draws_of_neighbouring_seeds_and_choices_are_independent(case: GumbelBench) -> None:
    first = Options(temperature=1, seed=5)
    a, *others = case.draw([first, Options(1, seed=6), Options(1, seed=5, choice=1)], LOGITS, DRAWS)
    for b in others:
        pairs = np.bincount(a * VOCAB + b, minlength=VOCAB * VOCAB)
        assert chi_square_p(pairs, np.outer(P, P).ravel()) > LEAST_P


def test_the_test_itself_finds_a_slightly_wrong_distribution(case: GumbelBench) -> None:
    (ids,) = case.draw([Options(temperature=0.95, seed=1)], LOGITS, DRAWS)
    assert chi_square_p(np.bincount(ids, minlength=VOCAB), P) < LEAST_P
