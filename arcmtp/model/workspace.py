"""What a network keeps on the device besides weights: control words, rows on their way, caches, recurrent state."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np

from arcmtp.formats.activations import row_bytes
from arcmtp.model.config import Config
from arcmtp.ops.accept import TURN_WORDS
from arcmtp.ops.attention import Attention, rope_table
from arcmtp.ops.gated_delta_net import GatedDeltaNet
from arcmtp.ops.gumbel_sampling import BIASES, OPTION_WORDS
from arcmtp.ops.launch import BLOCK_ROWS, MAX_ROWS, STEP_ROWS
from arcmtp.runtime.device import Device
from arcmtp.runtime.memory import Buffer

if TYPE_CHECKING:
    from arcmtp.model.network import Network

T = TypeVar("T", int, Buffer)


@dataclass(frozen=True)
class Workspace(Generic[T]):
    """Every buffer, or its size in bytes. Rows are those of a block, 512, step rows 8 for each slot and at most 32."""

    ids: T  # [step rows] int32: the tokens of a step
    positions: T  # [8 rows for each slot] int32
    slots: T  # [slots] int32: where the sequence of each run of a step is kept
    row_counts: T  # [33] int32: 0, 1, 2, …: of steps
    block_ids: T  # [rows] int32: the tokens of a block
    block_positions: T  # [rows] int32
    block_slot: T  # int32
    row_count: T  # int32: how many rows a block has
    pending_count: T  # [slots] int32: how many of the previous step's rows were accepted
    source_rows: T  # [step rows] int32: the rows whose logits are wanted
    targets: T  # [step rows] int32: tokens whose log-probability is wanted, or -1
    sampled: T  # [step rows] int32: the chosen tokens
    stats: T  # [step rows, 3] float32: largest logit, log-sum-exp, log-probability of the target
    accepted: T  # [slots] int32: the last of the previous step's rows of each run that was accepted
    turns: T  # [slots, 32] int32: of the generations under way (accept.hpp)
    top_counts: T  # [slots] int32: how many of the likeliest tokens are wanted with each position
    residual: T  # [rows, hidden] float32
    after_mixer: T  # [rows, hidden] float32: the residual after the mixer
    mixed: T  # [rows, hidden] float32: the mixer's output
    partials: T  # [rows, experts used + 1, hidden] float32
    projected: T  # [rows, projections] float32
    quantised: T  # [rows, widest input] activation rows
    plain: T  # [rows, widest input] float32
    hidden_quantised: T  # [rows * experts used, expert ffn]
    hidden_plain: T
    shared_quantised: T  # [rows, shared ffn]
    shared_plain: T
    router_logits: T  # [rows, experts and the shared gate] float32
    router_counters: T
    selected: T  # [rows, experts used] int32
    slot_weights: T  # [rows, experts used + 1] float32
    attention_partials: T
    attention_counters: T
    final: T  # [step rows, hidden] float32: the residual after the last layer
    head_quantised: T  # [step rows, hidden]
    head_plain: T
    logits: T  # [step rows, vocabulary] float32
    sampling_partials: T
    sampling_arrivals: T
    sampling_options: T  # [slots, 16] int32, of sampling with options, as all up to gumbel_counters
    token_states: T  # [slots, vocabulary] int32
    biases: T  # [slots, 1024] float32
    gumbel_scratch: T
    gumbel_counters: T
    top_scratch: T
    top_counters: T
    carried: T  # [slots, hidden] float32: the hidden row of the last token; of drafting, as all up to draft_cache
    block_hidden: T  # [rows, hidden] float32: those of a block
    draft_hidden: T  # [step rows, hidden] float32: those of drafts, after and
    draft_final: T  # [step rows, hidden] float32: before the norm
    draft_positions: T  # [step rows] int32
    draft_cache: T  # [slots] KV cache of the MTP block
    rope: T  # [context, 2, rotated / 2] float32
    sequence: tuple[T, ...]  # per layer [slots]: KV cache, or GDN state, history and pending rows
    checkpoint: tuple[T, ...]  # of each GDN layer, [slots]
    checkpoint_carried: T  # [slots, hidden] float32; of drafting


def workspace_sizes(network: Network, orders: int) -> Workspace[int]:
    """The sizes for a network whose activation rows hold `orders` copies of their codes."""
    config, rows, slots, step_rows = network.config, BLOCK_ROWS, network.slots, network.step_rows
    experts, drafter = config.experts_used + 1, network.drafter
    layers = [*network.layers, *([drafter.layer] if drafter else [])]
    inputs = [config.hidden, *(op.output.k for op in layers), *([2 * config.hidden] if drafter else [])]
    hidden_rows = rows * config.experts_used
    attention = [op.mixer for op in layers if isinstance(op.mixer, Attention)]
    stream = rows * config.hidden * 4
    return Workspace(
        ids=step_rows * 4,
        positions=slots * MAX_ROWS * 4,
        slots=slots * 4,
        row_counts=(STEP_ROWS + 1) * 4,
        block_ids=rows * 4,
        block_positions=rows * 4,
        block_slot=4,
        row_count=4,
        pending_count=slots * 4,
        source_rows=step_rows * 4,
        targets=step_rows * 4,
        sampled=step_rows * 4,
        stats=step_rows * 3 * 4,
        accepted=slots * 4,
        turns=slots * TURN_WORDS * 4,
        top_counts=slots * 4,
        residual=stream,
        after_mixer=stream,
        mixed=stream,
        partials=experts * stream,
        projected=max(rows * op.projections.columns * 4 for op in layers),
        quantised=rows * max(row_bytes(k, orders) for k in inputs),
        plain=rows * max(inputs) * 4,
        hidden_quantised=hidden_rows * row_bytes(config.expert_ffn, orders),
        hidden_plain=hidden_rows * config.expert_ffn * 4,
        shared_quantised=rows * row_bytes(config.shared_ffn, orders),
        shared_plain=rows * config.shared_ffn * 4,
        router_logits=max(op.router.logits_bytes(rows) for op in layers),
        router_counters=rows * 4,
        selected=rows * config.experts_used * 4,
        slot_weights=rows * experts * 4,
        attention_partials=max((a.partial_bytes(step_rows) for a in attention), default=0),
        attention_counters=max((a.counter_bytes(slots) for a in attention), default=0),
        final=step_rows * config.hidden * 4,
        head_quantised=step_rows * row_bytes(config.hidden, orders),
        head_plain=step_rows * config.hidden * 4,
        logits=step_rows * network.sampling.stride * 4,
        sampling_partials=network.sampling.partials_bytes(step_rows),
        sampling_arrivals=network.sampling.arrivals_bytes(step_rows),
        sampling_options=slots * OPTION_WORDS * 4,
        token_states=slots * network.sampling.stride * 4,
        biases=slots * BIASES * 4,
        gumbel_scratch=network.gumbel_sampling.scratch_bytes(step_rows),
        gumbel_counters=network.gumbel_sampling.counter_bytes(step_rows),
        top_scratch=network.top_logprobs.scratch_bytes(step_rows),
        top_counters=network.top_logprobs.counter_bytes(step_rows),
        carried=slots * config.hidden * 4 if drafter else 0,
        block_hidden=stream if drafter else 0,
        draft_hidden=step_rows * config.hidden * 4 if drafter else 0,
        draft_final=step_rows * config.hidden * 4 if drafter else 0,
        draft_positions=step_rows * 4,
        draft_cache=slots * drafter.mixer.cache_bytes(network.context) if drafter else 0,
        rope=network.context * config.rope_dim * 4,
        sequence=tuple(
            slots * (op.mixer.cache_bytes(network.context) if isinstance(op.mixer, Attention) else op.mixer.state_bytes)
            for op in network.layers
        ),
        checkpoint=tuple(slots * op.mixer.state_bytes for op in network.layers if isinstance(op.mixer, GatedDeltaNet)),
        checkpoint_carried=slots * config.hidden * 4 if drafter else 0,
    )


def total_bytes(sizes: Workspace[int]) -> int:
    """Bytes of all buffers."""
    values = (getattr(sizes, field.name) for field in fields(sizes))
    return sum(sum(value) if isinstance(value, tuple) else value for value in values)


def allocate(sizes: Workspace[int], config: Config, device: Device) -> Workspace[Buffer]:
    """The buffers, zeroed, with the table of RoPE angles."""
    made: dict[str, Any] = {}
    for field in fields(sizes):
        value = getattr(sizes, field.name)
        made[field.name] = tuple(map(device.zeros, value)) if isinstance(value, tuple) else device.zeros(value)
    buffers: Workspace[Buffer] = Workspace(**made)
    context = sizes.rope // (config.rope_dim * 4)
    buffers.rope.write(rope_table(context, config.rope_dim, config.rope_theta))
    buffers.targets.fill(0xFF)
    buffers.source_rows.write(np.arange(sizes.source_rows // 4, dtype=np.int32))
    buffers.row_counts.write(np.arange(sizes.row_counts // 4, dtype=np.int32))
    return buffers
