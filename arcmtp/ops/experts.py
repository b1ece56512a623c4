"""The experts of a MoE layer in two launches: gate, up and SwiGLU; then down, as weighted partial sums."""

import numpy as np

from arcmtp.formats.matrix import LANES, Matrix
from arcmtp.ops import patches
from arcmtp.ops.cost import consumed_bytes, product_cost
from arcmtp.ops.launch import Consumers, compiled_rows, matrices_agree, row_suffix, segment
from arcmtp.runtime.card import Geometry
from arcmtp.runtime.launch import Argument, Cost, Kernel, Launch, Work, parameters, reads, writes
from arcmtp.runtime.tensor import F32, I32, U8

_GATE_UP = parameters(
    weights=reads(U8), shared_weights=reads(U8), quantised=reads(U8), plain=reads(F32), selected=reads(I32),
    hidden_quantised=writes(U8), hidden_plain=writes(F32), shared_quantised=writes(U8), shared_plain=writes(F32),
    row_count=reads(I32),
)  # fmt: skip
_DOWN = parameters(
    weights=reads(U8), shared_weights=reads(U8), hidden_quantised=reads(U8), hidden_plain=reads(F32),
    shared_quantised=reads(U8), shared_plain=reads(F32), selected=reads(I32), slot_weights=reads(F32),
    partials=writes(F32), row_count=reads(I32),
)  # fmt: skip


def _formats(*matrices: Matrix) -> str:
    return "_".join(m.format.name.lower() for m in matrices)


def _list_bytes(rows: int, geometry: Geometry) -> int:
    """Team memory in which a work-group lists the rows of an expert, a word each."""
    return -(-(compiled_rows(rows) or geometry.chunk_rows) // 16) * 64


def _team_memory(rows: int, geometry: Geometry, width: int, ways: int = 1) -> int:
    return ways * geometry.mul_mat_team * geometry.mul_mat_rows * width * 64 + _list_bytes(rows, geometry)


def _rows_per_pass(rows: int, geometry: Geometry) -> int:
    return min(compiled_rows(rows) or geometry.mul_mat_rows, geometry.mul_mat_rows)


def _spans(columns: int, geometry: Geometry) -> int:
    return -(-columns // geometry.expert_columns)


class ExpertsGateUp:
    """hidden = silu(gate · x) * (up · x) of every row's chosen experts and of the shared expert.

    routed: gate and up, stacks of matrices [width, k]; shared: gate and up [shared_width, k]; `used` experts per row.
    Rows row * used + slot of the hidden buffers belong to a row's slot, rows of the shared ones to the row.
    """

    def __init__(
        self, routed: tuple[Matrix, Matrix], shared: tuple[Matrix, Matrix], used: int,
        consumers: Consumers, shared_consumers: Consumers, geometry: Geometry,
    ) -> None:  # fmt: skip
        (gate, up), (shared_gate, shared_up) = routed, shared
        self.used = used
        self._gate, self._shared_gate = gate, shared_gate
        self._routed, self._shared = routed, shared
        self._segments = ", ".join(map(segment, (gate, up, shared_gate, shared_up)))
        self._formats = _formats(gate, up, shared_gate, shared_up)
        self._consumers, self._shared_consumers = consumers, shared_consumers
        self._geometry = geometry
        self._patch_rows = patches.gate_up_rows(geometry, *routed, *shared)

    def kernel(self, rows: int) -> Kernel:
        """For 1…8 rows, or, with `rows` 0, for the count that `row_count` holds when it runs."""
        g, gate, shared, count = self._geometry, self._gate, self._shared_gate, compiled_rows(rows)
        shapes = (
            f"{gate.k}_{gate.experts}x{gate.n}_{shared.n}_{self._formats}_{self._consumers.suffix}_"
            f"{self._shared_consumers.suffix}"
        )
        if patches.in_patches(rows, g):
            return Kernel(
                operator="experts_gate_up",
                variant=f"{shapes}_prompt",
                header="experts_prompt.hpp",
                parameters=_GATE_UP,
                call=f"experts_gate_up_prompt<{gate.k}, {g.chunk_rows}, {gate.experts}, {self.used}, {gate.n}, "
                f"{shared.n}, {self._patch_rows}, {g.mul_mat_team}, {g.prompt_team}, {self._segments}, "
                f"{self._consumers.template}, {self._shared_consumers.template}>",
                team=g.prompt_team,
                team_memory=patches.list_bytes(g),
                registers=patches.REGISTERS,
                agree=matrices_agree(*self._routed, *self._shared),
            )
        template = (
            f"{gate.k}, {gate.experts}, {self.used}, {gate.n}, {shared.n}, {count}, {_list_bytes(rows, g)}, "
            f"{_rows_per_pass(rows, g)}, {g.mul_mat_team}, {g.expert_columns}, {self._segments}, "
            f"{self._consumers.template}, {self._shared_consumers.template}"
        )
        return Kernel(
            operator="experts_gate_up",
            variant=f"{shapes}_{row_suffix(rows)}",
            header="experts.hpp",
            parameters=_GATE_UP,
            call=f"experts_gate_up<{template}>",
            team=g.mul_mat_team,
            team_memory=_team_memory(rows, g, 4),
            agree=matrices_agree(*self._routed, *self._shared),
        )

    def launch(self, rows: int, **arguments: Argument) -> Launch:
        """weights, shared_weights: tiles; quantised, plain: rows of k; selected [rows, used] i32, readable to a
        multiple of 16; hidden_quantised, hidden_plain, shared_quantised, shared_plain: the consumers' rows; row_count
        i32."""
        g = self._geometry
        units = rows * self.used if compiled_rows(rows) else self._gate.experts
        groups = _spans(self._shared_gate.n, g) + units * _spans(self._gate.n, g)
        if patches.in_patches(rows, g):
            routed, shared = (m.n // patches.GATE_UP_COLUMNS for m in (self._gate, self._shared_gate))
            of_shared = patches.row_patches(self._patch_rows, g) * patches.teams(shared, g)
            groups = units * patches.teams(routed, g) + of_shared
        return Launch(self.kernel(rows), groups, rows, arguments, self._cost, streams="shared_weights")

    def _cost(self, work: Work) -> Cost:
        row = consumed_bytes(Consumers.of([*self._routed, *self._shared]), self._gate.k)
        row += self.used * (4 + consumed_bytes(self._consumers, self._gate.n))
        row += consumed_bytes(self._shared_consumers, self._shared_gate.n)
        routed = (product_cost(matrix, work.rows * self.used, work.experts) for matrix in self._routed)
        shared = (product_cost(matrix, work.rows) for matrix in self._shared)
        return sum((*routed, *shared), Cost(work.rows * row))


class ExpertsDown:
    """partials [rows, used + 1, n] = slot weight * (down · hidden) of every chosen expert, the shared expert's last.

    down: a stack of matrices [n, width]; shared_down [n, shared_width].
    """

    def __init__(self, down: Matrix, shared_down: Matrix, used: int, geometry: Geometry) -> None:
        self.used = used
        self._down, self._shared_down = down, shared_down
        self._geometry = geometry
        self._patch_tiles = patches.patch_tiles(geometry, down.n // LANES, down, shared_down)

    def _ways(self, rows: int) -> int:
        """Tiles that a work-group has side by side: of one row as many as make its team a norm's, which can then norm
        the row (`Launch.then`)."""
        g = self._geometry
        ways = g.norm_team // g.mul_mat_team
        fits = g.mul_mat_team * ways == g.norm_team and self._down.n % max(g.expert_columns, ways * LANES) == 0
        return ways if rows == 1 and fits else 1

    def _columns(self, rows: int) -> int:
        return max(self._geometry.expert_columns, self._ways(rows) * LANES)

    def kernel(self, rows: int) -> Kernel:
        """For 1…8 rows, or, with `rows` 0, for the count that `row_count` holds when it runs."""
        g, down, shared, count = self._geometry, self._down, self._shared_down, compiled_rows(rows)
        shapes = f"{down.k}_{shared.k}_{down.experts}x{down.n}"
        if patches.in_patches(rows, g):
            return Kernel(
                operator="experts_down",
                variant=f"{shapes}_{_formats(down, shared)}_prompt",
                header="experts_prompt.hpp",
                parameters=_DOWN,
                call=f"experts_down_prompt<{down.k}, {shared.k}, {g.chunk_rows}, {down.experts}, {self.used}, "
                f"{down.n}, {g.prompt_rows}, {g.mul_mat_team}, {g.prompt_team}, {self._patch_tiles}, "
                f"{segment(down)}, {segment(shared)}>",
                team=g.prompt_team,
                team_memory=patches.list_bytes(g),
                registers=patches.REGISTERS,
                agree=matrices_agree(down, shared),
            )
        ways = self._ways(rows)
        template = (
            f"{down.k}, {shared.k}, {down.experts}, {self.used}, {down.n}, {count}, {_list_bytes(rows, g)}, "
            f"{_rows_per_pass(rows, g)}, {g.mul_mat_team}, {ways}, {self._columns(rows)}, {segment(down)}, "
            f"{segment(shared)}"
        )
        return Kernel(
            operator="experts_down",
            variant=f"{shapes}_{_formats(down, shared)}_{row_suffix(rows)}",
            header="experts.hpp",
            parameters=_DOWN,
            call=f"experts_down<{template}>",
            team=ways * g.mul_mat_team,
            team_memory=_team_memory(rows, g, 1, ways),
            agree=matrices_agree(down, shared),
        )

    def launch(self, rows: int, **arguments: Argument) -> Launch:
        """slot_weights [rows, used + 1] f32; partials [rows, used + 1, n] f32; the rest as ExpertsGateUp wrote it.

        Counted rows of the shared expert are computed in whole passes of `mul_mat_rows`: rows up to the pass's end are
        read and written too. Those of a prompt chunk in patches are not.
        """
        g = self._geometry
        units = rows * self.used if compiled_rows(rows) else self._down.experts
        groups = (1 + units) * -(-self._down.n // self._columns(rows))
        if patches.in_patches(rows, g):
            threads = self._down.n // LANES // self._patch_tiles
            groups = (units + patches.row_patches(g.prompt_rows, g)) * patches.teams(threads, g)
        return Launch(self.kernel(rows), groups, rows, arguments, self._cost, streams="shared_weights")

    def _cost(self, work: Work) -> Cost:
        down, shared = self._down, self._shared_down
        row = self.used * (4 + consumed_bytes(Consumers.of([down]), down.k))
        row += consumed_bytes(Consumers.of([shared]), shared.k) + (self.used + 1) * 4 * (1 + down.n)
        routed = product_cost(down, work.rows * self.used, work.experts)
        return routed + product_cost(shared, work.rows) + Cost(work.rows * row)


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
