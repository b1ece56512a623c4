"""The MoE router: residual add, RMS norm, logits, and SOFTMAX over the chosen experts, in one launch."""

from typing import Any

import numpy as np

from arcmtp.formats.matrix import Matrix
from arcmtp.ops.cost import Cost, consumed_bytes, product_cost
from arcmtp.ops.launch import BLOCK_ROWS, Consumers, compiled_rows, row_suffix, segment
from arcmtp.runtime import _host
from arcmtp.runtime.card import Geometry
from arcmtp.runtime.compiler import Kernel, Program


class Router:
    """x_out = x + y; its norm goes to the consumers; `used` experts and their weights are chosen per row.

    The router matrix [experts, k] and the shared expert's gate [1, k] are F16 or F32.
    """

    def __init__(
        self, router: Matrix, gate: Matrix, used: int, eps: float, consumers: Consumers, geometry: Geometry
    ) -> None:
        self.k, self.experts, self.used, self.eps = router.k, router.n, used, eps
        self.tiles = router.tiles + 1
        self._matrices = (router, gate)
        self._segments = f"{segment(router)}, {segment(gate)}"
        self._formats = f"{router.format.name}_{gate.format.name}".lower()
        self._consumers = consumers
        self._geometry = geometry

    def _block(self, rows: int) -> int:
        return compiled_rows(rows) or self._geometry.mul_mat_rows

    def logits_bytes(self, max_rows: int) -> int:
        """Bytes of the logits, [max_rows, tiles * 16] float32."""
        return max_rows * self.tiles * 16 * 4

    def kernel(self, rows: int) -> Kernel:
        """For 1…8 rows, or, with `rows` 0, for the count that `row_count` holds when it runs."""
        team, block = self._geometry.router_team, self._block(rows)
        shape = f"{self.k}, {self.experts}, {self.used}, {compiled_rows(rows)}"
        template = f"{shape}, {block}, {team}, {self._consumers.template}"
        return Kernel(
            name=f"router_{self.k}_{self.experts}_{self.used}_{self._formats}_{self._consumers.suffix}_{row_suffix(rows)}",
            header="router.hpp",
            parameters="const float *x, const float *y, float *x_out, const float *weight, float eps, "
            "const u8 *router_weights, float *logits, int *counters, int *selected, float *slot_weights, "
            "u8 *quantised, float *plain, const int *row_count",
            body=f"router<{template}, {self._segments}>(x, y, x_out, weight, eps, router_weights, logits, counters, "
            "selected, slot_weights, quantised, plain, row_count);",
            team=team,
            team_memory=team * block * 64,
        )

    def launch(
        self, program: Program, launches: _host.LaunchList, rows: int,
        x: Any, y: Any, x_out: Any, weight: Any, router_weights: Any, logits: Any, counters: Any,
        selected: Any, slot_weights: Any, quantised: Any, plain: Any, row_count: Any,
    ) -> None:  # fmt: skip
        """x, y, x_out [rows, k] f32; selected [rows, used] i32; slot_weights [rows, used + 1] f32, shared gate last.

        `counters` holds 128 int32 zeros between launches; x, y and the logits hold whole blocks of rows.
        """
        block = self._block(rows)
        groups = self.tiles * (-(-(rows or BLOCK_ROWS) // block))
        program.launch(
            launches, self.kernel(rows), groups,
            x, y, x_out, weight, float(self.eps), router_weights, logits, counters, selected, slot_weights,
            quantised, plain, row_count,
        )  # fmt: skip

    def cost(self, rows: int) -> Cost:
        """Of `rows` rows."""
        row = 3 * 4 * self.k + consumed_bytes(self._consumers, self.k) + 4 * (2 * self.used + 1)
        rest = Cost(4 * self.k + rows * row, 5 * rows * self.k)
        return sum((product_cost(matrix, rows) for matrix in self._matrices), rest)


def reference(logits: np.ndarray, gate: np.ndarray, used: int) -> tuple[np.ndarray, np.ndarray]:
    """Chosen experts [rows, used] (largest logit first, ties: lowest index) and slot weights [rows, used + 1], float64.

    logits [rows, experts]; gate [rows]: the shared expert's logit, whose sigmoid is the last weight.
    """
    order = np.argsort(-logits, axis=-1, kind="stable")[:, :used]
    chosen = np.take_along_axis(logits.astype(np.float64), order, -1)
    weights = np.exp(chosen - chosen.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    return order, np.concatenate([weights, 1 / (1 + np.exp(-gate.astype(np.float64)))[:, None]], axis=1)
