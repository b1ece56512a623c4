"""MUL_MAT against float64 sums of the same weights and activations: float32 sums of k terms are within 1e-5 of them."""

from collections.abc import Iterator

import numpy as np

from arcmtp.formats import matrix as formats
from arcmtp.formats.activations import dequantise, quantise
from arcmtp.formats.matrix import Format, Matrix, Scheme
from arcmtp.ops.launch import compiled_rows
from arcmtp.ops.mul_mat import TILE, MulMat, reference
from arcmtp.selftest.bench import SOME_ROWS, Bench
from arcmtp.selftest.findings import Difference, close

TOLERANCE = 1e-5
BUFFER_ROWS = 512


def random_tiles(rng: np.random.Generator, fmt: Format, n: int, k: int) -> np.ndarray:
    """Tiles of a matrix [n, k] with random codes and small random scales."""
    raw = rng.integers(0, 256, fmt.matrix_bytes(n, k)).astype(np.uint8)
    tiles = raw.view(fmt.span_dtype)
    for name in tiles.dtype.names or ():
        if tiles[name].dtype.kind == "f":
            tiles[name] = rng.uniform(-0.01, 0.01, tiles[name].shape)
        elif name == "exponent":
            tiles[name] = rng.integers(115, 123, tiles[name].shape)
    if fmt == formats.BF16:
        tiles["values"] = rng.uniform(-0.01, 0.01, tiles["values"].shape).astype(np.float32).view(np.uint32) >> 16
    return raw


def merged(rng: np.random.Generator, shapes: list[tuple[Format, int]], k: int) -> tuple[list[Matrix], np.ndarray]:
    """Segments of one buffer, each at a multiple of 64 bytes, and the buffer's bytes."""
    segments: list[Matrix] = []
    parts: list[np.ndarray] = []
    offset = 0
    for fmt, n in shapes:
        segments.append(Matrix(fmt, n, k, offset))
        tiles = random_tiles(rng, fmt, n, k)
        parts.append(np.pad(tiles, (0, -tiles.nbytes % 64)))
        offset += parts[-1].nbytes
    return segments, np.concatenate(parts)


def expected(x: np.ndarray, segments: list[Matrix], weights: np.ndarray) -> np.ndarray:
    seen = dequantise(*quantise(x))
    columns = []
    for s in segments:
        values = formats.unpack(s.format, weights[s.offset : s.offset + s.nbytes], s.tiles * TILE, s.k)
        columns.append(reference(x if s.format.scheme is Scheme.PLAIN else seen, [values]))
    return np.concatenate(columns, axis=1)


class Case:
    """One merged product on a bench, ready to run for any row count."""

    def __init__(self, bench: Bench, shapes: list[tuple[Format, int]], k: int, row_counts: tuple[int, ...]) -> None:
        self.bench = bench
        self.rng = np.random.default_rng(k)
        self.segments, self.weights = merged(self.rng, shapes, k)
        self.op = MulMat(self.segments, bench.geometry)
        bench.compile(self.op.kernel(rows) for rows in (*row_counts, 0))
        self.device_weights = bench.array(self.weights)
        self.k = k

    def run(self, x: np.ndarray, launched: int | None = None) -> np.ndarray:
        """By the kernel for as many rows as the launch is told; rows behind the last one are NaN."""
        rows = len(x)
        launched = compiled_rows(rows) if launched is None else launched
        quantised = self.bench.activation_rows(BUFFER_ROWS, self.k)
        self.bench.write_activations(quantised, x)
        plain = self.bench.poisoned(BUFFER_ROWS * self.k * 4)
        plain.write(x)
        output = self.bench.poisoned(BUFFER_ROWS * self.op.columns * 4)
        launch = self.op.launch(
            launched, weights=self.device_weights, quantised=quantised, plain=plain, output=output,
            row_count=self.bench.ints([rows]),
        )  # fmt: skip
        self.bench.run(launch)
        return self.bench.rows(output, rows, self.op.columns)


def compare(bench: Bench, k: int = 256) -> Iterator[Difference]:
    """Every format of weights."""
    case = Case(bench, [(fmt, 24) for fmt in formats.FORMATS], k, (1, 3))
    for rows in SOME_ROWS:
        x = case.rng.standard_normal((rows, k)).astype(np.float32)
        want = expected(x, case.segments, case.weights)
        got, first = case.run(x), 0
        for segment in case.segments:
            columns = slice(first, first + segment.tiles * TILE)
            atol = TOLERANCE * np.abs(want).max()
            yield close(f"{segment.format.name}, {rows} rows of {k}", got[:, columns], want[:, columns], atol)
            first = columns.stop
