"""Jumps, loops, calls, barriers, and what a thread finds in r0.

Sources: vISA's pages JMP, GOTO, CALL, RET and BARRIER; IGA's table of Xe2's opcodes (visa/iga/IGALibrary/Models/bxml).
"""

import numpy as np
import pytest

from tests.emulator.cases import KEEP_DENORMALS
from tests.emulator.machine import CR0, FLAGS, REGISTER, State, run
from tests.emulator.messages import BARRIER, TEAM_FENCE, memory

pytestmark = pytest.mark.emulated

# r10.4 / r10.5, as the compiler writes it: seed and refinement round to zero.
DIVISION = """
DIVIDE:
    mov (1|M0) r1.2<1>:d cr0.0<0;1,0>:ud
    and (1|M0) cr0.0<1>:ud cr0.0<0;1,0>:ud -1073743089:d
    or (1|M0) cr0.0<1>:ud cr0.0<0;1,0>:ud 1073743088:d
    mov (1|M0) r2.0<1>:f (abs)r10.5<0;1,0>:d
    mov (1|M0) r5.0<1>:f 0xB4C00000:f
    math.inv (1|M0) r4.1<1>:f r2.0<0;1,0>:f
    mov (1|M0) r2.15<1>:f (abs)r10.4<0;1,0>:d
    mad (1|M0) r4.1<1>:f r4.1<0;0>:f r5.0<0;0>:f r4.1<0>:f
    mov (2|M0) r1.4<1>:d (abs)r10.4<1;1,0>:d
    mov (1|M0) r1.3<1>:ud r2.0<0;1,0>:f
    mov (1|M0) r3.3<1>:ud r2.15<0;1,0>:f
    mul (1|M0) r4.2<1>:f r4.1<0;1,0>:f r2.15<0;1,0>:f
    add (1|M0) r1.3<1>:ud r1.5<0;1,0>:ud -r1.3<0;1,0>:ud
    add (1|M0) r3.3<1>:ud r1.4<0;1,0>:ud -r3.3<0;1,0>:ud
    mov (1|M0) r7.0<1>:ud r4.2<0;1,0>:f
    mov (1|M0) r2.1<1>:f r1.3<0;1,0>:ud
    mov (1|M0) r4.0<1>:f r3.3<0;1,0>:ud
    mov (1|M0) r7.1<1>:f r7.0<0;1,0>:ud
    xor (1|M0) r10.5<1>:d r10.5<0;1,0>:d r10.4<0;1,0>:d
    mad (1|M0) r2.15<1>:f r2.15<0;0>:f r7.1<0;0>:f -r2.0<0>:f
    mad (1|M0) r7.1<1>:f r4.0<0;0>:f r7.1<0;0>:f -r2.1<0>:f
    (W) mov (1|M0) r3.6<1>:hf 0x1:hf
    add (1|M0) r2.15<1>:f r2.15<0;1,0>:f r7.1<0;1,0>:f
    asr (1|M0) r10.5<1>:d r10.5<0;1,0>:d 31:w
    mul (1|M0) r4.1<1>:f r4.1<0;1,0>:f r2.15<0;1,0>:f
    mov (1|M0) r1.3<1>:ud r4.1<0;1,0>:f
    add (1|M0) r7.0<1>:ud r7.0<0;1,0>:ud r1.3<0;1,0>:ud
    (W) mul (1|M0) acc0.0<1>:ud r7.0<0;1,0>:ud r1.10<0;1,0>:uw
    macl (1|M0) r5.0<1>:ud r7.0<0;1,0>:ud r1.5<0;1,0>:ud
    add (1|M0) r1.4<1>:ud r1.4<0;1,0>:ud -r5.0<0;1,0>:ud
    cmp (1|M0) (ge)f0.1 null<1>:ud r1.4<0;1,0>:ud r1.5<0;1,0>:ud
    (f0.1) sel (1|M0) r6.0<1>:d r3.6<0;1,0>:w 0:w
    add3 (1|M0) r7.0<1>:d r7.0<0;0>:d r10.5<0;0>:d r6.0<0>:d
    xor (1|M0) r10.4<1>:d r7.0<0;1,0>:d r10.5<0;1,0>:d
    mov (1|M0) cr0.0<1>:ud r1.2<0;1,0>:d
    sync.allrd null
    sync.allwr null
    ret (16|M0) r18.0
"""


@pytest.mark.parametrize("predicate", ["", "&f0.1", "&~f0.1", "&f2.0", "&~f3.1"])
@pytest.mark.parametrize("bits", [0x0000, 0x0001, 0xFFFE, 0xFFFF])
def test_jmpi_looks_at_the_first_channels_flag(predicate: str, bits: int) -> None:
    state = State()
    state.special[0, 0, FLAGS : FLAGS + 16] = np.full(8, bits, np.uint16).view(np.uint8)
    run([f"(W{predicate}) jmpi END", "mov (1|M0) r20.0<1>:ud 0x1:ud", "END:"], state)
    taken = not predicate or bool(bits & 1) != ("~" in predicate)
    assert state.get(20 * REGISTER, 1, np.uint32)[0, 0, 0] == (0 if taken else 1)
    assert state.instructions == (2 if taken else 3)


def test_a_loop_jumps_back_while_its_condition_holds() -> None:
    state = State()
    lines = [
        "LOOP:",
        "add (1|M0) r20.0<1>:d r20.0<0;1,0>:d 3:w",
        "cmp (1|M0) (lt)f1.0 null<1>:d r20.0<0;1,0>:d 3000:w",
        "(W&f1.0) jmpi LOOP",
    ]
    run(lines, state)
    assert state.get(20 * REGISTER, 1, np.int32)[0, 0, 0] == 3000
    assert state.instructions == 3 * 1000 + 1


def test_each_thread_goes_its_own_way() -> None:
    state = State(groups=4, threads=8)
    lines = [
        "and (1|M0) r21.0<1>:uw r0.4<0;1,0>:uw 0xFF:uw",  # the thread's number
        "cmp (1|M0) (eq)f0.0 null<1>:uw r21.0<0;1,0>:uw 3:uw",
        "(W&~f0.0) jmpi OTHERS",
        "mov (1|M0) r20.0<1>:ud 0x7:ud",
        "OTHERS:",
        "add (1|M0) r20.0<1>:ud r20.0<0;1,0>:ud r0.1<0;1,0>:ud",  # the group's
    ]
    run(lines, state)
    expected = np.arange(4)[:, None] + 7 * (np.arange(8) == 3)
    assert (state.get(20 * REGISTER, 1, np.uint32)[..., 0] == expected).all()


@pytest.mark.parametrize("flags", [0, 0xFFFF_FFFF])
def test_goto_leads_all_channels_or_none(flags: int) -> None:
    state = State()
    state.special[0, 0, FLAGS : FLAGS + 4] = np.array([flags], np.uint32).view(np.uint8)
    run(["(f0.0) goto (32|M0) END END", "mov (1|M0) r20.0<1>:ud 0x1:ud", "END:", "join (32|M0) NEXT", "NEXT:"], state)
    assert state.get(20 * REGISTER, 1, np.uint32)[0, 0, 0] == (0 if flags else 1)


def test_a_call_comes_back_behind_itself_each_time() -> None:
    lines = [
        "(W) call (16|M0) r6.14 TWICE",
        "(W) call (16|M0) r6.14 TWICE",
        "mov (1|M0) r21.0<1>:ud 0x5:ud",
        "(W) jmpi END",
        "TWICE:",
        "add (1|M0) r20.0<1>:ud r20.0<0;1,0>:ud r20.0<0;1,0>:ud",
        "ret (16|M0) r6.14",
        "END:",
    ]
    state = State()
    state.put(20 * REGISTER, np.array([3], np.uint32))
    run(lines, state)
    assert state.get(20 * REGISTER, 17, np.uint32)[0, 0, [0, 16]].tolist() == [12, 5]


def test_the_compilers_integer_division_truncates() -> None:
    state = State(groups=512)
    rng = np.random.default_rng(1)
    bits = rng.integers(1, 32, size=(512, 2))
    numbers = (rng.integers(2**31, size=(512, 2)) >> bits) * rng.choice([-1, 1], size=(512, 2))
    numbers[:, 1][numbers[:, 1] == 0] = 1
    numbers[:4] = [[2**31 - 1, 1], [-(2**31) + 1, 2**31 - 1], [7, -7], [6, -7]]
    state.put(10 * REGISTER + 16, numbers.astype(np.int32)[:, None])
    run([*KEEP_DENORMALS, "(W) call (16|M0) r18.0 DIVIDE", "(W) jmpi END", DIVISION, "END:"], state)
    got = state.get(10 * REGISTER + 16, 1, np.int32)[:, 0, 0]
    assert got.tolist() == [int(abs(a) // abs(b)) * (1 if (a < 0) == (b < 0) else -1) for a, b in numbers.tolist()]
    assert (np.ascontiguousarray(state.special[..., CR0 : CR0 + 4]).view(np.uint32) == 0x4000_04C0).all()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_behind_a_barrier_every_thread_sees_what_the_others_stored(seed: int) -> None:
    groups, threads = 5, 8
    state = State(groups, threads, team_bytes=4 * threads)
    lines = [
        "and (1|M0) r10.0<1>:ud r0.2<0;1,0>:ud 0xFF:ud",
        "shl (1|M0) r11.0<1>:ud r10.0<0;1,0>:ud 2:uw",
        "mov (1|M0) r13.0<1>:ud 0x0:ud",
        "add (1|M0) r12.0<1>:ud r10.0<0;1,0>:ud r0.1<0;1,0>:ud",
    ]
    for _ in range(3):  # each takes the next one's number and stores it, turn by turn
        lines += [memory("store", "slm", "d32", 11, 12), TEAM_FENCE, *BARRIER]
        lines += [
            "add (1|M0) r14.0<1>:ud r11.0<0;1,0>:ud 0x4:ud",
            f"and (1|M0) r14.0<1>:ud r14.0<0;1,0>:ud 0x{4 * threads - 1:X}:ud",
            memory("load", "slm", "d32", 14, 12),
            *BARRIER,
        ]
    run(lines, state, seed=seed)
    expected = np.arange(groups)[:, None] + (np.arange(threads) + 3) % threads
    assert (state.get(12 * REGISTER, 1, np.uint32)[..., 0] == expected).all()


def test_a_block_of_threads_finds_its_numbers_in_r0() -> None:
    state = State(groups=3, threads=4)
    run(["mov (8|M0) r20.0<1>:ud r0.0<1;1,0>:ud"], state)
    header = state.get(20 * REGISTER, 8, np.uint32)
    assert (header[..., 1] == np.arange(3)[:, None]).all()
    assert (header[..., 2] & 0xFF == np.arange(4)).all()
    assert not header[..., 6:].any()


@pytest.mark.parametrize("index", range(3))
def test_a_jump_by_a_register_goes_into_the_table_behind_it(index: int) -> None:
    """As the compiler writes a switch: 16 bytes an entry, and 16 for the jump itself."""
    state = State()
    state.put(10 * REGISTER, np.array([16 + 16 * index], np.int32))
    table = [f"(W) jmpi PLACE_{i}" for i in range(3)]
    places = [f"PLACE_{i}:\n    mov (1|M0) r11.0<1>:d {100 + i}:d\n    (W) jmpi END" for i in range(3)]
    state = run(["(W) jmpi r10.0", *table, *places, "END:"], state)
    assert state.get(11 * REGISTER, 1, np.int32).item() == 100 + index
