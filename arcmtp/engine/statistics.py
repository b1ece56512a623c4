"""The statistics of a generation."""

import resource

from arcmtp.engine.draft_policy import may_draft
from arcmtp.engine.results import MaskCost, Statistics
from arcmtp.engine.sequence import Sequence
from arcmtp.model.network import Network
from arcmtp.runtime.graphs import GraphStatistics


def statistics(
    network: Network, sequence: Sequence, tokens: int, graphs: GraphStatistics, load_seconds: float
) -> Statistics:
    """Of a sequence that has given `tokens` tokens of text; graphs: what was counted since it was made."""
    prompt, cached = len(sequence.prompt), sequence.cached_tokens or 0
    rate = sequence.decoded / sequence.decode_seconds if sequence.decode_seconds else 0.0
    step_bytes = network.step_bytes(prompt + tokens // 2)
    return Statistics(
        prompt_tokens=prompt,
        completion_tokens=tokens,
        cached_tokens=cached,
        prompt_tokens_per_second=(prompt - cached) / sequence.prompt_seconds if sequence.prompt_seconds else 0.0,
        decode_tokens_per_second=rate,
        launches_per_cycle=_launches_per_cycle(network, sequence),
        bytes_per_token=step_bytes,
        gigabytes_per_second=None if may_draft(sequence.policy) else step_bytes * rate / 1e9,
        bytes_to_host_per_token=sequence.bytes_to_host / sequence.decoded if sequence.decoded else 0.0,
        graph_captures=graphs.captures,
        graph_replays=graphs.replays,
        host_us_per_replay=graphs.us_per_replay,
        draft=sequence.log.summary() if sequence.log else None,
        masks=_mask_cost(sequence, tokens),
        load_seconds=load_seconds,
        peak_memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    )


def _mask_cost(sequence: Sequence, tokens: int) -> MaskCost | None:
    """The masks of drafts, right or wrong, are for the tokens too."""
    guide = sequence.sampler.guide
    if guide is None:
        return None
    share = guide.seconds / sequence.decode_seconds if sequence.decode_seconds else 0.0
    return MaskCost(guide.seconds * 1e6 / max(tokens, 1), share)


def _launches_per_cycle(network: Network, sequence: Sequence) -> int:
    """Kernels that run for the longest drafts and the step that verifies them."""
    drafted, mode = max(sequence.policy.lengths), sequence.sampler.mode(sequence.top)
    calls = network.cycle(drafted + 1, drafted, mode, if_likely=sequence.draft_p_min > 0)
    return sum(len(launches) for call in calls for launches in call)
