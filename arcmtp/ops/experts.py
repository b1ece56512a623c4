"""The experts of a MoE layer in two launches: gate, up and SwiGLU; then down, as weighted partial sums."""

from typing import Any

import numpy as np

from arcmtp.formats.matrix import Matrix
from arcmtp.ops.cost import Cost, consumed_bytes, product_cost
from arcmtp.ops.launch import BLOCK_ROWS, Consumers, compiled_rows, row_suffix, segment
from arcmtp.runtime import _host
from arcmtp.runtime.card import Geometry
from arcmtp.runtime.compiler import Kernel, Program


def _formats(*matrices: Matrix) -> str:
    return "_".join(m.format.name.lower() for m in matrices)


def _team_memory(geometry: Geometry, width: int) -> int:
    return geometry.mul_mat_team * geometry.mul_mat_rows * width * 64 + BLOCK_ROWS * 4


def _rows_per_pass(rows: int, geometry: Geometry) -> int:
    return min(compiled_rows(rows) or geometry.mul_mat_rows, geometry.mul_mat_rows)


def _spans(columns: int, geometry: Geometry) -> int:
    return -(-columns // geometry.expert_columns)


class ExpertsGateUp:
    """hidden = silu(gate · x) * (up · x) of every row's chosen experts and of the shared expert.

    gate, up: stacks of matrices [width, k]; shared_gate, shared_up [shared_width, k]; `used` experts per row.
    Rows row * used + slot of the hidden buffers belong to a row's slot, rows of the shared ones to the row.
    """

    def __init__(
        self, gate: Matrix, up: Matrix, shared_gate: Matrix, shared_up: Matrix, used: int,
        consumers: Consumers, shared_consumers: Consumers, geometry: Geometry,
    ) -> None:  # fmt: skip
        self.used = used
        self._gate, self._shared_gate = gate, shared_gate
        self._routed, self._shared = (gate, up), (shared_gate, shared_up)
        self._segments = ", ".join(map(segment, (gate, up, shared_gate, shared_up)))
        self._formats = _formats(gate, up, shared_gate, shared_up)
        self._consumers, self._shared_consumers = consumers, shared_consumers
        self._geometry = geometry

    def kernel(self, rows: int) -> Kernel:
        """For 1…8 rows, or, with `rows` 0, for the count that `row_count` holds when it runs."""
        g, gate, shared, count = self._geometry, self._gate, self._shared_gate, compiled_rows(rows)
        template = (
            f"{gate.k}, {gate.experts}, {self.used}, {gate.n}, {shared.n}, {count}, {_rows_per_pass(rows, g)}, "
            f"{g.mul_mat_team}, {g.expert_columns}, {self._segments}, {self._consumers.template}, "
            f"{self._shared_consumers.template}"
        )
        return Kernel(
            name=f"experts_gate_up_{gate.k}_{gate.experts}x{gate.n}_{shared.n}_{self._formats}_"
            f"{self._consumers.suffix}_{self._shared_consumers.suffix}_{row_suffix(rows)}",
            header="experts.hpp",
            parameters="const u8 *weights, const u8 *shared_weights, const u8 *quantised, const float *plain, "
            "const int *selected, u8 *hidden_quantised, float *hidden_plain, u8 *shared_quantised, "
            "float *shared_plain, const int *row_count",
            body=f"experts_gate_up<{template}>(weights, shared_weights, quantised, plain, selected, hidden_quantised, "
            "hidden_plain, shared_quantised, shared_plain, row_count);",
            team=g.mul_mat_team,
            team_memory=_team_memory(g, 4),
        )

    def launch(
        self, program: Program, launches: _host.LaunchList, rows: int,
        weights: Any, shared_weights: Any, quantised: Any, plain: Any, selected: Any,
        hidden_quantised: Any, hidden_plain: Any, shared_quantised: Any, shared_plain: Any, row_count: Any,
    ) -> None:  # fmt: skip
        """quantised, plain: rows of k; selected [rows, used] i32, readable to a multiple of 16."""
        units = rows * self.used if compiled_rows(rows) else self._gate.experts
        groups = _spans(self._shared_gate.n, self._geometry) + units * _spans(self._gate.n, self._geometry)
        program.launch(
            launches, self.kernel(rows), groups,
            weights, shared_weights, quantised, plain, selected, hidden_quantised, hidden_plain, shared_quantised,
            shared_plain, row_count,
        )  # fmt: skip

    def cost(self, rows: int, experts: int) -> Cost:
        """Of `rows` rows that choose so many different routed experts."""
        row = consumed_bytes(Consumers.of([*self._routed, *self._shared]), self._gate.k)
        row += self.used * (4 + consumed_bytes(self._consumers, self._gate.n))
        row += consumed_bytes(self._shared_consumers, self._shared_gate.n)
        routed = (product_cost(matrix, rows * self.used, experts) for matrix in self._routed)
        shared = (product_cost(matrix, rows) for matrix in self._shared)
        return sum((*routed, *shared), Cost(rows * row))


class ExpertsDown:
    """partials [rows, used + 1, n] = slot weight * (down · hidden) of every chosen expert, the shared expert's last.

    down: a stack of matrices [n, width]; shared_down [n, shared_width].
    """

    def __init__(self, down: Matrix, shared_down: Matrix, used: int, geometry: Geometry) -> None:
        self.used = used
        self._down, self._shared_down = down, shared_down
        self._geometry = geometry

    def kernel(self, rows: int) -> Kernel:
        """For 1…8 rows, or, with `rows` 0, for the count that `row_count` holds when it runs."""
        g, down, shared, count = self._geometry, self._down, self._shared_down, compiled_rows(rows)
        template = (
            f"{down.k}, {shared.k}, {down.experts}, {self.used}, {down.n}, {count}, {_rows_per_pass(rows, g)}, "
            f"{g.mul_mat_team}, {g.expert_columns}, {segment(down)}, {segment(shared)}"
        )
        shapes = f"{down.k}_{shared.k}_{down.experts}x{down.n}"
        return Kernel(
            name=f"experts_down_{shapes}_{_formats(down, shared)}_{row_suffix(rows)}",
            header="experts.hpp",
            parameters="const u8 *weights, const u8 *shared_weights, const u8 *hidden_quantised, "
            "const float *hidden_plain, const u8 *shared_quantised, const float *shared_plain, const int *selected, "
            "const float *slot_weights, float *partials, const int *row_count",
            body=f"experts_down<{template}>(weights, shared_weights, hidden_quantised, hidden_plain, shared_quantised, "
            "shared_plain, selected, slot_weights, partials, row_count);",
            team=g.mul_mat_team,
            team_memory=_team_memory(g, 1),
        )

    def launch(
        self, program: Program, launches: _host.LaunchList, rows: int,
        weights: Any, shared_weights: Any, hidden_quantised: Any, hidden_plain: Any, shared_quantised: Any,
        shared_plain: Any, selected: Any, slot_weights: Any, partials: Any, row_count: Any,
    ) -> None:  # fmt: skip
        """slot_weights [rows, used + 1] f32; partials [rows, used + 1, n] f32; the rest as ExpertsGateUp wrote it.

        Counted rows of the shared expert are computed in whole passes of `mul_mat_rows`: rows up to the pass's end are
        read and written too.
        """
        units = rows * self.used if compiled_rows(rows) else self._down.experts
        groups = (1 + units) * _spans(self._down.n, self._geometry)
        program.launch(
            launches, self.kernel(rows), groups,
            weights, shared_weights, hidden_quantised, hidden_plain, shared_quantised, shared_plain, selected,
            slot_weights, partials, row_count,
        )  # fmt: skip

    def cost(self, rows: int, experts: int) -> Cost:
        """Of `rows` rows that choose so many different routed experts."""
        down, shared = self._down, self._shared_down
        row = self.used * (4 + consumed_bytes(Consumers.of([down]), down.k))
        row += consumed_bytes(Consumers.of([shared]), shared.k) + (self.used + 1) * 4 * (1 + down.n)
        return product_cost(down, rows * self.used, experts) + product_cost(shared, rows) + Cost(rows * row)


def gate_up_reference(x: np.ndarray, gate: np.ndarray, up: np.ndarray, selected: np.ndarray) -> np.ndarray:
    """silu(gate · x) * (up · x), [rows, used, width] float64; gate, up [experts, width, k], selected [rows, used]."""
    x = x.astype(np.float64)
    g = np.einsum("rk,rswk->rsw", x, gate[selected].astype(np.float64))
    u = np.einsum("rk,rswk->rsw", x, up[selected].astype(np.float64))
    return g * np.exp(-np.logaddexp(0, -g)) * u


def down_reference(hidden: np.ndarray, down: np.ndarray, selected: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """weights * (down · hidden), [rows, used, n] float64; down [experts, n, width], hidden [rows, used, width]."""
    products = np.einsum("rsw,rsnw->rsn", hidden.astype(np.float64), down[selected].astype(np.float64))
    return products * weights[..., None]
