"""Both expert launches against float64 products of the same weights and activations."""

from collections.abc import Iterable, Iterator

import numpy as np

from arcmtp.formats import matrix as formats
from arcmtp.formats.activations import dequantise, quantise
from arcmtp.formats.matrix import (
    F16,
    IQ4_XS,
    MXFP4,
    Q3_K,
    W2_K,
    W4,
    W4_K,
    W6_16,
    W6_K,
    W8,
    Format,
    Matrix,
    Scheme,
)
from arcmtp.ops.experts import ExpertsDown, ExpertsGateUp, down_reference, gate_up_reference
from arcmtp.ops.launch import Consumers, compiled_rows
from arcmtp.ops.patches import in_patches
from arcmtp.runtime.launch import Launch
from arcmtp.runtime.memory import Buffer
from arcmtp.selftest.bench import ROW_COUNTS, SOME_KERNELS, Bench, require
from arcmtp.selftest.findings import Difference, close
from arcmtp.selftest.operators.mul_mat import random_tiles

K, WIDTH, SHARED_WIDTH, USED, EXPERTS = 256, 256, 512, 3, 10
TOLERANCE = 2e-5


class Stack:
    """Expert matrices [experts, n, k] on the device, and their values."""

    def __init__(self, bench: Bench, rng: np.random.Generator, fmt: Format, n: int, k: int, experts: int) -> None:
        self.matrix = Matrix(fmt, n, k, 64, experts)
        raw = [random_tiles(rng, fmt, n, k) for _ in range(experts)]
        self.values = np.stack([formats.unpack(fmt, r, n, k) for r in raw])
        self.bytes = np.concatenate([np.zeros(64, np.uint8), *raw])

    @staticmethod
    def merge(bench: Bench, first: "Stack", second: "Stack") -> Buffer:
        """One buffer for both; the second matrix is moved behind the first."""
        m, offset = second.matrix, first.bytes.nbytes
        second.matrix = Matrix(m.format, m.n, m.k, offset + 64, m.experts)
        return bench.array(np.concatenate([first.bytes, second.bytes]))


class Case:
    """Gate/up and down of one layer; routed and shared experts may differ in format."""

    def __init__(
        self, bench: Bench, routed: tuple[Format, Format, Format], shared: tuple[Format, Format],
        width: int = WIDTH, shared_width: int = SHARED_WIDTH, row_counts: Iterable[int] = (*ROW_COUNTS, 0),
    ) -> None:  # fmt: skip
        self.bench, rng = bench, np.random.default_rng(5)
        self.width, self.shared_width = width, shared_width
        self.gate, self.up = (Stack(bench, rng, f, width, K, EXPERTS) for f in routed[:2])
        self.shared_gate, self.shared_up = (Stack(bench, rng, shared[0], shared_width, K, 1) for _ in range(2))
        self.down = Stack(bench, rng, routed[2], K, width, EXPERTS)
        self.shared_down = Stack(bench, rng, shared[1], K, shared_width, 1)
        self.weights = Stack.merge(bench, self.gate, self.up)
        self.shared_weights = Stack.merge(bench, self.shared_gate, self.shared_up)
        both = Consumers(True, True)
        self.gate_up = ExpertsGateUp(
            (self.gate.matrix, self.up.matrix), (self.shared_gate.matrix, self.shared_up.matrix), USED, both, both,
            bench.geometry,
        )  # fmt: skip
        self.down_op = ExpertsDown(self.down.matrix, self.shared_down.matrix, USED, bench.geometry)
        counts = tuple(row_counts)
        bench.compile(op.kernel(rows) for op in (self.gate_up, self.down_op) for rows in counts)

    def rows_buffer(self, x: np.ndarray, rows: int) -> tuple[Buffer, Buffer]:
        """Activation rows and float rows of x, poisoned behind them."""
        k = x.shape[1]
        quantised, plain = self.bench.activation_rows(rows, k), self.bench.poisoned(rows * k * 4)
        self.bench.write_activations(quantised, x)
        plain.write(x)
        return quantised, plain

    def run_gate_up(
        self, x: np.ndarray, selected: np.ndarray, launched: int | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Routed [rows, used, width] and shared [rows, shared_width] float outputs."""
        launched = compiled_rows(len(x)) if launched is None else launched
        bench, rows, most = self.bench, len(x), self.bench.geometry.chunk_rows
        quantised, plain = self.rows_buffer(x, most)
        chosen = bench.poisoned(most * USED * 4)
        chosen.write(selected.astype(np.int32))
        hidden_q = bench.activation_rows(most * USED, self.width)
        hidden = bench.poisoned(most * USED * self.width * 4)
        shared_q = bench.activation_rows(most, self.shared_width)
        shared = bench.poisoned(most * self.shared_width * 4)
        launch = self.gate_up.launch(
            launched, weights=self.weights, shared_weights=self.shared_weights, quantised=quantised, plain=plain,
            selected=chosen, hidden_quantised=hidden_q, hidden_plain=hidden, shared_quantised=shared_q,
            shared_plain=shared, row_count=bench.ints([rows]),
        )  # fmt: skip
        bench.run(launch)
        plain_rows = bench.rows(hidden, rows, USED * self.width).reshape(-1, self.width)
        result = plain_rows.reshape(rows, USED, self.width)
        seen = dequantise(*bench.read_activations(hidden_q, plain_rows)).reshape(result.shape)
        live = np.isfinite(result)
        off = np.abs(seen - result)[live].max()
        require(off <= np.abs(result[live]).max() / 127, "int8 rows are not those of the float rows")
        return result, bench.rows(shared, self.shared_rows(rows, launched), self.shared_width)[:rows]

    def shared_rows(self, rows: int, launched: int) -> int:
        """Rows of the shared expert that a launch writes: whole passes where they are counted when it runs, but in
        patches."""
        g = self.bench.geometry
        each = g.mul_mat_rows if compiled_rows(launched) == 0 and not in_patches(launched, g) else 1
        return -(-rows // each) * each

    def run_down(
        self, hidden: np.ndarray, shared: np.ndarray, selected: np.ndarray, slots: np.ndarray,
        launched: int | None = None,
    ) -> np.ndarray:  # fmt: skip
        """Partial sums [rows, used + 1, k]."""
        launched = compiled_rows(len(hidden)) if launched is None else launched
        rows = len(hidden)
        launch, partials = self.down_launch(hidden, shared, selected, slots, launched)
        self.bench.run(launch)
        written = self.bench.rows(partials, self.shared_rows(rows, launched), (USED + 1) * K)
        return written[:rows].reshape(rows, USED + 1, K)

    def down_launch(
        self, hidden: np.ndarray, shared: np.ndarray, selected: np.ndarray, slots: np.ndarray, launched: int
    ) -> tuple[Launch, Buffer]:
        """The launch, and where it leaves partial sums."""
        bench, most = self.bench, self.bench.geometry.chunk_rows
        routed_q, routed = self.rows_buffer(hidden.reshape(-1, self.width), most * USED)
        shared_q, shared_plain = self.rows_buffer(shared, most)
        chosen = bench.poisoned(most * USED * 4)
        chosen.write(selected.astype(np.int32))
        partials = bench.poisoned(most * (USED + 1) * K * 4)
        slot_weights = bench.poisoned(most * (USED + 1) * 4)
        slot_weights.write(slots.astype(np.float32))
        launch = self.down_op.launch(
            launched, weights=bench.array(self.down.bytes), shared_weights=bench.array(self.shared_down.bytes),
            hidden_quantised=routed_q, hidden_plain=routed, shared_quantised=shared_q, shared_plain=shared_plain,
            selected=chosen, slot_weights=slot_weights, partials=partials, row_count=bench.ints([len(hidden)]),
        )  # fmt: skip
        return launch, partials


def choose(rng: np.random.Generator, rows: int) -> np.ndarray:
    return np.stack([rng.permutation(EXPERTS)[:USED] for _ in range(rows)])


def seen_by(fmt: Format, x: np.ndarray) -> np.ndarray:
    return x if fmt.scheme is Scheme.PLAIN else dequantise(*quantise(x))


FORMATS = [
    ((W4, W4, W4), (W4, W4)),
    ((W4_K, W4_K, W6_K), (W8, W8)),
    ((F16, W8, W6_16), (F16, F16)),
    ((IQ4_XS, IQ4_XS, Q3_K), (MXFP4, W2_K)),
]


def compare(bench: Bench) -> Iterator[Difference]:
    """Routed and shared experts of several formats."""
    for routed, shared in FORMATS:
        yield from differences(Case(bench, routed, shared, row_counts=SOME_KERNELS), routed, shared, (1, 3, 17))


def differences(
    case: Case, routed: tuple[Format, Format, Format], shared: tuple[Format, Format], row_counts: Iterable[int]
) -> Iterator[Difference]:
    """Of both launches, for experts of these formats."""
    rng = np.random.default_rng(1)
    for rows in row_counts:
        what = f"{'/'.join(form.name for form in (*routed, *shared))}, {rows} rows"
        x, selected = rng.standard_normal((rows, K)).astype(np.float32), choose(rng, rows)
        hidden, shared_hidden = case.run_gate_up(x, selected)
        if routed[0].scheme is routed[1].scheme:
            want = gate_up_reference(seen_by(routed[0], x), case.gate.values, case.up.values, selected)
            yield close(f"{what}: gate and up", hidden, want, atol=TOLERANCE * np.abs(want).max(), rtol=1e-4)
        one = np.zeros((rows, 1), int)
        want = gate_up_reference(seen_by(shared[0], x), case.shared_gate.values, case.shared_up.values, one)[:, 0]
        atol = TOLERANCE * np.abs(want).max()
        yield close(f"{what}: gate and up of the shared expert", shared_hidden, want, atol=atol, rtol=1e-4)

        slots = rng.uniform(0.1, 1, (rows, USED + 1)).astype(np.float32)
        partials = case.run_down(hidden, shared_hidden, selected, slots)
        want = np.concatenate(
            [
                down_reference(
                    seen_by(routed[2], hidden.reshape(-1, case.width)).reshape(hidden.shape), case.down.values,
                    selected, slots[:, :USED],
                ),
                down_reference(
                    seen_by(shared[1], shared_hidden)[:, None], case.shared_down.values, one, slots[:, USED:]
                ),
            ],
            axis=1,
        )  # fmt: skip
        yield close(f"{what}: down", partials, want, atol=TOLERANCE * np.abs(want).max(), rtol=1e-7)
