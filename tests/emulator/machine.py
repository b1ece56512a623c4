"""Pieces of Xe2 machine code: assembled from text by Intel's assembler, run by the emulator."""

import ctypes
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache

import numpy as np

REGISTER = 64
REGISTERS = 256
ACC, A0, FLAGS, CR0 = 0, 16 * REGISTER, 17 * REGISTER, 18 * REGISTER  # places in a thread's special registers
SPECIAL_BYTES = 19 * REGISTER
POISON, RACES, LINES = 1, 2, 4
XE2 = 2 << 24  # version 2.0 of the assembler's "XE" series
END = "(W) send.gtwy (1|M0) null r127 null:0 0x0 0x02000010 {EOT}"


class _ContextOptions(ctypes.Structure):
    _fields_ = (("bytes", ctypes.c_size_t), ("platform", ctypes.c_int))


class _AssembleOptions(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_uint32)
        for name in ("bytes", "warnings", "encoder", "syntax", "reserved0", "reserved1", "sbid_count", "swsb_mode")
    )


class _Diagnostic(ctypes.Structure):
    _fields_ = (*((name, ctypes.c_uint32) for name in ("line", "column", "offset", "extent")),
                ("message", ctypes.c_char_p))  # fmt: skip


class _Region(ctypes.Structure):
    _fields_ = (("address", ctypes.c_uint64), ("bytes", ctypes.c_uint64), ("data", ctypes.c_void_p))


class _Call(ctypes.Structure):
    _fields_ = (
        ("code", ctypes.c_char_p),
        ("code_bytes", ctypes.c_uint64),
        *((name, ctypes.c_uint32) for name in ("groups", "threads", "slm_bytes", "registers_per_thread")),
        *((name, ctypes.c_void_p) for name in ("registers", "registers_defined", "special", "regions")),
        ("region_count", ctypes.c_uint32),
        ("checks", ctypes.c_uint32),
        ("seed", ctypes.c_uint64),
        ("instructions", ctypes.c_uint64),
        ("thread_cycles", ctypes.c_double * 3),
        ("longest_cycles", ctypes.c_double * 3),
    )


class Fault(Exception):
    """What the emulator says of code that it does not run to its end."""


@cache
def _assembler() -> ctypes.CDLL:
    library = ctypes.CDLL("libiga64.so.2")
    library.iga_context_release.argtypes = [ctypes.c_void_p]
    return library


@cache
def _emulator() -> ctypes.CDLL:
    return ctypes.CDLL(os.environ["ZE_ENABLE_ALT_DRIVERS"])


def assemble(lines: Iterable[str]) -> bytes:
    """Machine code of these instructions and, behind them, the thread's end."""
    library, context = _assembler(), ctypes.c_void_p()
    library.iga_context_create(ctypes.byref(_ContextOptions(16, XE2)), ctypes.byref(context))
    options = _AssembleOptions(bytes=ctypes.sizeof(_AssembleOptions), sbid_count=16)
    output, size = ctypes.c_void_p(), ctypes.c_uint32()
    text = "\n".join((*lines, END, ""))
    status = library.iga_context_assemble(
        context, ctypes.byref(options), text.encode(), ctypes.byref(output), ctypes.byref(size)
    )
    try:
        assert status == 0, _first_error(context, text)
        return ctypes.string_at(output, size.value)
    finally:
        library.iga_context_release(context)


def _first_error(context: ctypes.c_void_p, text: str) -> str:
    found, count = ctypes.POINTER(_Diagnostic)(), ctypes.c_uint32()
    _assembler().iga_context_get_errors(context, ctypes.byref(found), ctypes.byref(count))
    if not count.value:
        return f"the assembler names no error in:\n{text}"
    return f"{found[0].message.decode()}: {text.splitlines()[found[0].line - 1]}"


@dataclass
class State:
    """Registers [groups, threads, 256, 64], special registers [groups, threads, 1216] and memory, before or after."""

    groups: int = 1
    threads: int = 1
    memory: dict[int, np.ndarray] = field(default_factory=dict)  # by address: bytes that the code may touch
    team_bytes: int = 0
    registers: np.ndarray = field(init=False)
    special: np.ndarray = field(init=False)
    defined: np.ndarray | None = None  # of the registers' shape: 1 where a byte holds a value
    instructions: int = 0
    # With LINES, in the best, expected and worst case: of all threads together, and of the longest.
    thread_cycles: tuple[float, ...] = ()
    longest_cycles: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        self.registers = np.zeros((self.groups, self.threads, REGISTERS, REGISTER), np.uint8)
        self.special = np.zeros((self.groups, self.threads, SPECIAL_BYTES), np.uint8)

    def put(self, place: int, values: np.ndarray) -> None:
        """Values [groups, threads, …] or [threads, …] or […] into registers from byte `place` on."""
        data = np.ascontiguousarray(values)
        flat = self.registers.reshape(self.groups, self.threads, -1)
        data = data.view(np.uint8).reshape(*data.shape[:-1], -1)
        flat[..., place : place + data.shape[-1]] = data

    def get(self, place: int, count: int, dtype: np.typing.DTypeLike) -> np.ndarray:
        """[groups, threads, count] of the registers' bytes from `place` on."""
        flat = self.registers.reshape(self.groups, self.threads, -1)
        size = np.dtype(dtype).itemsize * count
        return np.ascontiguousarray(flat[..., place : place + size]).view(dtype)


def run(lines: Iterable[str], state: State, checks: int = 0, seed: int = 0) -> State:
    """Run the instructions in every thread; the state is changed in place and returned. Raises Fault."""
    code = assemble(lines)
    regions = (_Region * len(state.memory))(
        *(_Region(address, data.nbytes, data.ctypes.data) for address, data in state.memory.items())
    )
    call = _Call(
        code, len(code), state.groups, state.threads, state.team_bytes, REGISTERS, state.registers.ctypes.data,
        None if state.defined is None else state.defined.ctypes.data, state.special.ctypes.data,
        ctypes.addressof(regions), len(regions), checks, seed,
    )  # fmt: skip
    message = ctypes.create_string_buffer(1024)
    if _emulator().emulator_call(ctypes.byref(call), message, ctypes.c_uint64(len(message))):
        raise Fault(message.value.decode())
    state.instructions = call.instructions
    state.thread_cycles, state.longest_cycles = tuple(call.thread_cycles), tuple(call.longest_cycles)
    return state
