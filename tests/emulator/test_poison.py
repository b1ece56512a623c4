"""The check for values that nothing has written: each wrong piece of code is told, its right twin passes."""

import numpy as np
import pytest

from tests.emulator.machine import POISON, REGISTER, REGISTERS, Fault, State, run
from tests.emulator.messages import BARRIER, TEAM_FENCE, memory

pytestmark = pytest.mark.emulated

BASE = 0xFFFF_8000_0000_1000
UNWRITTEN = 60  # the registers from here on hold nothing
WRITE = [f"mov (1|M0) r{UNWRITTEN}.{i}<1>:uq 0x{BASE:X}:uq" for i in range(8)]  # may serve as an address
STORE = memory("store", "ugm", "d32x16t", 10, 20)


def state() -> State:
    """Addresses in r10 …, a value in every register below the unwritten ones."""
    result = State(memory={BASE: np.zeros(4096, np.uint8)}, team_bytes=8192)
    result.defined = np.zeros((1, 1, REGISTERS, REGISTER), np.uint8)
    result.defined[:, :, :UNWRITTEN] = 1
    result.put(10 * REGISTER, BASE + 64 * np.arange(16, dtype=np.uint64))
    return result


WRONG = {
    "a register that nothing has written": ["mov (16|M0) r20.0<1>:ud r60.0<1;1,0>:ud", STORE],
    "a sum with one": ["add (16|M0) r20.0<1>:f r21.0<1;1,0>:f r60.0<1;1,0>:f", STORE],
    "one lane of it": ["mov (1|M0) r20.5<1>:ud r60.0<0;1,0>:ud", STORE],
    "one byte of it": ["mov (1|M0) r20.7<1>:ub r60.0<0;1,0>:ub", STORE],
    "a scalar for all lanes": ["mul (16|M0) r20.0<1>:f r21.0<1;1,0>:f r60.3<0;1,0>:f", STORE],
    "a product of matrices": ["dpas.8x1 (16|M0) r20:d r21:d r22:u4 r60.0:b", STORE],
    "by way of the accumulator": [
        "mov (16|M0) acc0.0<1>:f r60.0<1;1,0>:f",
        "mov (16|M0) r20.0<1>:f acc0.0<1;1,0>:f",
        STORE,
    ],
    "by way of a flag that chooses": [
        "cmp (16|M0) (eq)f1.0 null<1>:d r60.0<1;1,0>:d 0:w",
        "(f1.0) sel (16|M0) r20.0<1>:d r21.0<1;1,0>:d r22.0<1;1,0>:d",
        STORE,
    ],
    "by way of a predicate": [
        "cmp (16|M0) (eq)f1.0 null<1>:d r60.0<1;1,0>:d 0:w",
        "(f1.0) mov (16|M0) r20.0<1>:d 0:w",
        STORE,
    ],
    "a branch": [
        "cmp (1|M0) (eq)f1.0 null<1>:d r60.0<0;1,0>:d 0:w",
        "(W&f1.0) jmpi END",
        "mov (1|M0) r20.0<1>:d 0:w",
        "END:",
    ],
    "an address": ["mov (1|M0) r10.0<1>:uq r60.0<0;1,0>:uq", memory("load", "ugm", "d32", 10, 20)],
    "an address of team memory": ["mov (1|M0) r12.0<1>:ud r60.0<0;1,0>:ud", memory("load", "slm", "d32", 12, 20)],
    "an address of one channel": [
        "mov (1|M0) r10.3<1>:uq r60.0<0;1,0>:uq",
        memory("store", "ugm", "d32", 10, 20, lanes=8),
    ],
    "an address of a register": [
        "mov (1|M0) a0.0<1>:uw r60.0<0;1,0>:uw",
        "mov (1|M0) r20.0<1>:d r[a0.0]<0;1,0>:d",
    ],
    "a mask of a store": [
        "cmp (16|M0) (eq)f1.0 null<1>:d r60.0<1;1,0>:d 0:w",
        f"(f1.0) {memory('store', 'ugm', 'd32', 10, 20, lanes=16)}",
    ],
    "what is added": [memory("atomic_iadd", "ugm", "d32", 10, 60)],
}  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
def test_a_value_that_nothing_has_written_is_told_where_it_matters(wrong: str) -> None:
    with pytest.raises(Fault, match=r"^emulator: code at 0x\w+: .*nothing has written.*: ") as caught:
        run(WRONG[wrong], state(), POISON)
    assert "\n" not in str(caught.value)
    run([*WRITE, *WRONG[wrong]], state(), POISON)


def test_what_is_computed_and_then_not_used_may_be_unwritten() -> None:
    lines = [
        "mov (16|M0) r20.0<1>:ud r60.0<1;1,0>:ud",
        "mov (1|M0) f0.0<1>:uw 0x7FFF:uw",
        "mov (1|M0) r30.0<1>:ud 0x0:ud",
        "(f0.0) sel (16|M0) r31.0<1>:ud r21.0<1;1,0>:ud r60.0<1;1,0>:ud",  # its last lane
        "xor (16|M0) r60.0<1>:d r60.0<1;1,0>:d r60.0<1;1,0>:d",
        "mov (16|M0) r20.0<1>:ud r60.0<1;1,0>:ud",
        STORE,
        memory("store", "ugm", "d32x8t", 10, 31),
    ]
    run(lines, state(), POISON)
    with pytest.raises(Fault, match="nothing has written, in r31"):
        run([*lines, memory("store", "ugm", "d32x16t", 10, 31)], state(), POISON)


def test_flags_kept_in_a_register_come_back_bit_by_bit() -> None:
    """As the compiler spills them: 16 bits, of which only those hold values that somebody compared."""
    kept = [
        "mov (1|M0) r60.0<1>:d 0:w",
        "cmp (16|M0) (eq)f1.0 null<1>:d r60.0<1;1,0>:d 0:w",  # its first lane alone
        "mov (1|M0) r20.20<1>:uw f1.0<0;1,0>:uw",
        "mov (1|M0) f2.0<1>:uw r20.20<0;1,0>:uw",
    ]
    run([*kept, "(W&f2.0) jmpi END", "mov (1|M0) r21.0<1>:d 0:w", "END:"], state(), POISON)
    with pytest.raises(Fault, match="nothing has written"):
        run([*kept, f"(f2.0) {memory('store', 'ugm', 'd32', 10, 20, lanes=16)}"], state(), POISON)


def test_team_memory_holds_nothing_until_it_is_stored_to() -> None:
    load = ["mov (1|M0) r12.0<1>:ud 0x40:ud", memory("load", "slm", "d64x8t", 12, 20), STORE]
    with pytest.raises(Fault, match="nothing has written, in r20"):
        run(load, state(), POISON)
    part = ["mov (1|M0) r13.0<1>:ud 0x44:ud", memory("store", "slm", "d32", 13, 21)]
    with pytest.raises(Fault, match="nothing has written, in r20"):
        run([*part, *load], state(), POISON)
    whole = ["mov (1|M0) r12.0<1>:ud 0x40:ud", memory("store", "slm", "d64x8t", 12, 21), TEAM_FENCE, *BARRIER]
    ready = state()
    ready.put(75 * REGISTER, np.zeros(16, np.uint32))
    run([*whole, *load], ready, POISON)


def test_each_group_begins_with_empty_team_memory() -> None:
    result = State(groups=2, memory={BASE: np.zeros(4096, np.uint8)}, team_bytes=64)
    result.put(10 * REGISTER, np.array([BASE], np.uint64))
    lines = [
        "cmp (1|M0) (ne)f0.0 null<1>:ud r0.1<0;1,0>:ud 0x0:uw",
        "mov (1|M0) r12.0<1>:ud 0x0:ud",
        "(W&f0.0) jmpi LOAD",
        memory("store", "slm", "d32", 12, 20),
        "LOAD:",
        memory("load", "slm", "d32", 12, 21),
        memory("store", "ugm", "d32", 10, 21),
    ]
    with pytest.raises(Fault, match="nothing has written, in r21"):
        run(lines, result, POISON)


def test_it_says_byte_by_byte_which_registers_hold_values_behind_the_code() -> None:
    result = state()
    run(
        [
            "mov (1|M0) r60.1<1>:uw 0x1:uw",
            "mov (8|M0) r20.0<1>:ud r60.0<1;1,0>:uw",
            "mov (16|M0) r21.0<2>:b r60.0<1;1,0>:b",
        ],
        result,
        POISON,
    )
    assert result.defined is not None
    assert np.flatnonzero(result.defined[0, 0, 60]).tolist() == [2, 3]
    assert np.flatnonzero(result.defined[0, 0, 20, :32]).tolist() == [4, 5, 6, 7]
    assert result.defined[0, 0, 21, :8].tolist() == [0, 1, 0, 1, 1, 1, 1, 1]
