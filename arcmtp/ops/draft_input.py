"""What the MTP block begins with: a token's embedding and the hidden row of the token before it, each normed."""

from typing import Literal

import numpy as np

from arcmtp.formats.matrix import LANES, Matrix
from arcmtp.ops.cost import consumed_bytes
from arcmtp.ops.launch import (
    BATCH_PARAMETERS,
    CARRIED_ROWS,
    Batch,
    Consumers,
    compiled_rows,
    matrices_agree,
    row_suffix,
)
from arcmtp.ops.norm import reference as norm_reference
from arcmtp.runtime.card import Geometry
from arcmtp.runtime.launch import FLOAT, Argument, Cost, Kernel, Launch, Work, parameters, reads, writes
from arcmtp.runtime.tensor import F32, I32, U8

PARAMETERS = (
    *parameters(weights=reads(U8), tokens=reads(I32), hidden=reads(F32), token_norm=reads(F32)),
    *parameters(hidden_norm=reads(F32), eps=FLOAT, accepted=reads(I32), positions=reads(I32)),
    *parameters(row_positions=writes(I32), carried=reads(F32)),
    *BATCH_PARAMETERS,
    *parameters(row_count=reads(I32), quantised=writes(U8), plain=writes(F32)),
)
_CARRY = parameters(
    hidden=reads(F32), positions=reads(I32), row_count=reads(I32), chunk_pending=reads(I32), carried=writes(F32),
    slot=reads(I32),
)  # fmt: skip
_AGREES = ("CARRIED_ROWS", CARRIED_ROWS)

Order = Literal["draft", "step", "prompt", "carried"]


class DraftInput:
    """Rows [rows, 2 k] = (norm of the embedding of a token, norm of a hidden row), for the consumers.

    order "draft": of each row's own token and hidden row. "step": the rows of a step, the last accepted row of each
    sequence before all others. "prompt": of its own token and the hidden row of the row before it. "carried": of its
    own token and the carried hidden row of the position before it.
    embedding: the matrix [n tokens, k]; an id outside it gives the nearest row.
    """

    def __init__(self, embedding: Matrix, eps: float, consumers: Consumers, geometry: Geometry) -> None:
        self.embedding, self.eps, self.consumers = embedding, eps, consumers
        self._team, self._chunk_rows = geometry.norm_team, geometry.chunk_rows

    def kernel(self, rows: int, order: Order) -> Kernel:
        """For 1…8 rows, or, with `rows` 0, for the count that `row_count` holds when it runs."""
        m = self.embedding
        template = (
            f"{m.format.name}, {m.k}, {m.n}, {m.offset}, Order::{order.upper()}, {compiled_rows(rows)}, {self._team}, "
            f"{self.consumers.template}"
        )
        return Kernel(
            operator="draft_input",
            variant=f"{m.format.name.lower()}_{m.k}_{self.consumers.suffix}_{order}_{row_suffix(rows)}",
            header="draft_input.hpp",
            parameters=PARAMETERS,
            call=f"draft_input<{template}>",
            team=self._team,
            team_memory=self._team * 64,
            agree=(*matrices_agree(m), _AGREES),
        )

    def launch(self, rows: int, order: Order, batch: Batch, **arguments: Argument) -> Launch:
        """rows: of all sequences. weights: the buffer of the embedding's tiles; tokens i32 [rows]; hidden f32
        [rows, k]; token_norm, hidden_norm f32 [k]. Order "step": accepted i32 [batch], the last row of each sequence
        that was accepted; positions i32 [batch], of the token that this row chose; row_positions i32 [rows], where each
        row belongs, is written. Orders "prompt" and "carried", of one sequence: positions i32 [rows]; carried f32
        [slots, CARRIED_ROWS, k], hidden rows of earlier positions, that of position p in row p % CARRIED_ROWS.
        quantised, plain: the consumers' rows; row_count i32."""
        arguments |= {"eps": float(self.eps), **batch.arguments}
        return Launch(self.kernel(rows, order), rows or self._chunk_rows, rows, arguments, self._cost)

    def _cost(self, work: Work) -> Cost:
        m = self.embedding
        row = m.tile_bytes // LANES + 4 * m.k + consumed_bytes(self.consumers, 2 * m.k)
        return Cost(work.rows * row + 8 * m.k, 9 * work.rows * m.k)

    def carry(self, **arguments: Argument) -> Launch:
        """Of `row_count` rows of hidden f32 [rows, k] at positions i32 [rows], put the last one, and that before the
        `chunk_pending` last ones, into their places in carried f32 [slots, CARRIED_ROWS, k]."""
        k = self.embedding.k
        kernel = Kernel(
            operator="carry_hidden",
            variant=str(k),
            header="draft_input.hpp",
            parameters=_CARRY,
            body=f"carry_hidden<{k}>(hidden, positions, row_count[0], chunk_pending[0], carried, slot[0]);",
            agree=(_AGREES,),
        )
        return Launch(kernel, 1, 0, arguments, lambda work: Cost(8 * k))


def order(rows: int, last: int) -> list[int]:
    """One sequence's rows of a step as the order "step" takes them."""
    return [last, *(row for row in range(rows) if row != last)]


def reference(
    embedded: np.ndarray, hidden: np.ndarray, token_norm: np.ndarray, hidden_norm: np.ndarray, eps: float
) -> np.ndarray:
    """float64 [rows, 2 k] of embedding rows and hidden rows [rows, k]."""
    return np.concatenate(
        [norm_reference(embedded, token_norm, eps), norm_reference(hidden, hidden_norm, eps)], axis=1
    )
