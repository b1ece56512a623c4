"""What every mixer begins and ends with: norm and projections of the residual stream, and the output projection."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from arcmtp.model.builder import Builder, Residual, Rows
from arcmtp.model.weight_plan import Segment
from arcmtp.ops.launch import Consumers
from arcmtp.ops.mul_mat import MulMat
from arcmtp.ops.norm import Norm
from arcmtp.runtime.launch import Launch
from arcmtp.runtime.tensor import Tensor


class Projections:
    """The norm of rows to which the feed-forward before them is added, and its product with matrices side by side.

    partial_sums: those that the feed-forward leaves, 0 for none. last: project with the last so many matrices only.
    """

    def __init__(self, build: Builder, prefix: str, segments: Sequence[Segment], partial_sums: int) -> None:
        hidden = build.config.hidden
        self.weight = build.weights.vector(f"{prefix}attn_norm.weight", hidden)
        self.merged = build.weights.merge(f"{prefix}projections", segments)
        self.residual = Residual(build, partial_sums)
        readers = Consumers.of(self.merged.matrices)
        self.rows = build.activations("input", hidden, readers)
        self.norm = Norm(hidden, build.config.rms_eps, partial_sums, readers, build.geometry)
        self.product = MulMat(self.merged.matrices, build.geometry)
        self.projected = build.rows("projected", self.product.columns)
        self._source_rows = build.controls.source_rows

    def launches(self, rows: Rows, before: Tensor, product: MulMat | None = None) -> Iterator[Launch]:
        """Norm and product over `before` f32 [rows, hidden]. product: another product with the same weights."""
        residual = self.residual
        yield self.norm.launch(
            rows.count, x=before, partials=residual.partials, x_out=residual.before, weight=self.weight,
            source_rows=self._source_rows, row_count=rows.row_count, **self.rows.arguments,
        )  # fmt: skip
        yield (product or self.product).launch(
            rows.count, weights=self.merged.tensor, output=self.projected, row_count=rows.row_count,
            **self.rows.arguments,
        )  # fmt: skip


class OutputProjection:
    """The product of a mixer's rows with one matrix [hidden, inner]."""

    def __init__(self, build: Builder, prefix: str, segment: Segment) -> None:
        self.merged = build.weights.merge(f"{prefix}output", [segment])
        self.consumers = Consumers.of(self.merged.matrices)
        self.rows = build.activations("input", segment.matrix.k, self.consumers)
        self.product = MulMat(self.merged.matrices, build.geometry)
        self._mixed = build.rows("mixed", build.config.hidden)

    def launch(self, rows: Rows) -> Launch:
        """The product."""
        return self.product.launch(
            rows.count, weights=self.merged.tensor, output=self._mixed, row_count=rows.row_count, **self.rows.arguments
        )
