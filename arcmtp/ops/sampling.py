"""Greedy sampling and the softmax of sampling: the largest logit of a row and its log-probabilities, in one launch."""

from typing import Any

import numpy as np

from arcmtp.ops.cost import Cost
from arcmtp.ops.launch import BLOCK_ROWS, compiled_rows, row_suffix
from arcmtp.runtime import _host
from arcmtp.runtime.card import Geometry
from arcmtp.runtime.compiler import Kernel, Program

TILE = 16
STATS = 3  # largest logit, log-sum-exp, log-probability of the target


class OverVocabulary:
    """What operators on logits share: the columns of a row in `groups` work-groups of `team` threads.

    Logits are float32 [rows, stride], stride a multiple of 16; columns from `vocab_used` on count for nothing.
    """

    def __init__(self, vocab_used: int, stride: int, geometry: Geometry) -> None:
        if not 0 < vocab_used <= stride or stride % TILE:
            raise ValueError(f"{vocab_used} used columns do not fit a stride of {stride}, a multiple of {TILE}")
        self.vocab_used, self.stride = vocab_used, stride
        self.groups, self.team = geometry.softmax_groups, geometry.norm_team


class Sampling(OverVocabulary):
    """ids int32 [rows]: the column of the largest of the first `vocab_used` logits, the lowest of equals; NaN never
    wins, and a row without any logit above -inf gives 0. stats float32 [rows, 3]: that logit, the log-sum-exp over the
    used columns (NaN if one of them is) and the log-probability of column `targets[row]` (0 for a target of -1).
    """

    def partials_bytes(self, rows: int) -> int:
        """Bytes of scratch memory for `rows` rows."""
        return rows * 3 * (-(-self.groups // TILE) * TILE) * 4

    def arrivals_bytes(self, rows: int) -> int:
        """Bytes of counters for `rows` rows: zero before the first launch, and again after each."""
        return rows * 4

    def kernel(self, rows: int) -> Kernel:
        """For 1…8 rows, or, with `rows` 0, for the count in `row_count` when it runs."""
        return Kernel(
            name=f"sampling_{self.vocab_used}_of_{self.stride}_{row_suffix(rows)}",
            header="sampling.hpp",
            parameters="const float *logits, const int *targets, int *ids, float *stats, float *partials, "
            "int *arrivals, const int *row_count",
            body=f"sample<{self.vocab_used}, {self.stride}, {self.groups}, {self.team}>"
            f"(logits, targets, ids, stats, partials, arrivals, {compiled_rows(rows) or 'row_count[0]'});",
            team=self.team,
            team_memory=self.team * 192,
        )

    def launch(
        self, program: Program, launches: _host.LaunchList, rows: int,
        logits: Any, targets: Any, ids: Any, stats: Any, partials: Any, arrivals: Any, row_count: Any,
    ) -> None:  # fmt: skip
        """logits f32 [rows, stride]; targets int32 [rows]; ids int32 [rows]; stats f32 [rows, 3]; scratch memory of
        `partials_bytes` and zeroed `arrivals_bytes`."""
        program.launch(
            launches, self.kernel(rows), (rows or BLOCK_ROWS) * self.groups,
            logits, targets, ids, stats, partials, arrivals, row_count,
        )  # fmt: skip

    def cost(self, rows: int) -> Cost:
        """Of `rows` rows: the largest logit and the sum of exponentials."""
        return Cost(rows * 4 * (self.vocab_used + STATS), rows * 4 * self.vocab_used)


def reference(logits: np.ndarray, targets: np.ndarray, vocab_used: int) -> tuple[np.ndarray, np.ndarray]:
    """ids int64 [rows] and stats float64 [rows, 3] of logits [rows, at least vocab_used] and targets int [rows]."""
    used = logits[:, :vocab_used].astype(np.float64)
    numbers = np.where(np.isnan(used), -np.inf, used)
    largest = numbers.max(axis=1)
    shift = np.where(np.isfinite(largest), largest, 0)[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        log_sum = shift[:, 0] + np.log(np.exp(used - shift).sum(axis=1))
        log_probability = np.where(targets < 0, 0, used[np.arange(len(used)), np.maximum(targets, 0)] - log_sum)
    return numbers.argmax(axis=1), np.stack([largest, log_sum, log_probability], axis=1)
