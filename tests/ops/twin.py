"""A bench on two devices: what is done is done on both, and what is read from both must be equal to the bit."""

from collections.abc import Iterable
from dataclasses import replace
from typing import cast

import numpy as np

from arcmtp.runtime.launch import Argument, Kernel, Launch
from arcmtp.runtime.memory import Buffer, HostBuffer, Pointer
from tests.ops.bench import Bench


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


def _part(argument: Argument, device: int) -> Argument:
    """What a launch's argument is on one of the devices."""
    if isinstance(argument, Pointer):
        return cast(TwinBuffer, argument.owner).parts[device].at(argument.byte_offset)
    return argument.parts[device] if isinstance(argument, TwinBuffer) else argument


class TwinBench(Bench):
    """Two benches of one geometry."""

    def __init__(self, first: Bench, second: Bench) -> None:
        assert first.geometry == second.geometry
        self.geometry = first.geometry
        self._benches = first, second

    def repeats(self, count: int, least: int) -> int:
        return least

    def compile(self, kernels: Iterable[Kernel]) -> None:
        kernels = list(kernels)
        for bench in self._benches:
            bench.compile(kernels)

    def run(self, launches: Launch | Iterable[Launch]) -> None:
        launches = [launches] if isinstance(launches, Launch) else list(launches)
        for device, bench in enumerate(self._benches):
            bench.run(
                replace(launch, arguments={name: _part(given, device) for name, given in launch.arguments.items()})
                for launch in launches
            )

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
