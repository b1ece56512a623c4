"""Masked rows choose among the tokens that their mask allows, and rows without a mask as if there were none."""

from dataclasses import replace

import numpy as np
import pytest

from arcmtp.ops import sampling
from arcmtp.ops.gumbel_sampling import (
    BIAS_SHIFT,
    BIASES,
    GumbelSampling,
    Masks,
    Options,
    mask_words,
    reference,
)
from arcmtp.ops.launch import MAX_ROWS
from arcmtp.ops.sampling import Vocabulary
from arcmtp.runtime.memory import HostBuffer
from arcmtp.selftest.operators.gumbel_sampling import GumbelBench
from tests.ops.bench import Bench

VOCAB, SOME = 1003, 150
MARGIN = 2e-5  # as of sampling without masks
TOKENS = np.sort(np.random.default_rng(3).permutation(VOCAB)[:SOME]).astype(np.int32)
SETTINGS = [
    Options(),
    Options(temperature=1, seed=11),
    Options(temperature=0.8, top_k=5, seed=6),
    Options(temperature=1, top_k=300, seed=2),
    Options(temperature=1.2, top_p=0.6, seed=7),
    Options(temperature=0.8, top_k=40, top_p=0.95, min_p=0.05, seed=6),
    Options(temperature=1, min_p=1, seed=5),
]


class Masked:
    """Sampling from rows with masks on a bench."""

    def __init__(self, bench: Bench, vocabulary: Vocabulary) -> None:
        self.op = GumbelSampling(vocabulary, bench.geometry)
        self.case, self.bench = GumbelBench(bench, self.op), bench
        self.words = mask_words(vocabulary.states)

    def masks(self, allowed: list[np.ndarray | None], first: int = 0) -> tuple[Masks, HostBuffer]:
        """Of bool [tokens] for each row, None for a row without; what lies before row `first` has no sense."""
        rows = np.full((first + len(allowed), self.words), 0x55555555, np.uint32)
        for row, tokens in zip(rows[first:], allowed, strict=True):
            row[-1] = tokens is not None
            if tokens is not None:
                bits = np.packbits(tokens, bitorder="little")
                row[:-1] = 0
                row.view(np.uint8)[: len(bits)] = bits
        told = self.bench.host_zeros(-(-len(rows) // 16) * 64)
        return Masks(self.bench.array(rows), told), told

    def run(
        self, options: Options, logits: np.ndarray, allowed: list[np.ndarray | None], position: int = 0,
        states: np.ndarray | None = None, biases: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
        """ids and stats of rows, whose tokens are told to the host too."""
        masks, told = self.masks(allowed)
        history = self.case.history(options, position + np.arange(len(logits)), states, biases)
        ids, stats = self.case.results(replace(history, masks=masks), logits, np.full(len(logits), -1))
        assert np.array_equal(told.view(np.int32)[: len(ids)], ids)
        return ids, stats


@pytest.fixture(scope="module")
def small(bench: Bench) -> Masked:
    case = Masked(bench, Vocabulary(VOCAB, 1008))
    bench.compile([*case.op.kernels(masked=True), *case.op.kernels()])
    return case


@pytest.fixture(scope="module")
def some(bench: Bench) -> Masked:
    """A vocabulary of some tokens, as drafts may have."""
    columns = np.pad(TOKENS, (0, -SOME % 64), mode="edge")
    return Masked(bench, Vocabulary(SOME, -(-SOME // 16) * 16, bench.array(columns), 1008))


def allowing(rng: np.random.Generator, count: int) -> np.ndarray:
    """bool [tokens] with `count` of them."""
    tokens = np.zeros(VOCAB, bool)
    tokens[rng.permutation(VOCAB)[:count]] = True
    return tokens


@pytest.mark.parametrize("count", [1, 40, VOCAB])
def test_rows_choose_the_references_token_among_those_allowed(small: Masked, count: int) -> None:
    rng = np.random.default_rng(count)
    none, biases = np.zeros(VOCAB, np.int32), np.zeros(BIASES)
    rows = small.bench.repeats(MAX_ROWS, least=2)
    for options in SETTINGS[-small.bench.repeats(len(SETTINGS), least=2) :]:
        logits = (3 * rng.standard_normal((rows, VOCAB))).astype(np.float32)
        allowed = [allowing(rng, count) for _ in range(rows)]
        ids, _ = small.run(options, logits, [*allowed], position=40)
        for row, token in enumerate(ids):
            want, ahead = reference(options, 41 + row, logits[row], none, biases, allowed[row])
            assert allowed[row][token] and (token == want or ahead < MARGIN), f"{options} in row {row}"


def test_rows_without_a_mask_choose_and_tell_as_they_do_without_masks_at_all(small: Masked) -> None:
    rng = np.random.default_rng(1)
    for options in SETTINGS[: small.bench.repeats(len(SETTINGS), least=1)]:
        rows = small.bench.repeats(MAX_ROWS, least=4)
        logits = rng.standard_normal((rows, VOCAB)).astype(np.float32)
        logits[1, 5], logits[2] = np.inf, -np.inf
        allowed = [allowing(rng, 3) if row % 2 else None for row in range(rows)]
        ids, stats = small.run(options, logits, allowed)
        want, want_stats = small.case.run(options, logits)
        assert np.array_equal(ids[::2], want[::2]) and np.array_equal(stats[::2], want_stats[::2], equal_nan=True)
        assert (ids[1::2] != want[1::2]).any()


def test_stats_are_those_of_the_logits_without_the_mask(small: Masked) -> None:
    logits = np.random.default_rng(2).standard_normal((1, VOCAB)).astype(np.float32)
    allowed = np.zeros(VOCAB, bool)
    allowed[[7, 900]] = True
    ids, stats = small.run(Options(), logits, [allowed])
    _, want = sampling.reference(logits, ids, VOCAB)
    np.testing.assert_allclose(stats, want, rtol=1e-6)


@pytest.mark.parametrize("options", [SETTINGS[0], *SETTINGS[3:6]])
def test_an_allowed_token_is_chosen_whatever_forbids_it(small: Masked, options: Options) -> None:
    logits, allowed = np.zeros((3, VOCAB), np.float32), np.zeros(VOCAB, bool)
    allowed[[500, 1002]] = True
    states, biases = np.zeros(VOCAB, np.int32), np.zeros(BIASES)
    states[[500, 1002]], biases[1] = 1 << BIAS_SHIFT, -np.inf
    logits[1, [500, 1002]] = -np.inf
    logits[2, [500, 1002]] = np.nan
    ids, _ = small.run(replace(options, adjusts=True), logits, [allowed] * 3, states=states, biases=biases)
    assert ids.tolist() == [500] * 3
    states[1002] = 0
    ids, _ = small.run(replace(options, adjusts=True), logits[:1], [allowed], states=states, biases=biases)
    assert ids.tolist() == [1002]


def test_a_mask_that_allows_nothing_and_one_of_the_last_token_are_kept(small: Masked) -> None:
    logits, last = np.zeros((2, VOCAB), np.float32), np.zeros(VOCAB, bool)
    last[-1] = True
    ids, _ = small.run(Options(temperature=1, top_p=0.9, seed=3), logits, [np.zeros(VOCAB, bool), last])
    assert ids.tolist() == [0, VOCAB - 1]


@pytest.mark.parametrize("options", [SETTINGS[0], SETTINGS[5]])
def test_a_vocabulary_of_some_tokens_is_masked_by_token(some: Masked, small: Masked, options: Options) -> None:
    rng = np.random.default_rng(5)
    logits = rng.standard_normal((3, SOME)).astype(np.float32)
    full = np.full((3, VOCAB), -np.inf, np.float32)
    full[:, TOKENS] = logits
    allowed = [allowing(rng, 400) for _ in range(3)]
    of_some, _ = some.run(options, logits, [*allowed])
    of_all, _ = small.run(options, full, [*allowed])
    assert of_some.tolist() == of_all.tolist()


def test_the_mask_is_that_of_the_row_in_its_step(small: Masked) -> None:
    """A draft call has one row of each sequence, whose mask is that of row `first`."""
    first, logits = 3, np.zeros((1, VOCAB), np.float32)
    allowed = np.zeros(VOCAB, bool)
    allowed[77] = True
    masks, told = small.masks([allowed], first)
    history = replace(small.case.history(Options(), np.arange(8)), first=first, masks=masks)
    ids, _ = small.case.results(history, logits, np.array([-1]))
    assert ids.tolist() == [77] and told.view(np.int32)[first] == 77


def test_a_mask_of_the_full_vocabulary_reaches_its_last_token(bench: Bench) -> None:
    vocab = 248_077
    case = Masked(bench, Vocabulary(vocab, 248_320))
    allowed = np.zeros(vocab, bool)
    allowed[[31, 32, 120_000, vocab - 1]] = True
    likely = [vocab - 1, 31, 32, 120_000][: bench.repeats(4, least=1)]
    logits = np.zeros((len(likely), vocab), np.float32)
    logits[range(len(likely)), likely] = 1
    ids, _ = case.run(Options(), logits, [allowed] * len(likely))
    assert ids.tolist() == likely
