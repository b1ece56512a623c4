"""What a generation gives back."""

from dataclasses import dataclass
from typing import Literal

from arcmtp.engine.cycle import TopLogprobs
from arcmtp.engine.draft_log import DraftCall, DraftSummary


@dataclass(frozen=True)
class Chunk:
    """One generated token.

    id: of the token; None in a last chunk that holds what an end of generation inside a UTF-8 sequence left, as U+FFFD.
    text: what the token completes; empty inside a UTF-8 sequence, and while a stop string may have begun.
    logprobs: (token id, log-probability in nats) of the likeliest tokens in its place, the likeliest first; None if
        they were not asked for.
    logprob: its own log-probability in nats, as the model has it: without options. None without an id.
    """

    id: int | None
    text: str
    logprobs: TopLogprobs | None = None
    logprob: float | None = None


@dataclass(frozen=True)
class MaskCost:
    """What a constraint took of the host: microseconds for each token of the text, and their share of decoding."""

    us_per_token: float
    share: float


@dataclass(frozen=True)
class Statistics:
    """How a generation went: tokens, seconds, bytes, microseconds (us). Rates are 0 where nothing was timed.

    Graphs are counted for the whole LLM while this generation went on, memory for the whole process.
    """

    prompt_tokens: int
    cached_tokens: int  # of the prompt, which were not evaluated again
    completion_tokens: int
    prompt_tokens_per_second: float
    decode_tokens_per_second: float  # without the first token, which belongs to the prompt
    launches_per_cycle: int  # kernels of the longest drafts and the step that verifies them
    bytes_per_token: int  # that a plain step must move at the mean position: weights, KV cache, recurrent state
    gigabytes_per_second: float | None  # those at decode_tokens_per_second; None with drafts
    bytes_to_host_per_token: float  # all that decoding moves between host and device, commands aside
    graph_captures: int  # a graph is captured when it is first needed
    graph_replays: int
    host_us_per_replay: float
    draft: DraftSummary | None  # None: nothing could be drafted
    masks: MaskCost | None  # None: there was no constraint
    load_seconds: float
    peak_memory_bytes: int  # resident, of the process


@dataclass(frozen=True)
class Generation:
    """A generation; `ids` and `text` leave the end-of-generation token out.

    finish_reason: "stop" at an end-of-generation token or a stop string, "length" at max_tokens or the end of the
        context; None if it has not finished.
    token_logprobs: of each of ids, in nats, as the model has them: without options.
    logprobs: (token id, log-probability) of the likeliest tokens in the place of each, the likeliest first; None if
        they were not asked for.
    seed: what gives the same text again, 0 to 2**64 - 1; None where nothing is left to chance.
    draft_calls: the latest 4096.
    draft_lengths: of all cycles, in order.
    """

    prompt_ids: list[int]
    ids: list[int]
    text: str
    finish_reason: Literal["stop", "length"] | None
    token_logprobs: list[float]
    logprobs: list[TopLogprobs] | None
    seed: int | None
    statistics: Statistics
    draft_calls: list[DraftCall]
    draft_lengths: list[int]
