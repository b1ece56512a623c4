"""Perplexity as llama.cpp's llama-perplexity computes it: the tool that shows a wrong kernel first."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from arcmtp.engine.llm import LLM
from arcmtp.errors import ArcmtpError, NotFinite

LARGEST_LOSS = 700.0  # nats; e to a larger one is no float64


@dataclass(frozen=True)
class Perplexity:
    """Perplexity of a text: e to the mean negative log-likelihood (in nats) of a token, from 1 upwards."""

    value: float
    error: float  # standard error of `value`
    windows: int  # into which the text was cut
    tokens: int  # that were scored


def check_windows(tokens: int, window: int, context: int) -> None:
    """Raises ArcmtpError for a text of fewer than two windows, or a window that the context does not hold."""
    if not 4 <= window <= context:
        raise ArcmtpError(f"a window of {window} tokens is not within 4 to the context's {context}")
    if tokens < 2 * window:
        raise ArcmtpError(f"the text has {tokens} tokens; perplexity needs at least {2 * window} (two windows)")


def perplexity(
    llm: LLM, text: str | Sequence[int], window: int, progress: Callable[[int, int], None] | None = None
) -> Perplexity:
    """Cut a text, or its token ids, into windows of `window` tokens (a rest is dropped) and score the second half of
    each.

    In each window of n tokens those at n/2 + 1 … n - 1 are scored, given all before them in the window.
    Raises ArcmtpError as `check_windows` does, and NotFinite for log-probabilities that are NaN or infinite.
    """
    ids = llm.tokenize(text) if isinstance(text, str) else text
    check_windows(len(ids), window, llm.context)
    windows, scores = len(ids) // window, []
    for index in range(windows):
        part = ids[index * window : (index + 1) * window]
        scores.append(llm.new_sequence().score(part, window // 2 + 1))
        if not np.isfinite(scores[-1]).all():
            what = f"log-probabilities in window {index + 1} of {windows} are NaN or infinite"
            raise NotFinite(f"{what}: weights of the file, or the device, are wrong")
        if progress:
            progress(index + 1, windows)
    return _estimate(-np.concatenate(scores), windows)


def _estimate(losses: np.ndarray, windows: int) -> Perplexity:
    mean = float(losses.mean())
    variance = max(float(np.square(losses).mean()) - mean * mean, 0.0)
    if mean > LARGEST_LOSS:
        raise NotFinite(f"the mean loss of a token is {mean:.0f} nats: weights of the file, or the device, are wrong")
    value = math.exp(mean)
    return Perplexity(value, value * math.sqrt(variance / (len(losses) - 1)), windows, len(losses))
