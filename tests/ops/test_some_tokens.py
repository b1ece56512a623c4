"""A vocabulary of some tokens chooses as the full one does where all other tokens are forbidden."""

import math

import numpy as np
import pytest

from arcmtp.ops.gumbel_sampling import BIAS_SHIFT, BIASES, IN_PROMPT, GumbelSampling, Options
from arcmtp.ops.sampling import STATS, Sampling, Vocabulary
from arcmtp.ops.top_logprobs import TopLogprobs
from arcmtp.selftest.operators.gumbel_sampling import GumbelBench
from tests.ops.bench import Bench

ALL, SOME, ROWS = 1000, 150, 3
RNG = np.random.default_rng(3)
TOKENS = np.sort(RNG.permutation(ALL)[:SOME]).astype(np.int32)


def trimmed(bench: Bench) -> Vocabulary:
    """Those tokens, in whole quads of columns."""
    columns = np.pad(TOKENS, (0, -SOME % 64), mode="edge")
    return Vocabulary(SOME, -(-SOME // 16) * 16, bench.array(columns), -(-ALL // 16) * 16)


def forbidden_elsewhere(logits: np.ndarray) -> np.ndarray:
    """Logits [rows, all tokens] of the same tokens."""
    full = np.full((len(logits), ALL), -np.inf, np.float32)
    full[:, TOKENS] = logits
    return full


def test_greedy_sampling_gives_the_token_of_the_largest_column(bench: Bench) -> None:
    op = Sampling(trimmed(bench), bench.geometry)
    logits = RNG.standard_normal((ROWS, SOME)).astype(np.float32)
    logits[1, [20, 90]] = 9  # of equal ones the lowest
    ids, stats = bench.poisoned(ROWS * 4), bench.poisoned(ROWS * STATS * 4)
    launch = op.launch(
        ROWS, logits=bench.array(np.pad(logits, ((0, 0), (0, op.stride - SOME)), constant_values=np.nan)),
        targets=bench.ints([-1] * ROWS), ids=ids, stats=stats, arrivals=bench.zeros(ROWS * 4),
        partials=bench.poisoned(math.prod(op.partials_shape(ROWS)) * 4), row_count=bench.ints([ROWS]),
    )  # fmt: skip
    bench.run(launch)
    found = ids.read(np.int32, ROWS)
    assert found.tolist() == TOKENS[logits.argmax(axis=1)].tolist() and found[1] == TOKENS[20]
    want = np.log(np.exp(logits.astype(np.float64)).sum(axis=1))
    np.testing.assert_allclose(stats.read(np.float32, ROWS * STATS).reshape(ROWS, STATS)[:, 1], want, rtol=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        Options(),
        Options(temperature=0.9, seed=5),
        Options(temperature=1.1, top_k=12, top_p=0.9, min_p=0.02, seed=2**40 + 1),
        Options(temperature=1, repetition=1.3, presence=0.4, frequency=0.2, adjusts=True, seed=7),
        Options(repetition=1.2, adjusts=True),
    ],
    ids=["greedy", "temperature", "filters", "penalties", "greedy with penalties"],
)
def test_noise_penalties_and_biases_are_those_of_the_token(bench: Bench, options: Options) -> None:
    some, full = GumbelSampling(trimmed(bench), bench.geometry), GumbelSampling(Vocabulary(ALL, 1008), bench.geometry)
    bench.compile([*some.kernels(), *full.kernels()])
    states, biases = np.zeros(1008, np.int32), np.zeros(BIASES, np.float32)
    states[:ALL:3] = IN_PROMPT + 1
    states[1:ALL:7] |= 4 << BIAS_SHIFT
    biases[4] = 1.5
    of_some, of_full = GumbelBench(bench, some), GumbelBench(bench, full)
    for seen in range(bench.repeats(20, least=3)):
        logits = RNG.standard_normal((ROWS, SOME)).astype(np.float32) * 2
        inputs = [int(TOKENS[seen]), int(TOKENS[logits[0].argmax()]), int(TOKENS[seen + 50])]
        chosen, _ = of_some.run(options, logits, seen, None, states, biases, inputs)
        expected, _ = of_full.run(options, forbidden_elsewhere(logits), seen, None, states, biases, inputs)
        assert chosen.tolist() == expected.tolist()


def test_the_likeliest_tokens_are_not_looked_for_among_some(bench: Bench) -> None:
    op = TopLogprobs(trimmed(bench), bench.geometry)
    with pytest.raises(ValueError, match="among all tokens"):
        op.launch(1, bench.batch())
