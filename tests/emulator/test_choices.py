"""sel and cmp, and flags beside the results of other instructions.

Sources: vISA's pages SEL, CMP and MIN_MAX, which sel is with the conditions lt and ge (IGC, visa/VisaToG4): a number
wins over NaN. A condition beside another opcode tells how its result compares with 0. Channels that do not execute keep
their flags (vISA, "Predication").
"""

from collections.abc import Callable
from operator import and_, eq, ge, gt, le, lt, ne, or_, xor
from typing import Any

import numpy as np
import pytest

from tests.emulator.cases import (
    GROUPS,
    KEEP_DENORMALS,
    PLAIN,
    PREDICATED,
    Inputs,
    Way,
    check,
    expect,
    of_lanes,
    ways_of,
)
from tests.emulator.forms import FORMS
from tests.emulator.machine import FLAGS, REGISTER, run
from tests.emulator.values import DTYPES, held, is_float

pytestmark = pytest.mark.emulated

CONDITIONS: dict[str, Callable[[float, float], bool]] = {"eq": eq, "ne": ne, "gt": gt, "ge": ge, "lt": lt, "le": le}
# Where the flags go, each flag once; a predicate must be in the same flag.
FLAG_WAYS = (
    (Way(16, "f2.1"), "f2.1"), (Way(8, "~f3.1"), "f3.1"), (Way(1), "f0.0"), (Way(2), "f0.1"), (Way(4), "f1.0"),
    (Way(16, scalar=0), "f1.1"), (Way(32), "f3.0"), (Way(16), "f2.0"),
)  # fmt: skip


@pytest.mark.parametrize("form", FORMS["sel"].split())
@pytest.mark.parametrize("condition", ["ge", "lt"])
def test_sel_with_a_condition_takes_the_larger_or_smaller_and_rather_a_number(form: str, condition: str) -> None:
    # Of two zeros the second for lt, the first for ge, as the condition holds for them: vISA leaves it open.
    def lane(a: float, b: float) -> float:
        return a if CONDITIONS[condition](a, b) or (b != b and a == a) else b

    ways = [way for way in ways_of(form.split(",")) if not way.predicate]
    check("sel", form, lane, ways, beside=f"({condition})f0.0 ")


@pytest.mark.parametrize("modifiers", [("(abs)", "(abs)"), ("-", ""), ("-(abs)", "")])
def test_sel_compares_what_source_modifiers_leave(modifiers: tuple[str, str]) -> None:
    def lane(a: float, b: float) -> float:
        return a if a >= b or (b != b and a == a) else b

    check("sel", "f,f,f", lane, PLAIN, modifiers=modifiers, beside="(ge)f0.0 ")


@pytest.mark.parametrize("form", FORMS["sel"].split())
def test_sel_with_a_predicate_takes_the_first_source_where_it_is_set_and_the_second_elsewhere(form: str) -> None:
    target, *kinds = form.split(",")
    inputs = Inputs(kinds, form)
    lines, seen = [], []
    for i, way in enumerate(PREDICATED):
        operands, arguments = inputs.operands(way)
        lines.append(f"{way.prefix()}sel ({way.lanes}|M0) r{24 + 4 * i}.0<1>:{target} {operands}")
        seen.append(arguments)
    run(lines, inputs.state)
    for i, (way, (a, b)) in enumerate(zip(PREDICATED, seen, strict=True)):
        taken = np.where(way.enabled(inputs.flags), a.astype(object), b.astype(object))
        expected = of_lanes(lambda v: v, [taken], target)
        expect(lines[i], inputs.state.get((24 + 4 * i) * REGISTER, way.lanes, DTYPES[target])[:, 0], expected, [a, b])


def check_flags(
    opcode: str, form: str, condition: str, result: Callable[..., Any], flag: Callable[..., bool],
    modifiers: tuple[str, ...] = (),
) -> None:  # fmt: skip
    """The flags and the results of an instruction with a condition."""
    target, *kinds = form.split(",")
    inputs = Inputs(kinds, f"{opcode} {form} {condition}")
    for lanes in inputs.lanes[1:]:  # so that some are equal
        lanes[:, ::3] = inputs.lanes[0][:, ::3].astype(lanes.dtype)
    inputs.put()
    flags, state, before = inputs.flags.copy(), inputs.state, inputs.state.registers.copy()
    ways = [(way, place) for way, place in FLAG_WAYS if opcode != "mov" or way.lanes < 32]
    lines, seen = [], []
    for i, (way, place) in enumerate(ways):
        operands, arguments = inputs.operands(way, modifiers)
        written = f"r{24 + 4 * i}.0" if i % 2 == 0 else "null"
        lines.append(f"{way.prefix()}{opcode} ({way.lanes}|M0) ({condition}){place} {written}<1>:{target} {operands}")
        seen.append(arguments)
    run([*KEEP_DENORMALS, *lines], state)

    got = np.ascontiguousarray(state.special[:, 0, FLAGS : FLAGS + 16]).view(np.uint32)
    for i, ((way, place), arguments) in enumerate(zip(ways, seen, strict=True)):
        enabled = way.enabled(flags)
        with np.errstate(all="ignore"):
            found = np.vectorize(flag, otypes=[bool])(*arguments)
        shifts = (np.arange(way.lanes, dtype=np.uint64) + 16 * int(place[3])).astype(np.uint32)
        bits, mask = np.zeros(GROUPS, np.uint32), np.zeros(GROUPS, np.uint32)
        for lane, shift in enumerate(shifts):
            bits |= (found & enabled)[:, lane].astype(np.uint32) << shift
            mask |= enabled[:, lane].astype(np.uint32) << shift
        flags[:, int(place[1])] = flags[:, int(place[1])] & ~mask | bits
        if i % 2 == 0:
            expected = before[:, 0, 24 + 4 * i : 28 + 4 * i].reshape(GROUPS, -1).view(DTYPES[target])
            expected[:, : way.lanes][enabled] = of_lanes(result, arguments, target)[enabled]
            expect(lines[i], state.registers[:, 0, 24 + 4 * i : 28 + 4 * i].reshape(GROUPS, -1).view(DTYPES[target]),
                   expected, arguments)  # fmt: skip
    expect(f"flags of {lines}", got, flags, [flags])


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("form", [form for form in FORMS["cmp"].split() if not is_float(form[0])])
def test_cmp_compares_exact_values_and_writes_flags_and_all_ones_or_zeros(form: str, condition: str) -> None:
    holds = CONDITIONS[condition]
    check_flags("cmp", form, condition, lambda a, b: -int(holds(a, b)), lambda a, b: holds(int(a), int(b)))


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("modifiers", [(), ("(abs)", ""), ("", "-")])
def test_cmp_of_floats_finds_nan_unequal_and_zeros_equal(condition: str, modifiers: tuple[str, ...]) -> None:
    holds = CONDITIONS[condition]
    ones = np.array([-1], np.int32).view(np.float32)[0]
    check_flags("cmp", "f,f,f", condition, lambda a, b: ones if holds(a, b) else 0.0, holds, modifiers)


@pytest.mark.parametrize(
    ("opcode", "form", "condition", "meaning"),
    [
        *(("or", form, condition, or_) for form in ("uw,uw,uw", "d,d,d") for condition in ("ne", "eq")),
        *(("and", form, condition, and_) for form in ("uw,uw,uw", "d,d,d", "ud,ud,uw") for condition in ("ne", "eq")),
        ("xor", "uw,uw,uw", "ne", xor),
        ("mov", "uw,uw", "eq", lambda a: a),
    ],
)
def test_a_condition_tells_how_an_integer_result_compares_with_0(
    opcode: str, form: str, condition: str, meaning: Callable[..., int]
) -> None:
    def flag(*sources: float) -> bool:
        return CONDITIONS[condition](held(meaning(*map(int, sources)), form.split(",")[0]), 0)

    check_flags(opcode, form, condition, meaning, flag)


@pytest.mark.parametrize("condition", CONDITIONS)
def test_a_condition_tells_how_a_sum_of_floats_compares_with_0(condition: str) -> None:
    check_flags("add", "f,f,f", condition, lambda a, b: a + b, lambda a, b: CONDITIONS[condition](a + b, 0))
