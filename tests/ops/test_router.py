"""The router against float64; logits of k float32 products stay within 1e-4 of it."""

import numpy as np
import pytest

from arcmtp.formats.matrix import F16, F32, Format, Matrix
from arcmtp.ops.launch import Consumers, compiled_rows
from arcmtp.ops.norm import reference as norm_reference
from arcmtp.ops.router import Router, reference
from tests.ops.bench import Bench
from tests.ops.conftest import LAUNCHED_ROWS, ROW_COUNTS

EPS, MAX_ROWS, K = 1e-6, 512, 256


def tiles(values: np.ndarray, fmt: Format) -> np.ndarray:
    """Device tiles of values [n, k] in F16 or F32."""
    padded = np.pad(values, ((0, -len(values) % 16), (0, 0)))
    dtype = np.float16 if fmt is F16 else np.float32
    return padded.reshape(-1, 16, values.shape[1]).transpose(0, 2, 1).astype(dtype).copy().view(np.uint8).reshape(-1)


class Case:
    def __init__(self, bench: Bench, experts: int, used: int, formats: tuple[Format, Format] = (F32, F32)) -> None:
        rng = np.random.default_rng(experts)
        self.bench = bench
        self.router = rng.standard_normal((experts, K)).astype(np.float16).astype(np.float32) / 8
        self.gate = rng.standard_normal((1, K)).astype(np.float16).astype(np.float32) / 8
        self.weight = rng.uniform(0.5, 1.5, K).astype(np.float32)
        self._formats = formats
        offset = formats[0].matrix_bytes(experts, K)
        self.op = Router(
            Matrix(formats[0], experts, K), Matrix(formats[1], 1, K, offset), used, EPS, Consumers(True, True),
            bench.geometry,
        )  # fmt: skip
        bench.compile(self.op.kernel(rows) for rows in (*ROW_COUNTS, 0))
        self.counters = bench.zeros(512)

    def run(
        self, x: np.ndarray, y: np.ndarray, launched: int | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """x_out, the normed rows, chosen experts, slot weights."""
        launched = compiled_rows(len(x)) if launched is None else launched
        bench, rows, used = self.bench, len(x), self.op.used
        device_x, device_y, x_out, plain = (bench.poisoned(MAX_ROWS * K * 4) for _ in range(4))
        device_x.write(x)
        device_y.write(y)
        selected, slots = bench.poisoned(MAX_ROWS * used * 4), bench.poisoned(MAX_ROWS * (used + 1) * 4)
        weights = np.concatenate([tiles(self.router, self._formats[0]), tiles(self.gate, self._formats[1])])
        launch = self.op.launch(
            launched, x=device_x, y=device_y, x_out=x_out, weight=bench.array(self.weight),
            router_weights=bench.array(weights), logits=bench.poisoned(MAX_ROWS * self.op.logits_columns * 4),
            counters=self.counters, selected=selected, slot_weights=slots,
            quantised=bench.poisoned(MAX_ROWS * K * 5), plain=plain, row_count=bench.ints([rows]),
        )  # fmt: skip
        bench.run(launch)
        return (
            bench.rows(x_out, rows, K),
            bench.rows(plain, rows, K),
            bench.rows(selected, rows, used, np.int32),
            bench.rows(slots, rows, used + 1),
        )


@pytest.mark.avx2
@pytest.mark.parametrize(("experts", "used"), [(6, 2), (64, 8), (100, 3), (256, 8)])
def test_the_largest_logits_are_chosen_with_their_softmax(bench: Bench, experts: int, used: int) -> None:
    case = Case(bench, experts, used, (F16, F32) if experts == 64 else (F32, F32))
    for rows in (1, 4, 17):
        x, y = np.random.default_rng(rows).standard_normal((2, rows, K)).astype(np.float32)
        x_out, plain, selected, slots = case.run(x, y)
        assert np.array_equal(x_out, x + y)
        normed = norm_reference(x + y, case.weight, EPS)
        np.testing.assert_allclose(plain, normed, rtol=1e-5, atol=1e-5)
        want, weights = reference(normed @ case.router.T, (normed @ case.gate.T)[:, 0], used)
        assert np.array_equal(selected, want)
        np.testing.assert_allclose(slots, weights, atol=1e-4)


def test_equal_logits_choose_the_lowest_experts(bench: Bench) -> None:
    case = Case(bench, 64, 8)
    case.router[:] = case.router[0]
    _, _, selected, slots = case.run(np.ones((1, K), np.float32), np.zeros((1, K), np.float32))
    assert selected.tolist() == [list(range(8))]
    np.testing.assert_allclose(slots[0, :8], 1 / 8, rtol=1e-6)


def test_a_row_has_the_same_bits_at_any_row_count_among_nan_rows(bench: Bench) -> None:
    case = Case(bench, 64, 8)
    row = np.random.default_rng(3).standard_normal((2, 1, K)).astype(np.float32)
    alone = [a[0] for a in case.run(row[0], row[1])]
    for rows, launched in LAUNCHED_ROWS:
        for place in {0, rows - 1}:
            x, y = np.full((2, rows, K), np.nan, np.float32)
            x[place], y[place] = row[:, 0]
            got = case.run(x, y, launched)
            for a, want in zip(got, alone, strict=True):
                assert np.array_equal(a[place], want), (rows, launched)
            assert got[2].min() >= 0 and got[2].max() < 64, "NaN rows choose experts that exist"
