"""Products of integers, which are exact: the widths of weights that a GPU multiplies by dpas.

Scales are 1, so that a result is an integer below 2^24, which float32 holds: 256 products of at most 127 x 128.
"""

from __future__ import annotations

import numpy as np

from arcmtp.formats.matrix import W2, W4, W6, W8, Format, Matrix, unpack
from arcmtp.ops.launch import compiled_rows
from arcmtp.ops.mul_mat import MulMat
from arcmtp.selftest.bench import Bench
from arcmtp.selftest.findings import Findings, equal
from arcmtp.selftest.subject import Subject

K, COLUMNS = 256, 32
WIDTHS = {"2-bit weights": W2, "4-bit weights": W4, "6-bit weights, by 4 and 2 bits": W6, "8-bit weights": W8}
ROWS = (1, 3, 8, 17)


def run(subject: Subject) -> Findings:
    """Every width, for one row and for several."""
    bench = subject.bench
    operators = {form: MulMat([Matrix(form, COLUMNS, K)], bench.geometry) for form in WIDTHS.values()}
    kernels = [op.kernel(rows) for op in operators.values() for rows in {compiled_rows(rows) for rows in ROWS}]
    bench.compile(kernels)
    for name, form in WIDTHS.items():
        for rows in ROWS:
            got, want = product(bench, operators[form], form, rows)
            yield equal(f"{name}, {rows} rows", got, want)


def product(bench: Bench, operator: MulMat, form: Format, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Of random integers: what the device computes and what is right, both [rows, COLUMNS]."""
    rng = np.random.default_rng(rows)
    tiles = rng.integers(0, 256, form.matrix_bytes(COLUMNS, K)).astype(np.uint8)
    tiles.view(form.span_dtype)["scale"] = 1
    codes = rng.integers(-127, 128, (rows, K))
    codes[:, ::32] = 127  # so that rows are quantised with a scale of 1
    weights = unpack(form, tiles, COLUMNS, K).astype(np.int64)
    # Rows that are counted when the kernel runs are computed in whole passes, beyond the last one.
    most = bench.geometry.chunk_rows
    output, quantised = bench.poisoned(most * operator.columns * 4), bench.activation_rows(most, K)
    bench.write_activations(quantised, codes.astype(np.float32))
    launch = operator.launch(
        compiled_rows(rows), weights=bench.array(tiles), quantised=quantised, plain=bench.zeros(64), output=output,
        row_count=bench.ints([rows]),
    )  # fmt: skip
    bench.run(launch)
    return output.read(np.float32, rows * operator.columns).reshape(rows, -1), codes @ weights.T
