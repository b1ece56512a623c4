"""A bench on two devices: what is done is done on both, and what is read from both must be equal to the bit."""

from collections.abc import Iterable
from typing import Any, cast

import numpy as np

from arcmtp.runtime import _host
from arcmtp.runtime.compiler import Kernel, Program
from arcmtp.runtime.memory import Buffer, HostBuffer, Pointer
from tests.ops.bench import Bench

Pair = tuple[Any, Any]


def agreed(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """What both have read: the same bits, or NaN of any bits in both."""
    if first.dtype.names:
        for name in first.dtype.names:
            agreed(first[name], second[name])
        return first
    bits = f"u{first.dtype.itemsize}"
    same = np.ascontiguousarray(first).view(bits) == np.ascontiguousarray(second).view(bits)
    if first.dtype.kind == "f":
        same |= np.isnan(first) & np.isnan(second)
    if not same.all():
        where = np.argwhere(~same)
        at = tuple(where[0])
        raise AssertionError(
            f"{len(where)} of {first.size} {first.dtype} differ, the first at {[int(i) for i in at]}: "
            f"{first[at]!r} on the card, {second[at]!r} on the CPU"
        )
    return first


class TwinBuffer(Buffer):
    """A buffer on each device. It has no address, so that a launch on one device alone does not take it."""

    def __init__(self, parts: tuple[Buffer, Buffer]) -> None:
        self.parts = parts
        self.nbytes = parts[0].nbytes

    def write(self, array: np.ndarray, offset: int = 0) -> None:
        for part in self.parts:
            part.write(array, offset)

    def read(self, dtype: np.typing.DTypeLike, count: int, offset: int = 0) -> np.ndarray:
        return agreed(*(part.read(dtype, count, offset) for part in self.parts))

    def copy_from(self, other: Buffer, nbytes: int, offset: int = 0, source: int = 0) -> None:
        for part, from_part in zip(self.parts, cast(TwinBuffer, other).parts, strict=True):
            part.copy_from(from_part, nbytes, offset, source)

    def fill(self, byte: int, offset: int = 0, nbytes: int | None = None) -> None:
        for part in self.parts:
            part.fill(byte, offset, nbytes)


class TwinHostBuffer(TwinBuffer, HostBuffer):
    """The same in host memory; a view of it cannot be written to."""

    def view(self, dtype: np.typing.DTypeLike) -> np.ndarray:
        values = agreed(*(cast(HostBuffer, part).view(dtype) for part in self.parts)).view()
        values.flags.writeable = False
        return values


class TwinLaunches(_host.LaunchList):
    """A launch list for each device."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = _host.LaunchList(), _host.LaunchList()


class TwinProgram(Program):
    """A program for each device."""

    def __init__(self, parts: tuple[Program, Program]) -> None:
        self.parts = parts

    def launch(self, launches: _host.LaunchList, kernel: Kernel, groups: int, *arguments: Any) -> None:
        parts = zip(self.parts, cast(TwinLaunches, launches).parts, *map(_parts, arguments), strict=True)
        for program, of_program, *given in parts:
            program.launch(of_program, kernel, groups, *given)


def _parts(argument: Any) -> Pair:
    """What a launch argument is on each device."""
    if isinstance(argument, Pointer):
        return cast(Pair, tuple(part.at(argument.byte_offset) for part in cast(TwinBuffer, argument.owner).parts))
    return argument.parts if isinstance(argument, TwinBuffer) else (argument, argument)


class TwinBench(Bench):
    """Two benches of one geometry."""

    def __init__(self, first: Bench, second: Bench) -> None:
        assert first.geometry == second.geometry
        self.geometry = first.geometry
        self._benches = first, second

    def repeats(self, count: int, least: int) -> int:
        return least

    def program(self, kernels: Iterable[Kernel]) -> Program:
        first, second = self._benches
        kernels = list(kernels)
        return TwinProgram((first.program(kernels), second.program(kernels)))

    def launches(self) -> _host.LaunchList:
        return TwinLaunches()

    def run(self, launches: _host.LaunchList) -> None:
        for bench, part in zip(self._benches, cast(TwinLaunches, launches).parts, strict=True):
            bench.run(part)

    def alloc(self, nbytes: int) -> Buffer:
        first, second = self._benches
        return TwinBuffer((first.alloc(nbytes), second.alloc(nbytes)))

    def host_zeros(self, nbytes: int) -> HostBuffer:
        first, second = self._benches
        return TwinHostBuffer((first.host_zeros(nbytes), second.host_zeros(nbytes)))

    def written(self, buffer: Buffer, rows: int) -> np.ndarray:
        parts = zip(self._benches, cast(TwinBuffer, buffer).parts, strict=True)
        return agreed(*(bench.written(part, rows) for bench, part in parts))

    # The layout of activation rows differs.

    def activation_rows(self, rows: int, k: int) -> Buffer:
        first, second = self._benches
        return TwinBuffer((first.activation_rows(rows, k), second.activation_rows(rows, k)))

    def write_activations(self, buffer: Buffer, x: np.ndarray) -> None:
        for bench, part in zip(self._benches, cast(TwinBuffer, buffer).parts, strict=True):
            bench.write_activations(part, x)

    def read_activations(self, buffer: Buffer, plain: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        parts = zip(self._benches, cast(TwinBuffer, buffer).parts, strict=True)
        codes, scales = zip(*(bench.read_activations(part, plain) for bench, part in parts), strict=True)
        return agreed(*codes), agreed(*scales)
