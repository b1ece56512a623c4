"""Where operands lie: regions, parts of registers, the accumulators, flags, the address register.

Sources: vISA's chapter "Operands": "Region" (element i of <v;w,h> is at i / w * v + i % w * h), "Indirect Operands",
"Predicate Operands".
"""

import numpy as np
import pytest

from tests.emulator.cases import GROUPS, KEEP_DENORMALS
from tests.emulator.machine import A0, ACC, FLAGS, REGISTER, State, run
from tests.emulator.values import DTYPES, fused, reals, same, size

pytestmark = pytest.mark.emulated

SOURCE, TARGET = 10, 20  # registers
BINARY = {f"<{stride};1,0>": (stride, 1, 0) for stride in (0, 1, 2, 4, 8)} | {"<8;8,1>": (8, 8, 1)}
TERNARY = {"<0;0>": 0, "<1;0>": 1, "<4;2>": 2}  # of the first two sources; the third has "<0>" or "<1>"
MOVED = ("ub", "b", "uw", "w", "ud", "d", "uq", "q", "hf", "f")


def noise(seed: int) -> State:
    state = State()
    state.registers[:] = np.random.default_rng(seed).integers(256, size=state.registers.shape, dtype=np.uint8)
    return state


def region(state: State, register: int, part: int, kind: str, strides: tuple[int, int, int], lanes: int) -> np.ndarray:
    vertical, width, horizontal = strides
    data = state.get(register * REGISTER + part * size(kind), 256 // size(kind), DTYPES[kind])[0, 0]
    return np.array([data[i // width * vertical + i % width * horizontal] for i in range(lanes)])


@pytest.mark.parametrize("kind", MOVED)
@pytest.mark.parametrize("text", BINARY)
def test_sources_are_read_by_their_strides_from_any_part_of_a_register(kind: str, text: str) -> None:
    state = noise(1)
    lines: list[str] = []
    expected: list[tuple[int, np.ndarray]] = []
    for lanes in (1, 2, 4, 8, 16):
        for part in (0, 1, 3):
            strides = BINARY[text]
            if strides[1] > lanes or ((lanes - 1) * strides[0] + part + 1) * size(kind) > 2 * REGISTER:
                continue
            place = TARGET + 2 * len(lines)
            lines.append(f"mov ({lanes}|M0) r{place}.0<1>:{kind} r{SOURCE}.{part}{text}:{kind}")
            expected.append((place, region(state, SOURCE, part, kind, strides, lanes)))
    run(lines, state)
    for line, (place, values) in zip(lines, expected, strict=True):
        assert (region(state, place, 0, kind, (1, 1, 0), len(values)).tobytes()) == values.tobytes(), line


@pytest.mark.parametrize("kind", MOVED)
@pytest.mark.parametrize("stride", [1, 2, 4])
def test_targets_are_written_by_their_stride_and_what_lies_between_stays(kind: str, stride: int) -> None:
    state = noise(2)
    lines: list[str] = []
    expected: list[tuple[int, np.ndarray]] = []
    for lanes in (1, 2, 8, 16):
        for part in (0, 1):
            if ((lanes - 1) * stride + part + 1) * size(kind) > 2 * REGISTER:
                continue
            place = TARGET + 2 * len(lines)
            lines.append(f"mov ({lanes}|M0) r{place}.{part}<{stride}>:{kind} r{SOURCE}.0<1;1,0>:{kind}")
            bytes_ = state.registers[0, 0, place : place + 2].copy()
            data = bytes_.reshape(-1).view(DTYPES[kind])
            data[part : part + (lanes - 1) * stride + 1 : stride] = region(state, SOURCE, 0, kind, (1, 1, 0), lanes)
            expected.append((place, bytes_))
    run(lines, state)
    for line, (place, bytes_) in zip(lines, expected, strict=True):
        assert (state.registers[0, 0, place : place + 2] == bytes_).all(), line


@pytest.mark.parametrize("lanes", [1, 8, 16])
def test_instructions_of_three_sources_have_strides_of_their_own(lanes: int) -> None:
    state = State()
    rng = np.random.default_rng(3)
    a, b, c = (reals(rng, "f", 32) for _ in range(3))
    for register, data in zip((10, 12, 14), (a, b, c), strict=True):
        state.put(register * REGISTER, data)
    lines = list(KEEP_DENORMALS)
    expected: list[tuple[int, list[float], str]] = []
    for first, i in TERNARY.items():
        for second, j in TERNARY.items():
            for third in (0, 1):
                if max(i, j) * lanes > REGISTER // 4:  # further than two registers
                    continue
                place = TARGET + 2 * len(expected)
                lines.append(f"mad ({lanes}|M0) r{place}.0<1>:f r10.1{first}:f r12.2{second}:f r14.3<{third}>:f")
                expected.append(
                    (place, [fused(a[1 + i * n], b[2 + j * n], c[3 + third * n]) for n in range(lanes)], lines[-1])
                )
    run(lines, state)
    for place, values, line in expected:
        assert same(state.get(place * REGISTER, lanes, np.float32)[0, 0], np.array(values, np.float32)).all(), line


def test_within_a_register_sources_are_read_before_the_target_is_written() -> None:
    # Where both lie in two registers the description leaves open whether the second half sees the first half's results.
    state = noise(4)
    before = state.get(10 * REGISTER, 8, np.uint32)[0, 0].copy()
    run(["mov (8|M0) r10.1<1>:ud r10.0<1;1,0>:ud"], state)
    assert (state.get(10 * REGISTER + 4, 8, np.uint32)[0, 0] == before).all()


def test_accumulators_are_sources_and_targets_of_16_or_32_channels() -> None:
    state = State(GROUPS)
    rng = np.random.default_rng(5)
    a, b, c = (reals(rng, "f", GROUPS * 32).reshape(GROUPS, 1, 32) for _ in range(3))
    for register, data in zip((10, 12, 14), (a, b, c), strict=True):
        state.put(register * REGISTER, data)
    run(
        [
            *KEEP_DENORMALS,
            "mul (32|M0) acc0.0<1>:f r10.0<1;1,0>:f r12.0<1;1,0>:f",  # acc0 and acc1
            "add (16|M0) acc2.0<1>:f -acc1.0<1;1,0>:f r14.0<1;1,0>:f",
            "mad (16|M0) r20.0<1>:f acc0.0<1;0>:f acc2.0<1;0>:f r14.0<1>:f",
            "mov (16|M0) acc3.0<1>:f acc2.0<1;1,0>:f",
            "sel (16|M0) (lt)f0.0 r21.0<1>:f acc3.0<1;1,0>:f (abs)acc0.0<1;1,0>:f",
            "mov (1|M0) r22.0<1>:ud acc1.0<0;1,0>:ud",
        ],
        state,
    )
    with np.errstate(all="ignore"):
        product = a * b
        total = c[..., :16] - product[..., 16:]
        size_ = abs(product[..., :16])
        least = np.where((total < size_) | (np.isnan(size_) & ~np.isnan(total)), total, size_)
    mad = np.vectorize(fused, otypes=[np.float32])(product[..., :16], total, c[..., :16])
    assert same(state.get(20 * REGISTER, 16, np.float32), mad).all()
    assert same(state.get(21 * REGISTER, 16, np.float32), least).all()
    assert same(state.get(22 * REGISTER, 1, np.float32), product[..., 16:17]).all()
    assert same(np.ascontiguousarray(state.special[..., ACC : ACC + 128]).view(np.float32), product).all()


def test_flags_are_operands_of_16_or_32_bits() -> None:
    state = State()
    state.special[0, 0, FLAGS : FLAGS + 16] = np.array([0x1234_5678, 0x9ABC_DEF0, 0x0F0F_F00F, 0x8000_0001]).astype(
        np.uint32
    ).view(np.uint8)  # fmt: skip
    state.put(10 * REGISTER, np.array([0x00FF, 0xF00F], np.uint16))
    run(
        [
            "mov (1|M0) r20.0<1>:uw f1.1<0;1,0>:uw",
            "mov (1|M0) r20.1<1>:uw f2.0<0;1,0>:uw",
            "and (1|M0) r20.2<1>:uw f0.1<0;1,0>:uw r10.0<0;1,0>:uw",
            "or (1|M0) r20.3<1>:uw f3.1<0;1,0>:uw r10.1<0;1,0>:uw",
            "mov (1|M0) f0.1<1>:uw 0x3:uw",
            "mov (1|M0) f3.0<1>:ud 0xFFFFFFFE:ud",
            "mov (1|M0) r20.2<1>:ud f0.0<0;1,0>:ud",
        ],
        state,
    )
    assert state.get(20 * REGISTER, 4, np.uint16)[0, 0].tolist() == [0x9ABC, 0xF00F, 0x1234 & 0x00FF, 0x8000 | 0xF00F]
    assert state.get(20 * REGISTER + 8, 1, np.uint32)[0, 0, 0] == 0x0003_5678
    flags = np.ascontiguousarray(state.special[0, 0, FLAGS : FLAGS + 16]).view(np.uint32)
    assert flags.tolist() == [0x0003_5678, 0x9ABC_DEF0, 0x0F0F_F00F, 0xFFFF_FFFE]


def test_the_address_register_names_a_byte_of_the_registers() -> None:
    state = noise(6)
    state.special[0, 0, A0 : A0 + 4] = np.array([99, 10 * REGISTER + 8], np.uint16).view(np.uint8)
    state.put(11 * REGISTER, np.array([40], np.uint16))
    data = state.get(0, 30 * REGISTER // 4, np.int32)[0, 0].copy()
    run(
        [
            f"add (1|M0) a0.0<1>:uw r11.0<0;1,0>:uw 0x{12 * REGISTER:X}:uw",
            "mov (1|M0) r40.0<1>:d r[a0.0]<0;1,0>:d",
            "mov (1|M0) r40.1<1>:d r[a0.0,4]<0;1,0>:d",
            "mov (1|M0) r40.2<1>:d r[a0.0,-8]<0;1,0>:d",
            "mov (1|M0) r40.3<1>:d r[a0.1,4]<0;1,0>:d",
            "mul (1|M0) r40.4<1>:d r[a0.0]<0;1,0>:d 3:w",
            "asr (1|M0) r40.5<1>:d r[a0.0]<0;1,0>:d 31:w",
            "add (1|M0) r40.6<1>:ud r[a0.0]<0;1,0>:ud r12.0<0;1,0>:ud",
            "add (1|M0) r40.7<1>:d r12.0<0;1,0>:d -r[a0.0]<0;1,0>:d",
        ],
        state,
    )
    named = int(data[12 * 16 + 10])
    expected = [named, data[12 * 16 + 11], data[12 * 16 + 8], data[10 * 16 + 3], 3 * named, named >> 31,
                named + int(data[12 * 16]), int(data[12 * 16]) - named]  # fmt: skip
    got = state.get(40 * REGISTER, 8, np.int32)[0, 0]
    assert [int(v) % 2**32 for v in got] == [int(v) % 2**32 for v in expected]
