"""RMS norm of the residual stream, with what was added to it since the last one."""

from typing import Any

import numpy as np

from arcmtp.ops.cost import Cost, consumed_bytes
from arcmtp.ops.launch import BLOCK_ROWS, Consumers, compiled_rows, cpp_bool, row_suffix
from arcmtp.runtime import _host
from arcmtp.runtime.card import Geometry
from arcmtp.runtime.compiler import Kernel, Program


class Norm:
    """x_out [rows, k] = x + the `slots` partial sums of each row; its RMS norm times a weight goes to the consumers.

    `gather`: row r is read from row `source_rows[r]` of x and of the partials. Without slots x_out is not written.
    """

    def __init__(
        self, k: int, eps: float, slots: int, consumers: Consumers, geometry: Geometry, gather: bool = False
    ) -> None:
        self.k, self.eps, self.slots, self.gather = k, eps, slots, gather
        self.consumers = consumers
        self._team = geometry.norm_team

    def kernel(self, rows: int) -> Kernel:
        """For 1…8 rows, or, with `rows` 0, for the count that `row_count` holds when it runs."""
        shape = f"{self.k}, {self.slots}, {cpp_bool(self.gather)}, {compiled_rows(rows)}"
        template = f"{shape}, {self._team}, {self.consumers.template}"
        variant = f"{self.slots}{'_gather' if self.gather else ''}_{self.consumers.suffix}"
        return Kernel(
            name=f"norm_{self.k}_{variant}_{row_suffix(rows)}",
            header="norm.hpp",
            parameters="const float *x, const float *partials, float *x_out, const float *weight, float eps, "
            "const int *source_rows, u8 *quantised, float *plain, const int *row_count",
            body=f"norm<{template}>(x, partials, x_out, weight, eps, source_rows, quantised, plain, row_count);",
            team=self._team,
            team_memory=self._team * 64,
        )

    def launch(
        self, program: Program, launches: _host.LaunchList, rows: int,
        x: Any, partials: Any, x_out: Any, weight: Any, source_rows: Any, quantised: Any, plain: Any, row_count: Any,
    ) -> None:  # fmt: skip
        """x, x_out [rows, k] f32; partials [rows, slots, k] f32; weight [k] f32; source_rows [rows] i32."""
        program.launch(
            launches, self.kernel(rows), rows or BLOCK_ROWS,
            x, partials, x_out, weight, float(self.eps), source_rows, quantised, plain, row_count,
        )  # fmt: skip

    def cost(self, rows: int) -> Cost:
        """Of `rows` rows."""
        read = (1 + self.slots) * 4 * self.k
        written = consumed_bytes(self.consumers, self.k) + 4 * self.k * (self.slots > 0)
        return Cost(rows * (read + written) + 4 * self.k, rows * (self.slots + 4) * self.k)


def reference(x: np.ndarray, weight: np.ndarray, eps: float) -> np.ndarray:
    """x [rows, k] / sqrt(mean of squares + eps) * weight [k], in float64."""
    x = x.astype(np.float64)
    return x / np.sqrt(np.square(x).mean(-1, keepdims=True) + eps) * weight
