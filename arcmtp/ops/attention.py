"""Gated full attention: q/k norm, RoPE, KV cache and split online softmax; one launch for 1…8 rows, two for a prompt
chunk."""

from collections.abc import Mapping
from dataclasses import astuple, dataclass
from typing import NamedTuple

import numpy as np

from arcmtp.errors import ArcmtpError
from arcmtp.formats.kv_cache import KEY_TILE, KV_F16, SIGNS, TILE, CodedKv, KvFormat, padded
from arcmtp.ops.cost import consumed_bytes
from arcmtp.ops.launch import BATCH_PARAMETERS, Batch, Consumers, compiled_rows, row_suffix
from arcmtp.ops.norm import reference as norm_reference
from arcmtp.runtime.card import Geometry
from arcmtp.runtime.launch import (
    FLOAT,
    INT,
    Argument,
    Cost,
    Kernel,
    Launch,
    Parameters,
    Work,
    parameters,
    reads,
    writes,
)
from arcmtp.runtime.tensor import F16, F32, I32, U8, DType

GROUP_ROWS = 4  # of a prompt chunk, that a work-group takes
CODED_GROUP_ROWS = 2  # with a cache of codes: with 4 Battlemage's compiler spills where 6 query heads share a KV head
SHARED_TEAM_MEMORY = 64 << 10  # bytes that let two work-groups share an Xe core
STORE_ROWS = 16  # whose keys and values a work-group stores

_ROWS = parameters(quantised=writes(U8), plain=writes(F32))
_SCRATCH = parameters(partials=writes(F32), counters=writes(I32))
_ROW_COUNT = parameters(row_count=reads(I32))


def _inputs(caches: DType) -> Parameters:
    return (
        *parameters(projected=reads(F32), q_norm=reads(F32), k_norm=reads(F32), rope=reads(F32), positions=reads(I32)),
        *parameters(caches=writes(caches), context=INT, eps=FLOAT),
        *BATCH_PARAMETERS,
    )


@dataclass(frozen=True)
class Columns:
    """A row of projections is `stride` floats: at 0 each head's query and gate, at `k` the keys, at `v` the values."""

    stride: int
    k: int
    v: int


@dataclass(frozen=True)
class Heads:
    """Query heads q share key and value heads kv; each has `dim` dimensions, of which RoPE rotates the first ones."""

    q: int
    kv: int
    dim: int
    rope_dim: int


class Attention:
    """Rows [rows, q heads * dim] = softmax(q · k / sqrt(dim)) · v * sigmoid(gate), for the consumers.

    Rows of a sequence have successive positions. A row's key and value go into the cache of its
    sequence, and it sees the keys up to its own. Raises ArcmtpError for a dim that is no multiple of 32 or a rope_dim
    that is neither 16 nor one, and for a head that `kv` cannot hold."""

    def __init__(
        self, heads: Heads, columns: Columns, rms_eps: float, consumers: Consumers, geometry: Geometry,
        kv: KvFormat = KV_F16,
    ) -> None:  # fmt: skip
        rotated = heads.rope_dim
        if heads.dim % 32:
            raise ArcmtpError(f"attention heads have {heads.dim} dimensions; the kernels take multiples of 32")
        if rotated != 16 and rotated % 32:
            raise ArcmtpError(f"{rotated} dimensions of a head are rotated; the kernels take 16 and multiples of 32")
        kv.check(heads.dim)
        self.heads, self.kv = heads, kv
        self.cache_type: DType = F16 if kv is KV_F16 else U8
        self.columns, self.rms_eps, self.consumers = columns, rms_eps, consumers
        self._group_rows = CODED_GROUP_ROWS if isinstance(kv, CodedKv) else GROUP_ROWS
        self._team, self._splits = geometry.attention_team, geometry.attention_splits
        self._chunk_rows = geometry.chunk_rows

    def cache_shape(self, context: int) -> tuple[int, int, int, int]:
        """Shape of the keys and values of one sequence of `context` positions."""
        return self.kv.shape(self.heads.kv, context, self.heads.dim)

    def partials_shape(self, rows: int) -> tuple[int, int, int, int]:
        """Shape of the f32 scratch memory for the splits' sums of a step of `rows` rows."""
        return rows, self.heads.q, self._splits, self.heads.dim + 16

    def step(self, rows: int, batch: Batch, context: int, **arguments: Argument) -> Launch:
        """A step of 1…8 rows of each sequence.

        projected [rows of all sequences, stride] f32; q_norm, k_norm [head_dim] f32; rope: `rope_table`; positions i32
        [rows of all sequences]; caches of `cache_type`: `cache_shape` for each slot, of `context` positions; partials
        f32: `partials_shape`; counters [batch, kv_heads] i32, zero between launches; quantised, plain: the consumers'
        rows.
        """
        groups = batch.size * self.heads.kv * self._splits
        kernel = self._kernel(
            f"{self.consumers.suffix}_{row_suffix(rows)}",
            (*_inputs(self.cache_type), *_SCRATCH, *_ROWS),
            f"attention_step<Shape, {rows}>(in, partials, counters, sink)",
            self._team_memory(rows),
        )
        count = rows * batch.size
        return Launch(kernel, groups, count, self._inputs(arguments, batch, context), self._step_cost)

    def chunk(self, batch: Batch, context: int, **arguments: Argument) -> Launch:
        """A chunk of one sequence, whose keys and values are stored; as `step`, with row_count i32 for scratch."""
        kernel = self._kernel(
            f"{self.consumers.suffix}_{row_suffix(0)}",
            (*_inputs(self.cache_type), *_ROW_COUNT, *_ROWS),
            f"attention_chunk<Shape, {self._group_rows}>(in, row_count[0], sink)",
            self._team_memory(self._group_rows),
        )
        groups = self.heads.kv * self._chunk_rows // self._group_rows
        return Launch(kernel, groups, 0, self._inputs(arguments, batch, context), self._weigh_cost)

    def store(self, rows: int, batch: Batch, context: int, **arguments: Argument) -> Launch:
        """Only put the keys and values of `rows` rows in all (0: `row_count`) into the caches, at any `positions`;
        arguments as of `chunk`, without the consumers' rows."""
        call = f"attention_store<Shape, {STORE_ROWS}>(in, {compiled_rows(rows) or 'row_count[0]'})"
        stored = (*_inputs(self.cache_type), *_ROW_COUNT)
        kernel = self._kernel(row_suffix(rows), stored, call, 64, operator="attention_store")
        groups = self.heads.kv * -(-(rows or self._chunk_rows) // STORE_ROWS)
        return Launch(kernel, groups, rows, self._inputs(arguments, batch, context), self._store_cost)

    def _inputs(self, arguments: Mapping[str, Argument], batch: Batch, context: int) -> dict[str, Argument]:
        return {**arguments, "context": padded(context), "eps": float(self.rms_eps), **batch.arguments}

    def _step_cost(self, work: Work) -> Cost:
        folded = self.heads.q * work.rows * min(self._splits, -(-work.context // KEY_TILE))
        return self._store_cost(work) + self._weigh_cost(work) + Cost(0, 0, {f"{self.kv.name} splits": folded})

    def _weigh_cost(self, work: Work) -> Cost:
        rows, queries = work.rows, self.heads.q * self.heads.dim
        seen = rows * work.context - rows * (rows - 1) // 2
        row = 8 * queries + consumed_bytes(self.consumers, queries)  # queries and gates
        cache = 2 * self.heads.kv * self.kv.nbytes(self.heads.dim) * work.context
        operations = (4 * seen + 4 * rows) * queries
        return Cost(cache + rows * row, operations, {self.kv.name: operations})

    def _store_cost(self, work: Work) -> Cost:
        heads = work.rows * self.heads.kv
        operations = 8 * heads * self.heads.dim
        nbytes = 2 * heads * (4 * self.heads.dim + self.kv.nbytes(self.heads.dim))
        return Cost(nbytes, operations, {self.kv.name: operations})

    def _kernel(
        self, variant: str, parameters: Parameters, call: str, team_memory: int, operator: str = "attention"
    ) -> Kernel:
        c = self.columns
        shape = (*astuple(self.heads), c.stride, c.k, c.v)
        template = ", ".join(map(str, (self.kv.cpp, *shape, self._team, self._splits)))
        sink = ""
        if operator == "attention":
            sink = f"RowSink<Shape::WIDTH, {self.consumers.template}> sink{{quantised, plain}}; "
        return Kernel(
            operator=operator,
            variant=f"{variant}_{self.kv.name}_{'_'.join(map(str, shape))}",
            header="attention.hpp",
            parameters=parameters,
            body=f"using Shape = AttentionShape<{template}>; const AttentionInput<Shape> "
            f"in{{projected, q_norm, k_norm, rope, positions, caches, context, eps, {{batch_size, slots}}}}; "
            f"{sink}{call};",
            team=self._team,
            team_memory=team_memory,
            agree=(
                ("LANES", TILE),
                (f"AttentionShape<{template}>::TILE", KEY_TILE),
                (f"Partials<AttentionShape<{template}>, 1>::FLOATS", self.partials_shape(1)[-1]),
                (f"{self.kv.cpp}::ELEMENT_BYTES", self.kv.dtype.itemsize),
                (f"AttentionShape<{template}>::Layout::POSITION", self.kv.width(self.heads.dim)),
                (f"Attention<AttentionShape<{template}>, 1>::TEAM_MEMORY", self._team_memory(1)),
                *((f"SIGNS[{i}]", word) for i, word in enumerate(SIGNS)),
            ),
        )

    def _team_memory(self, rows: int) -> int:
        queries, dim = rows * self.heads.q // self.heads.kv, self.heads.dim
        if not isinstance(self.kv, CodedKv):
            return _lines(3 * queries * 4) + queries * (dim + 3 * KEY_TILE) * 4
        blocks = self.kv.blocks(dim)
        chains = 2 - blocks % 2
        for tiles in (4, 2, 1):  # that are taken at once
            state = _lines(4 * queries * (3 if tiles == 1 else 3 + 2 * tiles))
            # The second and third are of codes, of queries and of weights, with scales and sums.
            nbytes = tiles * chains * KEY_TILE * 4 + dim + 8 * blocks + tiles * blocks * (2 * KEY_TILE + 12)
            threads = tiles * KEY_TILE // TILE * chains
            if tiles == 1 or (threads <= self._team and state + queries * nbytes <= SHARED_TEAM_MEMORY):
                break
        return state + queries * max(nbytes, 4 * dim)


def _lines(nbytes: int) -> int:
    """Rounded up to cache lines."""
    return -(-nbytes // 64) * 64


def rope_table(context: int, rope_dim: int, theta: float) -> np.ndarray:
    """float32 [context, 2, rope_dim / 2]: cosines, then sines of position * theta^(-2i / rope_dim), from float64."""
    frequencies = theta ** (-np.arange(0, rope_dim, 2, dtype=np.float64) / rope_dim)
    angles = np.outer(np.arange(context, dtype=np.float64), frequencies)
    table = np.empty((context, 2, rope_dim // 2), np.float32)
    np.cos(angles, out=table[:, 0], casting="same_kind")
    np.sin(angles, out=table[:, 1], casting="same_kind")
    return table


def rotate(x: np.ndarray, rope: np.ndarray) -> np.ndarray:
    """x [rows, heads, head_dim], its first 2n dimensions rotated as pairs (i, i + n) by rope [rows, 2, n]; float64."""
    n = rope.shape[-1]
    cos, sin = rope[:, None, 0].astype(np.float64), rope[:, None, 1].astype(np.float64)
    a, b = x[..., :n], x[..., n : 2 * n]
    return np.concatenate([a * cos - b * sin, b * cos + a * sin, x[..., 2 * n :]], axis=-1)


class Projected(NamedTuple):
    """q and gate [rows, q heads, dim] of the last rows, k and v [context, kv heads, dim] of all."""

    q: np.ndarray
    gate: np.ndarray
    k: np.ndarray
    v: np.ndarray


def reference(
    rows: Projected, norms: tuple[np.ndarray, np.ndarray], rope: np.ndarray, eps: float, kv: KvFormat = KV_F16
) -> np.ndarray:
    """float64 [rows, q heads, dim]; norms: the weights [dim] of queries and keys; rope: `rope_table`. Keys and values
    are rounded as in a cache of the format `kv`."""
    q, gate, k, v = rows
    past = len(k) - len(q)
    q = kv.rounded_queries(rotate(norm_reference(q, norms[0], eps), rope[past : len(k)]) / np.sqrt(q.shape[-1]))
    k, v = kv.rounded(rotate(norm_reference(k, norms[1], eps), rope[: len(k)]), v)
    k, v = (np.repeat(x, q.shape[1] // k.shape[1], axis=1) for x in (k, v))
    scores = np.einsum("rhd,khd->hrk", q, k)
    scores[:, np.arange(len(k)) > past + np.arange(len(q))[:, None]] = -np.inf
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    return np.einsum("hrk,khd->rhd", weights, v) / (1 + np.exp(-gate.astype(np.float64)))
