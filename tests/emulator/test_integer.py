"""Integer arithmetic and logic, each opcode in each combination of types that occurs, lane by lane.

Sources: vISA's pages ADD, ADD3, MUL, MAD, AND, OR, XOR, NOT, SHL, SHR, ASR, BFN, BFREV, LZD; its chapter "Data Types":
narrower sources are extended by their sign or with zeros, results keep their lower bits. The machine's mad adds its
first source (IGC, visa/HWConformity.cpp: "GEN MAD is src1*src2+src0").
"""

from collections.abc import Callable

import pytest

from tests.emulator.cases import check
from tests.emulator.forms import FORMS
from tests.emulator.values import is_float, limits, size

pytestmark = pytest.mark.emulated

MEANINGS: dict[str, Callable[..., int]] = {
    "add": lambda a, b: a + b,
    "add3": lambda a, b, c: a + b + c,
    "mul": lambda a, b: a * b,
    "mad": lambda a, b, c: a + b * c,
    "and": lambda a, b: a & b,
    "or": lambda a, b: a | b,
    "xor": lambda a, b: a ^ b,
    "not": lambda a: ~a,
    "bfrev": lambda a: int(f"{a:032b}"[::-1], 2),
    "lzd": lambda a: 32 - a.bit_length(),
}
SHIFTS: dict[str, Callable[[int, int], int]] = {
    "shl": lambda a, count: a << count,
    "shr": lambda a, count: a >> count,
    "asr": lambda a, count: a >> count,
}
FUNCTIONS = (0x00, 0x01, 0x1B, 0x80, 0x96, 0xCA, 0xD8, 0xEA, 0xFE)  # of bfn: any of 256


def forms(*opcodes: str) -> list[tuple[str, str]]:
    return [(opcode, form) for opcode in opcodes for form in FORMS[opcode].split() if not is_float(form.split(",")[0])]


@pytest.mark.parametrize(("opcode", "form"), forms(*MEANINGS))
def test_lanes_hold_the_lower_bits_of_the_exact_result(opcode: str, form: str) -> None:
    check(opcode, form, MEANINGS[opcode])


@pytest.mark.parametrize(("opcode", "form"), forms(*SHIFTS))
def test_shifts_look_at_five_bits_of_the_count_or_six_for_64_bit_targets(opcode: str, form: str) -> None:
    mask = 63 if size(form.split(",")[0]) == 8 else 31
    check(opcode, form, lambda a, b: SHIFTS[opcode](a, b & mask))


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize(("opcode", "form"), forms("bfn"))
def test_bfn_looks_its_three_bits_up_in_the_function(opcode: str, form: str, function: int) -> None:
    def lane(a: int, b: int, c: int) -> int:
        return sum((function >> ((a >> i & 1) + (b >> i & 1) * 2 + (c >> i & 1) * 4) & 1) << i for i in range(32))

    check(f"{opcode}.0x{function:02X}", form, lane)


@pytest.mark.parametrize(
    ("opcode", "form", "modifiers"),
    [
        ("add", "d,d,d", ("", "-")),
        ("add", "ud,ud,ud", ("", "-")),
        ("add", "q,q,q", ("-", "")),
        ("add3", "d,d,d,d", ("", "-", "")),
        ("add3", "d,d,d,d", ("", "", "-")),
        ("add3", "d,w,d,d", ("", "-", "-")),
        ("mad", "d,d,d,uw", ("-", "", "")),
        ("mov", "d,d", ("-",)),
        ("mov", "d,d", ("(abs)",)),
        ("mov", "w,ub", ("-",)),
        ("and", "ud,ud,ud", ("~", "")),
        ("or", "d,d,d", ("", "~")),
    ],
)
def test_source_modifiers_negate_take_the_size_or_invert(opcode: str, form: str, modifiers: tuple[str, ...]) -> None:
    check(opcode, form, MEANINGS.get(opcode, lambda a: a), modifiers=modifiers)


@pytest.mark.parametrize("form", ["d,d,d", "ud,ud,ud", "uw,uw,uw", "d,d,w"])
def test_saturation_keeps_sums_within_the_target_type(form: str) -> None:
    # vISA's chapter "Data Types", section "Saturation". No kernel has it yet.
    low, high = limits(form.split(",")[0])
    check("add", form, lambda a, b: min(max(a + b, low), high), beside="(sat)")
