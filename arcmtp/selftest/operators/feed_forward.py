"""A dense feed-forward's gate and up against float64 products of the same weights and activations."""

from collections.abc import Iterator

import numpy as np

from arcmtp.formats import matrix as formats
from arcmtp.formats.activations import dequantise, quantise
from arcmtp.formats.matrix import F16, F32, W4, W4_K, W6_16, W6_K, W8, Format, Scheme
from arcmtp.ops.feed_forward import FeedForwardGateUp, reference
from arcmtp.ops.launch import Consumers, compiled_rows
from arcmtp.ops.patches import in_patches
from arcmtp.selftest.bench import SOME_ROWS, Bench, require
from arcmtp.selftest.findings import Difference, close
from arcmtp.selftest.operators.mul_mat import merged

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
        require((codes[end:] == -1).all() and np.isnan(scales[end:]).all(), "a row behind the last was written")
        result = bench.rows(hidden, computed * self.consumers.plain, self.width)[:rows]
        if not self.consumers.quantised:
            return result
        wanted = result if self.consumers.plain else np.zeros((rows, self.width), np.float32)
        seen = dequantise(*bench.read_activations(hidden_q, wanted))
        if not self.consumers.plain:
            return seen
        live = np.isfinite(result)
        off = np.abs(seen - result)[live].max()
        require(off <= np.abs(result[live]).max() / 127, "int8 rows are not those of the float rows")
        return result

    def difference(self, x: np.ndarray, tolerance: float = TOLERANCE) -> Difference:
        """From the reference for rows as the gate sees them, and the up matrix too."""
        seen = x if self.gate.format.scheme is Scheme.PLAIN else dequantise(*quantise(x))
        want = reference(seen, *self.values)
        what = f"{self.gate.format.name} and {self.up.format.name}, {len(x)} rows of {self.k}"
        return close(what, self.run(x), want, atol=tolerance * np.abs(want).max(), rtol=1e-4)


def rows_of(rows: int, k: int = K) -> np.ndarray:
    return np.random.default_rng(rows).standard_normal((rows, k)).astype(np.float32)


def compare(bench: Bench) -> Iterator[Difference]:
    """Gate and up of several formats."""
    for gate, up in ((W4, W4), (W4_K, W6_K), (W8, W6_16), (F32, F16)):
        case = Case(bench, gate, up, row_counts=(1, 3))
        for rows in SOME_ROWS:
            yield case.difference(rows_of(rows))
