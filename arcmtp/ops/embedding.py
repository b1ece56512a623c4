"""Rows of the token embedding, which lies in column tiles like every matrix: a token is a lane of a tile."""

from typing import Any

import numpy as np

from arcmtp.formats import matrix as formats
from arcmtp.formats.matrix import Matrix
from arcmtp.ops.cost import Cost
from arcmtp.ops.launch import BLOCK_ROWS, compiled_rows, row_suffix
from arcmtp.runtime import _host
from arcmtp.runtime.compiler import Kernel, Program

SPAN = 256  # inputs of a work-group (EMBEDDING_SPAN of embedding.hpp)


class Embedding:
    """x [rows, k] float32 = rows `ids` of `matrix` [n tokens, k]; an id outside the matrix gives the nearest row."""

    def __init__(self, matrix: Matrix) -> None:
        self.matrix = matrix
        self._spans = -(-matrix.k // SPAN)

    def kernel(self, rows: int) -> Kernel:
        """For 1…8 rows, or, with `rows` 0, for the count that `row_count` holds when it runs."""
        m, count = self.matrix, compiled_rows(rows) or "row_count[0]"
        return Kernel(
            name=f"embedding_{m.format.name.lower()}_{m.n}x{m.k}_{m.offset}_{row_suffix(rows)}",
            header="embedding.hpp",
            parameters="const u8 *weights, const int *ids, float *x, const int *row_count",
            body=f"embedding<{m.format.name}, {m.k}, {m.n}, {m.offset}>(weights, ids, x, {count});",
        )

    def launch(
        self, program: Program, launches: _host.LaunchList, rows: int, weights: Any, ids: Any, x: Any, row_count: Any
    ) -> None:
        """weights: the buffer of the matrix's tiles; ids int32 [rows]; x float32 [rows, k]."""
        groups = (rows or BLOCK_ROWS) * self._spans
        program.launch(launches, self.kernel(rows), groups, weights, ids, x, row_count)

    def cost(self, rows: int) -> Cost:
        """Of `rows` rows."""
        m = self.matrix
        return Cost(rows * (m.tile_bytes // formats.LANES + 4 * m.k), rows * m.k)


def reference(matrix: Matrix, weights: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """float32 [rows, k] for the tiles in `weights` (uint8, the whole buffer) and `ids` int [rows]."""
    tiles = weights[matrix.offset : matrix.offset + matrix.nbytes]
    values = formats.unpack(matrix.format, tiles, matrix.n, matrix.k)
    return values[np.clip(ids, 0, matrix.n - 1)]
