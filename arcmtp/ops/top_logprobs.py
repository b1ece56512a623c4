"""The log-probabilities of each row's chosen token and of its likeliest tokens, in one launch."""

from typing import Any

import numpy as np

from arcmtp.ops.cost import Cost
from arcmtp.ops.launch import RUN_PARAMETERS, Runs
from arcmtp.ops.sampling import TILE, OverVocabulary
from arcmtp.runtime import _host
from arcmtp.runtime.compiler import Kernel, Program

MAX_TOP = 100  # of the likeliest tokens
QUAD = 64  # columns, and maxima, that are looked at together


class TopLogprobs(OverVocabulary):
    """ids int32 and logprobs float32 [rows, MAX_TOP + 1]: a row's chosen token, then its likeliest tokens in order.

    Of these there are as many as `counts` says when the launch runs; what follows them stays as it was. Equal logits go
    by column, the lowest first; NaN is never among them, and where no logit above -inf is left the id is -1 and the
    log-probability -inf. A log-probability is the logit less the row's log-sum-exp.
    """

    def scratch_bytes(self, rows: int) -> int:
        """Bytes of scratch memory for `rows` rows: maxima of quads of columns, and of 64 quads each."""
        quads = -(-self.vocab_used // QUAD)
        blocks = -(-quads // QUAD)
        return rows * 4 * sum(-(-maxima // TILE) * TILE for maxima in (quads, blocks))

    def counter_bytes(self, rows: int) -> int:
        """Bytes of counters for `rows` rows: zero before the first launch, and again after each."""
        return rows * 4

    def kernel(self) -> Kernel:
        """That of any row count."""
        return Kernel(
            name=f"top_logprobs_{self.vocab_used}_of_{self.stride}",
            header="top_logprobs.hpp",
            parameters="const float *logits, const float *stats, const int *counts, const int *chosen, int *ids, "
            f"float *logprobs, float *scratch, int *counters, {RUN_PARAMETERS}",
            body=f"top_logprobs<{self.vocab_used}, {self.stride}, {self.groups}, {self.team}, {MAX_TOP}>"
            "(logits, stats, counts, chosen, ids, logprobs, scratch, counters, {run_count, slots});",
            team=self.team,
            team_memory=64,
        )

    def launch(
        self, program: Program, launches: _host.LaunchList, rows: int,
        logits: Any, stats: Any, counts: Any, chosen: Any, ids: Any, logprobs: Any, scratch: Any, counters: Any,
        runs: Runs,
    ) -> None:  # fmt: skip
        """logits f32 [rows, stride]; stats f32 [rows, 3] of `Sampling`; counts int32 [slots], 0…MAX_TOP; chosen int32
        [rows], used columns; ids int32 and logprobs f32 [rows, MAX_TOP + 1], which may be host memory; scratch memory
        of `scratch_bytes` and zeroed `counter_bytes`."""
        program.launch(
            launches, self.kernel(), rows * self.groups, logits, stats, counts, chosen, ids, logprobs, scratch,
            counters, *runs.arguments,
        )  # fmt: skip

    def cost(self, rows: int, count: int) -> Cost:
        """Of `rows` rows whose `count` likeliest tokens are wanted."""
        looked_at = self.vocab_used if count else 1
        return Cost(rows * (4 * looked_at + 8 * (count + 1)), rows * looked_at)


def reference(
    logits: np.ndarray, log_sum: np.ndarray, count: int, chosen: np.ndarray, vocab_used: int
) -> tuple[np.ndarray, np.ndarray]:
    """ids int64 and logprobs float32 [rows, 1 + count] of logits float32 [rows, at least vocab_used], their
    log-sum-exps float32 [rows] and the chosen columns int [rows]."""
    used = logits[:, :vocab_used]
    numbers = np.where(np.isnan(used), np.float32(-np.inf), used)
    likeliest = np.argsort(-numbers, axis=1, kind="stable")[:, :count]
    likeliest = np.pad(likeliest, ((0, 0), (0, count - likeliest.shape[1])))
    found = np.take_along_axis(numbers, likeliest, axis=1) > -np.inf
    found[:, vocab_used:] = False
    ids = np.column_stack([chosen, np.where(found, likeliest, -1)])
    with np.errstate(invalid="ignore"):
        logprobs = np.take_along_axis(used, np.maximum(ids, 0), axis=1) - log_sum[:, None]
    return ids, np.where(ids < 0, np.float32(-np.inf), logprobs)
