"""Input rows of the MTP block against float64."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from arcmtp.formats import matrix as formats
from arcmtp.formats.matrix import Format, Matrix
from arcmtp.ops.draft_input import DraftInput, Order, order, reference
from arcmtp.ops.embedding import reference as embedding_reference
from arcmtp.ops.launch import CARRIED_ROWS, Consumers, compiled_rows
from arcmtp.selftest.bench import ROW_COUNTS, SLOTS, SOME_KERNELS, SOME_ROWS, Bench
from arcmtp.selftest.findings import Difference, close, equal
from arcmtp.selftest.operators.embedding import random_tiles

EPS = 1e-6
VOCAB = 40
MAX_ROWS = 512


class Case:
    def __init__(
        self, bench: Bench, k: int, form: Format = formats.W4, row_counts: Iterable[int] = (*ROW_COUNTS, 0)
    ) -> None:
        self.bench, self.k, self.rng = bench, k, np.random.default_rng(k)
        self.matrix = Matrix(form, VOCAB, k, offset=0)
        self.op = DraftInput(self.matrix, EPS, Consumers(quantised=False, plain=True), bench.geometry)
        orders: tuple[Order, ...] = ("draft", "step")
        kernels = [self.op.kernel(rows, order) for rows in row_counts for order in orders]
        bench.compile([*kernels, self.op.kernel(0, "prompt"), self.op.kernel(0, "carried")])
        self.tiles = random_tiles(self.rng, form, VOCAB, k)
        self.norms = self.rng.uniform(0.5, 1.5, (2, k)).astype(np.float32)

    def run(
        self, order: Order, tokens: np.ndarray, hidden: np.ndarray, launched: int | None = None,
        accepted: Sequence[int] = (0,), positions: Sequence[int] = (100,), carried: np.ndarray | None = None,
        slots: Sequence[int] = (0,),
    ) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
        """Rows [rows, 2 k], and where they belong. launched: how many the launch is told. Of each sequence: its last
        accepted row, and the position of the token that this row chose; of orders "prompt" and "carried" the
        position of each row. carried: the hidden rows that each slot carries."""
        bench, rows = self.bench, len(tokens)
        launched = compiled_rows(rows) if launched is None else launched
        plain, row_positions = bench.poisoned(MAX_ROWS * 2 * self.k * 4), bench.poisoned(MAX_ROWS * 4)
        carried = np.full((SLOTS, CARRIED_ROWS, self.k), np.nan, np.float32) if carried is None else carried
        launch = self.op.launch(
            launched, order, bench.batch(slots), weights=bench.array(self.tiles), tokens=bench.ints(tokens),
            hidden=bench.array(hidden), token_norm=bench.array(self.norms[0]), hidden_norm=bench.array(self.norms[1]),
            accepted=bench.ints(accepted), positions=bench.ints(positions), row_positions=row_positions,
            carried=bench.array(carried), row_count=bench.ints([rows]), quantised=bench.poisoned(64), plain=plain,
        )  # fmt: skip
        bench.run(launch)
        written = rows if order == "step" else 0
        return bench.rows(plain, rows, 2 * self.k), bench.rows(row_positions, written, 1, np.int32)[:, 0]

    def want(self, tokens: np.ndarray, hidden: np.ndarray) -> np.ndarray:
        embedded = embedding_reference(self.matrix, self.tiles, tokens)
        return reference(embedded, hidden, self.norms[0], self.norms[1], EPS)


def compare(bench: Bench) -> Iterator[Difference]:
    """Rows of every order of a step, and by themselves."""
    for k, form in ((256, formats.W4), (2048, formats.W4), (96, formats.W8), (256, formats.F16)):
        case = Case(bench, k, form, SOME_KERNELS)
        for rows in SOME_ROWS:
            tokens = case.rng.integers(0, VOCAB, rows)
            hidden = case.rng.standard_normal((rows, k)).astype(np.float32)
            got, _ = case.run("draft", tokens, hidden)
            want = case.want(tokens, hidden)
            yield close(f"{rows} rows of {k}, {form.name}", got, want, atol=2e-5, rtol=2e-5)
    tokens, hidden = case.rng.integers(0, VOCAB, 3), case.rng.standard_normal((3, case.k)).astype(np.float32)
    alone, _ = case.run("draft", tokens, hidden)
    for last in range(3):
        got, positions = case.run("step", tokens, hidden, accepted=[last])
        places = np.array([100 - last + row for row in order(3, last)])
        yield equal(f"row {last} of 3 is the last accepted: rows", got[0], alone[last])
        yield equal(f"row {last} of 3 is the last accepted: places", positions, places)
