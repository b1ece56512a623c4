"""The log-probabilities of each row's chosen token and of its likeliest tokens, in one launch."""

import numpy as np

from arcmtp.ops.launch import BATCH_PARAMETERS, Batch
from arcmtp.ops.sampling import TILE, OverVocabulary
from arcmtp.runtime.launch import Argument, Cost, Kernel, Launch, Work, parameters, reads, writes
from arcmtp.runtime.tensor import F32, I32

PARAMETERS = (
    *parameters(logits=reads(F32), stats=reads(F32), counts=reads(I32), chosen=reads(I32), ids=writes(I32)),
    *parameters(logprobs=writes(F32), scratch=writes(F32), counters=writes(I32)),
    *BATCH_PARAMETERS,
)
MAX_TOP = 100  # of the likeliest tokens
QUAD = 64  # columns, and maxima, that are looked at together


class TopLogprobs(OverVocabulary):
    """ids int32 and logprobs float32 [rows, MAX_TOP + 1]: a row's chosen token, then its likeliest tokens in order.

    Of these there are as many as `counts` says when the launch runs; what follows them stays as it was. Equal logits go
    by column, the lowest first; NaN is never among them, and where no logit above -inf is left the id is -1 and the
    log-probability -inf. A log-probability is the logit less the row's log-sum-exp.
    """

    def scratch_shape(self, rows: int) -> tuple[int, int]:
        """Of f32 scratch memory for `rows` rows: maxima of quads of columns, and of 64 quads each."""
        quads = -(-self.vocab_used // QUAD)
        blocks = -(-quads // QUAD)
        return rows, sum(-(-maxima // TILE) * TILE for maxima in (quads, blocks))

    def kernel(self) -> Kernel:
        """That of any row count."""
        return Kernel(
            operator="top_logprobs",
            variant=f"{self.vocab_used}_of_{self.stride}",
            header="top_logprobs.hpp",
            parameters=PARAMETERS,
            agree=(("QUAD", QUAD), (f"LikelyTokens<{self.vocab_used}>::WORDS", self.scratch_shape(1)[1])),
            call=f"top_logprobs<{self.vocab_used}, {self.stride}, {self.groups}, {self.team}, {MAX_TOP}>",
            team=self.team,
            team_memory=64,
        )

    def launch(self, rows: int, batch: Batch, **arguments: Argument) -> Launch:
        """rows: those of all sequences. logits f32 [rows, stride]; stats f32 [rows, 3] of `Sampling`; counts i32
        [slots], 0…MAX_TOP; chosen i32 [rows], used columns; ids i32 and logprobs f32 [rows, MAX_TOP + 1], which may be
        host memory; scratch f32: `scratch_shape`; counters i32 [rows], zero between launches. Raises ValueError for a
        vocabulary of some tokens, where columns are not ids."""
        if self.vocabulary.tokens is not None:
            raise ValueError("the likeliest tokens are found among all tokens, not among some")
        return Launch(self.kernel(), rows * self.groups, rows, arguments | batch.arguments, self.cost)

    def cost(self, work: Work, count: int = MAX_TOP) -> Cost:
        """Of rows whose `count` likeliest tokens are wanted."""
        looked_at = self.vocab_used if count else 1
        return Cost(work.rows * (4 * looked_at + 8 * (count + 1)), work.rows * looked_at)


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
