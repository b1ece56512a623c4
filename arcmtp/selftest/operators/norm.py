"""RMS norm against float64: float32 sums of k squares stay within 1e-5 relative of it."""

from collections.abc import Iterable, Iterator

import numpy as np

from arcmtp.formats.activations import dequantise
from arcmtp.ops.launch import Consumers, compiled_rows
from arcmtp.ops.norm import Norm, reference
from arcmtp.selftest.bench import ROW_COUNTS, SOME_KERNELS, SOME_ROWS, Bench, int8_rows
from arcmtp.selftest.findings import Difference, close

EPS = 1e-6
MAX_ROWS = 512


class Case:
    def __init__(
        self, bench: Bench, k: int, slots: int, gather: bool = False,
        row_counts: Iterable[int] = (*ROW_COUNTS, 0),
    ) -> None:  # fmt: skip
        self.bench, self.k, self.slots = bench, k, slots
        self.op = Norm(k, EPS, slots, Consumers(quantised=True, plain=True), bench.geometry, gather)
        bench.compile(self.op.kernel(rows) for rows in row_counts)
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


def compare(bench: Bench) -> Iterator[Difference]:
    """Sums of no, three and nine slots, normed for consumers of both forms."""
    for k, slots in ((256, 3), (2048, 9), (96, 0)):
        case, rng = Case(bench, k, slots, row_counts=SOME_KERNELS), np.random.default_rng(k)
        for rows in SOME_ROWS:
            what = f"{rows} rows of {k}"
            x = rng.standard_normal((rows, k)).astype(np.float32)
            partials = rng.standard_normal((rows, max(slots, 1), k)).astype(np.float32)
            x_out, plain, seen = case.run(x, partials, rows)
            total = x + partials[:, :slots].sum(1)
            if slots:
                yield close(f"{what}: sums", x_out, total, atol=1e-5, rtol=1e-7)
            yield close(f"{what}: normed", plain, reference(total, case.weight, EPS), atol=1e-5, rtol=1e-5)
            yield from int8_rows(what, plain, seen)
