"""A graph that is replayed gives the bits of its launches."""

from __future__ import annotations

import numpy as np

from arcmtp.engine.results import Generation
from arcmtp.selftest.findings import Findings, Note, close
from arcmtp.selftest.parts.golden import TOKENS, prompts
from arcmtp.selftest.parts.mtp import same_text
from arcmtp.selftest.subject import Subject


def run(subject: Subject) -> Findings:
    """Without drafts and with two, beside the same text launch by launch."""
    ids = prompts()[0]
    for draft in (0, 2):
        plain = subject.llm.generate(ids, TOKENS, draft=draft)
        result = by_graphs(subject, ids, draft)
        yield from same_text(f"{draft} drafts", result, plain)
        statistics = result.statistics
        replayed = np.array([statistics.graph_replays > 0])
        yield close(f"{draft} drafts: graphs that were replayed", replayed, np.array([True]))
        yield Note(f"{draft} drafts: {statistics.graph_captures} captures, {statistics.graph_replays} replays")


def by_graphs(subject: Subject, ids: list[int], draft: int) -> Generation:
    """A generation with graphs enabled."""
    graphs = subject.llm.network.stage.graphs
    graphs.enabled = True
    try:
        return subject.llm.generate(ids, TOKENS, draft=draft)
    finally:
        graphs.enabled = False
