"""Tensors: typed parts of device memory that have a name and a shape before anything is allocated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from math import prod
from typing import Protocol

import numpy as np

from arcmtp.runtime.memory import Buffer, HostBuffer


class DType(StrEnum):
    """Element types of kernels."""

    U8 = "u8"
    I32 = "int"
    U32 = "simd::u32"
    F16 = "half"
    F32 = "float"

    @property
    def numpy(self) -> np.dtype[np.generic]:
        """The same as numpy has it."""
        return _NUMPY[self]


_NUMPY = {dtype: np.dtype(name) for dtype, name in zip(DType, ("u1", "i4", "u4", "f2", "f4"), strict=True)}
U8, I32, U32, F16, F32 = DType


class Kind(StrEnum):
    """What a tensor is for."""

    WEIGHTS = "weights"  # kernels only read them
    CACHE = "cache"  # grows with the context
    STATE = "state"  # of sequences, whatever their context
    SCRATCH = "scratch"  # rows on their way, which any launch may overwrite
    COUNTERS = "counters"  # zero between launches
    HOST = "host"  # host memory that kernels write to
    PAGES = "pages"  # that checkpoints take; uninitialised
    HOST_PAGES = "host pages"  # the same in host memory


class Allocator(Protocol):
    """What gives memory: a `Device`."""

    def alloc(self, nbytes: int, at_once: bool = True) -> Buffer:
        """Uninitialised device memory; at_once: whether all of it is used from now on."""

    def zeros(self, nbytes: int) -> Buffer:
        """Zero bytes of device memory."""

    def host_alloc(self, nbytes: int, at_once: bool = True) -> HostBuffer:
        """The same in host memory."""

    def host_zeros(self, nbytes: int) -> HostBuffer:
        """Zero bytes of host memory."""


@dataclass(eq=False)
class Region:
    """Memory that is allocated as one buffer; tensors of the same name share a region as large as the largest."""

    name: str
    kind: Kind
    nbytes: int = 0
    initial: Callable[[], np.ndarray] | None = None  # its first contents; None: zeros
    buffer: Buffer | None = None
    in_host_memory: bool = False  # of weights that kernels read there


@dataclass(frozen=True, eq=False)
class Tensor:
    """Elements of `dtype` in `shape`, from byte `offset` of a region. Offsets of methods are bytes of the tensor."""

    name: str
    dtype: DType
    shape: tuple[int, ...]
    region: Region
    offset: int = 0

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return prod(self.shape) * self.dtype.numpy.itemsize

    @property
    def buffer(self) -> Buffer:
        """The region's memory; RuntimeError before it is allocated."""
        if self.region.buffer is None:
            raise RuntimeError(f"{self.name} is not allocated")
        return self.region.buffer

    @property
    def pointer(self) -> int:
        """The address on the device."""
        return self.buffer.pointer + self.offset

    def part(self, first: int) -> Tensor:
        """What begins at element `first` of the tensor in one dimension."""
        left = prod(self.shape) - first
        if first < 0 or left < 0:
            raise ValueError(f"{self.name} of shape {self.shape} has no element {first}")
        return replace(self, shape=(left,), offset=self.offset + first * self.dtype.numpy.itemsize)

    def write(self, array: np.ndarray, offset: int = 0) -> None:
        """`Buffer.write`."""
        self._check(array.nbytes, offset)
        self.buffer.write(array, self.offset + offset)

    def read(self, count: int | None = None, offset: int = 0) -> np.ndarray:
        """`count` elements, by default all in the tensor's shape, after earlier work on the queue, as a new array."""
        elements = prod(self.shape) if count is None else count
        self._check(elements * self.dtype.numpy.itemsize, offset)
        values = self.buffer.read(self.dtype.numpy, elements, self.offset + offset)
        return values.reshape(self.shape) if count is None else values

    def fill(self, byte: int, offset: int = 0, nbytes: int | None = None) -> None:
        """`Buffer.fill`."""
        nbytes = self.nbytes - offset if nbytes is None else nbytes
        self._check(nbytes, offset)
        self.buffer.fill(byte, self.offset + offset, nbytes)

    def copy_from(self, other: Tensor, nbytes: int, offset: int = 0, source: int = 0) -> None:
        """`Buffer.copy_from`."""
        self._check(nbytes, offset)
        other._check(nbytes, source)
        self.buffer.copy_from(other.buffer, nbytes, self.offset + offset, other.offset + source)

    def _check(self, nbytes: int, offset: int) -> None:
        if offset < 0 or offset + nbytes > self.nbytes:
            raise ValueError(f"{nbytes} bytes at {offset} are not within {self.name} of {self.nbytes}")

    def view(self) -> np.ndarray:
        """The memory itself, of a tensor in host memory: what a finished kernel stored, without a copy."""
        assert isinstance(self.buffer, HostBuffer)
        return self.buffer.view(self.dtype.numpy)


class Arena:
    """Declares tensors, and allocates them all later: a size is known before any memory is taken."""

    def __init__(self) -> None:
        self._regions: dict[str, Region] = {}

    def tensor(
        self, name: str, dtype: DType, *shape: int, kind: Kind = Kind.SCRATCH,
        initial: Callable[[], np.ndarray] | None = None,
    ) -> Tensor:  # fmt: skip
        """A tensor in the region `name`, whose contents it shares with all tensors of that name."""
        region = self._regions.setdefault(name, Region(name, kind, initial=initial))
        if region.kind is not kind:
            raise ValueError(f"{name} is {region.kind} and {kind}")
        if (region.initial is None) != (initial is None):
            raise ValueError(f"{name} is declared with and without first contents")
        tensor = Tensor(name, dtype, shape, region)
        region.nbytes = max(region.nbytes, tensor.nbytes)
        return tensor

    @property
    def regions(self) -> list[Region]:
        """All regions."""
        return list(self._regions.values())

    def nbytes(self, *kinds: Kind) -> int:
        """Bytes of all regions of these kinds."""
        return sum(region.nbytes for region in self._regions.values() if region.kind in kinds)

    @property
    def host_weights_bytes(self) -> int:
        """Bytes of all weights in host memory."""
        return sum(region.nbytes for region in self._regions.values() if region.in_host_memory)

    def allocate(self, device: Allocator) -> None:
        """Give every region except weights its memory and first contents."""
        for region in self._regions.values():
            if region.kind is Kind.HOST:
                region.buffer = device.host_zeros(region.nbytes)
            elif region.kind is Kind.PAGES:
                region.buffer = device.alloc(region.nbytes, at_once=False)
            elif region.kind is Kind.HOST_PAGES:
                region.buffer = device.host_alloc(region.nbytes, at_once=False)
            elif region.kind is not Kind.WEIGHTS:
                region.buffer = device.zeros(region.nbytes)
            if region.initial and region.buffer:
                region.buffer.write(region.initial())
