"""Embedding rows equal `formats.unpack` bit for bit: the kernel does the same float32 operations in the same order."""

import numpy as np
import pytest

from arcmtp.formats import matrix as formats
from arcmtp.formats.matrix import Format, Matrix
from arcmtp.ops.embedding import Embedding, reference
from arcmtp.ops.launch import CHUNK_ROWS, compiled_rows
from tests.ops.bench import POISON, Bench
from tests.ops.conftest import LAUNCHED_ROWS, ROW_COUNTS, without_geometry

pytestmark = without_geometry


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

    def __init__(self, fmt: Format, n: int, k: int) -> None:
        self.rng = np.random.default_rng([n, k, fmt.bits])
        self.matrix = Matrix(fmt, n, k, offset=64)
        self.weights = np.concatenate([np.full(64, 255, np.uint8), random_tiles(self.rng, fmt, n, k)])
        self.op = Embedding(self.matrix)

    def run(self, bench: Bench, ids: np.ndarray, buffer_rows: int, launched: int | None = None) -> np.ndarray:
        """Bits, uint32 [buffer_rows, k]: poison behind the rows of `ids`. launched: how many the launch is told."""
        launched = compiled_rows(len(ids)) if launched is None else launched
        rows, k = len(ids), self.matrix.k
        weights, count = bench.array(self.weights), bench.ints([rows])
        x = bench.poisoned(buffer_rows * k * 4)
        bench.run(self.op.launch(launched, weights=weights, ids=bench.ints(ids), x=x, row_count=count))
        return x.read(np.uint32, buffer_rows * k).reshape(-1, k)

    def want(self, ids: np.ndarray) -> np.ndarray:
        return reference(self.matrix, self.weights, ids).view(np.uint32)


@pytest.mark.avx2
def test_every_format_gives_the_unpacked_bits_of_every_row(bench: Bench) -> None:
    cases = [Case(fmt, n=40, k=512) for fmt in formats.FORMATS]
    bench.compile(case.op.kernel(0) for case in cases)
    for case in cases:
        ids = case.rng.permutation(40)
        assert np.array_equal(case.run(bench, ids, 40), case.want(ids)), case.matrix.format.name


def test_a_row_whose_last_work_group_is_not_full_ends_where_it_should(bench: Bench) -> None:
    case = Case(formats.W4_MIN, n=16, k=32 * 11)
    got = case.run(bench, np.array([5]), 2)
    assert np.array_equal(got[:1], case.want(np.array([5])))
    assert np.all(got[1] == POISON)


def test_any_number_of_rows_gives_each_its_token_and_nothing_behind_them(bench: Bench) -> None:
    case = Case(formats.W6_16, n=100, k=256)
    bench.compile(case.op.kernel(rows) for rows in (*ROW_COUNTS, 0))
    for rows, launched in LAUNCHED_ROWS:
        ids = case.rng.integers(0, 100, rows)
        got = case.run(bench, ids, CHUNK_ROWS + 1, launched)
        assert np.array_equal(got[:rows], case.want(ids)), f"{rows} rows, {launched=}"
        assert np.all(got[rows:] == POISON), f"{rows} rows, {launched=}"


def test_ids_outside_the_vocabulary_give_its_first_and_last_row(bench: Bench) -> None:
    case = Case(formats.F16, n=20, k=64)
    ids = np.array([-1, 20, -(2**31), 2**31 - 1])
    assert np.array_equal(case.run(bench, ids, 4), case.want(np.array([0, 19, 0, 19])))
