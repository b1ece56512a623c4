"""The dense feed-forward of a layer: norm, gate and up with SwiGLU, down."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from arcmtp.model.builder import Builder, Residual, Rows
from arcmtp.model.weight_plan import Merged
from arcmtp.ops.feed_forward import FeedForwardGateUp
from arcmtp.ops.launch import Consumers
from arcmtp.ops.mul_mat import MulMat
from arcmtp.ops.norm import Norm
from arcmtp.runtime.launch import Launch


class DenseFeedForward:
    """Leaves one partial sum."""

    partial_sums = 1
    experts: tuple[Merged, ...] = ()

    def __init__(self, build: Builder, prefix: str) -> None:
        config, weights, geometry = build.config, build.weights, build.geometry
        hidden = config.hidden
        self._norm_weight = weights.vector(f"{prefix}post_attention_norm.weight", hidden)
        self.gate_up_weights = weights.merge(
            f"{prefix}gate_up",
            [weights.matrix(f"{prefix}ffn_{part}.weight", config.ffn, hidden) for part in ("gate", "up")],
        )
        self.down_weights = weights.merge(
            f"{prefix}down", [weights.matrix(f"{prefix}ffn_down.weight", hidden, config.ffn)]
        )
        gate, up = self.gate_up_weights.matrices
        down = self.down_weights.matrices
        # The mixer's output is added as the norm's only partial sum.
        of_gate_up, of_down = Consumers.of([gate, up]), Consumers.of(down)
        self._norm = Norm(hidden, config.rms_eps, 1, of_gate_up, geometry)
        self._gate_up = FeedForwardGateUp(gate, up, of_down, geometry)
        self._down = MulMat(down, geometry)
        self._residual = Residual(build, self.partial_sums)
        self._input = build.activations("input", hidden, of_gate_up)
        self._hidden = build.activations("hidden", config.ffn, of_down)
        self._source_rows = build.controls.source_rows

    def launches(self, rows: Rows) -> Iterator[Launch]:
        """From the mixer's output to the partial sum."""
        residual, count, row_count = self._residual, rows.count, rows.row_count
        norm = self._norm.launch(
            count, x=residual.before, partials=residual.mixed, x_out=residual.after, weight=self._norm_weight,
            source_rows=self._source_rows, row_count=row_count, **self._input.arguments,
        )  # fmt: skip
        yield replace(norm, part="feed-forward")
        yield self._gate_up.launch(
            count, weights=self.gate_up_weights.tensor, hidden_quantised=self._hidden.quantised,
            hidden_plain=self._hidden.plain, row_count=row_count, **self._input.arguments,
        )  # fmt: skip
        down = self._down.launch(
            count, weights=self.down_weights.tensor, output=residual.partials, row_count=row_count,
            **self._hidden.arguments,
        )  # fmt: skip
        yield replace(down, part="down")
