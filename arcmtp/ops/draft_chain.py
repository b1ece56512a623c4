"""Whether chains of draft calls go on: each sequence's until its draft is less likely than it must be."""

import math
from collections.abc import Sequence

import numpy as np

from arcmtp.ops.launch import BATCH_PARAMETERS, Batch
from arcmtp.ops.sampling import STATS
from arcmtp.runtime.launch import INT, Argument, Cost, Kernel, Launch, parameters, reads, writes
from arcmtp.runtime.tensor import F32, I32

KERNEL = Kernel(
    operator="draft_chain",
    variant="",
    header="draft_chain.hpp",
    parameters=(
        *parameters(stats=reads(F32), floors=reads(F32), drafted=writes(I32), goes_on=writes(I32)),
        *BATCH_PARAMETERS,
        *parameters(index=INT),
    ),
    call="draft_chain",
)


def draft_floor(p_min: float) -> float:
    """The log-probability that a draft of at least this probability has; -inf for 0."""
    return math.log(p_min) if p_min > 0 else -math.inf


def launch(index: int, batch: Batch, **arguments: Argument) -> Launch:
    """After draft call `index` (from 1), whose drafts have `stats` f32 [batch, 3] of sampling with targets of -1.

    floors f32 [slots]: the log-probability below which a draft ends its sequence's chain; it counts itself. drafted i32
    [batch]: how many drafts of each sequence count, index + 1 where the next one does. goes_on i32 [1]: whether it does
    for any sequence."""
    cost = Cost(batch.size * 4 * (STATS + 2))
    given = arguments | batch.arguments | {"index": index}
    return Launch(KERNEL, 1, batch.size, given, lambda work: cost)


def reference(logprobs: Sequence[float] | np.ndarray, floor: float) -> int:
    """How many drafts of one sequence count, of a chain whose drafts have these log-probabilities."""
    ends = (made for made, logprob in enumerate(logprobs, start=1) if logprob < floor)
    return next(ends, len(logprobs))
