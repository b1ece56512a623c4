"""Drafts change the speed and not the text: ids and log-probabilities to the bit."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from arcmtp.engine.loading import Draft
from arcmtp.engine.results import Generation
from arcmtp.engine.sampling import SamplingOptions
from arcmtp.selftest.findings import Difference, Findings, Note, close, equal
from arcmtp.selftest.parts.golden import TOKENS, padded, prompts
from arcmtp.selftest.subject import Subject

DRAFTS: tuple[Draft, ...] = (2, "auto")
WAYS = {"greedy": SamplingOptions(), "warm": SamplingOptions(temperature=0.8, top_p=0.95, seed=1)}


def run(subject: Subject) -> Findings:
    """Greedy and with options, beside the same text without drafts."""
    ids, drafted, accepted = prompts()[0], 0, 0
    for way, sampling in WAYS.items():
        plain = subject.llm.generate(ids, TOKENS, sampling=sampling, draft=0)
        for draft in DRAFTS:
            result = subject.llm.generate(ids, TOKENS, sampling=sampling, draft=draft)
            yield from same_text(f"{way}, {draft} drafts", result, plain)
            drafted += len(result.draft_calls)
            accepted += sum(bool(call.accepted) for call in result.draft_calls)
    yield close("drafts that were made, none of which would prove nothing", np.array([drafted > 0]), np.array([True]))
    yield Note(f"{accepted} of {drafted} drafts were accepted")


def same_text(what: str, result: Generation, want: Generation) -> Iterator[Difference]:
    """Ids and log-probabilities of two generations."""
    yield equal(f"{what}: ids", padded(result.ids), padded(want.ids))
    ours, theirs = (np.pad(np.array(each.token_logprobs), (0, TOKENS - len(each.ids))) for each in (result, want))
    yield equal(f"{what}: log-probabilities", ours, theirs)
