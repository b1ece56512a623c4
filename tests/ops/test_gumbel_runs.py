"""Sampling with options of several sequences at once: each is given what it is given alone."""

from dataclasses import replace

import numpy as np
import pytest

from arcmtp.ops.gumbel_sampling import BIAS_SHIFT, BIASES, IN_PROMPT, Options
from arcmtp.selftest.operators.gumbel_sampling import GumbelBench, Run
from tests.ops.bench import Bench
from tests.ops.conftest import RUN_ROWS, RUN_SLOTS

VOCAB = 1003
PENALISED = Options(temperature=0.7, repetition=1.3, presence=1.5, frequency=0.7, adjusts=True, seed=4)
SETTINGS = (
    (Options(), Options(temperature=1, top_k=20, seed=1), PENALISED),
    (Options(temperature=1.3, top_p=0.8, seed=2), PENALISED, Options(temperature=1, min_p=0.02, seed=3)),
    (PENALISED, Options(temperature=1, seed=5), Options(repetition=1.5, presence=1, adjusts=True)),
)


@pytest.fixture(scope="module")
def small(bench: Bench) -> GumbelBench:
    (case,) = GumbelBench.of(bench, VOCAB)
    return case


def run_of(options: Options, rows: int, seed: int) -> Run:
    """A run in which what was said before and each draft decide what penalties leave of the likeliest tokens."""
    rng = np.random.default_rng(seed)
    likely = rng.permutation(VOCAB)[:40]
    logits = 2 * rng.standard_normal((rows, VOCAB))
    logits[:, likely] += 5
    states = np.zeros(VOCAB, np.int32)
    states[likely[:20]] = rng.integers(0, 3, 20) | IN_PROMPT * rng.integers(0, 2, 20)
    states[likely[10:30]] |= rng.integers(1, BIASES, 20).astype(np.int32) << BIAS_SHIFT
    biases = np.concatenate([[0], rng.standard_normal(BIASES - 1)]).astype(np.float32)
    inputs, targets = rng.choice(likely, rows).astype(np.int32), rng.integers(-1, VOCAB, rows)
    return Run(options, logits, int(rng.integers(0, 5000)), states, biases, inputs, targets)


@pytest.mark.parametrize("rows", RUN_ROWS)
@pytest.mark.parametrize("settings", SETTINGS)
def test_runs_in_any_slots_choose_what_each_chooses_alone(
    small: GumbelBench, settings: tuple[Options, ...], rows: int
) -> None:
    for seed in range(small.bench.repeats(6, least=1)):
        sequences = [run_of(options, rows, 3 * seed + index) for index, options in enumerate(settings)]
        ids, stats = small.run_all(sequences, RUN_SLOTS)
        for index, run in enumerate(sequences):
            want, want_stats = small.run(
                run.options, run.logits, run.position, run.targets, run.states, run.biases, run.inputs.tolist()
            )
            assert np.array_equal(ids[index::3], want), run.options
            assert np.array_equal(stats[index::3], want_stats), run.options
    assert not small.counters.read(np.int32, small.counters.nbytes // 4).any()


def test_drafts_of_sequences_choose_what_the_rows_of_their_step_choose(small: GumbelBench) -> None:
    sequences = [run_of(PENALISED, 8, seed) for seed in range(3)]
    together, _ = small.run_all(sequences, RUN_SLOTS)
    for first in range(8):
        drafts = [replace(run, logits=run.logits[first : first + 1], targets=run.targets[:1]) for run in sequences]
        ids, _ = small.run_all(drafts, RUN_SLOTS, first)
        assert np.array_equal(ids, together[3 * first : 3 * first + 3])
