"""What a block keeps of sequences between launches: one protocol for keys and values, and for recurrent state."""

from __future__ import annotations

from typing import Protocol

from arcmtp.formats.kv_cache import KvFormat
from arcmtp.runtime.tensor import Tensor

Span = tuple[int, int]  # first byte in a cache's tensor, bytes


class Cache(Protocol):
    """Memory of a block for each slot: spans of bytes of `tensor`, which a checkpoint copies."""

    tensor: Tensor

    def nbytes(self, tokens: int) -> int:
        """Bytes that a sequence of so many tokens takes."""

    def reset(self, slot: int) -> None:
        """Begin a new sequence."""

    def state(self, slot: int) -> list[Span]:
        """What of a slot has one size, whatever the sequence's length: it holds for its last token alone."""

    def by_position(self, slot: int, first: int, end: int) -> list[Span]:
        """What of a slot belongs to the positions first … end - 1; `first` is a multiple of KEY_TILE."""


class KvCache:
    """Keys and values [slots, *`kv.shape`]. They lie by position, so that what lies behind a sequence's end does not
    matter."""

    def __init__(self, tensor: Tensor, kv: KvFormat) -> None:
        self.tensor = tensor
        self._format, self._slots, self._shape = kv, tensor.shape[0], tensor.shape[1:]

    def nbytes(self, tokens: int) -> int:
        return tokens * self.tensor.nbytes // (self._slots * self._shape[2])

    def reset(self, slot: int) -> None:
        pass

    def state(self, slot: int) -> list[Span]:
        return []

    def by_position(self, slot: int, first: int, end: int) -> list[Span]:
        begin = slot * (self.tensor.nbytes // self._slots)
        return [(begin + offset, nbytes) for offset, nbytes in self._format.spans(self._shape, first, end)]


class StateCache:
    """State of the same size whatever a sequence's length, [slots, …]."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor
        self._size = tensor.nbytes // tensor.shape[0]  # bytes of a slot

    def nbytes(self, tokens: int) -> int:
        return self._size

    def reset(self, slot: int) -> None:
        self.tensor.fill(0, slot * self._size, self._size)

    def state(self, slot: int) -> list[Span]:
        return [(slot * self._size, self._size)]

    def by_position(self, slot: int, first: int, end: int) -> list[Span]:
        return []
