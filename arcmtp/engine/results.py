"""What a generation gives back."""

from dataclasses import dataclass
from typing import Literal

TopLogprobs = list[tuple[int, float]]  # (token id, log-probability), the likeliest first


@dataclass(frozen=True)
class Chunk:
    """One generated token: its id, the text that it completes (empty inside a UTF-8 sequence), its alternatives.

    A last chunk without an id holds what an end of generation inside a UTF-8 sequence left, as U+FFFD.
    """

    id: int | None
    text: str
    logprobs: TopLogprobs | None = None


@dataclass(frozen=True)
class Statistics:
    """How a generation went. Rates are 0 where nothing was timed."""

    prompt_tokens: int
    completion_tokens: int
    prompt_tokens_per_second: float
    decode_tokens_per_second: float  # without the first token, which belongs to the prompt
    launches_per_token: int
    bytes_per_token: int  # that a step must move at the generation's mean position: weights, KV cache, recurrent state
    gigabytes_per_second: float  # bytes_per_token * decode_tokens_per_second / 1e9
    load_seconds: float
    peak_memory_bytes: int  # resident, of the process


@dataclass(frozen=True)
class Generation:
    """A generation; `ids` and `text` leave the end-of-generation token out."""

    prompt_ids: list[int]
    ids: list[int]
    text: str
    finish_reason: Literal["stop", "length"] | None  # None: not finished
    logprobs: list[TopLogprobs] | None
    seed: int | None  # what gives the same text again; None where nothing is left to chance
    statistics: Statistics
