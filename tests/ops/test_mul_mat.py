"""MUL_MAT against float64 sums of the same weights and activations: float32 sums of k terms are within 1e-5 of them."""

import numpy as np
import pytest

from arcmtp.formats import matrix as formats
from arcmtp.formats.activations import dequantise, quantise
from arcmtp.formats.matrix import Format, Matrix, Scheme
from arcmtp.ops.launch import compiled_rows
from arcmtp.ops.mul_mat import TILE, MulMat, reference
from tests.ops.bench import Bench
from tests.ops.conftest import LAUNCHED_ROWS, ROW_COUNTS

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


@pytest.mark.avx2
@pytest.mark.parametrize("k", [256, pytest.param(768, marks=pytest.mark.nightly)])
def test_every_format_gives_the_reference_product(bench: Bench, k: int) -> None:
    case = Case(bench, [(fmt, 24) for fmt in formats.FORMATS], k, (1, 3))
    for rows in (1, 3, 17):
        x = case.rng.standard_normal((rows, k)).astype(np.float32)
        want = expected(x, case.segments, case.weights)
        np.testing.assert_allclose(case.run(x), want, atol=TOLERANCE * np.abs(want).max(), rtol=0)


def test_inputs_that_fill_no_whole_slices_are_all_counted(bench: Bench) -> None:
    plain_groups = [f for f in formats.FORMATS if f.multiple == 32]
    case = Case(bench, [(fmt, 16) for fmt in plain_groups], 32 * 11, (1,))
    x = case.rng.standard_normal((1, case.k)).astype(np.float32)
    want = expected(x, case.segments, case.weights)
    np.testing.assert_allclose(case.run(x), want, atol=TOLERANCE * np.abs(want).max(), rtol=0)


def test_a_row_has_the_same_bits_at_any_row_count_and_place_among_nan_rows(bench: Bench) -> None:
    shapes = [(formats.W4, 40), (formats.W6_16, 16), (formats.IQ4_XS, 16), (formats.Q3_K, 16), (formats.F32, 1)]
    case = Case(bench, shapes, 256, ROW_COUNTS)
    row = case.rng.standard_normal((1, case.k)).astype(np.float32)
    alone = case.run(row)[0]
    for rows, launched in LAUNCHED_ROWS:
        for place in {0, rows // 2, rows - 1}:
            x = np.full((rows, case.k), np.nan, np.float32)
            x[place] = row
            assert np.array_equal(case.run(x, launched)[place], alone), f"row {place} of {rows}, {launched=}"
