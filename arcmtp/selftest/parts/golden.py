"""Text of the bundled model beside llama.cpp's of the same file.

Up to position 24 of these prompts the two likeliest tokens are more than 0.25 nat apart, so that another order of sums
chooses no other token.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from arcmtp.engine.llm import BUNDLED_MODEL
from arcmtp.engine.results import Generation
from arcmtp.runtime.paths import data_dir
from arcmtp.selftest.findings import Findings, Note, close, equal
from arcmtp.selftest.subject import Subject

PROMPTS = (0, 4)  # text, and a chat
TOKENS = 24
MEAN_OFF = 0.05  # nat: 4-bit weights meet int8 activations of other block scales in llama.cpp


@functools.cache
def golden() -> dict[str, Any]:
    """llama.cpp's greedy ids and log-probabilities, by model file name."""
    content: dict[str, Any] = json.loads((data_dir() / "golden.json").read_text(encoding="utf-8"))
    return content


def prompts() -> list[list[int]]:
    """Ids of the prompts."""
    return [golden()["prompts"][number]["tokens"] for number in PROMPTS]


def run(subject: Subject) -> Findings:
    """Greedy ids, and log-probabilities of the likeliest tokens."""
    for number, ids in zip(PROMPTS, prompts(), strict=True):
        reference = golden()["models"][BUNDLED_MODEL][number]
        result = subject.llm.generate(ids, max_tokens=TOKENS, logprobs=100, draft=0)
        yield equal(f"prompt {number}: ids", padded(result.ids), padded(reference["tokens"][:TOKENS]))
        off = np.array([np.mean(logprob_differences(result, reference))])
        yield close(f"prompt {number}: log-probabilities, mean difference", off, np.zeros(1), atol=MEAN_OFF)
        yield Note(f"prompt {number}: bits {bits(result)}")


def bits(result: Generation) -> str:
    """A digest of the log-probabilities, which devices whose kernels have one geometry should agree on."""
    return hashlib.sha256(np.array(result.token_logprobs, "<f4").tobytes()).hexdigest()[:12]


def padded(ids: Sequence[int]) -> np.ndarray:
    """int64 [TOKENS]; -1 where a text ended early."""
    return np.pad(np.array(ids, np.int64), (0, TOKENS - len(ids)), constant_values=-1)


def parting(ours: list[int], theirs: list[int]) -> int:
    """The first position at which the ids differ."""
    return next((i for i, pair in enumerate(zip(ours, theirs, strict=False)) if pair[0] != pair[1]), len(ours))


def logprob_differences(result: Generation, reference: dict[str, Any]) -> list[float]:
    """|log-probability - llama.cpp's| of its five likeliest tokens, up to the position of a parting; a token that is
    not among our hundred likeliest is infinitely far off."""
    same = parting(result.ids, reference["tokens"]) + 1
    pairs = list(zip(result.logprobs or [], reference["top5"], strict=False))[:same]
    return [abs(dict(ours).get(token, -np.inf) - logprob) for ours, theirs in pairs for token, logprob in theirs]
