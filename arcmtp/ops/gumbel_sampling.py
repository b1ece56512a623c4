"""Sampling with options in two launches: the largest filtered score plus noise that seed, position and token determine.

score = (logit + bias, penalised) / temperature. Top-k keeps the k largest scores, top-p the shortest beginning of those
that holds a share p of their softmax, min-p what is at least that fraction of the likeliest; equal scores go by column,
the lowest first. The token is the column with the largest score + Gumbel noise; without noise that is greedy.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from arcmtp.ops.cost import Cost
from arcmtp.ops.launch import RUN_PARAMETERS, Runs
from arcmtp.ops.sampling import STATS, TILE, OverVocabulary
from arcmtp.runtime import _host
from arcmtp.runtime.compiler import Kernel, Program

QUAD = 64  # columns whose noise is made together
OPTION_WORDS = 16
BIASES = 1024  # entries of the table of biases; entry 0 is 0
GENERATED = (1 << 20) - 1  # bits of a token's state: how often it was generated,
IN_PROMPT = 1 << 20  # whether the prompt has it,
BIAS_SHIFT = 21  # and the place of its bias in the table

_HISTORIES = (
    f"const int *options, const int *states, const float *biases, const int *inputs, {RUN_PARAMETERS}, int first"
)
_AS_HISTORIES = "{options, states, biases, inputs, {run_count, slots}}"


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


@dataclass(frozen=True)
class History:
    """What sequences' choices depend on besides their logits, all device buffers.

    For each slot: `options` int32 [16]; `states` int32 [stride], per token how often it was generated, whether the
    prompt has it and where its bias is; `biases` float32 [1024]. For each row of `runs`: `inputs` and `positions`
    int32, the token that it evaluates and where. The states are those of row 0 of a run: its row r also counts inputs 1
    to r, as a verify's rows need it. The first logits are those of row `first` of each run, as for drafts, whose logits
    come one row at a time.
    """

    options: Any
    states: Any
    biases: Any
    inputs: Any
    positions: Any
    runs: Runs
    first: int = 0

    @property
    def arguments(self) -> tuple[Any, ...]:
        """Those of a kernel with _HISTORIES."""
        return self.options, self.states, self.biases, self.inputs, *self.runs.arguments, self.first


class GumbelSampling(OverVocabulary):
    """ids int32 [rows] of logits float32 [rows, stride], of which the first `vocab_used` columns count.

    The stride is a multiple of 16. NaN never wins, +inf does, and a row without any score above -inf gives 0.
    stats float32 [rows, 3] are those of `Sampling`: of the logits as they are.
    """

    def scratch_bytes(self, rows: int) -> int:
        """Bytes of scratch memory for `rows` rows: what work-groups leave, and room for every column as a candidate."""
        quads = -(-self.vocab_used // QUAD)
        parts = 2 * 3 * (-(-self.groups // TILE) * TILE)
        return rows * 4 * (parts + TILE + 3 * (-(-quads // TILE) * TILE) + 2 * quads * QUAD)

    def counter_bytes(self, rows: int) -> int:
        """Bytes of counters for `rows` rows: zero before the first launch, and again after each choice."""
        return rows * 3 * 4

    def kernels(self) -> list[Kernel]:
        """Those of any row count."""
        template = f"{self.vocab_used}, {self.stride}, {self.groups}, {self.team}"
        suffix = f"{self.vocab_used}_of_{self.stride}"
        score = Kernel(
            name=f"score_columns_{suffix}",
            header="gumbel_sampling.hpp",
            parameters="const float *logits, const int *targets, float *stats, "
            f"{_HISTORIES}, float *scratch, int *counters",
            body=f"static_assert(OPTION_WORDS == {OPTION_WORDS} && BIASES == {BIASES});\n    "
            f"score_columns<{template}>(logits, targets, stats, {_AS_HISTORIES}, first, scratch, counters);",
            team=self.team,
            team_memory=self.team * 192,
        )
        choose = Kernel(
            name=f"choose_column_{suffix}",
            header="gumbel_sampling.hpp",
            parameters=f"const float *logits, int *ids, {_HISTORIES}, const int *positions, float *scratch, "
            "int *counters",
            body=f"choose_column<{template}>(logits, ids, {_AS_HISTORIES}, first, positions, scratch, counters);",
            team=self.team,
            team_memory=self.team * 128,
        )
        return [score, choose]

    def launch(
        self, program: Program, launches: _host.LaunchList, rows: int,
        logits: Any, targets: Any, ids: Any, stats: Any, history: History, scratch: Any, counters: Any,
    ) -> None:  # fmt: skip
        """As `Sampling.launch`; scratch memory of `scratch_bytes` and zeroed `counter_bytes`."""
        score, choose = self.kernels()
        program.launch(
            launches, score, rows * self.groups, logits, targets, stats, *history.arguments, scratch, counters
        )
        program.launch(
            launches, choose, rows * self.groups, logits, ids, *history.arguments, history.positions, scratch, counters
        )

    def costs(self, rows: int) -> list[Cost]:
        """Of both launches. The second looks at few columns, the fewest where one stands out."""
        quads = -(-self.vocab_used // QUAD)
        score = Cost(rows * 4 * (self.vocab_used + STATS), rows * 5 * self.vocab_used)
        return [score, Cost(rows * 4 * (quads + QUAD), rows * (quads + QUAD))]


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
    options: Options, position: int, logits: np.ndarray, states: np.ndarray, biases: np.ndarray
) -> tuple[int, float]:
    """The token at `position` of a row of logits float32 [columns], and how far it is ahead of the second best."""
    score = scores(options, logits, states, biases)
    columns = np.flatnonzero(kept(options, score))
    if not len(columns):
        return 0, math.inf
    noise = gumbel(uniform_words(options, position, columns)) if options.temperature else 0
    total = score[columns].astype(np.float64) + noise
    first = int(total.argmax())
    return int(columns[first]), float(total[first] - np.delete(total, first).max(initial=-np.inf))
