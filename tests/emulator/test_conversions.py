"""mov between all pairs of types that occur.

Sources: vISA's chapter "Data Types", section "Type Conversion"; a move between equal types without
modifiers copies bits (IGC, visa/G4_IR.cpp: isRawMov); "Immediate Operands" of its chapter "Operands" for :v and :uv.
"""

import math
from fractions import Fraction

import numpy as np
import pytest

from tests.emulator.cases import KEEP_DENORMALS, check
from tests.emulator.forms import FORMS
from tests.emulator.machine import REGISTER, State, run
from tests.emulator.values import DTYPES, held, is_float, limits, rounded, size

pytestmark = pytest.mark.emulated

MOVES = [form for form in FORMS["mov"].split() if form[-1] != "v"]
VECTORS = [form for form in FORMS["mov"].split() if form[-1] == "v"]


def converted(value: float, target: str) -> float:
    if is_float(target):
        return rounded_to(value, target)
    if isinstance(value, np.floating):
        (low, high), value = limits(target), float(value)
        return 0 if math.isnan(value) else low if value < low else high if value > high else int(value)
    return held(int(value), target)


def rounded_to(value: float, target: str) -> float:
    if not math.isfinite(value) or value == 0:
        return float(value)
    exact = Fraction(float(value)) if isinstance(value, np.floating) else Fraction(int(value))
    return rounded(exact) if target == "f" else rounded(exact, digits=11, least=-24, greatest=16)


@pytest.mark.parametrize("form", MOVES)
def test_moves_convert_as_their_types_say(form: str) -> None:
    check("mov", form, lambda value: converted(value, form.split(",")[0]), prologue=KEEP_DENORMALS)


@pytest.mark.parametrize("kind", ["f", "hf"])
def test_a_move_between_equal_types_copies_bits_even_of_signalling_nans(kind: str) -> None:
    state = State()
    bits = np.array([1, 0x7F80_0001, 0xFFC0_1234, 0x8000_0000, 0x7C01_FC01, 0x7E01_0001], np.uint32)
    state.put(10 * REGISTER, bits)
    lanes = 4 * 4 // size(kind)
    run([f"mov ({lanes}|M0) r20.0<1>:{kind} r10.0<1;1,0>:{kind}"], state)
    assert (state.get(20 * REGISTER, 4, np.uint32)[0, 0] == bits[:4]).all()


@pytest.mark.parametrize(("form", "modifier"), [("f,f", "-"), ("f,f", "(abs)"), ("f,f", "-(abs)"), ("f,d", "(abs)")])
def test_moves_to_float_take_source_modifiers(form: str, modifier: str) -> None:
    check("mov", form, lambda value: converted(value, "f"), modifiers=(modifier,), prologue=KEEP_DENORMALS)


@pytest.mark.parametrize("form", VECTORS)
@pytest.mark.parametrize("packed", [0x76543210, 0xFEDCBA98, 0x87878787, 0x01010101, 0x00000100])
def test_a_vector_immediate_is_eight_words(form: str, packed: int) -> None:
    # A lane of a dword target takes the nibble of its first word.
    target, vector = form.split(",")
    nibbles = [packed >> 4 * i & 15 for i in range(8)]
    words = [n - 16 if vector == "v" and n >= 8 else n for n in nibbles]
    state = State()
    run([f"mov ({n}|M0) r{20 + n}.0<1>:{target} 0x{packed:X}:{vector}" for n in (1, 2, 4, 8)], state)
    for n in (1, 2, 4, 8):
        got = state.get((20 + n) * REGISTER, n, DTYPES[target])[0, 0]
        step = size(target) // 2
        assert got.tolist() == [held(words[i * step % 8], target) for i in range(n)], n
