"""The mixer of a gated delta net layer: projections, GATED_DELTA_NET, output projection."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from arcmtp.model.blocks.cache import StateCache
from arcmtp.model.blocks.projections import OutputProjection, Projections
from arcmtp.model.builder import Builder, Rows
from arcmtp.ops.gated_delta_net import Columns, GatedDeltaNet, Heads
from arcmtp.runtime.launch import Launch
from arcmtp.runtime.tensor import F32, Tensor


class DeltaNetBlock:
    """A mixer with recurrent state. partial_sums: those that the layer before leaves, 0 for none."""

    kind = "gdn"

    def __init__(self, build: Builder, prefix: str, partial_sums: int) -> None:
        config, weights = build.config, build.weights
        heads = Heads(config.gdn_k_heads, config.gdn_v_heads, config.gdn_k_dim, config.gdn_v_dim)
        segments = [
            weights.matrix(f"{prefix}attn_qkv.weight", heads.channels, config.hidden),
            weights.matrix(f"{prefix}attn_gate.weight", heads.outputs, config.hidden),
            weights.matrix(f"{prefix}ssm_beta.weight", heads.v, config.hidden, large=False),
            weights.matrix(f"{prefix}ssm_alpha.weight", heads.v, config.hidden, large=False),
        ]
        self.projections = Projections(build, prefix, segments, partial_sums)
        dt = f"{prefix}ssm_dt"
        self._weights = {
            "conv": weights.vector(f"{prefix}ssm_conv1d.weight", heads.channels, config.conv_kernel),
            "a": weights.vector(f"{prefix}ssm_a", heads.v),
            "dt_bias": weights.vector(dt if dt in weights else f"{dt}.bias", heads.v),
            "norm": weights.vector(f"{prefix}ssm_norm.weight", heads.v_dim),
        }
        self.output = OutputProjection(
            build, prefix, weights.matrix(f"{prefix}ssm_out.weight", config.hidden, heads.outputs)
        )
        product = self.projections.product
        columns = Columns(product.columns, *product.column_of[1:])
        self.op = GatedDeltaNet(heads, columns, config.rms_eps, self.output.consumers, build.geometry)
        shape = (heads.v, self.op.head_dtype.itemsize // 4)
        self.cache = StateCache(build.per_slot(f"{prefix}state", F32, *shape))
        self._controls = build.controls

    def launches(self, rows: Rows, before: Tensor) -> Iterator[Launch]:
        """From the rows of `before` f32 [rows, hidden] to the mixer's output."""
        first, second = self.projections.launches(rows, before)
        yield from (first, replace(second, part="projections"))
        yield self.op.launch(
            rows.per_sequence, rows.batch, projected=self.projections.projected, memory=self.cache.tensor,
            pending_count=self._controls.pending_count, row_count=rows.row_count,
            chunk_pending=self._controls.chunk_pending, **self._weights, **self.output.rows.arguments,
        )  # fmt: skip
        yield replace(self.output.launch(rows), part="output")
