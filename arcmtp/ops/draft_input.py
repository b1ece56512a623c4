"""What the MTP block begins with: a token's embedding and the hidden row of the token before it, each normed."""

from typing import Any, Literal

import numpy as np

from arcmtp.formats.matrix import LANES, Matrix
from arcmtp.ops.cost import Cost, consumed_bytes
from arcmtp.ops.launch import BLOCK_ROWS, RUN_PARAMETERS, Consumers, Runs, compiled_rows, row_suffix
from arcmtp.ops.norm import reference as norm_reference
from arcmtp.runtime import _host
from arcmtp.runtime.card import Geometry
from arcmtp.runtime.compiler import Kernel, Program

Order = Literal["draft", "step", "prompt"]


class DraftInput:
    """Rows [rows, 2 k] = (norm of the embedding of a token, norm of a hidden row), for the consumers.

    order "draft": of each row's own token and hidden row. "step": of those of the rows that a step has accepted, the
    last of each run before all others. "prompt": of its own token and the hidden row of the row before it.
    embedding: the matrix [n tokens, k]; an id outside it gives the nearest row.
    """

    def __init__(self, embedding: Matrix, eps: float, consumers: Consumers, geometry: Geometry) -> None:
        self.embedding, self.eps, self.consumers = embedding, eps, consumers
        self._team = geometry.norm_team

    def kernel(self, rows: int, order: Order) -> Kernel:
        """For 1…8 rows, or, with `rows` 0, for the count that `row_count` holds when it runs."""
        m = self.embedding
        template = (
            f"{m.format.name}, {m.k}, {m.n}, {m.offset}, Order::{order.upper()}, {compiled_rows(rows)}, {self._team}, "
            f"{self.consumers.template}"
        )
        return Kernel(
            name=f"draft_input_{m.format.name.lower()}_{m.k}_{self.consumers.suffix}_{order}_{row_suffix(rows)}",
            header="draft_input.hpp",
            parameters="const u8 *weights, const int *tokens, const float *hidden, const float *token_norm, "
            "const float *hidden_norm, float eps, const int *accepted, const int *positions, int *row_positions, "
            f"const float *carried, {RUN_PARAMETERS}, const int *row_count, u8 *quantised, float *plain",
            body=f"draft_input<{template}>(weights, tokens, hidden, token_norm, hidden_norm, eps, accepted, positions, "
            "row_positions, carried, {run_count, slots}, row_count, quantised, plain);",
            team=self._team,
            team_memory=self._team * 64,
        )

    def launch(
        self, program: Program, launches: _host.LaunchList, rows: int, order: Order,
        weights: Any, tokens: Any, hidden: Any, token_norm: Any, hidden_norm: Any,
        accepted: Any, positions: Any, row_positions: Any, carried: Any, runs: Runs, row_count: Any, quantised: Any,
        plain: Any,
    ) -> None:  # fmt: skip
        """weights: the buffer of the embedding's tiles; tokens int32 [rows]; hidden f32 [rows, k]; token_norm,
        hidden_norm f32 [k]. Order "step": accepted int32 [runs], the last row of each run that was accepted; positions
        int32 [runs], of the token that this row chose; row_positions int32 [rows], where each row belongs, is written.
        Order "prompt", of one run: carried f32 [slots, k], the hidden row before the first one."""
        program.launch(
            launches, self.kernel(rows, order), rows or BLOCK_ROWS, weights, tokens, hidden, token_norm, hidden_norm,
            float(self.eps), accepted, positions, row_positions, carried, *runs.arguments, row_count, quantised, plain,
        )  # fmt: skip

    def cost(self, rows: int) -> Cost:
        """Of `rows` rows."""
        m = self.embedding
        row = m.tile_bytes // LANES + 4 * m.k + consumed_bytes(self.consumers, 2 * m.k)
        return Cost(rows * row + 8 * m.k, 9 * rows * m.k)

    def carry_kernel(self) -> Kernel:
        """Of `launch_carry`."""
        return Kernel(
            name=f"carry_hidden_{self.embedding.k}",
            header="draft_input.hpp",
            parameters="const float *hidden, const int *row_count, float *carried, const int *slot",
            body=f"carry_hidden<{self.embedding.k}>(hidden, row_count[0], carried, slot[0]);",
        )

    def launch_carry(
        self, program: Program, launches: _host.LaunchList, hidden: Any, row_count: Any, carried: Any, slot: Any
    ) -> None:
        """The last of `row_count` rows of hidden f32 [rows, k] becomes row `slot` of carried f32 [slots, k]."""
        program.launch(launches, self.carry_kernel(), 1, hidden, row_count, carried, slot)

    def carry_cost(self) -> Cost:
        """Of `launch_carry`."""
        return Cost(8 * self.embedding.k)


def order(rows: int, last: int) -> list[int]:
    """The rows of a step's run as the order "step" takes them."""
    return [last, *(row for row in range(rows) if row != last)]


def reference(
    embedded: np.ndarray, hidden: np.ndarray, token_norm: np.ndarray, hidden_norm: np.ndarray, eps: float
) -> np.ndarray:
    """float64 [rows, 2 k] of embedding rows and hidden rows [rows, k]."""
    return np.concatenate(
        [norm_reference(embedded, token_norm, eps), norm_reference(hidden, hidden_norm, eps)], axis=1
    )
