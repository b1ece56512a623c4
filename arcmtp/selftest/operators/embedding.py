"""Embedding rows equal `formats.unpack` bit for bit: the kernel does the same float32 operations in the same order."""

from collections.abc import Iterator

import numpy as np

from arcmtp.formats import matrix as formats
from arcmtp.formats.matrix import Format, Matrix
from arcmtp.ops.embedding import Embedding, reference
from arcmtp.ops.launch import compiled_rows
from arcmtp.selftest.bench import Bench
from arcmtp.selftest.findings import Difference, equal


def random_tiles(rng: np.random.Generator, fmt: Format, n: int, k: int) -> np.ndarray:
    """Tiles uint8 of a matrix [n, k] whose codes are all bits and whose scales are any finite numbers."""
    tiles = rng.integers(0, 256, fmt.matrix_bytes(n, k)).astype(np.uint8).view(fmt.span_dtype)
    for name in tiles.dtype.names or ():
        if tiles[name].dtype.kind == "f":
            tiles[name] = rng.uniform(-3, 3, tiles[name].shape) * 10.0 ** rng.integers(-7, 3, tiles[name].shape)
        elif name == "exponent":
            tiles[name] = rng.integers(0, 250, tiles[name].shape)
    return tiles.view(np.uint8)


class Case:
    """The embedding of one matrix, 64 bytes into its buffer."""

    def __init__(self, bench: Bench, fmt: Format, n: int, k: int) -> None:
        self.bench, self.rng = bench, np.random.default_rng([n, k, fmt.bits])
        self.matrix = Matrix(fmt, n, k, offset=64)
        self.weights = np.concatenate([np.full(64, 255, np.uint8), random_tiles(self.rng, fmt, n, k)])
        self.op = Embedding(self.matrix, bench.geometry)

    def run(self, ids: np.ndarray, buffer_rows: int, launched: int | None = None) -> np.ndarray:
        """Bits, uint32 [buffer_rows, k]: poison behind the rows of `ids`. launched: how many the launch is told."""
        launched = compiled_rows(len(ids)) if launched is None else launched
        bench, rows, k = self.bench, len(ids), self.matrix.k
        weights, count = bench.array(self.weights), bench.ints([rows])
        x = bench.poisoned(buffer_rows * k * 4)
        bench.run(self.op.launch(launched, weights=weights, ids=bench.ints(ids), x=x, row_count=count))
        return x.read(np.uint32, buffer_rows * k).reshape(-1, k)

    def want(self, ids: np.ndarray) -> np.ndarray:
        return reference(self.matrix, self.weights, ids).view(np.uint32)


def compare(bench: Bench) -> Iterator[Difference]:
    """Every row of a matrix of every format."""
    cases = [Case(bench, fmt, n=40, k=512) for fmt in formats.FORMATS]
    bench.compile(case.op.kernel(0) for case in cases)
    for case in cases:
        ids = case.rng.permutation(40)
        yield equal(case.matrix.format.name, case.run(ids, 40), case.want(ids))
