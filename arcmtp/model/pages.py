"""Memory for checkpoints: pages of one size, each of which holds keys and values of neighbouring tokens, or a part of
a recurrent state."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain

from arcmtp.model.blocks.cache import Cache
from arcmtp.runtime.memory import Buffer, Move
from arcmtp.runtime.tensor import U8, Arena, Kind, Tensor

# Tokens whose keys and values fill a page: 5 MiB in f16 of Qwen3.6-35B-A3B, whose state takes 12 pages.
PAGE_TOKENS = 256


@dataclass(eq=False)
class Pool:
    """Pages [count, bytes] of device memory, or of host memory."""

    tensor: Tensor
    free: list[int] = field(default_factory=list)  # none before `clear`

    def clear(self) -> None:
        """Make all pages free, the first ones to be taken first."""
        self.free = list(reversed(range(self.count)))

    @property
    def count(self) -> int:
        """Pages, free or not."""
        return self.tensor.shape[0]

    @property
    def page_bytes(self) -> int:
        """Bytes of a page."""
        return self.tensor.shape[1]

    @property
    def used_bytes(self) -> int:
        """Bytes of the pages that are not free."""
        return (self.count - len(self.free)) * self.page_bytes

    def take(self, count: int) -> list[Page]:
        """So many free pages."""
        return [Page(self, self.free.pop()) for _ in range(count)]


@dataclass(frozen=True)
class Page:
    """A page of a pool that somebody has."""

    pool: Pool
    index: int

    def give_back(self) -> None:
        """Make it free."""
        self.pool.free.append(self.index)

    @property
    def offset(self) -> int:
        """Its first byte in the pool's buffer."""
        return self.pool.tensor.offset + self.index * self.pool.page_bytes


class Pages:
    """The two pools of a network's checkpoints, and the copies between slots and pages.

    nbytes: what the device's pool and the host's may take, of which they take whole pages.
    """

    def __init__(self, arena: Arena, caches: Sequence[Cache], nbytes: tuple[int, int]) -> None:
        self._caches = caches
        self._state_bytes = sum(cache.nbytes(0) for cache in caches)
        token_bytes = sum(cache.nbytes(PAGE_TOKENS) for cache in caches) - self._state_bytes
        page = token_bytes or self._state_bytes  # a model without attention has no keys
        on_device, in_host_memory = nbytes
        self.device = Pool(arena.tensor("pages", U8, on_device // page, page, kind=Kind.PAGES))
        self.host = Pool(arena.tensor("host pages", U8, in_host_memory // page, page, kind=Kind.HOST_PAGES))

    @property
    def of_state(self) -> int:
        """Pages that the state of a slot takes."""
        return -(-self._state_bytes // self.device.page_bytes)

    def save_state(self, slot: int, pages: Sequence[Page]) -> None:
        """Copy the state of a slot to `of_state` pages."""
        Buffer.copy_all([_reversed(move) for move in self._moves(self._state(slot), pages)])

    def restore_state(self, slot: int, pages: Sequence[Page]) -> None:
        """Copy it back, to any slot."""
        Buffer.copy_all(list(self._moves(self._state(slot), pages)))

    def save_tokens(self, slot: int, first: int, end: int, page: Page) -> None:
        """Copy what belongs to the positions first … end - 1 of a slot, at most PAGE_TOKENS, to a page."""
        Buffer.copy_all([_reversed(move) for move in self._moves(self._tokens(slot, first, end), [page])])

    def restore_tokens(self, slot: int, first: int, end: int, page: Page) -> None:
        """Copy them back, to any slot."""
        Buffer.copy_all(list(self._moves(self._tokens(slot, first, end), [page])))

    def move(self, pages: Sequence[Page], pool: Pool) -> list[Page]:
        """Copy pages to free pages of another pool, and give them back."""
        taken = pool.take(len(pages))
        Buffer.copy_all(
            [
                Move(to.pool.tensor.buffer, to.offset, page.pool.tensor.buffer, page.offset, pool.page_bytes)
                for to, page in zip(taken, pages, strict=True)
            ]
        )
        for page in pages:
            page.give_back()
        return taken

    def _state(self, slot: int) -> Iterator[tuple[Tensor, int, int]]:
        return chain.from_iterable(((cache.tensor, *span) for span in cache.state(slot)) for cache in self._caches)

    def _tokens(self, slot: int, first: int, end: int) -> Iterator[tuple[Tensor, int, int]]:
        for cache in self._caches:
            for span in cache.by_position(slot, first, end):
                yield cache.tensor, *span

    def _moves(self, spans: Iterator[tuple[Tensor, int, int]], pages: Sequence[Page]) -> Iterator[Move]:
        """From pages, one behind the other, to spans of tensors; a span may go over the end of a page."""
        at, size = 0, self.device.page_bytes
        for tensor, offset, left in spans:
            offset += tensor.offset
            while left:
                page, within = pages[at // size], at % size
                nbytes = min(left, size - within)
                yield Move(tensor.buffer, offset, page.pool.tensor.buffer, page.offset + within, nbytes)
                at, offset, left = at + nbytes, offset + nbytes, left - nbytes


def _reversed(move: Move) -> Move:
    return Move(move.source, move.source_offset, move.to, move.offset, move.nbytes)
