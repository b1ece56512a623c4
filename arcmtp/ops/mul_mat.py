"""MUL_MAT: several matrices with one input in one launch, a work-group for one or some column tiles of 16
outputs."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from arcmtp.formats.matrix import Matrix
from arcmtp.ops.cost import Cost, consumed_bytes, product_cost
from arcmtp.ops.launch import Consumers, compiled_rows, row_suffix, segment
from arcmtp.runtime import _host
from arcmtp.runtime.card import Geometry
from arcmtp.runtime.compiler import Kernel, Program

TILE = 16


class MulMat:
    """output [rows, columns] float32 = x [rows, k] times each segment's matrix [n, k] transposed, side by side.

    Each segment's columns are padded to whole tiles; `column_of[i]` is where segment i begins. Quantised segments read
    `quantised` (activation rows), F16 and F32 ones read `plain` (float32 rows).
    """

    def __init__(self, segments: Sequence[Matrix], geometry: Geometry) -> None:
        self.segments = tuple(segments)
        self.k = self.segments[0].k
        tiles = [segment.tiles for segment in self.segments]
        self.columns = TILE * sum(tiles)
        self.column_of = [TILE * sum(tiles[:i]) for i in range(len(tiles))]
        self._geometry = geometry

    def kernel(self, rows: int) -> Kernel:
        """For 1…8 rows, or, with `rows` 0, for the count that `row_count` holds when it runs."""
        g = self._geometry
        formats = "_".join(f"{s.format.name.lower()}x{s.tiles}" for s in self.segments)
        segments = ", ".join(map(segment, self.segments))
        return Kernel(
            name=f"mul_mat_{self.k}_{formats}_{row_suffix(rows)}",
            header="mul_mat.hpp",
            parameters="const u8 *weights, const u8 *quantised, const float *plain, float *output, "
            "const int *row_count",
            body=f"mul_mat<{self.k}, {compiled_rows(rows)}, {g.mul_mat_rows}, {g.mul_mat_team}, "
            f"{g.mul_mat_columns}, {segments}>"
            "(weights, quantised, plain, output, row_count);",
            team=g.mul_mat_team,
            team_memory=g.mul_mat_team * g.mul_mat_rows * TILE * 4,
        )

    def launch(
        self, program: Program, launches: _host.LaunchList, rows: int,
        weights: Any, quantised: Any, plain: Any, output: Any, row_count: Any,
    ) -> None:  # fmt: skip
        """weights: the segments' tiles; quantised: activation rows; plain [rows, k], output [rows, columns] f32."""
        groups = -(-self.columns // self._geometry.mul_mat_columns)
        program.launch(launches, self.kernel(rows), groups, weights, quantised, plain, output, row_count)

    def cost(self, rows: int) -> Cost:
        """Of `rows` rows."""
        row = consumed_bytes(Consumers.of(self.segments), self.k) + 4 * self.columns
        return sum((product_cost(segment, rows) for segment in self.segments), Cost(rows * row))


def reference(x: np.ndarray, matrices: Sequence[np.ndarray]) -> np.ndarray:
    """x [rows, k] times matrices [n_i, k] transposed, each padded with zero columns to whole tiles; float64."""
    padded = [np.pad(m, ((0, -len(m) % TILE), (0, 0))) for m in matrices]
    return x.astype(np.float64) @ np.concatenate(padded).T.astype(np.float64)
