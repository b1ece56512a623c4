"""How many tokens are drafted in each cycle."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from arcmtp.engine.cycle import Cycle
from arcmtp.errors import ArcmtpError
from arcmtp.ops.launch import MAX_ROWS


class DraftPolicy(Protocol):
    """Says, before each cycle, how many tokens to draft; this changes the speed and not the text.

    Sequences whose policies are equal advance together, with as many drafts each, so a policy has a hash and may be
    asked about several sequences at once.
    """

    @property
    def lengths(self) -> Collection[int]:
        """All that `length` may return: 0 alone, or lengths from 1 to 7. Kernels are compiled for these beforehand.

        Why 0 stands alone: a step without drafts leaves a hole in the MTP block's KV cache, after which drafts are
        worse guesses.
        """

    def length(self, histories: Sequence[Sequence[Cycle]]) -> int:
        """The number of tokens to draft in the next cycle.

        histories: the latest cycles of each sequence, at most 64, the oldest first; none right after a prompt. A device
        that is given a cycle before the one before it has been read has one more under way.
        """


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

    def length(self, histories: Sequence[Sequence[Cycle]]) -> int:
        """The one length."""
        return self.count


NO_DRAFTS = FixedDrafts(0)


def checked_policy(draft: int | DraftPolicy) -> DraftPolicy:
    """The policy that a draft length or a policy means. Raises ArcmtpError for lengths that there are not."""
    if isinstance(draft, int):
        return FixedDrafts(draft)
    lengths = set(draft.lengths)
    if lengths != {0} and (not lengths or not lengths <= set(range(1, MAX_ROWS))):
        raise ArcmtpError(f"a draft policy has lengths {sorted(lengths)}; it must have 0 alone, or 1 to {MAX_ROWS - 1}")
    return draft


def may_draft(policy: DraftPolicy) -> bool:
    """Whether anything is ever drafted."""
    return max(policy.lengths) > 0


def next_length(policy: DraftPolicy, histories: Sequence[Sequence[Cycle]]) -> int:
    """What the policy says. Raises ArcmtpError if that is none of its lengths."""
    length = policy.length(histories)
    if length not in policy.lengths:
        raise ArcmtpError(f"a draft policy wants {length} drafts; its lengths are {sorted(policy.lengths)}")
    return length
