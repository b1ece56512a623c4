"""How likely a model finds tokens that it did not choose."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Scores:
    """Log-probabilities in nats, without options, of n tokens, each given all tokens before it.

    logprobs: float32 [n]. top_ids int32, top_logprobs float32 [n, top]: the likeliest tokens in the place of each, the
    likeliest first; where the vocabulary has no more, id -1 and -inf.
    """

    logprobs: np.ndarray
    top_ids: np.ndarray
    top_logprobs: np.ndarray


NONE = Scores(np.empty(0, np.float32), np.empty((0, 0), np.int32), np.empty((0, 0), np.float32))


def join(parts: Sequence[Scores]) -> Scores:
    """The scores of tokens that follow each other."""
    if not parts:
        return NONE
    return Scores(
        np.concatenate([part.logprobs for part in parts]),
        np.concatenate([part.top_ids for part in parts]),
        np.concatenate([part.top_logprobs for part in parts]),
    )
