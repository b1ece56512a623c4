"""What a cycle gives."""

from dataclasses import dataclass

TopLogprobs = list[tuple[int, float]]  # (token id, log-probability in nats), the likeliest first


@dataclass(frozen=True)
class Cycle:
    """What one cycle, drafts and the step that verifies them, adds to a sequence.

    tokens: ids of the accepted drafts and of one token more, cut where the generation ends. done: it ended with them.
    """

    tokens: list[int]
    logprobs: list[float]  # of the tokens, in nats
    top: list[TopLogprobs] | None  # the likeliest tokens in the place of each
    drafted: int  # tokens; fewer than the draft length where the chain ended early
    accepted: int  # of these
    done: bool

    @property
    def tried(self) -> int:
        """How many drafts tell whether they were right: the accepted ones and the first that was not. Where the
        generation ends, the drafts behind its end tell nothing."""
        return self.accepted if self.done else min(self.drafted, self.accepted + 1)
