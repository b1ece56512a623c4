"""MUL_MAT: several matrices with one input in one launch, a work-group for one or some column tiles of 16
outputs."""

from collections.abc import Sequence

import numpy as np

from arcmtp.formats.matrix import Matrix
from arcmtp.ops import patches
from arcmtp.ops.cost import consumed_bytes, product_cost
from arcmtp.ops.launch import Consumers, compiled_rows, matrices_agree, row_suffix, segment
from arcmtp.runtime.card import Geometry
from arcmtp.runtime.launch import Argument, Cost, Kernel, Launch, Work, parameters, reads, writes
from arcmtp.runtime.tensor import F32, I32, U8

TILE = 16
PARAMETERS = parameters(
    weights=reads(U8), quantised=reads(U8), plain=reads(F32), output=writes(F32), row_count=reads(I32)
)


class MulMat:
    """output [rows, columns] float32 = x [rows, k] times each segment's matrix [n, k] transposed, side by side.

    Each segment's columns are padded to whole tiles; `column_of[i]` is where segment i begins. Quantised segments read
    `quantised` (activation rows), F16, BF16 and F32 ones read `plain` (float32 rows).
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
        if patches.in_patches(rows, g):
            each = (f"PatchSegment<{segment(s)}, {patches.segment_tiles(g, s)}>" for s in self.segments)
            segments = ", ".join(each)
            return Kernel(
                operator="mul_mat",
                variant=f"{self.k}_{formats}_prompt",
                header="mul_mat.hpp",
                parameters=PARAMETERS,
                call=f"mul_mat_prompt<{self.k}, {g.chunk_rows}, {g.prompt_rows}, {g.mul_mat_team}, {g.prompt_team}, "
                f"{segments}>",
                team=g.prompt_team,
                registers=patches.REGISTERS,
                agree=matrices_agree(*self.segments),
            )
        segments = ", ".join(map(segment, self.segments))
        return Kernel(
            operator="mul_mat",
            variant=f"{self.k}_{formats}_{row_suffix(rows)}",
            header="mul_mat.hpp",
            parameters=PARAMETERS,
            call=f"mul_mat<{self.k}, {compiled_rows(rows)}, {g.mul_mat_rows}, {g.mul_mat_team}, {g.mul_mat_columns}, "
            f"{segments}>",
            team=g.mul_mat_team,
            team_memory=g.mul_mat_team * g.mul_mat_rows * TILE * 4,
            agree=matrices_agree(*self.segments),
        )

    def launch(self, rows: int, **arguments: Argument) -> Launch:
        """weights: the segments' tiles; quantised: activation rows; plain [rows, k], output [rows, columns] f32;
        row_count i32."""
        g = self._geometry
        groups = -(-self.columns // g.mul_mat_columns)
        if patches.in_patches(rows, g):
            columns = sum(s.tiles // patches.segment_tiles(g, s) for s in self.segments)
            groups = columns * patches.teams(patches.row_patches(g.prompt_rows, g), g)
        return Launch(self.kernel(rows), groups, rows, arguments, self._cost, streams="weights")

    def _cost(self, work: Work) -> Cost:
        row = consumed_bytes(Consumers.of(self.segments), self.k) + 4 * self.columns
        return sum((product_cost(segment, work.rows) for segment in self.segments), Cost(work.rows * row))


def reference(x: np.ndarray, matrices: Sequence[np.ndarray]) -> np.ndarray:
    """x [rows, k] times matrices [n_i, k] transposed, each padded with zero columns to whole tiles; float64."""
    padded = [np.pad(m, ((0, -len(m) % TILE), (0, 0))) for m in matrices]
    return x.astype(np.float64) @ np.concatenate(padded).T.astype(np.float64)
