"""RMS norm of the residual stream, with what was added to it since the last one."""

import numpy as np

from arcmtp.formats.activations import row_bytes
from arcmtp.ops.cost import consumed_bytes
from arcmtp.ops.launch import Consumers, compiled_rows, cpp_bool, row_suffix
from arcmtp.runtime.card import Geometry
from arcmtp.runtime.launch import FLOAT, Argument, Cost, Kernel, Launch, Work, parameters, reads, writes
from arcmtp.runtime.tensor import F32, I32, U8

PARAMETERS = parameters(
    x=reads(F32), partials=reads(F32), x_out=writes(F32), weight=reads(F32), eps=FLOAT, source_rows=reads(I32),
    quantised=writes(U8), plain=writes(F32), row_count=reads(I32),
)  # fmt: skip


class Norm:
    """x_out [rows, k] = x + the `slots` partial sums of each row; its RMS norm times a weight goes to the consumers.

    `gather`: row r is read from row `source_rows[r]` of x and of the partials. Without slots x_out is not written.
    """

    def __init__(
        self, k: int, eps: float, slots: int, consumers: Consumers, geometry: Geometry, gather: bool = False
    ) -> None:
        self.k, self.eps, self.slots, self.gather = k, eps, slots, gather
        self.consumers = consumers
        self._team, self._chunk_rows = geometry.norm_team, geometry.chunk_rows

    def kernel(self, rows: int) -> Kernel:
        """For 1…8 rows, or, with `rows` 0, for the count that `row_count` holds when it runs."""
        shape = f"{self.k}, {self.slots}, {cpp_bool(self.gather)}, {compiled_rows(rows)}"
        template = f"{shape}, {self._team}, {self.consumers.template}"
        variant = f"{self.slots}{'_gather' if self.gather else ''}_{self.consumers.suffix}"
        return Kernel(
            operator="norm",
            variant=f"{self.k}_{variant}_{row_suffix(rows)}",
            header="norm.hpp",
            parameters=PARAMETERS,
            call=f"norm<{template}>",
            team=self._team,
            team_memory=self._team * 64,
            agree=((f"ActivationRow<{self.k}>::BYTES - ActivationRow<{self.k}>::SCALES", row_bytes(self.k, orders=0)),),
            # Several rows one after the other take longer than a launch. A CPU's cores wait at each arrival: experts at
            # 0.94 of their speed (docs/log/operators.md).
            at_last=f"norm_at_last<{template}>" if rows == 1 and self._team > 1 else "",
        )

    def launch(self, rows: int, **arguments: Argument) -> Launch:
        """x, x_out [rows, k] f32; partials [rows, slots, k] f32; weight [k] f32; source_rows [rows] i32; quantised,
        plain: the consumers' rows; row_count i32."""
        arguments["eps"] = float(self.eps)
        return Launch(self.kernel(rows), rows or self._chunk_rows, rows, arguments, self._cost)

    def _cost(self, work: Work) -> Cost:
        read = (1 + self.slots) * 4 * self.k
        written = consumed_bytes(self.consumers, self.k) + 4 * self.k * (self.slots > 0)
        values = work.rows * self.k
        units = {"values": values, "partial sums": values * self.slots}
        return Cost(work.rows * (read + written) + 4 * self.k, values * (self.slots + 4), units)


def reference(x: np.ndarray, weight: np.ndarray, eps: float) -> np.ndarray:
    """x [rows, k] / sqrt(mean of squares + eps) * weight [k], in float64."""
    x = x.astype(np.float64)
    return x / np.sqrt(np.square(x).mean(-1, keepdims=True) + eps) * weight
