"""Device memory: USM allocations that only kernels and copies touch, on every device."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import dpctl
import dpctl.memory
import numpy as np

from arcmtp.errors import OutOfMemory
from arcmtp.runtime import _host

HUGE_PAGE_BYTES = 4 << 20  # from here on the CPU device's memory that is used at once comes in large pages


@dataclass(frozen=True)
class Pointer:
    """An address inside a buffer, as a kernel argument."""

    owner: "Buffer"
    byte_offset: int

    @property
    def pointer(self) -> int:
        """The address on the device."""
        return self.owner.pointer + self.byte_offset


class Buffer:
    """`nbytes` of USM device memory on `queue`; the host reaches it through `read` and `write` alone.

    at_once: whether all bytes are used from now on; otherwise memory is taken in the order in which they are.
    Raises OutOfMemory when the device's driver refuses the allocation.
    """

    _kind: Callable[..., Any] = dpctl.memory.MemoryUSMDevice
    _place = ""  # where it lies, for messages

    def __init__(self, nbytes: int, queue: dpctl.SyclQueue, at_once: bool = True) -> None:
        self.nbytes = nbytes
        try:
            self._memory = self._kind(max(nbytes, 64), alignment=64, queue=queue)
        except dpctl.memory.USMAllocationError:
            name = queue.sycl_device.name
            raise OutOfMemory(f"{name} has no {nbytes / 2**20:.1f} MiB{self._place} left in one piece") from None
        self._queue = queue
        self.pointer: int = self._memory._pointer
        if at_once and queue.sycl_device.is_cpu and nbytes >= HUGE_PAGE_BYTES:
            _host.use_huge_pages(self.pointer, nbytes)  # INT4 MUL_MAT reads 25.4 instead of 23.4 GB/s (docs/log.md)

    def __del__(self) -> None:
        if hasattr(self, "_queue"):
            self._queue.wait()  # SYCL frees at once, whatever a kernel under way still reads

    def at(self, byte_offset: int) -> Pointer:
        """The address `byte_offset` bytes into the buffer."""
        return Pointer(self, byte_offset)

    def write(self, array: np.ndarray, offset: int = 0) -> None:
        """Copy `array` to byte `offset`, after earlier work on the queue; the array may be reused on return."""
        source = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        self._check(offset, source.nbytes)
        _host.write(self._queue, self.pointer + offset, source)

    def read(self, dtype: np.typing.DTypeLike, count: int, offset: int = 0) -> np.ndarray:
        """`count` values of `dtype` from byte `offset`, after earlier work on the queue, as a new array [count]."""
        result = np.empty(count, dtype)
        self._check(offset, result.nbytes)
        _host.read(self._queue, self.pointer + offset, result.view(np.uint8))
        return result

    def copy_from(self, other: "Buffer", nbytes: int, offset: int = 0, source: int = 0) -> None:
        """Take `nbytes` from byte `source` of a buffer on the same queue to byte `offset`, after earlier work on it."""
        self._check(offset, nbytes)
        other._check(source, nbytes)
        _host.copy(self._queue, self.pointer + offset, other.pointer + source, nbytes)

    @staticmethod
    def copy_all(moves: "Sequence[Move]") -> None:
        """Make all moves, between buffers on one queue, after earlier work on it, and wait once."""
        for move in moves:
            move.to._check(move.offset, move.nbytes)
            move.source._check(move.source_offset, move.nbytes)
        words = [(m.to.pointer + m.offset, m.source.pointer + m.source_offset, m.nbytes) for m in moves]
        if words:
            _host.copy_all(moves[0].to._queue, np.array(words, np.uint64))

    def fill(self, byte: int, offset: int = 0, nbytes: int | None = None) -> None:
        """Set `nbytes` from byte `offset`, by default all, to `byte`, after earlier work on the queue."""
        nbytes = self.nbytes - offset if nbytes is None else nbytes
        self._check(offset, nbytes)
        _host.fill(self._queue, self.pointer + offset, byte, nbytes)

    def _check(self, offset: int, nbytes: int) -> None:
        if offset < 0 or offset + nbytes > self.nbytes:
            raise ValueError(f"{nbytes} bytes at {offset} are not within a buffer of {self.nbytes}")


class Move(NamedTuple):
    """Bytes to copy: from byte `source_offset` of `source` to byte `offset` of `to`."""

    to: Buffer
    offset: int
    source: Buffer
    source_offset: int
    nbytes: int


class HostBuffer(Buffer):
    """A buffer in host memory that kernels use, those of a GPU over PCIe: the host sees what a finished kernel stored,
    without a copy."""

    _kind = dpctl.memory.MemoryUSMHost
    _place = " of host memory"

    def view(self, dtype: np.typing.DTypeLike) -> np.ndarray:
        """The memory itself, as an array."""
        return np.frombuffer(self._memory, dtype)
