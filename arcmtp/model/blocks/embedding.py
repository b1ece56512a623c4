"""The token embedding."""

from __future__ import annotations

from arcmtp.model.builder import Builder, Rows
from arcmtp.ops.embedding import Embedding
from arcmtp.runtime.launch import Launch


class EmbeddingBlock:
    """Rows of the embedding matrix [vocabulary, hidden] begin the residual stream."""

    def __init__(self, build: Builder) -> None:
        config, weights = build.config, build.weights
        matrix = weights.matrix("token_embd.weight", config.vocab, config.hidden)
        self.weights = weights.merge("token_embd", [matrix])
        (placed,) = self.weights.matrices
        self.op = Embedding(placed, build.geometry)
        self.rows = build.rows("residual", config.hidden)

    def launch(self, rows: Rows) -> Launch:
        """The lookup of the tokens `rows.ids`."""
        return self.op.launch(
            rows.count, weights=self.weights.tensor, ids=rows.ids, x=self.rows, row_count=rows.row_count
        )
