"""Loads, stores, prefetches and atomic operations on global and team memory.

Source: vISA's page LSC_UNTYPED: LOAD, STORE ("transposed": one run of elements) and the atomic operations; addresses
are the registers' plus the displacement. Data of 8 or 16 bits is widened with zeros in registers ("d16u32").
"""

import numpy as np
import pytest

from tests.emulator.forms import LOADS, STORES
from tests.emulator.machine import FLAGS, REGISTER, State, run
from tests.emulator.messages import FENCE, INVALIDATE, TEAM_FENCE, Shape, memory

pytestmark = pytest.mark.emulated

BASE = 0xFFFF_D555_0000_1000  # as the driver's pointers, which have their upper bits set
BYTES = 4096
DISPLACEMENTS = (0, 64, 0x400, -128)
ADDRESS, DATA = 10, 60  # registers
PREFETCH = f"send.ugm (1|M0) null r{ADDRESS} null:0 0x0 0x0208F580"  # of 256 bytes, with the compiler's cache hints
AROUND = ["d32x2", "d32x4", "d8u32"]  # further shapes for channels


@pytest.mark.parametrize(
    ("written", "compiled"),
    [
        (memory("load", "slm", "d64x8t", 6, 5), "send.slm (1|M0) r5 r6 null:0 0x0 0x0210C700"),
        (memory("load", "slm", "d32", 2, 57, 0x1000), "send.slm (1|M0) r57 r2 null:0 0x1000000 0x02100500"),
        (memory("load", "ugm", "d16u32", 4, 5), "send.ugm (1|M0) r5 r4 null:0 0x0 0x04100B80"),
        (memory("load", "ugm", "d32x64t", 4, 9, 0x100), "send.ugm (1|M0) r9 r4 null:0 0x100000 0x0240F580"),
        (memory("store", "slm", "d64x2t", 65, 115, 0x4010), "send.slm (1|M0) null r65 r115:1 0x4010000 0x02009704"),
        (memory("store", "ugm", "d32x64t", 79, 26), "send.ugm (1|M0) null r79 r26:4 0x0 0x0200F584"),
        (memory("store", "ugm", "d16u32", 13, 15, lanes=16), "send.ugm (16|M0) null r13 r15:1 0x0 0x04000B84"),
        (memory("atomic_iinc", "ugm", "d32", 8, None, returns=4), "send.ugm (1|M0) r4 r8 null:0 0x0 0x04100588"),
        (memory("atomic_iadd", "ugm", "d32", 10, 2, returns=4), "send.ugm (1|M0) r4 r10 r2:1 0x0 0x0410058C"),
    ],
)
def test_messages_are_written_as_the_compiler_writes_them(written: str, compiled: str) -> None:
    assert written == compiled


def state_of(seed: int, addresses: np.ndarray, flags: int = 0) -> State:
    """Noise in all registers and in memory."""
    rng = np.random.default_rng(seed)
    state = State(memory={BASE: rng.integers(256, size=BYTES, dtype=np.uint8)}, team_bytes=BYTES)
    state.registers[:] = rng.integers(256, size=state.registers.shape, dtype=np.uint8)
    state.special[0, 0, FLAGS : FLAGS + 4] = np.array([flags], np.uint32).view(np.uint8)
    state.put(ADDRESS * REGISTER, addresses)
    return state


def loaded(data: np.ndarray, register: np.ndarray, shape: Shape, offsets: np.ndarray, mask: int) -> np.ndarray:
    """The data's registers after a load, from those before, [bytes]."""
    result = register.copy()
    width, rows = shape.register_bytes, -(-len(offsets) * shape.register_bytes // REGISTER) * REGISTER
    for channel, offset in enumerate(offsets):
        if not mask >> channel & 1:
            continue
        for element in range(shape.count):
            at = element * width if shape.block else element * rows + channel * width
            begin = offset + element * shape.memory_bytes
            value = int.from_bytes(data[begin : begin + shape.memory_bytes].tobytes(), "little")
            result[at : at + width] = np.frombuffer(value.to_bytes(width, "little"), np.uint8)
    return result


def stored(data: np.ndarray, register: np.ndarray, shape: Shape, offsets: np.ndarray, mask: int) -> np.ndarray:
    """Memory after a store, [bytes]."""
    result = data.copy()
    width, rows = shape.register_bytes, -(-len(offsets) * shape.register_bytes // REGISTER) * REGISTER
    for channel, offset in enumerate(offsets):
        if not mask >> channel & 1:
            continue
        for element in range(shape.count):
            at = element * width if shape.block else element * rows + channel * width
            begin = offset + element * shape.memory_bytes
            result[begin : begin + shape.memory_bytes] = register[at : at + shape.memory_bytes]
    return result


def registers_of(state: State, lanes: int, shape: Shape) -> np.ndarray:
    return state.registers[0, 0, DATA : DATA + shape.registers(lanes) + 1].reshape(-1).copy()


@pytest.mark.parametrize("displacement", DISPLACEMENTS)
@pytest.mark.parametrize("shape", [shape for shape in LOADS["ugm"] if shape.endswith("t")])
def test_a_block_load_fills_registers_from_one_run_of_global_memory(shape: str, displacement: int) -> None:
    offset = 1024 + Shape(shape).memory_bytes
    state = state_of(1, np.array([BASE + offset - displacement], np.uint64))
    before, data = registers_of(state, 1, Shape(shape)), state.memory[BASE].copy()
    run([memory("load", "ugm", shape, ADDRESS, DATA, displacement)], state)
    assert (registers_of(state, 1, Shape(shape)) == loaded(data, before, Shape(shape), np.array([offset]), 1)).all()
    assert (state.memory[BASE] == data).all()


@pytest.mark.parametrize("displacement", DISPLACEMENTS)
@pytest.mark.parametrize("shape", [shape for shape in STORES["ugm"] if shape.endswith("t")])
def test_a_block_store_writes_one_run_of_global_memory(shape: str, displacement: int) -> None:
    offset = 1024 + 4
    state = state_of(2, np.array([BASE + offset - displacement], np.uint64))
    before, registers = state.memory[BASE].copy(), registers_of(state, 1, Shape(shape))
    run([memory("store", "ugm", shape, ADDRESS, DATA, displacement)], state)
    assert (state.memory[BASE] == stored(before, registers, Shape(shape), np.array([offset]), 1)).all()


@pytest.mark.parametrize("mask", [0xFFFF, 0x8001, 0])
@pytest.mark.parametrize("lanes", [1, 8, 16])
@pytest.mark.parametrize("shape", [*(shape for shape in LOADS["ugm"] if not shape.endswith("t")), *AROUND])
def test_a_load_by_channels_fetches_for_those_that_execute(shape: str, lanes: int, mask: int) -> None:
    offsets = np.random.default_rng(3).permutation(BYTES // 16)[:lanes] * 16
    state = state_of(3, BASE + offsets.astype(np.uint64) - np.uint64(16), mask)
    before, data = registers_of(state, lanes, Shape(shape)), state.memory[BASE].copy()
    run([f"(f0.0) {memory('load', 'ugm', shape, ADDRESS, DATA, 16, lanes)}"], state)
    assert (registers_of(state, lanes, Shape(shape)) == loaded(data, before, Shape(shape), offsets, mask)).all()


@pytest.mark.parametrize("mask", [0xFFFF, 0x8001, 0])
@pytest.mark.parametrize("lanes", [1, 8, 16])
@pytest.mark.parametrize("shape", [*(shape for shape in STORES["ugm"] if not shape.endswith("t")), *AROUND])
def test_a_store_by_channels_writes_for_those_that_execute(shape: str, lanes: int, mask: int) -> None:
    offsets = np.random.default_rng(4).permutation(BYTES // 16)[:lanes] * 16
    state = state_of(4, BASE + offsets.astype(np.uint64), mask)
    before, registers = state.memory[BASE].copy(), registers_of(state, lanes, Shape(shape))
    run([f"(f0.0) {memory('store', 'ugm', shape, ADDRESS, DATA, 0, lanes)}"], state)
    assert (state.memory[BASE] == stored(before, registers, Shape(shape), offsets, mask)).all()


def team_contents(state: State, lines: list[str]) -> np.ndarray:
    """Team memory behind these instructions: each 512 bytes go through registers to global memory."""
    copies = []
    for at in range(0, BYTES, 512):
        copies += [f"mov (1|M0) r12.0<1>:ud 0x{at:X}:ud", memory("load", "slm", "d64x64t", 12, 100)]
        copies += [f"mov (1|M0) r14.0<1>:uq 0x{BASE + at + part:X}:uq\n"
                   + memory("store", "ugm", "d32x64t", 14, 100 + part // REGISTER) for part in (0, 256)]  # fmt: skip
    run([*lines, *copies], state)
    return state.memory[BASE]


def filled() -> list[str]:
    """Team memory filled from registers 128 …, 64 of them."""
    return [
        line
        for at in range(0, BYTES, 512)
        for line in (f"mov (1|M0) r12.0<1>:ud 0x{at:X}:ud", memory("store", "slm", "d64x64t", 12, 128 + at // REGISTER))
    ]


@pytest.mark.parametrize("displacement", DISPLACEMENTS)
@pytest.mark.parametrize("shape", LOADS["slm"])
def test_loads_from_team_memory(shape: str, displacement: int) -> None:
    offset = 1024 + Shape(shape).memory_bytes
    state = state_of(5, np.array([offset - displacement], np.uint32))
    before, data = registers_of(state, 1, Shape(shape)), state.registers[0, 0, 128:192].reshape(-1).copy()
    run([*filled(), memory("load", "slm", shape, ADDRESS, DATA, displacement)], state)
    assert (registers_of(state, 1, Shape(shape)) == loaded(data, before, Shape(shape), np.array([offset]), 1)).all()


@pytest.mark.parametrize("displacement", DISPLACEMENTS)
@pytest.mark.parametrize("shape", STORES["slm"])
def test_stores_to_team_memory(shape: str, displacement: int) -> None:
    offset = 1024 + Shape(shape).memory_bytes
    state = state_of(6, np.array([offset - displacement], np.uint32))
    registers, data = registers_of(state, 1, Shape(shape)), state.registers[0, 0, 128:192].reshape(-1).copy()
    got = team_contents(state, [*filled(), memory("store", "slm", shape, ADDRESS, DATA, displacement)])
    assert (got == stored(data, registers, Shape(shape), np.array([offset]), 1)).all()


@pytest.mark.parametrize("returns", [True, False])
@pytest.mark.parametrize("kind", ["atomic_iinc", "atomic_iadd"])
def test_atomic_operations_add_and_return_what_was_there(kind: str, returns: bool) -> None:
    state = state_of(7, np.array([BASE + 64], np.uint64))
    state.memory[BASE][64:68] = 0xFF  # wraps
    state.put(DATA * REGISTER, np.array([7], np.uint32))
    before = state.memory[BASE].copy()
    data = DATA if kind == "atomic_iadd" else None
    run([memory(kind, "ugm", "d32", ADDRESS, data, returns=40 if returns else None)], state)
    assert state.memory[BASE][64:68].view(np.uint32)[0] == (6 if kind == "atomic_iadd" else 0)
    before[64:68] = state.memory[BASE][64:68]
    assert (state.memory[BASE] == before).all()
    if returns:
        assert state.get(40 * REGISTER, 1, np.uint32)[0, 0, 0] == 0xFFFF_FFFF


def test_counts_of_all_groups_and_threads_add_up_and_each_sees_another_one() -> None:
    groups, threads = 64, 4
    state = State(groups, threads, {BASE: np.zeros(4, np.uint8)})
    state.put(ADDRESS * REGISTER, np.array([BASE], np.uint64))
    run([memory("atomic_iinc", "ugm", "d32", ADDRESS, None, returns=40)], state)
    assert state.memory[BASE].view(np.uint32)[0] == groups * threads
    assert sorted(state.get(40 * REGISTER, 1, np.uint32).flat) == list(range(groups * threads))


@pytest.mark.parametrize("fence", [TEAM_FENCE, FENCE, INVALIDATE])
def test_a_fence_writes_its_target_alone_and_a_prefetch_nothing(fence: str) -> None:
    state = state_of(8, np.array([BASE], np.uint64))
    registers, data = state.registers.copy(), state.memory[BASE].copy()
    run([fence, PREFETCH], state)
    registers[0, 0, 73] = state.registers[0, 0, 73]
    registers[0, 0, 0, :32] = state.registers[0, 0, 0, :32]  # the thread's header
    assert (state.registers == registers).all()
    assert (state.memory[BASE] == data).all()
