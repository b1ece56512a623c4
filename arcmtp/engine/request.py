"""What a generation is asked for."""

from collections.abc import Sequence
from dataclasses import dataclass

from arcmtp.constraint.constraint import Constraint
from arcmtp.engine.draft_policy import DraftPolicy, check_p_min
from arcmtp.engine.loading import Draft
from arcmtp.engine.sampling import GREEDY, SamplingOptions
from arcmtp.errors import ArcmtpError
from arcmtp.ops.top_logprobs import MAX_TOP


@dataclass(frozen=True)
class Request:
    """A prompt of token ids and how to continue it; the options are those of `LLM.generate`. Raises ArcmtpError for
    values out of range.

    score_prompt: also give the log-probabilities of the prompt's tokens, with `logprobs` likeliest tokens in the place
        of each; all of the prompt is evaluated, whatever was evaluated before.
    """

    prompt_ids: Sequence[int]
    max_tokens: int = 128
    logprobs: int = 0
    sampling: SamplingOptions = GREEDY
    draft: Draft | DraftPolicy | None = None
    stop: Sequence[str] = ()
    draft_p_min: float | None = None
    constraint: Constraint | None = None
    score_prompt: bool = False

    def __post_init__(self) -> None:
        if self.max_tokens < 0:
            raise ArcmtpError(f"max_tokens is {self.max_tokens}; it must be at least 0")
        if not 0 <= self.logprobs <= MAX_TOP:
            raise ArcmtpError(f"logprobs is {self.logprobs}; it must be 0 to {MAX_TOP}")
        if self.draft_p_min is not None:
            check_p_min(self.draft_p_min)
        if isinstance(self.stop, str) or not all(self.stop):
            raise ArcmtpError(f"stop is {self.stop!r}; it must be a list of strings that are not empty")
