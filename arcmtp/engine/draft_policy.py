"""How many tokens are drafted in each cycle."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from arcmtp.engine.cycle import Cycle
from arcmtp.engine.draft_history import DraftHistory
from arcmtp.errors import ArcmtpError
from arcmtp.ops.launch import MAX_ROWS, STEP_ROWS


class DraftPolicy(Protocol):
    """Says, before each cycle, how many tokens to draft; this changes the speed and not the text.

    Sequences whose policies are equal advance together, with as many drafts each, so a policy has a hash and may be
    asked about several sequences at once.
    """

    @property
    def lengths(self) -> Collection[int]:
        """All that `length` may return, 0 to 7. Kernels are compiled for these beforehand."""

    def length(self, histories: Sequence[DraftHistory]) -> int:
        """The number of tokens to draft in the next cycle, at most `longest(len(histories))`.

        histories: of each sequence; empty right after a prompt. It is asked while the device works, for a cycle that
        may not come: the latest cycle is in none of them, nor has it been noted.
        """

    def note(self, cycles: Sequence[Cycle], drafted: int, microseconds: float | None, usual: bool) -> None:
        """What a cycle gave its sequences, with `drafted` tokens for each, and what it took; None where
        kernels were bound for it. usual: whether the next one of that length may take as long."""


@dataclass(frozen=True)
class FixedDrafts:
    """The same draft length in every cycle, 0 to 7 tokens. Raises ArcmtpError for another one."""

    count: int

    def __post_init__(self) -> None:
        if not 0 <= self.count < MAX_ROWS:
            raise ArcmtpError(f"draft is {self.count}; it must be 0 to {MAX_ROWS - 1}")

    @property
    def lengths(self) -> Collection[int]:
        """The one length."""
        return (self.count,)

    def length(self, histories: Sequence[DraftHistory]) -> int:
        """The one length."""
        return self.count

    def note(self, cycles: Sequence[Cycle], drafted: int, microseconds: float | None, usual: bool) -> None:
        """Nothing is learnt."""


NO_DRAFTS = FixedDrafts(0)


def longest(sequences: int) -> int:
    """The most tokens that a cycle of so many sequences may draft for each."""
    return min(STEP_ROWS // sequences, MAX_ROWS) - 1


def most_sequences(policy: DraftPolicy) -> int:
    """How many sequences a step can advance, if drafts take no more rows than they must."""
    return STEP_ROWS // (min(policy.lengths) + 1)


def checked_policy(policy: DraftPolicy) -> DraftPolicy:
    """The policy. Raises ArcmtpError for lengths that there are not."""
    lengths = set(policy.lengths)
    if not lengths or not lengths <= set(range(MAX_ROWS)):
        raise ArcmtpError(f"a draft policy has lengths {sorted(lengths)}; it must have some of 0 to {MAX_ROWS - 1}")
    return policy


def may_draft(policy: DraftPolicy) -> bool:
    """Whether anything is ever drafted."""
    return max(policy.lengths) > 0


def next_length(policy: DraftPolicy, histories: Sequence[DraftHistory]) -> int:
    """What the policy says. Raises ArcmtpError if that is none of its lengths, or more than there are rows for."""
    length = policy.length(histories)
    if length not in policy.lengths:
        raise ArcmtpError(f"a draft policy wants {length} drafts; its lengths are {sorted(policy.lengths)}")
    if length > longest(len(histories)):
        raise ArcmtpError(
            f"a draft policy wants {length} drafts for each of {len(histories)} sequences; there is room for "
            f"{longest(len(histories))}"
        )
    return length


def check_p_min(p_min: float) -> None:
    """Raises ArcmtpError for a least probability of drafts that is none."""
    if not (isinstance(p_min, int | float) and 0 <= p_min <= 1):
        raise ArcmtpError(f"draft_p_min is {p_min!r}; it must be a number from 0 to 1")
