"""Generations that only a draft policy sees: what cycles cost, and which drafts are right, is given."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from arcmtp.engine.cycle import Cycle
from arcmtp.engine.draft_history import DraftHistory
from arcmtp.engine.draft_policy import DraftPolicy, next_length

Costs = Callable[[int, int], float]  # µs of a cycle of so many sequences at a draft length
Chain = Callable[[int], int]  # drafts that are right one after the other at a place of a text


SLOWER = 1.1  # a cycle of another length than the one before
PLACES = 4096  # of a text, after which it begins again


@dataclass
class Drive:
    """A policy that drives simulated sequences, and what it did."""

    policy: DraftPolicy
    costs: Costs
    lengths: list[int] = field(default_factory=list)
    microseconds: float = 0.0
    tokens: int = 0

    def run(self, chains: Sequence[Chain], cycles: int | None = None, tokens: int = 1 << 30) -> None:
        """Cycles of new sequences, side by side, until each has `tokens`. The policy chooses while the device works."""
        histories, places = [DraftHistory() for _ in chains], [0] * len(chains)
        following = next_length(self.policy, histories)
        for number in range(cycles or tokens):
            if min(places) >= tokens:
                return
            drafted, following = following, next_length(self.policy, histories)
            given = []
            for index, chain in enumerate(chains):
                accepted = min(chain(places[index]), drafted)
                cycle = Cycle([0] * (accepted + 1), [0.0] * (accepted + 1), None, drafted, accepted, False)
                histories[index].add(cycle)
                places[index] += accepted + 1
                given.append(cycle)
            usual = number > 0 and self.lengths[-1] == drafted
            us = self.costs(len(chains), drafted) * (1 if usual else SLOWER)
            self.policy.note(given, drafted, us if number else None, usual)
            self.lengths.append(drafted)
            self.microseconds += us
            self.tokens += sum(len(cycle.tokens) for cycle in given)

    @property
    def speed(self) -> float:
        """Tokens per second."""
        return self.tokens / self.microseconds * 1e6


def accepting(shares: Sequence[float], seed: int = 0) -> Chain:
    """Draft i of a chain is right, behind right ones, with probability shares[i]; always the same at one place."""

    wrong = np.random.default_rng(seed).random((PLACES, len(shares))) >= shares
    lengths = np.where(wrong.any(axis=1), wrong.argmax(axis=1), len(shares)).tolist()
    return lambda place: lengths[place % PLACES]


def expected_tokens(shares: Sequence[float], length: int) -> float:
    """Of a cycle: 1 + a₁ + a₁a₂ + …"""
    return float(1 + np.cumprod(shares[:length]).sum())
