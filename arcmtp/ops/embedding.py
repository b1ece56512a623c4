"""Rows of the token embedding, which lies in column tiles like every matrix: a token is a lane of a tile."""

import numpy as np

from arcmtp.formats import matrix as formats
from arcmtp.formats.matrix import Matrix
from arcmtp.ops.launch import compiled_rows, matrices_agree, row_suffix
from arcmtp.runtime.card import Geometry
from arcmtp.runtime.launch import Argument, Cost, Kernel, Launch, Work, parameters, reads, writes
from arcmtp.runtime.tensor import F32, I32, U8

PARAMETERS = parameters(weights=reads(U8), ids=reads(I32), x=writes(F32), row_count=reads(I32))
SPAN = 256  # inputs of a work-group


class Embedding:
    """x [rows, k] float32 = rows `ids` of `matrix` [n tokens, k]; an id outside the matrix gives the nearest row."""

    def __init__(self, matrix: Matrix, geometry: Geometry) -> None:
        self.matrix = matrix
        self._spans, self._chunk_rows = -(-matrix.k // SPAN), geometry.chunk_rows

    def kernel(self, rows: int) -> Kernel:
        """For 1…8 rows, or, with `rows` 0, for the count that `row_count` holds when it runs."""
        m, count = self.matrix, compiled_rows(rows) or "row_count[0]"
        return Kernel(
            operator="embedding",
            variant=f"{m.format.name.lower()}_{m.n}x{m.k}_{m.offset}_{row_suffix(rows)}",
            header="embedding.hpp",
            parameters=PARAMETERS,
            agree=(("EMBEDDING_SPAN", SPAN), *matrices_agree(m)),
            body=f"embedding<{m.format.name}, {m.k}, {m.n}, {m.offset}>(weights, ids, x, {count});",
        )

    def launch(self, rows: int, **arguments: Argument) -> Launch:
        """weights: the buffer of the matrix's tiles; ids i32 [rows]; x f32 [rows, k]; row_count i32."""
        return Launch(self.kernel(rows), (rows or self._chunk_rows) * self._spans, rows, arguments, self._cost)

    def _cost(self, work: Work) -> Cost:
        m = self.matrix
        return Cost(work.rows * (m.tile_bytes // formats.LANES + 4 * m.k), work.rows * m.k)


def reference(matrix: Matrix, weights: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """float32 [rows, k] for the tiles in `weights` (uint8, the whole buffer) and `ids` int [rows]."""
    tiles = weights[matrix.offset : matrix.offset + matrix.nbytes]
    values = formats.unpack(matrix.format, tiles, matrix.n, matrix.k)
    return values[np.clip(ids, 0, matrix.n - 1)]
