"""What the emulator does not know, or a program must not do, ends with one line that names the instruction."""

import re
from collections.abc import Sequence

import numpy as np
import pytest

from tests.emulator.machine import A0, FLAGS, POISON, RACES, REGISTER, Fault, State, run
from tests.emulator.messages import BARRIER, SIGNAL, memory

pytestmark = pytest.mark.emulated

BASE, BYTES, TEAM_BYTES = 0xFFFF_8000_0000_0000, 256, 128
INSTRUCTION_BYTES = 16
KEEP_DENORMALS = "or (1|M0) cr0.0<1>:ud cr0.0<0;1,0>:ud 0x4C0:ud"


def refused(lines: Sequence[str], at: int, what: str, state: State | None = None, checks: int = 0) -> None:
    """These instructions end at number `at`, which the line names with its place and its text."""
    with pytest.raises(Fault) as caught:
        run(lines, state or State(), checks)
    message = str(caught.value)
    opcode = next(word for word in lines[at].split() if not word.startswith("("))
    place = f"code at 0x{INSTRUCTION_BYTES * at:x}"
    assert re.fullmatch(rf"emulator: {place}: .*{what}.*: .*{re.escape(opcode)}.*", message)  # . is no line's end


@pytest.mark.parametrize(
    "line",
    [
        "math.cos (16|M0) r20.0<1>:f r10.0<1;1,0>:f",
        "math.sqt (16|M0) r20.0<1>:f r10.0<1;1,0>:f",
        "dp4a (16|M0) r20.0<1>:d r10.0<1;0>:d r11.0<1;0>:d r12.0<1>:d",
        "add (8|M0) r20.0<1>:df r10.0<1;1,0>:df r12.0<1;1,0>:df",
        "mov (8|M0) r20.0<1>:f r10.0<1;1,0>:df",
        "add (16|M0) r20.0<1>:hf r10.0<1;1,0>:hf r11.0<1;1,0>:hf",
        "mov (16|M0) r20.0<1>:bf r10.0<1;1,0>:f",
        "mov (16|M0) (sat)r20.0<1>:b r10.0<1;1,0>:w",
        "add (8|M8) r20.0<1>:d r10.0<1;1,0>:d r11.0<1;1,0>:d",
        "cmp (16|M0) (ov)f0.0 null<1>:f r10.0<1;1,0>:f r11.0<1;1,0>:f",
        "mov (16|M0) r20.0<1>:d r[a0.0]<1,0>:d",
        "mov (1|M0) r20.0<1>:ud sr0.0<0;1,0>:ud",
        "dpas.8x4 (16|M0) r20:f r10:f r12:bf r22.0:bf",
        "dpas.8x4 (16|M0) r20:d r10:d r12:s2 r22.0:b",
        "(f0.0.any) mov (16|M0) r20.0<1>:d r10.0<1;1,0>:d",
        "send.ugm (1|M0) r20 r10 null:0 0x0 0x0410058A",  # atomic_load
        "send.ugm (1|M0) r20 r10 null:0 0x0 0x02800403",  # a two-dimensional block
        "send.slm (1|M0) r20 r10 null:0 0x0 0x02100508",  # atomic_iinc in team memory
        "illegal",
        "madm (16|M0) r4.mme1:f r40.nomme:f r10.nomme:f r20.mme0:f",
    ],
)
def test_what_no_kernel_holds_is_refused(line: str) -> None:
    refused(["mov (1|M0) r1.0<1>:d 0:w", line], 1, "")


@pytest.mark.parametrize(
    "lines",
    [
        ["mach (1|M0) r20.0<1>:d r10.0<0;1,0>:d r11.0<0;1,0>:d"],
        ["mul (1|M0) acc0.0<1>:d r10.0<0;1,0>:d 0x7:uw", "mach (1|M0) r20.0<1>:d r10.0<0;1,0>:d 8:d"],
        ["mul (1|M0) acc0.0<1>:d r9.0<0;1,0>:d 0x7:uw", "macl (1|M0) r20.0<1>:d r10.0<0;1,0>:d 7:d"],
        [
            "mul (1|M0) acc0.0<1>:d r10.0<0;1,0>:d 0x7:uw",
            "mov (1|M0) acc0.0<1>:d 0:w",
            "macl (1|M0) r20.0<1>:d r10.0<0;1,0>:d 7:d",
        ],
        [
            "mul (1|M0) acc0.0<1>:d r10.0<0;1,0>:d 0x7:uw",
            "mov (1|M0) r10.0<1>:d 0:w",
            "macl (1|M0) r20.0<1>:d r10.0<0;1,0>:d 7:d",
        ],
    ],
)
def test_mach_and_macl_need_the_mul_of_their_factors(lines: list[str]) -> None:
    state = State()
    for register, value in ((9, 3), (10, 5), (11, 7)):
        state.put(register * REGISTER, np.array([value], np.int32))
    refused(lines, len(lines) - 1, "mul", state)


@pytest.mark.parametrize("mode", [0x10, 0x20])
def test_rounding_up_or_down_is_refused(mode: int) -> None:
    lines = [KEEP_DENORMALS, f"or (1|M0) cr0.0<1>:ud cr0.0<0;1,0>:ud 0x{mode:X}:ud"]
    refused(lines, 1, "round")


def test_flushed_denormals_are_refused() -> None:
    refused([KEEP_DENORMALS, "and (1|M0) cr0.0<1>:ud cr0.0<0;1,0>:ud 0xFFFFFF7F:ud"], 1, "denormals")


def test_a_thread_that_ends_while_it_rounds_to_zero_is_told() -> None:
    with pytest.raises(Fault, match=r"^emulator: code at 0x20: .*rounds to zero.*end of thread"):
        run([KEEP_DENORMALS, "or (1|M0) cr0.0<1>:ud cr0.0<0;1,0>:ud 0x30:ud"], State())


def test_channels_that_part_are_refused() -> None:
    state = State()
    state.special[0, 0, FLAGS] = 1
    refused(["(f0.0) goto (32|M0) END END", "mov (1|M0) r20.0<1>:d 0:w", "END:"], 0, "channels part", state)


def with_memory(address: int, kind: type[np.generic]) -> State:
    state = State(memory={BASE: np.zeros(BYTES, np.uint8)}, team_bytes=TEAM_BYTES)
    state.put(10 * REGISTER, np.array([address], kind))
    return state


@pytest.mark.parametrize("kind", ["load", "store"])
@pytest.mark.parametrize(
    ("address", "shape", "displacement"),
    [
        (BASE - 4, "d32", 0), (BASE + BYTES, "d32", 0), (BASE + BYTES - 2, "d32", 0), (BASE, "d32", -4), (0, "d32", 0),
        (BASE + BYTES - 60, "d32x16t", 0), (BASE, "d32x64t", 4), (BASE - 1, "d16u32", 0),
        (2**64 - 4, "d32", 0),
    ],
)  # fmt: skip
def test_an_access_outside_of_allocated_memory_is_told(kind: str, address: int, shape: str, displacement: int) -> None:
    line = memory(kind, "ugm", shape, 10, 20, displacement)
    refused([line], 0, "touches", with_memory(address, np.uint64))


def test_an_atomic_operation_outside_of_memory_or_between_words_is_told() -> None:
    line = memory("atomic_iinc", "ugm", "d32", 10, None, returns=20)
    refused([line], 0, "touches", with_memory(BASE + BYTES, np.uint64))
    refused([line], 0, "multiple of 4", with_memory(BASE + 2, np.uint64))


@pytest.mark.parametrize("kind", ["load", "store"])
@pytest.mark.parametrize(
    ("address", "shape", "displacement"),
    [
        (TEAM_BYTES, "d32", 0), (TEAM_BYTES - 4, "d64", 0), (64, "d64x8t", 8), (0, "d64x32t", 0), (0, "d32", -8),
        (0, "d32", -4),
    ],
)  # fmt: skip
def test_an_access_outside_of_team_memory_is_told(kind: str, address: int, shape: str, displacement: int) -> None:
    line = memory(kind, "slm", shape, 10, 20, displacement)
    for checks in (0, POISON | RACES):
        refused([line], 0, "team memory", with_memory(address, np.uint32), checks)


def test_a_channel_that_does_not_execute_may_have_any_address() -> None:
    state = with_memory(BASE, np.uint64)
    state.special[0, 0, FLAGS] = 1
    run([f"(f0.0) {memory('load', 'ugm', 'd32', 10, 20, lanes=8)}"], state)


def test_registers_beyond_the_last_are_told() -> None:
    state = State()
    state.special[0, 0, A0 : A0 + 2] = 0xFF
    with pytest.raises(Fault, match=r"^emulator: code .*beyond the last"):
        run(["mov (1|M0) r20.0<1>:d r[a0.0]<0;1,0>:d"], state)


def test_a_return_to_nowhere_is_told() -> None:
    state = State()
    state.put(10 * REGISTER, np.array([0x1234], np.uint32))
    refused(["ret (16|M0) r10.0"], 0, "returns", state)


def test_a_barrier_that_not_all_threads_reach_is_told() -> None:
    lines = [
        "and (1|M0) r21.0<1>:uw r0.4<0;1,0>:uw 0xFF:uw",
        "cmp (1|M0) (eq)f0.0 null<1>:uw r21.0<0;1,0>:uw 2:uw",
        "(W&f0.0) jmpi END",
        *BARRIER,
        "END:",
    ]
    with pytest.raises(Fault, match=r"^emulator: code .*3 of 4 threads wait at a barrier"):
        run(lines, State(threads=4))


def test_a_wait_without_a_signal_and_a_signal_without_a_wait_are_told() -> None:
    refused(["(W) sync.bar 0x0"], 0, "not signalled")
    refused([SIGNAL, SIGNAL], 1, "twice")
    with pytest.raises(Fault, match=r"^emulator: code at 0x10: .*ends between"):
        run([SIGNAL], State())
