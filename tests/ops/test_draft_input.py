"""Input rows of the MTP block against float64, in both orders of rows."""

import numpy as np
import pytest

from arcmtp.model import formats
from arcmtp.model.formats import Format, Matrix
from arcmtp.ops.draft_input import DraftInput, order, reference
from arcmtp.ops.embedding import reference as embedding_reference
from arcmtp.ops.launch import Consumers
from arcmtp.runtime import _host
from arcmtp.runtime.memory import Buffer
from tests.ops.conftest import BLOCK_COUNTS, ROW_COUNTS, Bench
from tests.ops.test_embedding import random_tiles

EPS = 1e-6
VOCAB = 40
MAX_ROWS = 512


class Case:
    def __init__(self, bench: Bench, k: int, form: Format = formats.W4) -> None:
        self.bench, self.k, self.rng = bench, k, np.random.default_rng(k)
        self.matrix = Matrix(form, VOCAB, k, offset=0)
        self.op = DraftInput(self.matrix, EPS, Consumers(quantised=False, plain=True), bench.geometry)
        kernels = [self.op.kernel(rows, last_first) for rows in ROW_COUNTS for last_first in (False, True)]
        self.program = bench.program([*kernels, self.op.kernel(0), self.op.carry_kernel()])
        self.tiles = random_tiles(self.rng, form, VOCAB, k)
        self.norms = self.rng.uniform(0.5, 1.5, (2, k)).astype(np.float32)

    def run(self, tokens: np.ndarray, hidden: np.ndarray, last: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Rows [rows, 2 k], and the positions of rows whose last accepted one, `last`, chose the token at 100."""
        bench, rows = self.bench, len(tokens)
        plain, row_positions = bench.poisoned(MAX_ROWS * 2 * self.k * 4), bench.poisoned(MAX_ROWS * 4)
        launches = _host.LaunchList()
        self.op.launch(
            self.program, launches, rows if rows <= 8 else 0, last is not None, bench.array(self.tiles),
            bench.array(tokens.astype(np.int32)), bench.array(hidden),
            bench.array(self.norms[0]), bench.array(self.norms[1]),
            self.word(last or 0), self.word(100), row_positions, self.word(rows), bench.poisoned(64), plain,
        )  # fmt: skip
        bench.device.run(launches)
        return plain.read(np.float32, rows * 2 * self.k).reshape(rows, -1), row_positions.read(np.int32, rows)

    def word(self, value: int) -> Buffer:
        return self.bench.array(np.array([value], np.int32))

    def want(self, tokens: np.ndarray, hidden: np.ndarray) -> np.ndarray:
        embedded = embedding_reference(self.matrix, self.tiles, tokens)
        return reference(embedded, hidden, self.norms[0], self.norms[1], EPS)


@pytest.mark.avx2
@pytest.mark.parametrize(("k", "form"), [(256, formats.W4), (2048, formats.W4), (96, formats.W8), (256, formats.F16)])
def test_embedding_and_hidden_row_are_normed(bench: Bench, k: int, form: Format) -> None:
    case = Case(bench, k, form)
    for rows in (1, 3, 17):
        tokens = case.rng.integers(0, VOCAB, rows)
        hidden = case.rng.standard_normal((rows, k)).astype(np.float32)
        got, _ = case.run(tokens, hidden)
        np.testing.assert_allclose(got, case.want(tokens, hidden), rtol=2e-5, atol=2e-5)


def test_the_last_accepted_row_comes_first_with_the_bits_that_it_has_alone(bench: Bench) -> None:
    case = Case(bench, 256)
    for rows in ROW_COUNTS:
        tokens = case.rng.integers(0, VOCAB, rows)
        hidden = case.rng.standard_normal((rows, 256)).astype(np.float32)
        alone = np.concatenate([case.run(tokens[r : r + 1], hidden[r : r + 1])[0] for r in range(rows)])
        for last in range(rows):
            stale = hidden.copy()
            stale[last + 1 :] = np.nan  # of rows that were rejected
            got, positions = case.run(tokens, stale, last)
            rank = order(rows, last)
            np.testing.assert_array_equal(got[: last + 1], alone[rank[: last + 1]])
            np.testing.assert_array_equal(positions, [100 - last + row for row in rank])


def test_a_row_of_a_block_has_the_bits_that_it_has_alone(bench: Bench) -> None:
    case = Case(bench, 256)
    row = case.rng.standard_normal((1, 256)).astype(np.float32)
    alone, _ = case.run(np.array([11]), row)
    for rows in BLOCK_COUNTS:
        hidden = np.full((rows, 256), np.nan, np.float32)
        hidden[rows // 2] = row
        tokens = np.full(rows, 11)
        np.testing.assert_array_equal(case.run(tokens, hidden)[0][rows // 2], alone[0])


def test_a_zero_hidden_row_stays_zero(bench: Bench) -> None:
    got, _ = Case(bench, 256).run(np.array([3]), np.zeros((1, 256), np.float32))
    assert not got[0, 256:].any() and got[0, :256].any()


def test_the_last_row_of_a_block_is_carried_before_the_next(bench: Bench) -> None:
    case = Case(bench, 96)
    rows = case.rng.standard_normal((10, 96)).astype(np.float32)
    hidden: Buffer = bench.array(rows)
    launches = _host.LaunchList()
    case.op.launch_carry(case.program, launches, hidden, bench.array(np.array([7], np.int32)))
    bench.device.run(launches)
    want = rows.copy()
    want[0] = rows[7]
    np.testing.assert_array_equal(hidden.read(np.float32, 960).reshape(10, 96), want)
