"""The MoE router: residual add, RMS norm, logits, and SOFTMAX over the chosen experts, in one launch."""

import numpy as np

from arcmtp.formats.matrix import Matrix
from arcmtp.ops.cost import consumed_bytes, product_cost
from arcmtp.ops.launch import Consumers, compiled_rows, matrices_agree, row_suffix, segment
from arcmtp.runtime.card import Geometry
from arcmtp.runtime.launch import FLOAT, Argument, Cost, Kernel, Launch, Work, parameters, reads, writes
from arcmtp.runtime.tensor import F32, I32, U8

PARAMETERS = parameters(
    x=reads(F32), y=reads(F32), x_out=writes(F32), weight=reads(F32), eps=FLOAT, router_weights=reads(U8),
    logits=writes(F32), counters=writes(I32), selected=writes(I32), slot_weights=writes(F32), quantised=writes(U8),
    plain=writes(F32), row_count=reads(I32),
)  # fmt: skip


class Router:
    """x_out = x + y; its norm goes to the consumers; `used` experts and their weights are chosen per row.

    The router matrix [experts, k] and the shared expert's gate [1, k] are F16, BF16 or F32.
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

    def _pass_rows(self, rows: int) -> int:
        return compiled_rows(rows) or self._geometry.mul_mat_rows

    @property
    def logits_columns(self) -> int:
        """Columns of the logits, experts and the shared gate in whole tiles."""
        return self.tiles * 16

    def kernel(self, rows: int) -> Kernel:
        """For 1…8 rows, or, with `rows` 0, for the count that `row_count` holds when it runs."""
        team, pass_rows = self._geometry.router_team, self._pass_rows(rows)
        shape = f"{self.k}, {self.experts}, {self.used}, {compiled_rows(rows)}"
        template = f"{shape}, {pass_rows}, {team}, {self._consumers.template}"
        return Kernel(
            operator="router",
            variant=f"{self.k}_{self.experts}_{self.used}_{self._formats}_{self._consumers.suffix}_{row_suffix(rows)}",
            header="router.hpp",
            parameters=PARAMETERS,
            call=f"router<{template}, {self._segments}>",
            team=team,
            team_memory=team * pass_rows * 64,
            agree=matrices_agree(*self._matrices),
        )

    def launch(self, rows: int, **arguments: Argument) -> Launch:
        """x, y, x_out [rows, k] f32; weight [k] f32; router_weights: the tiles of both matrices; logits [rows,
        logits_columns] f32; selected [rows, used] i32; slot_weights [rows, used + 1] f32, shared gate last; quantised,
        plain: the consumers' rows; row_count i32.

        `counters` holds an i32 for each pass of rows, zero between launches; x, y and the logits hold whole passes.
        """
        arguments["eps"] = float(self.eps)
        groups = self.tiles * (-(-(rows or self._geometry.chunk_rows) // self._pass_rows(rows)))
        return Launch(self.kernel(rows), groups, rows, arguments, self._cost, streams="router_weights")

    def _cost(self, work: Work) -> Cost:
        row = 3 * 4 * self.k + consumed_bytes(self._consumers, self.k) + 4 * (2 * self.used + 1)
        rest = Cost(4 * self.k + work.rows * row, 5 * work.rows * self.k)
        return sum((product_cost(matrix, work.rows) for matrix in self._matrices), rest)


def reference(logits: np.ndarray, gate: np.ndarray, used: int) -> tuple[np.ndarray, np.ndarray]:
    """Chosen experts [rows, used] (largest logit first, ties: lowest index) and slot weights [rows, used + 1], float64.

    logits [rows, experts]; gate [rows]: the shared expert's logit, whose sigmoid is the last weight.
    """
    order = np.argsort(-logits, axis=-1, kind="stable")[:, :used]
    chosen = np.take_along_axis(logits.astype(np.float64), order, -1)
    weights = np.exp(chosen - chosen.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    return order, np.concatenate([weights, 1 / (1 + np.exp(-gate.astype(np.float64)))[:, None]], axis=1)
