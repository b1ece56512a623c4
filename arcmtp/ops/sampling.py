"""Greedy sampling and the softmax of sampling: the largest logit of a row and its log-probabilities, in one launch."""

from dataclasses import dataclass

import numpy as np

from arcmtp.ops.launch import compiled_rows, row_suffix
from arcmtp.runtime.card import Geometry
from arcmtp.runtime.launch import Argument, Cost, Kernel, Launch, Parameters, Work, parameters, reads, writes
from arcmtp.runtime.tensor import F32, I32

PARAMETERS = parameters(
    logits=reads(F32), targets=reads(I32), ids=writes(I32), stats=writes(F32), partials=writes(F32),
    arrivals=writes(I32), row_count=reads(I32),
)  # fmt: skip
TILE = 16
STATS = 3  # largest logit, log-sum-exp, log-probability of the target, or of the chosen token


@dataclass(frozen=True)
class Vocabulary:
    """The columns of logits f32 [rows, stride], of which the first `used` are tokens; stride is a multiple of 16.

    tokens: i32 [whole quads of 64], the token of each column, ascending, out of `all_tokens`; None: column c is token
    c. Chosen tokens, noise, penalties and biases go by token, not by column.
    """

    used: int
    stride: int
    tokens: Argument | None = None
    all_tokens: int = 0

    @property
    def parameters(self) -> Parameters:
        """What a kernel over the vocabulary takes for it."""
        return parameters(tokens=reads(I32)) if self.tokens is not None else ()

    @property
    def arguments(self) -> dict[str, Argument]:
        """Those of its `parameters`."""
        return {"tokens": self.tokens} if self.tokens is not None else {}

    @property
    def cpp(self) -> str:
        """Its C++ object in a kernel."""
        some = self.tokens is not None
        return f"SomeTokens<{self.all_tokens}>{{tokens}}" if some else f"AllTokens<{self.stride}>{{}}"

    @property
    def states(self) -> int:
        """Words of a slot's token states: a token each, and what the last 16 lack."""
        return self.stride if self.tokens is None else self.all_tokens

    @property
    def variant(self) -> str:
        """The part of a kernel's name that tells it."""
        return f"{self.used}_of_{self.stride}" + (f"_of_{self.all_tokens}" if self.tokens is not None else "")

    def __post_init__(self) -> None:
        if not 0 < self.used <= self.stride or self.stride % TILE:
            raise ValueError(f"{self.used} used columns do not fit a stride of {self.stride}, a multiple of {TILE}")


class OverVocabulary:
    """What operators on logits share: the columns of a row in `groups` work-groups of `team` threads. Columns that are
    no tokens count for nothing."""

    def __init__(self, vocabulary: Vocabulary, geometry: Geometry) -> None:
        self.vocabulary, self.vocab_used, self.stride = vocabulary, vocabulary.used, vocabulary.stride
        self.groups, self.team = geometry.softmax_groups, geometry.norm_team


class Sampling(OverVocabulary):
    """ids int32 [rows]: the column of the largest of the first `vocab_used` logits, the lowest of equals; NaN never
    wins, and a row without any logit above -inf gives 0. stats float32 [rows, 3]: that logit, the log-sum-exp over the
    used columns (NaN if one of them is) and the log-probability of column `targets[row]`, or of the chosen token for a
    target of -1.
    """

    def partials_shape(self, rows: int) -> tuple[int, int, int]:
        """Of f32 scratch memory for `rows` rows."""
        return rows, 3, -(-self.groups // TILE) * TILE

    def kernel(self, rows: int) -> Kernel:
        """For 1…8 rows, or, with `rows` 0, for the count in `row_count` when it runs."""
        return Kernel(
            operator="sampling",
            variant=f"{self.vocabulary.variant}_{row_suffix(rows)}",
            header="sampling.hpp",
            parameters=(*PARAMETERS, *self.vocabulary.parameters),
            agree=(("LANES", TILE), (f"RowPartials<{self.groups}>::PADDED", self.partials_shape(1)[2])),
            body=f"sample<{self.vocab_used}, {self.stride}, {self.groups}, {self.team}>"
            f"(logits, targets, ids, stats, partials, arrivals, {compiled_rows(rows) or 'row_count[0]'}, "
            f"{self.vocabulary.cpp});",
            team=self.team,
            team_memory=self.team * 192,
        )

    def launch(self, rows: int, **arguments: Argument) -> Launch:
        """logits f32 [rows, stride]; targets i32 [rows], columns; ids i32 [rows]; stats f32 [rows, 3]; partials f32:
        `partials_shape`; arrivals i32 [rows], zero between launches; row_count i32."""
        given = arguments | self.vocabulary.arguments
        return Launch(self.kernel(rows), rows * self.groups, rows, given, self._cost)

    def _cost(self, work: Work) -> Cost:
        """The largest logit and the sum of exponentials."""
        return Cost(work.rows * 4 * (self.vocab_used + STATS), work.rows * 4 * self.vocab_used)


def reference(logits: np.ndarray, targets: np.ndarray, vocab_used: int) -> tuple[np.ndarray, np.ndarray]:
    """ids int64 [rows] and stats float64 [rows, 3] of logits [rows, at least vocab_used] and targets int [rows]."""
    used = logits[:, :vocab_used].astype(np.float64)
    numbers = np.where(np.isnan(used), -np.inf, used)
    largest = numbers.max(axis=1)
    shift = np.where(np.isfinite(largest), largest, 0)[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        log_sum = shift[:, 0] + np.log(np.exp(used - shift).sum(axis=1))
        of_target = np.where(targets < 0, largest, used[np.arange(len(used)), np.maximum(targets, 0)])
        stats = np.stack([largest, log_sum, of_target - log_sum], axis=1)
    return numbers.argmax(axis=1), stats
