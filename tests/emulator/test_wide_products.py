"""mul into the accumulator and mach or macl behind it: 64-bit products, and the lower half of 32 x 32 bits.

Sources: IGC's visa/HWConformity.cpp (doGenerateMacl, and mul of dwords) and visa/BuildIRImpl.cpp (createMach,
createMacl): mul takes the lower word of the second factor, mach completes the product, its target gets the upper half
and the accumulator the lower one; macl's target gets the lower half. vISA's page MULH.
"""

import numpy as np
import pytest

from tests.emulator.cases import GROUPS, Inputs
from tests.emulator.forms import FORMS
from tests.emulator.machine import REGISTER, run
from tests.emulator.values import DTYPES, held, immediate

pytestmark = pytest.mark.emulated

LANES = (1, 2, 16)


def sequence(opcode: str, form: str, lanes: int, register: int, number: str | None) -> list[str]:
    """The two instructions, and the accumulator behind mach into the register after its target."""
    target, first, second = form.split(",")
    step = 0 if lanes == 1 else 1
    word = number and f"0x{int(number.split(':')[0], 0) & 0xFFFF:X}:uw"
    factor, low = number or f"r14.0<{step};1,0>:{second}", word or f"r14.0<{2 * step};1,0>:uw"
    a = f"r10.0<{step};1,0>:{first}"
    return [
        f"mul ({lanes}|M0) acc0.0<1>:{target} {a} {low}",
        f"{opcode} ({lanes}|M0) r{register}.0<1>:{target} {a} {factor}",
        *([f"mov ({lanes}|M0) r{register + 1}.0<1>:ud acc0.0<{step};1,0>:ud"] if opcode == "mach" else []),
    ]


@pytest.mark.parametrize("immediates", [False, True])
@pytest.mark.parametrize(("opcode", "form"), [(op, form) for op in ("mach", "macl") for form in FORMS[op].split()])
def test_the_pair_makes_the_halves_of_the_product(opcode: str, form: str, immediates: bool) -> None:
    target, *kinds = form.split(",")
    inputs = Inputs(kinds, f"{opcode} {form}")
    a, b = (lanes.astype(object) for lanes in inputs.lanes)
    number = immediate(inputs.lanes[1][1, 1], kinds[1]) if immediates else None
    if immediates:
        b = np.full_like(b, int(inputs.lanes[1][1, 1]))
    run([line for i, n in enumerate(LANES) for line in sequence(opcode, form, n, 30 + 2 * i, number)], inputs.state)
    for i, lanes in enumerate(LANES):
        products = (a * b)[:, :lanes]
        upper = np.array([held(p >> 32, target) for p in products.flat], DTYPES[target]).reshape(GROUPS, lanes)
        lower = np.array([held(p, target) for p in products.flat], DTYPES[target]).reshape(GROUPS, lanes)
        got = inputs.state.get((30 + 2 * i) * REGISTER, lanes, DTYPES[target])[:, 0]
        assert (got == (upper if opcode == "mach" else lower)).all(), lanes
        if opcode == "mach":
            got = inputs.state.get((31 + 2 * i) * REGISTER, lanes, DTYPES[target])[:, 0]
            assert (got == lower).all(), lanes
