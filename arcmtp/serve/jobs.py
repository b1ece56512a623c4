"""What an HTTP request asks of the model, and what comes back."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from arcmtp.engine.request import Request
from arcmtp.engine.results import Chunk, Statistics
from arcmtp.engine.scores import Scores

FinishReason = Literal["stop", "length", "cancelled"]


@dataclass(frozen=True)
class ReasoningBudget:
    """Tokens of reasoning after which `closing_ids` are put into the text, unless the model wrote `end_id` before."""

    tokens: int
    end_id: int
    closing_ids: Sequence[int]


@dataclass(frozen=True)
class Job(Request):
    """One sequence to generate."""

    budget: ReasoningBudget | None = None


@dataclass
class Timings:
    """Where a job's time went; the first token belongs to the prompt."""

    queue_seconds: float = 0.0
    prompt_tokens: int = 0
    cached_tokens: int = 0  # that an earlier request had evaluated
    prompt_seconds: float = 0.0
    decode_tokens: int = 0
    decode_seconds: float = 0.0

    def add(self, other: "Timings") -> None:
        """Sum over jobs, except that the longest wait counts."""
        self.queue_seconds = max(self.queue_seconds, other.queue_seconds)
        self.prompt_tokens += other.prompt_tokens
        self.cached_tokens += other.cached_tokens
        self.prompt_seconds += other.prompt_seconds
        self.decode_tokens += other.decode_tokens
        self.decode_seconds += other.decode_seconds


@dataclass(frozen=True)
class Finished:
    """The last event of a job.

    statistics: of the engine's streams, two where a reasoning budget was used up. end: the token that ended the text,
    of which it is no part.
    """

    reason: FinishReason
    timings: Timings
    statistics: Sequence[Statistics]
    end: Chunk | None = None


Event = Scores | Chunk | Finished
