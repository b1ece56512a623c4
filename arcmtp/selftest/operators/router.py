"""The router against float64; logits of k float32 products stay within 1e-4 of it."""

from collections.abc import Iterable, Iterator

import numpy as np

from arcmtp.formats.matrix import BF16, F16, F32, Format, Matrix
from arcmtp.ops.launch import Consumers, compiled_rows
from arcmtp.ops.norm import reference as norm_reference
from arcmtp.ops.router import Router, reference
from arcmtp.selftest.bench import ROW_COUNTS, SOME_KERNELS, Bench
from arcmtp.selftest.findings import Difference, close, equal

EPS, MAX_ROWS, K = 1e-6, 512, 256


def tiles(values: np.ndarray, fmt: Format) -> np.ndarray:
    """Device tiles of values [n, k], which are BF16's, in F16, BF16 or F32."""
    padded = np.pad(values, ((0, -len(values) % 16), (0, 0)))
    of_tiles = padded.reshape(-1, 16, values.shape[1]).transpose(0, 2, 1)
    stored = of_tiles.astype(np.float16) if fmt is F16 else np.ascontiguousarray(of_tiles)
    words = stored.view(np.uint16)
    return (words[..., 1::2] if fmt is BF16 else words).copy().view(np.uint8).reshape(-1)


def in_bf16(values: np.ndarray) -> np.ndarray:
    """float32 values, cut to what BF16 has of them."""
    return (values.astype(np.float32).view(np.uint32) & 0xFFFF0000).view(np.float32)


class Case:
    def __init__(
        self, bench: Bench, experts: int, used: int, formats: tuple[Format, Format] = (F32, F32),
        row_counts: Iterable[int] = (*ROW_COUNTS, 0),
    ) -> None:  # fmt: skip
        rng = np.random.default_rng(experts)
        self.bench = bench
        self.router = in_bf16(rng.standard_normal((experts, K)) / 8)
        self.gate = in_bf16(rng.standard_normal((1, K)) / 8)
        self.weight = rng.uniform(0.5, 1.5, K).astype(np.float32)
        self._formats = formats
        offset = formats[0].matrix_bytes(experts, K)
        self.op = Router(
            Matrix(formats[0], experts, K), Matrix(formats[1], 1, K, offset), used, EPS, Consumers(True, True),
            bench.geometry,
        )  # fmt: skip
        bench.compile(self.op.kernel(rows) for rows in row_counts)
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


def compare(bench: Bench) -> Iterator[Difference]:
    """Small and large numbers of experts, and the norm before them."""
    formats = {64: (F16, F32), 100: (BF16, BF16)}
    for experts, used in ((6, 2), (64, 8), (100, 3), (256, 8)):
        case = Case(bench, experts, used, formats.get(experts, (F32, F32)), SOME_KERNELS)
        for rows in (1, 3, 17):
            what = f"{used} of {experts} experts, {rows} rows"
            x, y = np.random.default_rng(rows).standard_normal((2, rows, K)).astype(np.float32)
            x_out, plain, selected, slots = case.run(x, y)
            yield equal(f"{what}: sums", x_out, x + y)
            normed = norm_reference(x + y, case.weight, EPS)
            yield close(f"{what}: normed", plain, normed, atol=1e-5, rtol=1e-5)
            want, weights = reference(normed @ case.router.T, (normed @ case.gate.T)[:, 0], used)
            yield equal(f"{what}: chosen", selected, want)
            yield close(f"{what}: their shares", slots, weights, atol=1e-4, rtol=1e-7)
