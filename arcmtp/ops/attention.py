"""Gated full attention: q/k norm, RoPE, KV cache and split online softmax; one launch for 1…8 rows, two for a block."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from arcmtp.errors import ArcmtpError
from arcmtp.ops.cost import Cost, consumed_bytes
from arcmtp.ops.launch import BLOCK_ROWS, RUN_PARAMETERS, Consumers, Runs, compiled_rows, row_suffix
from arcmtp.runtime import _host
from arcmtp.runtime.card import Geometry
from arcmtp.runtime.compiler import Kernel, Program

KEY_TILE = 64  # keys that are weighed together; the context is padded to whole tiles
TILE = 16  # keys that lie together in the cache
CHUNK = 4  # rows of a block that a work-group takes
STORE_CHUNK = 16  # rows of a block whose keys and values a work-group stores

_INPUTS = (
    "const float *projected, const float *q_norm, const float *k_norm, const float *rope, const int *positions, "
    f"half *caches, int context, float eps, {RUN_PARAMETERS}"
)


@dataclass(frozen=True)
class Columns:
    """A row of projections is `stride` floats: at 0 each head's query and gate, at `k` the keys, at `v` the values."""

    stride: int
    k: int
    v: int


class Attention:
    """Rows [rows, q_heads * head_dim] = softmax(q · k / sqrt(head_dim)) · v * sigmoid(gate), for the consumers.

    A row's position is one more than that of its run's row before. Its key and value go into the cache of that run, and
    it sees the keys up to its own. Raises ArcmtpError for a head_dim that is no multiple of 32 or a rope_dim that is
    neither 16 nor one.
    """

    def __init__(
        self, q_heads: int, kv_heads: int, head_dim: int, rope_dim: int, columns: Columns, rms_eps: float,
        consumers: Consumers, geometry: Geometry,
    ) -> None:  # fmt: skip
        if head_dim % 32:
            raise ArcmtpError(f"attention heads have {head_dim} dimensions; the kernels take multiples of 32")
        if rope_dim != 16 and rope_dim % 32:
            raise ArcmtpError(f"{rope_dim} dimensions of a head are rotated; the kernels take 16 and multiples of 32")
        self.q_heads, self.kv_heads, self.head_dim, self.rope_dim = q_heads, kv_heads, head_dim, rope_dim
        self.columns, self.rms_eps, self.consumers = columns, rms_eps, consumers
        self._team, self._splits = geometry.attention_team, geometry.attention_splits

    def cache_bytes(self, context: int) -> int:
        """Bytes of a layer's KV cache for `context` positions."""
        return 2 * self.kv_heads * _padded(context) * self.head_dim * 2

    def cache_spans(self, context: int, tokens: int) -> list[tuple[int, int]]:
        """(first byte, bytes) of each part of a KV cache for `context` positions where the first `tokens` lie."""
        size, used = _padded(context) * self.head_dim * 2, -(-tokens // TILE) * TILE * self.head_dim * 2
        return [(span * size, used) for span in range(2 * self.kv_heads)]

    def partial_bytes(self, rows: int) -> int:
        """Bytes of the scratch buffer that holds the splits' sums of a step of `rows` rows."""
        return rows * self.q_heads * self._splits * (self.head_dim + 16) * 4

    def counter_bytes(self, runs: int) -> int:
        """Bytes of the arrival counters of so many runs, which are zero before the first launch."""
        return runs * self.kv_heads * 4

    def kernels(self, rows: int) -> list[Kernel]:
        """For 1…8 rows a run, or, with `rows` 0, for the count that `row_count` holds when it runs."""
        return [self._step(rows)] if rows else [self.store_kernel(0), self._block()]

    def launch(
        self, program: Program, launches: _host.LaunchList, rows: int,
        projected: Any, q_norm: Any, k_norm: Any, rope: Any, positions: Any, row_count: Any,
        caches: Any, context: int, runs: Runs, partials: Any, counters: Any, quantised: Any, plain: Any,
    ) -> None:  # fmt: skip
        """projected [rows of all runs, stride] f32; q_norm, k_norm [head_dim] f32; rope: `rope_table`; positions i32
        [rows of all runs]; caches: `cache_bytes` for each slot. A block has one run.

        partials and counters have the bytes that the methods tell; quantised, plain are the consumers' rows.
        """
        inputs = self._inputs(projected, q_norm, k_norm, rope, positions, caches, context, runs)
        if rows:
            groups = runs.count * self.kv_heads * self._splits
            program.launch(launches, self._step(rows), groups, *inputs, partials, counters, quantised, plain)
        else:
            self.launch_store(
                program, launches, 0, projected, q_norm, k_norm, rope, positions, row_count, caches, context, runs
            )
            groups = self.kv_heads * BLOCK_ROWS // CHUNK
            program.launch(launches, self._block(), groups, *inputs, row_count, quantised, plain)

    def costs(self, rows: int, context: int, block: bool = False) -> list[Cost]:
        """Of the launches of `launch` for `rows` rows, the last of which sees `context` keys."""
        queries, seen = self.q_heads * self.head_dim, rows * context - rows * (rows - 1) // 2
        row = 8 * queries + consumed_bytes(self.consumers, queries)  # queries and gates
        cache = 2 * self.kv_heads * self.head_dim * 2 * context
        weighed = Cost(cache + rows * row, (4 * seen + 4 * rows) * queries)
        return [self.store_cost(rows), weighed] if block else [self.store_cost(rows) + weighed]

    def store_cost(self, rows: int) -> Cost:
        """Of `launch_store`."""
        values = rows * self.kv_heads * self.head_dim
        return Cost(2 * values * (4 + 2), 8 * values)

    def launch_store(
        self, program: Program, launches: _host.LaunchList, rows: int,
        projected: Any, q_norm: Any, k_norm: Any, rope: Any, positions: Any, row_count: Any, caches: Any, context: int,
        runs: Runs,
    ) -> None:  # fmt: skip
        """Only put the rows' keys and values into the caches, as `launch` does: of `rows` rows in all, at any
        `positions`."""
        inputs = self._inputs(projected, q_norm, k_norm, rope, positions, caches, context, runs)
        groups = self.kv_heads * -(-(rows or BLOCK_ROWS) // STORE_CHUNK)
        program.launch(launches, self.store_kernel(rows), groups, *inputs, row_count)

    def _inputs(
        self, projected: Any, q_norm: Any, k_norm: Any, rope: Any, positions: Any, caches: Any, context: int, runs: Runs
    ) -> tuple[Any, ...]:
        return (
            projected, q_norm, k_norm, rope, positions, caches, _padded(context), float(self.rms_eps), *runs.arguments
        )  # fmt: skip

    def store_kernel(self, rows: int) -> Kernel:
        """Of `launch_store`."""
        call = f"attention_store<Shape, {STORE_CHUNK}>(in, {compiled_rows(rows) or 'row_count[0]'})"
        return self._kernel(f"attention_store_{row_suffix(rows)}", f"{_INPUTS}, const int *row_count", call, 64)

    def _step(self, rows: int) -> Kernel:
        return self._kernel(
            f"attention_{self.consumers.suffix}_{row_suffix(rows)}",
            f"{_INPUTS}, float *partials, int *counters, u8 *quantised, float *plain",
            f"attention_step<Shape, {rows}>(in, partials, counters, sink)",
            self._team_memory(rows),
        )

    def _block(self) -> Kernel:
        return self._kernel(
            f"attention_{self.consumers.suffix}_{row_suffix(0)}",
            f"{_INPUTS}, const int *row_count, u8 *quantised, float *plain",
            f"attention_block<Shape, {CHUNK}>(in, row_count[0], sink)",
            self._team_memory(CHUNK),
        )

    def _kernel(self, name: str, parameters: str, call: str, team_memory: int) -> Kernel:
        c = self.columns
        shape = (
            self.q_heads,
            self.kv_heads,
            self.head_dim,
            self.rope_dim,
            c.stride,
            c.k,
            c.v,
            self._team,
            self._splits,
        )
        sink = ""
        if "plain" in parameters:
            sink = f"RowSink<Shape::WIDTH, {self.consumers.template}> sink{{quantised, plain}}; "
        return Kernel(
            name=f"{name}_{'_'.join(map(str, shape[:7]))}",
            header="attention.hpp",
            parameters=parameters,
            body=f"using Shape = AttentionShape<{', '.join(map(str, shape))}>; const AttentionInput<Shape> "
            f"in{{projected, q_norm, k_norm, rope, positions, caches, context, eps, {{run_count, slots}}}}; "
            f"{sink}{call};",
            team=self._team,
            team_memory=team_memory,
        )

    def _team_memory(self, rows: int) -> int:
        queries = rows * self.q_heads // self.kv_heads
        return queries * (self.head_dim + 3 * KEY_TILE + 12) * 4


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


def reference(
    q: np.ndarray, gate: np.ndarray, k: np.ndarray, v: np.ndarray,
    q_norm: np.ndarray, k_norm: np.ndarray, rope: np.ndarray, eps: float,
) -> np.ndarray:  # fmt: skip
    """float64 [rows, q_heads, head_dim] from q and gate of that shape, which are the last rows, and k and v [context,
    kv_heads, head_dim] of all, rounded to half precision as in the cache."""
    past = len(k) - len(q)
    q = rotate(_norm(q, q_norm, eps), rope[past : len(k)]) / np.sqrt(q.shape[-1])
    k = rotate(_norm(k, k_norm, eps), rope[: len(k)]).astype(np.float16).astype(np.float64)
    v = v.astype(np.float16).astype(np.float64)
    k, v = (np.repeat(x, q.shape[1] // k.shape[1], axis=1) for x in (k, v))
    scores = np.einsum("rhd,khd->hrk", q, k)
    scores[:, np.arange(len(k)) > past + np.arange(len(q))[:, None]] = -np.inf
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    return np.einsum("hrk,khd->rhd", weights, v) / (1 + np.exp(-gate.astype(np.float64)))


def _norm(x: np.ndarray, weight: np.ndarray, eps: float) -> np.ndarray:
    x = x.astype(np.float64)
    return x / np.sqrt(np.square(x).mean(-1, keepdims=True) + eps) * weight


def _padded(context: int) -> int:
    return -(-context // KEY_TILE) * KEY_TILE
