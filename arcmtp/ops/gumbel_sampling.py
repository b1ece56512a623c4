"""Sampling with options in two launches: the largest filtered score plus noise that seed, position and token determine.

score = (logit + bias, penalised) / temperature. Top-k keeps the k largest scores, top-p the shortest beginning of those
that holds a share p of their softmax, min-p what is at least that fraction of the likeliest; equal scores go by column,
the lowest first. The token is the column with the largest score + Gumbel noise; without noise that is greedy. A mask
comes before the filters: scores of other tokens than the allowed ones are -inf.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from arcmtp.ops.launch import BATCH_PARAMETERS, Batch
from arcmtp.ops.sampling import STATS, TILE, OverVocabulary
from arcmtp.runtime.launch import INT, Argument, Cost, Kernel, Launch, Work, parameters, reads, writes
from arcmtp.runtime.tensor import F32, I32, U32

QUAD = 64  # columns whose noise is made together
OPTION_WORDS = 16
BIASES = 1024  # entries of the table of biases; entry 0 is 0
GENERATED = (1 << 20) - 1  # bits of a token's state: how often it was generated,
IN_PROMPT = 1 << 20  # whether the prompt has it,
BIAS_SHIFT = 21  # and the place of its bias in the table

_HISTORIES = (
    *parameters(options=reads(I32), states=reads(I32), biases=reads(F32), inputs=reads(I32)),
    *BATCH_PARAMETERS,
    *parameters(first=INT),
)
_MASKS, _TOLD = parameters(masks=reads(U32)), parameters(told=writes(I32))
_SCRATCH = parameters(scratch=writes(F32), counters=writes(I32))
_SCORE = (*parameters(logits=reads(F32), targets=reads(I32), stats=writes(F32)), *_HISTORIES, *_SCRATCH)
_CHOOSE = (
    *parameters(logits=reads(F32), targets=reads(I32), stats=writes(F32), ids=writes(I32)),
    *_HISTORIES,
    *parameters(positions=reads(I32)),
    *_SCRATCH,
)
_AGREE = (
    ("OPTION_WORDS", OPTION_WORDS), ("BIASES", BIASES), ("QUAD", QUAD),
    ("COUNTED", GENERATED), ("SEEN", IN_PROMPT | GENERATED), ("BIAS_SHIFT", BIAS_SHIFT),
)  # fmt: skip
_AS_HISTORIES = "{options, states, biases, inputs, {batch_size, slots}}"


@dataclass(frozen=True)
class Options:
    """What changes the choice of a sequence's tokens. temperature 0: greedy; top_k 0, top_p 1, min_p 0: no filter.

    `repetition` divides positive logits of tokens that prompt or continuation have and multiplies negative ones; a
    generated token loses `presence`, and `frequency` for each time. `adjusts`: there are penalties or biases.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition: float = 1.0
    presence: float = 0.0
    frequency: float = 0.0
    adjusts: bool = False
    seed: int = 0  # 64 bits
    choice: int = 0

    def words(self) -> np.ndarray:
        """int32 [16]: the block that the kernels read."""
        block = np.zeros(OPTION_WORDS, np.int32)
        block[:7].view(np.float32)[:] = (
            1 / self.temperature if self.temperature else 1, self.temperature > 0, self.top_p,
            math.log(self.min_p) if self.min_p else -math.inf, self.repetition, self.presence, self.frequency,
        )  # fmt: skip
        block[7:10] = self.top_k, self.adjusts, self.choice
        block[10:12].view(np.uint32)[:] = self.seed & 0xFFFFFFFF, self.seed >> 32
        return block


def mask_words(states: int) -> int:
    """uint32 words of a row's mask for so many token states: bit t % 32 of word t // 32 allows token t. The last word
    is not 0 if the row is masked; otherwise every token may be chosen."""
    return -(-(-(-states // QUAD) * (QUAD // 32) + 1) // TILE) * TILE


@dataclass(frozen=True)
class Masks:
    """Which tokens rows may choose. For each row of the batch: `bits` uint32 [mask_words]; `told` int32, the token that
    was chosen, in memory that the host reads."""

    bits: Argument
    told: Argument


@dataclass(frozen=True)
class History:
    """What sequences' choices depend on besides their logits, all device buffers.

    For each slot: `options` int32 [16]; `states` int32 [stride], per token how often it was generated, whether the
    prompt has it and where its bias is; `biases` float32 [1024]. For each row of the batch: `inputs` and `positions`
    int32, the token that it evaluates and where. The states are those of row 0 of a sequence: its row r also counts
    inputs 1 to r, as a verify's rows need it. The first logits are those of row `first` of each sequence, as for
    drafts, whose logits come one row at a time."""

    options: Argument
    states: Argument
    biases: Argument
    inputs: Argument
    positions: Argument
    batch: Batch
    first: int = 0
    masks: Masks | None = None  # None: no row is masked

    @property
    def arguments(self) -> dict[str, Argument]:
        """Those of a kernel with _HISTORIES."""
        named: dict[str, Argument] = {"options": self.options, "states": self.states, "biases": self.biases}
        return {**named, "inputs": self.inputs, **self.batch.arguments, "first": self.first}


class GumbelSampling(OverVocabulary):
    """ids int32 [rows] of logits float32 [rows, stride], of which the first `vocab_used` columns count.

    The stride is a multiple of 16. NaN never wins, +inf does, and a row without any score above -inf gives 0; a masked
    row then gives the lowest of its columns that are allowed.
    stats float32 [rows, 3] are those of `Sampling`, of the logits as they are; a target of -1 is the chosen token.
    """

    def scratch_shape(self, rows: int) -> tuple[int, int]:
        """Of f32 scratch memory for `rows` rows: what work-groups leave, and room for every column as a candidate."""
        quads = -(-self.vocab_used // QUAD)
        parts = 2 * 3 * (-(-self.groups // TILE) * TILE)
        return rows, parts + TILE + 3 * (-(-quads // TILE) * TILE) + 2 * quads * QUAD

    def kernels(self, masked: bool = False) -> list[Kernel]:
        """Those of any row count; masked: for rows with masks."""
        template = f"{self.vocab_used}, {self.stride}, {self.groups}, {self.team}"
        vocabulary, quads, of_masks = self.vocabulary, -(-self.vocab_used // QUAD), _MASKS if masked else ()
        scratch = (f"Scratch<{quads}, {self.groups}>::WORDS", self.scratch_shape(1)[1])
        words = (f"mask_words<{vocabulary.states}>()", mask_words(vocabulary.states))
        variant = vocabulary.variant + "_masked" * masked
        score = Kernel(
            operator="score_columns",
            variant=variant,
            header="gumbel_sampling.hpp",
            parameters=(*_SCORE, *vocabulary.parameters, *of_masks),
            agree=(*_AGREE, scratch, words),
            body=f"score_columns<{template}>(logits, targets, stats, {_AS_HISTORIES}, first, scratch, counters, "
            f"{vocabulary.cpp}, {'Masks{masks}' if masked else 'AnyToken{}'});",
            team=self.team,
            team_memory=self.team * 192,
        )
        choose = Kernel(
            operator="choose_column",
            variant=variant,
            header="gumbel_sampling.hpp",
            parameters=(*_CHOOSE, *vocabulary.parameters, *of_masks, *(_TOLD if masked else ())),
            body=f"choose_column<{template}>(logits, targets, stats, ids, {_AS_HISTORIES}, first, positions, scratch, "
            f"counters, {vocabulary.cpp}, {'Masks{masks, told}' if masked else 'AnyToken{}'});",
            team=self.team,
            team_memory=self.team * 128,
        )
        return [score, choose]

    def launches(self, rows: int, history: History, **arguments: Argument) -> list[Launch]:
        """Both launches; arguments as `Sampling.launch` has them, but for scratch f32: `scratch_shape`, and counters
        i32 [rows, 3], zero between launches."""
        score, choose = self.kernels(history.masks is not None)
        given = {**arguments, **history.arguments, "positions": history.positions, **self.vocabulary.arguments}
        if history.masks is not None:
            given |= {"masks": history.masks.bits, "told": history.masks.told}

        def launch(kernel: Kernel, other: Kernel, cost: Callable[[Work], Cost]) -> Launch:
            of_other = dict(other.parameters).keys() - dict(kernel.parameters).keys()
            of_kernel = {name: argument for name, argument in given.items() if name not in of_other}
            return Launch(kernel, rows * self.groups, rows, of_kernel, cost)

        return [launch(score, choose, self._score_cost), launch(choose, score, self._choose_cost)]

    def _score_cost(self, work: Work) -> Cost:
        return Cost(work.rows * 4 * (self.vocab_used + STATS), work.rows * 5 * self.vocab_used)

    def _choose_cost(self, work: Work) -> Cost:
        """It looks at few columns, the fewest where one stands out."""
        looked_at = -(-self.vocab_used // QUAD) + QUAD
        return Cost(work.rows * 4 * looked_at, work.rows * looked_at)


def philox(counter: np.ndarray, key: tuple[int, int]) -> np.ndarray:
    """uint32 [..., 4]: Philox4x32-10 of counters uint32 [..., 4]."""
    words = [counter[..., i].astype(np.uint64) for i in range(4)]
    low = np.uint64(0xFFFFFFFF)
    for step in range(10):
        keys = [np.uint64((key[i] + step * (0x9E3779B9, 0xBB67AE85)[i]) & 0xFFFFFFFF) for i in range(2)]
        even, odd = words[0] * np.uint64(0xD2511F53), words[2] * np.uint64(0xCD9E8D57)
        words = [
            odd >> np.uint64(32) ^ words[1] ^ keys[0], odd & low, even >> np.uint64(32) ^ words[3] ^ keys[1], even & low
        ]  # fmt: skip
    return np.stack(words, axis=-1).astype(np.uint32)


def uniform_words(options: Options, position: int, columns: np.ndarray) -> np.ndarray:
    """uint32 [columns]: what the noise of tokens at a position is made of. Four tokens, 16 apart, share a counter."""
    counter = np.zeros((len(columns), 4), np.uint32)
    counter[:, 0] = columns // QUAD * 16 + columns % 16
    counter[:, 1], counter[:, 2] = position, options.choice
    words = philox(counter, (options.seed & 0xFFFFFFFF, options.seed >> 32))
    return words[np.arange(len(columns)), columns // 16 % 4]


def gumbel(words: np.ndarray) -> np.ndarray:
    """float64: -log(-log(u)) of u = (word + ½) / 2^32."""
    return -np.log(-np.log((words.astype(np.float64) + 0.5) / 2**32))


def scores(options: Options, logits: np.ndarray, states: np.ndarray, biases: np.ndarray) -> np.ndarray:
    """float32 [columns], every operation rounded as the kernel rounds it; NaN becomes -inf."""
    f = np.float32
    with np.errstate(all="ignore"):
        x = logits.astype(f) + biases.astype(f)[states >> BIAS_SHIFT]
        seen = (states & (IN_PROMPT | GENERATED)) > 0
        x = np.where(seen, np.where(x > 0, x / f(options.repetition), x * f(options.repetition)), x)
        count = (states & GENERATED).astype(f)
        x = x - count * f(options.frequency) - np.minimum(count, 1) * f(options.presence)
        x = x * options.words().view(f)[0]
        return np.where(np.isnan(x), f(-np.inf), np.minimum(x, f(3.4e38)))


def masked(score: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """float32 [columns]: scores of a masked row, of which the columns in bool [columns] may be chosen."""
    return np.where(allowed, np.maximum(score, np.float32(-3.4e38)), np.float32(-np.inf))


def kept(options: Options, score: np.ndarray) -> np.ndarray:
    """bool [columns]: which tokens of a row of scores may be chosen."""
    order = np.argsort(-score, kind="stable")
    order = order[score[order] > -np.inf]
    if options.top_k:
        order = order[: options.top_k]
    if len(order) and options.top_p < 1:
        shares = np.exp(score[order].astype(np.float64) - float(score[order[0]]))
        before = np.cumsum(shares) - shares
        order = order[before < max(np.float64(np.float32(options.top_p)) * shares.sum(), 1e-300)]
    if len(order):
        order = order[score[order] >= score[order[0]] + options.words().view(np.float32)[3]]
    result = np.zeros(len(score), bool)
    result[order] = True
    return result


def reference(
    options: Options, position: int, logits: np.ndarray, states: np.ndarray, biases: np.ndarray,
    allowed: np.ndarray | None = None,
) -> tuple[int, float]:  # fmt: skip
    """The token at `position` of a row of logits float32 [columns], and how far it is ahead of the second best;
    allowed: bool [columns] of a masked row."""
    score = scores(options, logits, states, biases)
    score = score if allowed is None else masked(score, allowed)
    columns = np.flatnonzero(kept(options, score))
    if not len(columns):
        return 0, math.inf
    noise = gumbel(uniform_words(options, position, columns)) if options.temperature else 0
    total = score[columns].astype(np.float64) + noise
    first = int(total.argmax())
    return int(columns[first]), float(total[first] - np.delete(total, first).max(initial=-np.inf))
