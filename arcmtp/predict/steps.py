"""Predicted times of a network's launch lists: steps, draft calls, cycles, prompts."""

from __future__ import annotations

from collections.abc import Sequence

from arcmtp.model.network import Network
from arcmtp.predict.times import ListTime, Predictor, Range, times
from arcmtp.runtime.card import Hardware


class Steps:
    """Of one sequence, chosen greedily."""

    def __init__(self, network: Network, hardware: Hardware) -> None:
        self.network, self.hardware = network, hardware
        self.predictor = Predictor(hardware, network.config.experts, network.config.experts_used)

    def step(self, rows: int, position: int, as_graph: bool = True) -> ListTime:
        """A step whose first row is at `position`."""
        return self.predictor.time(self.network.plain_step(rows), rows, position + rows, as_graph)

    def draft(self, index: int, rows: int, position: int, as_graph: bool = True) -> ListTime:
        """Draft call `index` after a step of `rows` rows that ended at `position`."""
        return self.predictor.time(self.network.plain_draft(index, rows), 1, position + index, as_graph)

    def cycle(self, drafts: int, position: int) -> ListTime:
        """So many draft calls, and the step that verifies them."""
        calls = [self.draft(index, drafts + 1, position) for index in range(1, drafts + 1)]
        return times((part, 1) for part in (*calls, self.step(drafts + 1, position)))

    def prompt(self, tokens: int) -> ListTime:
        """All chunks of a prompt, and the token that follows it."""
        most = self.network.chunk_rows
        ends = [min(end, tokens) for end in range(most, tokens + most, most)]
        starts = [0, *ends[:-1]]
        launches = list(self.network.plain_chunk())
        chunks = [
            self.predictor.time(launches, end - start, end, as_graph=False)
            for start, end in zip(starts, ends, strict=True)
        ]
        first = self.predictor.time(self.network.plain_first(), 1, 1, as_graph=False)
        return times((part, 1) for part in (*chunks, first))


def tokens_per_cycle(acceptance: Sequence[float], drafts: int) -> float:
    """acceptance: share of the cycles that accept the first draft, the second, …"""
    return 1 + sum(acceptance[:drafts])


def predicted_tokens_per_second(network: Network, hardware: Hardware, position: int = 0) -> Range:
    """Tokens a second of one sequence at `position` without drafts, experts where the network has them."""
    return Steps(network, hardware).step(1, position).seconds.of(lambda seconds: 1 / seconds)
