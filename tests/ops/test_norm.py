"""RMS norm against float64: float32 sums of k squares stay within 1e-5 relative of it."""

import numpy as np
import pytest

from arcmtp.formats.activations import dequantise, quantise
from arcmtp.ops.launch import Consumers, compiled_rows
from arcmtp.ops.norm import Norm, reference
from tests.ops.bench import Bench
from tests.ops.conftest import LAUNCHED_ROWS, ROW_COUNTS

EPS = 1e-6
MAX_ROWS = 512


class Case:
    def __init__(self, bench: Bench, k: int, slots: int, gather: bool = False) -> None:
        self.bench, self.k, self.slots = bench, k, slots
        self.op = Norm(k, EPS, slots, Consumers(quantised=True, plain=True), bench.geometry, gather)
        bench.compile(self.op.kernel(rows) for rows in (*ROW_COUNTS, 0))
        self.weight = np.random.default_rng(1).uniform(0.5, 1.5, k).astype(np.float32)

    def run(
        self, x: np.ndarray, partials: np.ndarray, rows: int, source_rows: np.ndarray | None = None,
        launched: int | None = None,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
        """x_out, float rows, and what quantised consumers see, each [rows, k]."""
        bench, k = self.bench, self.k
        launched = compiled_rows(rows) if launched is None else launched
        x_out, plain = bench.poisoned(MAX_ROWS * k * 4), bench.poisoned(MAX_ROWS * k * 4)
        quantised = bench.activation_rows(MAX_ROWS, k)
        sources = bench.ints(source_rows if source_rows is not None else [0])
        launch = self.op.launch(
            launched, x=bench.array(x), partials=bench.array(partials), x_out=x_out, weight=bench.array(self.weight),
            source_rows=sources, quantised=quantised, plain=plain, row_count=bench.ints([rows]),
        )  # fmt: skip
        bench.run(launch)
        normed = bench.rows(plain, rows, k)
        return bench.rows(x_out, rows, k), normed, dequantise(*bench.read_activations(quantised, normed))


@pytest.mark.avx2
@pytest.mark.parametrize(("k", "slots"), [(256, 3), (2048, 9), (96, 0)])
def test_the_sum_of_the_slots_is_normed_and_quantised(bench: Bench, k: int, slots: int) -> None:
    case, rng = Case(bench, k, slots), np.random.default_rng(k)
    for rows in (1, 3, 17):
        x = rng.standard_normal((rows, k)).astype(np.float32)
        partials = rng.standard_normal((rows, max(slots, 1), k)).astype(np.float32)
        x_out, plain, seen = case.run(x, partials, rows)
        total = x + partials[:, :slots].sum(1)
        if slots:
            np.testing.assert_allclose(x_out, total, atol=1e-5)
        np.testing.assert_allclose(plain, reference(total, case.weight, EPS), rtol=1e-5, atol=1e-5)
        codes, scales = quantise(plain)
        np.testing.assert_allclose(seen, dequantise(codes, scales), atol=1.01 * scales.max())
        assert np.mean(seen == dequantise(codes, scales)) > 0.99


def test_a_gathered_row_is_the_row_that_was_asked_for(bench: Bench) -> None:
    case, rng = Case(bench, 256, 3, gather=True), np.random.default_rng(0)
    x = rng.standard_normal((20, 256)).astype(np.float32)
    partials = rng.standard_normal((20, 3, 256)).astype(np.float32)
    _, plain, _ = case.run(x, partials, 2, np.array([19, 4]))
    want = reference((x + partials.sum(1))[[19, 4]], case.weight, EPS)
    np.testing.assert_allclose(plain, want, rtol=1e-5, atol=1e-5)


def test_a_row_has_the_same_bits_at_any_row_count_among_nan_rows(bench: Bench) -> None:
    case, rng = Case(bench, 256, 3), np.random.default_rng(2)
    row, parts = rng.standard_normal((1, 256)).astype(np.float32), rng.standard_normal((1, 3, 256)).astype(np.float32)
    alone = [a[0] for a in case.run(row, parts, 1)]
    for rows, launched in LAUNCHED_ROWS:
        place = rows // 2
        x, partials = np.full((rows, 256), np.nan, np.float32), np.full((rows, 3, 256), np.nan, np.float32)
        x[place], partials[place] = row, parts
        for got, want in zip(case.run(x, partials, rows, launched=launched), alone, strict=True):
            assert np.array_equal(got[place], want), (rows, launched)


def test_a_row_of_zeros_gives_zeros(bench: Bench) -> None:
    case = Case(bench, 256, 3)
    _, plain, seen = case.run(np.zeros((1, 256), np.float32), np.zeros((1, 3, 256), np.float32), 1)
    assert not plain.any() and not seen.any()
