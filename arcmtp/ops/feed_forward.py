"""A dense feed-forward's gate, up and SwiGLU in one launch. Its down projection is a MulMat."""

import numpy as np

from arcmtp.formats.matrix import Matrix
from arcmtp.ops import patches
from arcmtp.ops.cost import consumed_bytes, product_cost
from arcmtp.ops.launch import Consumers, compiled_rows, matrices_agree, row_suffix, segment
from arcmtp.runtime.card import Geometry
from arcmtp.runtime.launch import Argument, Cost, Kernel, Launch, Work, parameters, reads, writes
from arcmtp.runtime.tensor import F32, I32, U8

PARAMETERS = parameters(
    weights=reads(U8), quantised=reads(U8), plain=reads(F32), hidden_quantised=writes(U8), hidden_plain=writes(F32),
    row_count=reads(I32),
)  # fmt: skip


class FeedForwardGateUp:
    """hidden [rows, width] = silu(gate · x) * (up · x); gate, up [width, k] in one buffer."""

    def __init__(self, gate: Matrix, up: Matrix, consumers: Consumers, geometry: Geometry) -> None:
        self._gate, self._up = gate, up
        self._consumers = consumers
        self._geometry = geometry
        self._patch_rows = patches.gate_up_rows(geometry, gate, up)

    def kernel(self, rows: int) -> Kernel:
        """For 1…8 rows, or, with `rows` 0, for the count that `row_count` holds when it runs."""
        g, gate, up, count = self._geometry, self._gate, self._up, compiled_rows(rows)
        formats = f"{gate.format.name.lower()}_{up.format.name.lower()}"
        if patches.in_patches(rows, g):
            return Kernel(
                operator="feed_forward_gate_up",
                variant=f"{gate.k}_{gate.n}_{formats}_{self._consumers.suffix}_prompt",
                header="feed_forward.hpp",
                parameters=PARAMETERS,
                call=f"feed_forward_gate_up_prompt<{gate.k}, {gate.n}, {self._patch_rows}, {g.mul_mat_team}, "
                f"{g.prompt_team}, {segment(gate)}, {segment(up)}, {self._consumers.template}>",
                team=g.prompt_team,
                registers=patches.REGISTERS,
                agree=matrices_agree(gate, up),
            )
        rows_per_pass = min(count or g.mul_mat_rows, g.mul_mat_rows)
        template = (
            f"{gate.k}, {gate.n}, {count}, {rows_per_pass}, {g.mul_mat_team}, {g.expert_columns}, "
            f"{segment(gate)}, {segment(up)}, {self._consumers.template}"
        )
        return Kernel(
            operator="feed_forward_gate_up",
            variant=f"{gate.k}_{gate.n}_{formats}_{self._consumers.suffix}_{row_suffix(rows)}",
            header="feed_forward.hpp",
            parameters=PARAMETERS,
            call=f"feed_forward_gate_up<{template}>",
            team=g.mul_mat_team,
            team_memory=max(64, g.mul_mat_team * g.mul_mat_rows * 4 * 64),
            agree=matrices_agree(gate, up),
        )

    def launch(self, rows: int, **arguments: Argument) -> Launch:
        """weights: the tiles of both matrices; quantised, plain: rows of k; hidden_quantised, hidden_plain: rows of
        width, of which those that the consumers want are written; row_count i32.

        Counted rows are computed in whole passes of `mul_mat_rows`: rows up to the pass's end are read and written too.
        Those of a prompt chunk in patches are not.
        """
        g = self._geometry
        groups = -(-self._gate.n // g.expert_columns)
        if patches.in_patches(rows, g):
            threads = self._gate.n // patches.GATE_UP_COLUMNS
            groups = patches.row_patches(self._patch_rows, g) * patches.teams(threads, g)
        return Launch(self.kernel(rows), groups, rows, arguments, self._cost, streams="weights")

    def _cost(self, work: Work) -> Cost:
        matrices = (self._gate, self._up)
        row = consumed_bytes(Consumers.of(matrices), self._gate.k) + consumed_bytes(self._consumers, self._gate.n)
        return sum((product_cost(matrix, work.rows) for matrix in matrices), Cost(work.rows * row))


def reference(x: np.ndarray, gate: np.ndarray, up: np.ndarray) -> np.ndarray:
    """silu(gate · x) * (up · x), [rows, width] float64; x [rows, k], gate and up [width, k]."""
    g, u = (x.astype(np.float64) @ matrix.astype(np.float64).T for matrix in (gate, up))
    return g * np.exp(-np.logaddexp(0, -g)) * u
