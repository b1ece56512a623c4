"""A dense feed-forward's gate and up against float64 products of the same weights and activations."""

import numpy as np
import pytest

from arcmtp.formats import matrix as formats
from arcmtp.formats.activations import dequantise, quantise
from arcmtp.formats.matrix import F16, F32, W4, W4_K, W6_16, W6_K, W8, Format, Scheme
from arcmtp.ops.feed_forward import FeedForwardGateUp, reference
from arcmtp.ops.launch import Consumers, compiled_rows
from arcmtp.ops.patches import in_patches
from tests.ops.bench import Bench
from tests.ops.conftest import LAUNCHED_ROWS, ROW_COUNTS
from tests.ops.test_mul_mat import merged

MAX_ROWS, K, WIDTH = 512, 256, 544
TOLERANCE = 2e-5
BOTH = Consumers(True, True)


class Case:
    """Gate and up of one layer on a bench, ready to run for any row count."""

    def __init__(
        self, bench: Bench, gate: Format, up: Format,
        k: int = K, width: int = WIDTH, consumers: Consumers = BOTH, row_counts: tuple[int, ...] = (1, 4),
    ) -> None:  # fmt: skip
        self.bench, self.k, self.width, self.consumers = bench, k, width, consumers
        (self.gate, self.up), weights = merged(np.random.default_rng(5), [(gate, width), (up, width)], k)
        parts = [weights[matrix.offset : matrix.offset + matrix.nbytes] for matrix in (self.gate, self.up)]
        self.values = [formats.unpack(fmt, part, width, k) for fmt, part in zip((gate, up), parts, strict=True)]
        self.weights = bench.array(weights)
        self.op = FeedForwardGateUp(self.gate, self.up, consumers, bench.geometry)
        bench.compile([self.op.kernel(rows) for rows in (*row_counts, 0)])

    def run(self, x: np.ndarray, launched: int | None = None) -> np.ndarray:
        """hidden [rows, width]: the float rows, or the values of the int8 rows if only these are wanted."""
        bench, rows = self.bench, len(x)
        launched = compiled_rows(rows) if launched is None else launched
        quantised, plain = bench.activation_rows(MAX_ROWS, self.k), bench.poisoned(MAX_ROWS * self.k * 4)
        bench.write_activations(quantised, x)
        plain.write(x)
        hidden_q = bench.activation_rows(MAX_ROWS, self.width)
        hidden = bench.poisoned(MAX_ROWS * self.width * 4)
        launch = self.op.launch(
            launched, weights=self.weights, quantised=quantised, plain=plain, hidden_quantised=hidden_q,
            hidden_plain=hidden, row_count=bench.ints([rows]),
        )  # fmt: skip
        bench.run(launch)
        g = bench.geometry
        each = g.mul_mat_rows if compiled_rows(launched) == 0 and not in_patches(launched, g) else 1
        computed = -(-rows // each) * each
        everything = np.full((MAX_ROWS, self.width), np.nan, np.float32)
        codes, scales = bench.read_activations(hidden_q, everything)
        end = computed * self.consumers.quantised
        assert (codes[end:] == -1).all() and np.isnan(scales[end:]).all(), "a row behind the last was written"
        result = bench.rows(hidden, computed * self.consumers.plain, self.width)[:rows]
        if not self.consumers.quantised:
            return result
        wanted = result if self.consumers.plain else np.zeros((rows, self.width), np.float32)
        seen = dequantise(*bench.read_activations(hidden_q, wanted))
        if not self.consumers.plain:
            return seen
        live = np.isfinite(result)
        assert np.abs(seen - result)[live].max() <= np.abs(result[live]).max() / 127
        return result

    def check(self, x: np.ndarray, tolerance: float = TOLERANCE) -> None:
        """Against the reference for rows as the gate sees them, and the up matrix too."""
        seen = x if self.gate.format.scheme is Scheme.PLAIN else dequantise(*quantise(x))
        want = reference(seen, *self.values)
        np.testing.assert_allclose(self.run(x), want, atol=tolerance * np.abs(want).max(), rtol=1e-4)


def rows_of(rows: int, k: int = K) -> np.ndarray:
    return np.random.default_rng(rows).standard_normal((rows, k)).astype(np.float32)


@pytest.mark.avx2
@pytest.mark.parametrize(("gate", "up"), [(W4, W4), (W4_K, W6_K), (W8, W6_16), (F32, F16)])
def test_it_gives_the_reference_values(bench: Bench, gate: Format, up: Format) -> None:
    case = Case(bench, gate, up)
    for rows in (1, 4, 17):
        case.check(rows_of(rows))


def test_gate_and_up_may_read_rows_of_different_forms(bench: Bench) -> None:
    case, x = Case(bench, F16, W8), np.random.default_rng(1).integers(-127, 128, (4, K)).astype(np.float32) / 128
    x[:, ::32] = 127 / 128  # so that int8 rows are exact
    assert np.array_equal(dequantise(*quantise(x)), x)
    case.check(x)


@pytest.mark.parametrize(("k", "width"), [(32 * 11, 32), (32, 160), (512, 2048 + 32)])
def test_shapes_that_no_team_or_work_group_divides(bench: Bench, k: int, width: int) -> None:
    case = Case(bench, W4, W4, k, width)
    for rows in (1, 4, 9):
        case.check(rows_of(rows, k))


@pytest.mark.parametrize("consumers", [Consumers(True, False), Consumers(False, True)], ids=["int8", "float"])
def test_rows_are_written_in_the_forms_that_are_wanted(bench: Bench, consumers: Consumers) -> None:
    case = Case(bench, W4, W4, consumers=consumers)
    for rows in (4, 17):
        case.check(rows_of(rows), 0.5 / 127 if consumers.quantised else TOLERANCE)


def test_a_row_has_the_same_bits_at_any_row_count_and_place_among_nan_rows(bench: Bench) -> None:
    case = Case(bench, W4, W6_K, row_counts=ROW_COUNTS)
    row = rows_of(1)
    alone = case.run(row)[0]
    for rows, launched in LAUNCHED_ROWS:
        for place in {0, rows // 2, rows - 1}:
            x = np.full((rows, K), np.nan, np.float32)
            x[place] = row
            assert np.array_equal(case.run(x, launched)[place], alone), f"row {place} of {rows}, {launched=}"
