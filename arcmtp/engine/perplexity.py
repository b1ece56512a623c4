"""Perplexity as llama.cpp's llama-perplexity computes it: the tool that shows a wrong kernel first."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from arcmtp.engine.llm import LLM
from arcmtp.errors import ArcmtpError


@dataclass(frozen=True)
class Perplexity:
    """Perplexity of a text: e to the mean negative log-likelihood (in nats) of a token, from 1 upwards."""

    value: float
    error: float  # standard error of `value`
    windows: int  # into which the text was cut
    tokens: int  # that were scored


def perplexity(llm: LLM, text: str, window: int, progress: Callable[[int, int], None] | None = None) -> Perplexity:
    """Cut the text into windows of `window` tokens (a rest is dropped) and score the second half of each.

    In each window of n tokens those at n/2 + 1 … n - 1 are scored, given all before them in the window.
    Raises ArcmtpError for a text of fewer than two windows, or a window that the context does not hold.
    """
    if not 4 <= window <= llm.context:
        raise ArcmtpError(f"a window of {window} tokens is not within 4 to the context's {llm.context}")
    ids = llm.tokenize(text)
    windows = len(ids) // window
    if windows < 2:
        raise ArcmtpError(f"the text has {len(ids)} tokens; perplexity needs at least {2 * window} (two windows)")
    scores = []
    for index in range(windows):
        part = ids[index * window : (index + 1) * window]
        scores.append(llm.new_sequence().score(part, window // 2 + 1))
        if progress:
            progress(index + 1, windows)
    return _estimate(-np.concatenate(scores), windows)


def _estimate(losses: np.ndarray, windows: int) -> Perplexity:
    mean = float(losses.mean())
    variance = max(float(np.square(losses).mean()) - mean * mean, 0.0)
    value = math.exp(mean)
    return Perplexity(value, value * math.sqrt(variance / (len(losses) - 1)), windows, len(losses))
