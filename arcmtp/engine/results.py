"""What a generation gives back."""

from dataclasses import dataclass
from typing import Literal

from arcmtp.engine.cycle import TopLogprobs
from arcmtp.engine.draft_log import DraftCall, DraftSummary


@dataclass(frozen=True)
class Chunk:
    """One generated token: its id, the text that it completes (empty inside a UTF-8 sequence), its alternatives.

    A last chunk without an id holds what an end of generation inside a UTF-8 sequence left, as U+FFFD.
    """

    id: int | None
    text: str
    logprobs: TopLogprobs | None = None
    logprob: float | None = None  # its own log-probability, as the model has it: without options


@dataclass(frozen=True)
class Statistics:
    """How a generation went. Rates are 0 where nothing was timed."""

    prompt_tokens: int
    cached_tokens: int  # of the prompt, which were not evaluated again
    completion_tokens: int
    prompt_tokens_per_second: float
    decode_tokens_per_second: float  # without the first token, which belongs to the prompt
    launches_per_cycle: int  # of drafts and the step that verifies them
    bytes_per_token: int  # that a plain step must move at the mean position: weights, KV cache, recurrent state
    gigabytes_per_second: float | None  # those at decode_tokens_per_second; None with drafts
    bytes_to_host_per_token: float  # all that decoding moves between host and device, commands aside
    graph_captures: int
    graph_replays: int
    graph_misses: dict[str, int]  # by reason; each is a capture
    host_us_per_replay: float
    draft: DraftSummary | None  # None: nothing was drafted
    load_seconds: float
    peak_memory_bytes: int  # resident, of the process


@dataclass(frozen=True)
class Generation:
    """A generation; `ids` and `text` leave the end-of-generation token out."""

    prompt_ids: list[int]
    ids: list[int]
    text: str
    finish_reason: Literal["stop", "length"] | None  # None: not finished
    token_logprobs: list[float]  # of ids, as the model has them: without options
    logprobs: list[TopLogprobs] | None  # the likeliest tokens in the place of each
    seed: int | None  # what gives the same text again; None where nothing is left to chance
    statistics: Statistics
    draft_calls: list[DraftCall]  # the latest
