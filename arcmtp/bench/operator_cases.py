"""Each operator at the shapes of Qwen3.6-35B-A3B, for `arcmtp bench ops`.

Weights come in turn from a buffer larger than the caches of the device.
"""

import math
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from arcmtp.formats import matrix as formats
from arcmtp.formats.activations import row_bytes
from arcmtp.formats.kv_cache import KV_FORMATS, KvFormat
from arcmtp.formats.matrix import Format, Matrix
from arcmtp.ops import draft_chain
from arcmtp.ops.attention import Attention, rope_table
from arcmtp.ops.attention import Columns as AttentionColumns
from arcmtp.ops.attention import Heads as AttentionHeads
from arcmtp.ops.embedding import Embedding
from arcmtp.ops.experts import ExpertsDown, ExpertsGateUp
from arcmtp.ops.gated_delta_net import Columns as GdnColumns
from arcmtp.ops.gated_delta_net import GatedDeltaNet, Heads
from arcmtp.ops.gumbel_sampling import GumbelSampling, History, Options
from arcmtp.ops.launch import Batch, Consumers
from arcmtp.ops.mul_mat import MulMat
from arcmtp.ops.norm import Norm
from arcmtp.ops.router import Router
from arcmtp.ops.sampling import STATS, Sampling, Vocabulary
from arcmtp.ops.top_logprobs import MAX_TOP, TopLogprobs
from arcmtp.runtime import _host
from arcmtp.runtime.device import Device
from arcmtp.runtime.launch import Launch
from arcmtp.runtime.memory import Buffer, Pointer

WEIGHT_BYTES = 1 << 30  # caches of 480 MiB have been met
MAX_LAUNCHES = 256  # of one repeat

HIDDEN, VOCAB, VOCAB_USED, EPS = 2048, 248_320, 248_077, 1e-6
VOCABULARY = Vocabulary(VOCAB_USED, VOCAB)
EXPERTS, USED, EXPERT_WIDTH = 256, 8, 512
Q_HEADS, KV_HEADS, HEAD_DIM, ROPE_DIM = 16, 2, 256, 64
HEADS = Heads(k=16, v=32, k_dim=128, v_dim=128)
QUANTISED = Consumers(quantised=True, plain=False)


class Bench:
    """A device, its weights, and buffers with harmless contents."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.geometry = device.card.geometry
        self.rng = np.random.default_rng(0)
        self.weights = device.alloc(WEIGHT_BYTES)
        # Bytes that are small normal numbers as halves, as floats and as MXFP4's powers of two, and whose products
        # with activations of `bytes` are: CPUs are slow at subnormal ones.
        self.pattern = self.rng.integers(0x38, 0x40, WEIGHT_BYTES // 16).astype(np.uint8)
        for part in range(16):
            self.weights.write(self.pattern, part * self.pattern.nbytes)

    def bytes(self, count: int) -> Buffer:
        """`count` bytes to write to, or to read as small numbers."""
        buffer = self.device.alloc(count)
        buffer.fill(0x2C)
        return buffer

    def floats(self, *shape: int) -> Buffer:
        """Standard normal float32 values."""
        return self.device.array(self.rng.standard_normal(shape).astype(np.float32))

    def ints(self, values: Any) -> Buffer:
        """int32 values."""
        return self.device.array(np.ascontiguousarray(values, np.int32))

    def quantised(self, rows: int, k: int) -> Buffer:
        """Activation rows of k values."""
        return self.bytes(rows * row_bytes(k, self.device.activation_orders))

    def one_sequence(self) -> Batch:
        """A single sequence, in slot 0."""
        return Batch(1, self.ints([0]))

    def seconds(self, launches: _host.LaunchList) -> float:
        """Wall time of one run of a launch list."""
        start = time.perf_counter()
        self.device.run(launches)
        return time.perf_counter() - start


# A case gives, for a bench and a row count, what launches the operator for the time `i`, with weights at the pointer.
Launcher = Callable[[Pointer, int], list[Launch]]


def mul_mat(fmt: Format, n: int, k: int, b: Bench, rows: int) -> Launcher:
    op = MulMat([Matrix(fmt, n, k)], b.geometry)
    x, output = b.quantised(rows, k), b.bytes(rows * op.columns * 4)
    return lambda weights, i: [op.launch(rows, weights=weights, quantised=x, plain=x, output=output, row_count=x)]


def embedding(b: Bench, rows: int) -> Launcher:
    op = Embedding(Matrix(formats.W4, VOCAB, HIDDEN), b.geometry)
    ids = [b.ints(b.rng.integers(0, VOCAB, rows)) for _ in range(MAX_LAUNCHES)]
    x = b.bytes(rows * HIDDEN * 4)
    return lambda _, i: [op.launch(rows, weights=b.weights, ids=ids[i], x=x, row_count=x)]


def norm(b: Bench, rows: int) -> Launcher:
    op = Norm(HIDDEN, EPS, USED + 1, QUANTISED, b.geometry)
    x, weight, out = b.floats(rows, HIDDEN), b.floats(HIDDEN), b.floats(rows, HIDDEN)
    partials, row = b.floats(rows, USED + 1, HIDDEN), b.quantised(rows, HIDDEN)
    launch = op.launch(
        rows, x=x, partials=partials, x_out=out, weight=weight, source_rows=x, quantised=row, plain=row, row_count=x
    )
    return lambda _, i: [launch]


def router(fmt: Format, b: Bench, rows: int) -> Launcher:
    matrix = Matrix(fmt, EXPERTS, HIDDEN)
    gate = Matrix(fmt, 1, HIDDEN, offset=matrix.nbytes)
    op = Router(matrix, gate, USED, EPS, QUANTISED, b.geometry)
    x, y, out, weight = b.floats(8, HIDDEN), b.floats(8, HIDDEN), b.floats(8, HIDDEN), b.floats(HIDDEN)
    logits, counters = b.bytes(8 * op.logits_columns * 4), b.device.zeros(512)
    selected, slots, row = b.bytes(8 * USED * 4), b.bytes(8 * (USED + 1) * 4), b.quantised(8, HIDDEN)
    return lambda weights, i: [
        op.launch(
            rows, x=x, y=y, x_out=out, weight=weight, router_weights=weights, logits=logits, counters=counters,
            selected=selected, slot_weights=slots, quantised=row, plain=row, row_count=x,
        )
    ]  # fmt: skip


def chosen_experts(b: Bench) -> Buffer:
    """For every launch eight times `USED` different experts, at a multiple of 256 bytes."""
    chosen = [b.rng.permutation(EXPERTS)[: 8 * USED] for _ in range(MAX_LAUNCHES)]
    return b.ints(chosen)


def experts_gate_up(b: Bench, rows: int) -> Launcher:
    gate = Matrix(formats.W4, EXPERT_WIDTH, HIDDEN, experts=EXPERTS)
    up = Matrix(formats.W4, EXPERT_WIDTH, HIDDEN, offset=gate.nbytes, experts=EXPERTS)
    shared = Matrix(formats.W4, EXPERT_WIDTH, HIDDEN, offset=2 * gate.nbytes)
    shared_up = Matrix(formats.W4, EXPERT_WIDTH, HIDDEN, offset=2 * gate.nbytes + shared.nbytes)
    op = ExpertsGateUp((gate, up), (shared, shared_up), USED, QUANTISED, QUANTISED, b.geometry)
    chosen, x = chosen_experts(b), b.quantised(rows, HIDDEN)
    hidden, shared_hidden = b.quantised(rows * USED, EXPERT_WIDTH), b.quantised(rows, EXPERT_WIDTH)
    return lambda _, i: [
        op.launch(
            rows, weights=b.weights, shared_weights=b.weights, quantised=x, plain=x, selected=chosen.at(i * 256),
            hidden_quantised=hidden, hidden_plain=hidden, shared_quantised=shared_hidden, shared_plain=shared_hidden,
            row_count=x,
        )
    ]  # fmt: skip


def experts_down(b: Bench, rows: int) -> Launcher:
    down = Matrix(formats.W4, HIDDEN, EXPERT_WIDTH, experts=EXPERTS)
    shared = Matrix(formats.W4, HIDDEN, EXPERT_WIDTH, offset=down.nbytes)
    op = ExpertsDown(down, shared, USED, b.geometry)
    chosen, slots = chosen_experts(b), b.floats(rows, USED + 1)
    hidden, shared_hidden = b.quantised(rows * USED, EXPERT_WIDTH), b.quantised(rows, EXPERT_WIDTH)
    partials = b.bytes(rows * (USED + 1) * HIDDEN * 4)
    return lambda _, i: [
        op.launch(
            rows, weights=b.weights, shared_weights=b.weights, hidden_quantised=hidden, hidden_plain=hidden,
            shared_quantised=shared_hidden, shared_plain=shared_hidden, selected=chosen.at(i * 256),
            slot_weights=slots, partials=partials, row_count=slots,
        )
    ]  # fmt: skip


def gated_delta_net(b: Bench, rows: int) -> Launcher:
    z, beta = HEADS.channels, HEADS.channels + HEADS.outputs
    columns = GdnColumns(stride=beta + 2 * HEADS.v, z=z, beta=beta, alpha=beta + HEADS.v)
    op = GatedDeltaNet(HEADS, columns, EPS, QUANTISED, b.geometry)
    projected, conv, norm_weight = b.floats(rows, columns.stride), b.floats(HEADS.channels, 4), b.floats(HEADS.v_dim)
    a, dt_bias = b.device.array(np.full(HEADS.v, -1, np.float32)), b.floats(HEADS.v)
    pending, row, batch = b.ints([rows]), b.quantised(rows, HEADS.outputs), b.one_sequence()
    return lambda memory, i: [
        op.launch(
            rows, batch, projected=projected, conv=conv, a=a, dt_bias=dt_bias, norm=norm_weight, memory=memory,
            pending_count=pending, row_count=pending, chunk_pending=pending, quantised=row, plain=row,
        )
    ]  # fmt: skip


def attention(context: int, kv: KvFormat, b: Bench, rows: int) -> Launcher:
    keys = 2 * Q_HEADS * HEAD_DIM
    columns = AttentionColumns(keys + 2 * KV_HEADS * HEAD_DIM, k=keys, v=keys + KV_HEADS * HEAD_DIM)
    op = Attention(AttentionHeads(Q_HEADS, KV_HEADS, HEAD_DIM, ROPE_DIM), columns, EPS, QUANTISED, b.geometry, kv)
    projected, q_norm, k_norm = b.floats(rows, columns.stride), b.floats(HEAD_DIM), b.floats(HEAD_DIM)
    rope = b.device.array(rope_table(context, ROPE_DIM, 1e7))
    positions = b.ints(np.arange(context - rows, context))
    partials, counters = b.bytes(math.prod(op.partials_shape(rows)) * 4), b.device.zeros(KV_HEADS * 4)
    row, batch = b.quantised(rows, Q_HEADS * HEAD_DIM), b.one_sequence()

    def launches(cache: Pointer, i: int) -> list[Launch]:
        launch = op.step(
            rows, batch, context, projected=projected, q_norm=q_norm, k_norm=k_norm, rope=rope, positions=positions,
            caches=cache, partials=partials, counters=counters, quantised=row, plain=row,
        )  # fmt: skip
        return [replace(launch, cost_of=lambda work: launch.cost_of(replace(work, context=context)))]

    return launches


def sampling(b: Bench, rows: int) -> Launcher:
    op = Sampling(VOCABULARY, b.geometry)
    targets, ids, stats = b.ints([-1] * rows), b.bytes(rows * 4), b.bytes(rows * STATS * 4)
    partials, arrivals = b.bytes(math.prod(op.partials_shape(rows)) * 4), b.device.zeros(rows * 4)
    return lambda logits, i: [
        op.launch(
            rows, logits=logits, targets=targets, ids=ids, stats=stats, partials=partials, arrivals=arrivals,
            row_count=targets,
        )
    ]  # fmt: skip


def gumbel_sampling(options: Options, b: Bench, rows: int) -> Launcher:
    op = GumbelSampling(VOCABULARY, b.geometry)
    logits = 2.5 * b.rng.standard_normal((rows, VOCAB)).astype(np.float32)
    logits[:, :60] += np.linspace(5, 16, 60, dtype=np.float32)  # a few likely tokens, as models have them
    on_device, none, targets = b.device.array(logits), b.device.zeros(VOCAB * 4), b.ints([-1] * rows)
    history = History(b.device.array(options.words()), none, none, none, none, b.one_sequence())
    ids, stats = b.bytes(rows * 4), b.bytes(rows * STATS * 4)
    scratch, counters = b.bytes(math.prod(op.scratch_shape(rows)) * 4), b.device.zeros(rows * 3 * 4)
    launches = op.launches(
        rows, history, logits=on_device, targets=targets, ids=ids, stats=stats, scratch=scratch, counters=counters
    )
    return lambda _, i: launches


def chain_of_drafts(b: Bench, rows: int) -> Launcher:
    batch, stats, floors = Batch(rows, b.ints(range(rows))), b.floats(rows, STATS), b.floats(rows)
    drafted, goes_on = b.ints([1] * rows), b.ints([0])
    launch = draft_chain.launch(1, batch, stats=stats, floors=floors, drafted=drafted, goes_on=goes_on)
    return lambda _, i: [launch]


def top_logprobs(count: int, b: Bench, rows: int) -> Launcher:
    op = TopLogprobs(VOCABULARY, b.geometry)
    logits, stats, wanted, chosen = b.floats(rows, VOCAB), b.floats(rows, STATS), b.ints([count]), b.ints([0] * rows)
    ids, logprobs = (b.device.host_zeros(rows * (MAX_TOP + 1) * 4) for _ in range(2))
    scratch, counters = b.bytes(math.prod(op.scratch_shape(rows)) * 4), b.device.zeros(rows * 4)
    launch = op.launch(
        rows, b.one_sequence(), logits=logits, stats=stats, counts=wanted, chosen=chosen, ids=ids, logprobs=logprobs,
        scratch=scratch, counters=counters,
    )  # fmt: skip
    return lambda _, i: [replace(launch, cost_of=partial(op.cost, count=count))]


# Operator, shape, and what makes the launcher.
CASES: list[tuple[str, str, Callable[[Bench, int], Launcher]]] = [
    *(
        ("mul_mat", f"{fmt.name} {n}x{k}", partial(mul_mat, fmt, n, k))
        for fmt, n, k in [
            (formats.W4, 12352, HIDDEN),  # the merged projections of a GDN layer
            (formats.W4, 8192, HIDDEN),
            (formats.W6_16, 8192, HIDDEN),
            (formats.W8, 8192, HIDDEN),
            (formats.W4_K, 8192, HIDDEN),
            *(
                (fmt, 8192, HIDDEN)
                for fmt in (formats.IQ4_NL, formats.IQ4_XS, formats.MXFP4, formats.Q3_K, formats.W2_K)
            ),
            (formats.W4, HIDDEN, 4096),
            (formats.W6_16, HIDDEN, 4096),
            (formats.W4, VOCAB, HIDDEN),
            (formats.W6_16, VOCAB, HIDDEN),
        ]
    ),
    ("embedding", f"W4 {VOCAB}x{HIDDEN}", embedding),
    ("norm", f"{HIDDEN}, {USED + 1} partials", norm),
    *(("router", f"{fmt.name} {EXPERTS}x{HIDDEN}", partial(router, fmt)) for fmt in (formats.F32, formats.BF16)),
    ("experts_gate_up", f"W4 {EXPERTS}x{EXPERT_WIDTH}x{HIDDEN}", experts_gate_up),
    ("experts_down", f"W4 {EXPERTS}x{HIDDEN}x{EXPERT_WIDTH}", experts_down),
    ("gated_delta_net", f"{HEADS.v} heads of {HEADS.k_dim}x{HEADS.v_dim}", gated_delta_net),
    *(
        ("attention", f"{context} positions, {kv.name}", partial(attention, context, kv))
        for context in (1024, 16384)
        for kv in KV_FORMATS.values()
    ),
    ("sampling", f"{VOCAB_USED} logits", sampling),
    ("draft_chain", "a sequence a row", chain_of_drafts),
    *(
        ("gumbel_sampling", f"{VOCAB_USED} logits, {what}", partial(gumbel_sampling, options))
        for what, options in [
            ("temperature", Options(temperature=1)),
            ("top-k 20, top-p", Options(temperature=1, top_k=20, top_p=0.95)),
            ("top-p", Options(temperature=1, top_p=0.95)),
            ("penalties", Options(repetition=1.1, adjusts=True)),
        ]
    ),
    *(
        ("top_logprobs", f"{VOCAB_USED} logits, {count} likeliest", partial(top_logprobs, count))
        for count in (0, 20, MAX_TOP)
    ),
]
