"""The mixer of an attention layer: projections, attention with its KV cache, output projection."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from arcmtp.model.blocks.cache import KvCache
from arcmtp.model.blocks.projections import OutputProjection, Projections
from arcmtp.model.builder import Builder, Rows
from arcmtp.ops.attention import Attention, Columns, Heads, rope_table
from arcmtp.ops.launch import Consumers
from arcmtp.ops.mul_mat import MulMat
from arcmtp.runtime.launch import Argument, Launch
from arcmtp.runtime.tensor import F32, Kind, Tensor


class AttentionBlock:
    """A mixer with a KV cache. partial_sums: those that the layer before leaves, 0 for none."""

    kind = "attention"

    def __init__(self, build: Builder, prefix: str, partial_sums: int) -> None:
        config, weights = build.config, build.weights
        inner, kv = config.q_heads * config.head_dim, config.kv_heads * config.head_dim
        names = [f"{prefix}attn_{part}.weight" for part in "qkv"]
        # Each head's gate rows follow its query rows.
        segments = weights.split_rows(f"{prefix}attn_qkv.weight", names, [2 * inner, kv, kv], config.hidden)
        self.projections = Projections(build, prefix, segments, partial_sums)
        self._norms = {
            "q_norm": weights.vector(f"{prefix}attn_q_norm.weight", config.head_dim),
            "k_norm": weights.vector(f"{prefix}attn_k_norm.weight", config.head_dim),
        }
        self.output = OutputProjection(
            build, prefix, weights.matrix(f"{prefix}attn_output.weight", config.hidden, inner)
        )
        self.op = _attention(build, self.projections.product, self.output.consumers)
        shape = self.op.cache_shape(build.context)
        self.cache = KvCache(build.per_slot(f"{prefix}KV cache", self.op.cache_type, *shape, kind=Kind.CACHE), build.kv)
        self._context = build.context
        self._rope = build.arena.tensor(
            "RoPE angles", F32, build.context, 2, config.rope_dim // 2, kind=Kind.CACHE,
            initial=lambda: rope_table(build.context, config.rope_dim, config.rope_theta),
        )  # fmt: skip
        self._partials = build.step("attention partials", *self.op.partials_shape(1)[1:])
        self._counters = build.counters("attention counters", build.slots, config.kv_heads)
        # Of keys and values alone. Queries, at column 0, are not looked at.
        self._keys_values = MulMat(self.projections.merged.matrices[-2:], build.geometry)
        self._store = _attention(build, self._keys_values, Consumers(quantised=False, plain=False))

    def launches(self, rows: Rows, before: Tensor) -> Iterator[Launch]:
        """From the rows of `before` f32 [rows, hidden] to the mixer's output."""
        yield from self.project(rows, before)
        yield from self.mix(rows)

    def project(self, rows: Rows, before: Tensor) -> Iterator[Launch]:
        """Norm and projections."""
        first, second = self.projections.launches(rows, before)
        yield from (first, replace(second, part="projections"))

    def mix(self, rows: Rows) -> Iterator[Launch]:
        """From projections to the mixer's output."""
        inputs, out = self._inputs(rows), self.output.rows.arguments
        if rows.per_sequence:
            yield self.op.step(
                rows.per_sequence, rows.batch, self._context, partials=self._partials, counters=self._counters,
                **inputs, **out
            )
        else:
            yield self.store(rows)
            yield self.op.chunk(rows.batch, self._context, row_count=rows.row_count, **inputs, **out)
        yield replace(self.output.launch(rows), part="output")

    def store(self, rows: Rows) -> Launch:
        """Only put keys and values of projected rows into the cache."""
        return self.op.store(rows.count, rows.batch, self._context, row_count=rows.row_count, **self._inputs(rows))

    def store_keys_values(self, rows: Rows, before: Tensor) -> Iterator[Launch]:
        """Norm, keys and values of the rows of `before`, put into the cache; no queries."""
        first, second = self.projections.launches(rows, before, self._keys_values)
        yield from (first, replace(second, part="k, v"))
        yield self._store.store(rows.count, rows.batch, self._context, row_count=rows.row_count, **self._inputs(rows))

    def _inputs(self, rows: Rows) -> dict[str, Argument]:
        return {
            "projected": self.projections.projected, "rope": self._rope, "positions": rows.positions,
            "caches": self.cache.tensor, **self._norms,
        }  # fmt: skip


def _attention(build: Builder, product: MulMat, consumers: Consumers) -> Attention:
    """Attention whose keys and values are the last two segments of a product."""
    config = build.config
    columns = Columns(product.columns, *product.column_of[-2:])
    heads = Heads(config.q_heads, config.kv_heads, config.head_dim, config.rope_dim)
    return Attention(heads, columns, config.rms_eps, consumers, build.geometry, build.kv)
