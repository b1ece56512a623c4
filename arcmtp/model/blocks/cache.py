"""What a block keeps of sequences between launches: one protocol for keys and values, and for recurrent state."""

from __future__ import annotations

from typing import Protocol

from arcmtp.formats.kv_cache import KvFormat
from arcmtp.runtime.tensor import Tensor


class Cache(Protocol):
    """Memory of a block for each slot. A checkpoint is what a sequence can go back to."""

    tensor: Tensor

    def nbytes(self, tokens: int) -> int:
        """Bytes that a sequence of so many tokens takes."""

    def reset(self, slot: int) -> None:
        """Begin a new sequence."""

    def save(self, slot: int) -> None:
        """Make the state the slot's checkpoint; nothing is pending."""

    def restore(self, slot: int) -> None:
        """Go back to the slot's checkpoint."""

    def copy(self, source: int, target: int, tokens: int) -> None:
        """Copy the checkpoint of slot `source`, of so many tokens, to slot `target`."""


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

    def save(self, slot: int) -> None:
        pass

    def restore(self, slot: int) -> None:
        pass

    def copy(self, source: int, target: int, tokens: int) -> None:
        size = self.tensor.nbytes // self._slots
        for begin, used in self._format.spans(self._shape, tokens):
            self.tensor.copy_from(self.tensor, used, target * size + begin, source * size + begin)


class StateCache:
    """State of the same size whatever a sequence's length, [slots, …], with a checkpoint of the same shape."""

    def __init__(self, tensor: Tensor, checkpoint: Tensor) -> None:
        self.tensor, self._checkpoint = tensor, checkpoint
        self._size = tensor.nbytes // tensor.shape[0]  # bytes of a slot

    def nbytes(self, tokens: int) -> int:
        return self._size

    def reset(self, slot: int) -> None:
        self.tensor.fill(0, slot * self._size, self._size)

    def save(self, slot: int) -> None:
        self._checkpoint.copy_from(self.tensor, self._size, slot * self._size, slot * self._size)

    def restore(self, slot: int) -> None:
        self.tensor.copy_from(self._checkpoint, self._size, slot * self._size, slot * self._size)

    def copy(self, source: int, target: int, tokens: int) -> None:
        self._checkpoint.copy_from(self._checkpoint, self._size, target * self._size, source * self._size)
