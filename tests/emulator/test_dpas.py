"""dpas: d = c + a x b, of weights (b) of 2, 4 or 8 bits and activations (a) of 8 bits with sign.

Source: vISA's page DPAS. Row r of the activations holds 32 bytes; of weight k of column n its dword n of register
k * bits / 32 holds the bits from k * bits % 32 on.
"""

import numpy as np
import pytest

from tests.emulator.forms import FORMS
from tests.emulator.machine import REGISTER, State, run

pytestmark = pytest.mark.emulated

BITS = {"u2": 2, "u4": 4, "ub": 8, "s4": 4, "b": 8}
DEPTH, COLUMNS, MOST_ROWS = 32, 16, 8
C, WEIGHTS, ACTIVATIONS, TARGET = 10, 20, 30, 40  # registers


def product(c: np.ndarray, registers: np.ndarray, activations: np.ndarray, kind: str, rows: int) -> np.ndarray:
    """[rows, 16] of c [rows, 16], dwords [registers, 16] and activations [rows, 32]."""
    bits, signed = BITS[kind], not kind.startswith("u")
    result = c.astype(np.int64)
    for row in range(rows):
        for column in range(COLUMNS):
            for k in range(DEPTH):
                weight = int(registers[k * bits // 32, column]) >> k * bits % 32 & (1 << bits) - 1
                if signed and weight >> bits - 1:
                    weight -= 1 << bits
                result[row, column] += weight * int(activations[row, k])
    return result.astype(np.int32)  # wraps


def state_of(seed: int) -> tuple[State, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    state = State()
    c = rng.integers(-(2**31), 2**31, size=(MOST_ROWS, COLUMNS), dtype=np.int32)
    weights = rng.integers(2**32, size=(8, COLUMNS), dtype=np.uint32)
    activations = rng.integers(-128, 128, size=(MOST_ROWS, DEPTH), dtype=np.int8)
    weights[:, 0], activations[0] = 0xFFFF_FFFF, -128  # the greatest products
    for register, data in ((C, c), (WEIGHTS, weights), (ACTIVATIONS, activations)):
        state.put(register * REGISTER, data.reshape(-1))
    return state, c, weights, activations


@pytest.mark.parametrize("rows", range(1, MOST_ROWS + 1))
@pytest.mark.parametrize("form", FORMS["dpas"].split())
def test_dpas_adds_the_product_to_a_register_or_to_nothing(form: str, rows: int) -> None:
    kind = form.split(",")[2]
    state, c, weights, activations = state_of(rows)
    noise = np.full(4 * MOST_ROWS * COLUMNS, 0x5A5A5A5A, np.uint32)
    state.put(TARGET * REGISTER, noise)
    run(
        [
            f"dpas.8x{rows} (16|M0) r{TARGET}:d r{C}:d r{WEIGHTS}:{kind} r{ACTIVATIONS}.0:b",
            f"dpas.8x{rows} (16|M0) r{TARGET + 10}:d null:d r{WEIGHTS}:{kind} r{ACTIVATIONS}.0:b",
            f"dpas.8x{rows} (16|M0) r{C}:d r{C}:d r{WEIGHTS}:{kind} r{ACTIVATIONS}.0:b",
        ],
        state,
    )
    expected = product(c, weights, activations, kind, rows)[:rows]
    alone = product(np.zeros_like(c), weights, activations, kind, rows)[:rows]
    for register, rows_ in ((TARGET, expected), (TARGET + 10, alone), (C, expected)):
        got = state.get(register * REGISTER, rows * COLUMNS, np.int32)[0, 0].reshape(rows, COLUMNS)
        assert (got == rows_).all()
    behind = state.get((TARGET + rows) * REGISTER, COLUMNS, np.uint32)
    assert (behind == noise[0]).all(), "a row behind the last is written"


def test_activations_may_begin_in_the_middle_of_a_register() -> None:
    state, c, weights, activations = state_of(9)
    run([f"dpas.8x1 (16|M0) r{TARGET}:d r{C}:d r{WEIGHTS}:u4 r{ACTIVATIONS}.32:b"], state)
    expected = product(c, weights, activations[1:], "u4", 1)[:1]
    assert (state.get(TARGET * REGISTER, COLUMNS, np.int32)[0] == expected).all()
