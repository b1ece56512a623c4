"""Checkpoints of many sequences, by their tokens: any prompt can go on from the deepest one that it begins with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from arcmtp.model.network import Network
from arcmtp.model.pages import PAGE_TOKENS, Page, Pages, Pool

SPACING = 64  # tokens that are evaluated again for less than it takes to keep another state
_KEY_BYTES = 4 * PAGE_TOKENS  # of a node's token ids, as keys have them


@dataclass(eq=False)
class _Node:
    """A node of the tree: PAGE_TOKENS tokens behind those of its parent, with their keys and values in a page.

    The root has neither. children: by their tokens. checkpoints: by the tokens behind this node, fewer than a page's.
    """

    parent: _Node | None = None
    tokens: bytes = b""
    page: Page | None = None
    depth: int = 0  # tokens up to its end
    children: dict[bytes, _Node] = field(default_factory=dict)
    checkpoints: dict[bytes, Checkpoint] = field(default_factory=dict)
    users: int = 0  # checkpoints at this node or behind it
    device_users: int = 0  # those of them that count for the device


@dataclass(eq=False)
class Checkpoint:
    """A recurrent state, with the keys and values of all tokens before it: the path to its node, and a page for its
    tail, the tokens behind. own: pages of the state, and the tail's if there is one."""

    node: _Node
    tail: bytes
    own: list[Page]
    on_device: bool = True  # if not, no page is on the device for its sake

    @property
    def tokens(self) -> int:
        """How many tokens are before it."""
        return self.node.depth + len(self.tail) // 4

    @property
    def path(self) -> Iterator[_Node]:
        """The nodes before it, the last one first."""
        node = self.node
        while node.parent is not None:
            yield node
            node = node.parent


@dataclass
class Counts:
    """What a cache has done: prompts that went on from a checkpoint, checkpoints that were saved, that went from the
    device to host memory, and that were dropped for want of memory."""

    hits: int = 0
    saved: int = 0
    moved: int = 0
    evicted: int = 0


class PrefixCache:
    """Checkpoints in a tree, whose nodes have PAGE_TOKENS tokens each: sequences that begin alike share pages.

    The least recently used go first: from the device's pages to those in host memory, and from there away. A slot goes
    on from pages of either kind.
    """

    def __init__(self, network: Network) -> None:
        self._pages: Pages = network.pages
        self.counts = Counts()
        self.clear()

    def clear(self) -> None:
        """Forget every checkpoint, also where saving one was interrupted."""
        self._root = _Node()
        self._used: dict[Checkpoint, None] = {}  # least recently used first
        for pool in (self._pages.device, self._pages.host):
            pool.clear()

    @property
    def enabled(self) -> bool:
        """Whether anything can be saved."""
        return any(pool.count > self._pages.of_state for pool in (self._pages.device, self._pages.host))

    def __len__(self) -> int:
        return len(self._used)

    @property
    def device_bytes(self) -> int:
        """Bytes of the device's pages in use."""
        return self._pages.device.used_bytes

    @property
    def host_bytes(self) -> int:
        """Bytes of the pages in host memory in use."""
        return self._pages.host.used_bytes

    def find(self, ids: Sequence[int]) -> Checkpoint | None:
        """The deepest checkpoint that has seen the beginning of `ids` and nothing else; it is used from now on."""
        key, found = _key(ids), None
        for node in self._walk(key):
            fitting = [tail for tail in node.checkpoints if key.startswith(tail, 4 * node.depth)]
            found = node.checkpoints[max(fitting, key=len)] if fitting else found
        if found is not None:
            self._touch(found)
        return found

    def known(self, ids: Sequence[int]) -> int:
        """How many tokens at the beginning of `ids` some checkpoint has seen, whatever it has seen behind them."""
        key = _key(ids)
        *_, last = self._walk(key)
        rest = key[4 * last.depth : 4 * last.depth + _KEY_BYTES]
        return last.depth + max((_common(rest, other) for other in (*last.children, *last.checkpoints)), default=0)

    def save(self, ids: Sequence[int], slot: int, spared: Checkpoint | None = None) -> None:
        """Make a checkpoint of a slot that has seen `ids`, with no cycle of it under way, unless there is one or
        no room can be made. spared: a checkpoint that is not to go for this one."""
        key = _key(ids)
        *path, node = self._walk(key)
        if (known := node.checkpoints.get(key[4 * node.depth :])) is not None:
            self._touch(known)
            return
        places = range(node.depth, len(ids) - PAGE_TOKENS + 1, PAGE_TOKENS)
        tail = key[4 * (len(ids) // PAGE_TOKENS * PAGE_TOKENS) :]
        count = self._pages.of_state + len(places) + bool(tail)
        on_device = count <= self._pages.device.count
        held = [*path[1:], node] if node.parent else []
        _count_users(held, 1, on_device)
        has_room = self._device_room(count, spared) if on_device else self._host_room(count, spared)
        _count_users(held, -1, on_device)
        if not has_room:
            self._prune(node)
            self._drop_stuck(held)
            return
        pages = (self._pages.device if on_device else self._pages.host).take(count)
        for first in places:
            tokens, page, parent = key[4 * first : 4 * (first + PAGE_TOKENS)], pages.pop(), node
            self._pages.save_tokens(slot, first, first + PAGE_TOKENS, page)
            node = parent.children[tokens] = _Node(parent, tokens, page, first + PAGE_TOKENS)
        self._pages.save_state(slot, pages[: self._pages.of_state])
        if tail:
            self._pages.save_tokens(slot, node.depth, len(ids), pages[-1])
        node.checkpoints[tail] = made = Checkpoint(node, tail, pages, on_device)
        _count_users(made.path, 1, on_device)
        self._used[made] = None
        self.counts.saved += 1

    def restore(self, checkpoint: Checkpoint, slot: int, kept: int) -> None:
        """Bring a slot to a checkpoint. kept: tokens at its beginning whose keys and values the slot has already."""
        self.counts.hits += 1
        self._pages.restore_state(slot, checkpoint.own[: self._pages.of_state])
        for node in checkpoint.path:
            if node.depth > kept:
                assert node.page is not None
                self._pages.restore_tokens(slot, node.depth - PAGE_TOKENS, node.depth, node.page)
        if checkpoint.tail and checkpoint.tokens > kept:
            self._pages.restore_tokens(slot, checkpoint.node.depth, checkpoint.tokens, checkpoint.own[-1])

    def _walk(self, key: bytes) -> Iterator[_Node]:
        """The nodes that a sequence begins with, from the root on."""
        node: _Node | None = self._root
        while node is not None:
            yield node
            node = node.children.get(key[4 * node.depth : 4 * node.depth + _KEY_BYTES])

    def _touch(self, checkpoint: Checkpoint) -> None:
        del self._used[checkpoint]
        self._used[checkpoint] = None

    def _device_room(self, count: int, spared: Checkpoint | None) -> bool:
        """Make so many of the device's pages free; whether that was possible."""
        device = self._pages.device
        while len(device.free) < count and (oldest := self._oldest(True, spared)):
            self._leave_device(oldest, spared)
        return count <= len(device.free)

    def _host_room(self, count: int, spared: Checkpoint | None) -> bool:
        """The same in host memory."""
        host = self._pages.host
        if count <= host.count:
            while len(host.free) < count and (oldest := self._oldest(False, spared)):
                self._evict(oldest)
        return count <= len(host.free)

    def _oldest(self, on_device: bool, spared: Checkpoint | None) -> Checkpoint | None:
        """The least recently used checkpoint that counts for the device, or one that does not."""
        of_kind = (one for one in self._used if one.on_device is on_device and one is not spared)
        return next(of_kind, None)

    def _leave_device(self, checkpoint: Checkpoint, spared: Checkpoint | None) -> None:
        """Move the pages to host memory that are on the device for this checkpoint alone; drop it if they cannot be."""
        device = self._pages.device
        nodes = [one for one in checkpoint.path if one.device_users == 1 and _on(device, one.page)]
        count = len(checkpoint.own)
        if not self._host_room(count + len(nodes), spared):
            self._evict(checkpoint)
            return
        moved = self._pages.move([*checkpoint.own, *(node.page for node in nodes if node.page)], self._pages.host)
        checkpoint.own = moved[:count]
        for node, page in zip(nodes, moved[count:], strict=True):
            node.page = page
        for node in checkpoint.path:
            node.device_users -= 1
        checkpoint.on_device = False
        self.counts.moved += 1

    def _evict(self, checkpoint: Checkpoint) -> None:
        self.counts.evicted += 1
        path = list(checkpoint.path)
        self._drop(checkpoint)
        self._drop_stuck(path)

    def _drop_stuck(self, nodes: Sequence[_Node]) -> None:
        """Drop what does not count for the device and has one of these nodes there, for which nothing else counts."""
        device = self._pages.device
        stuck = {one for one in nodes if one.users and not one.device_users and _on(device, one.page)}
        for other in [other for other in self._used if not stuck.isdisjoint(other.path)]:
            self.counts.evicted += 1
            self._drop(other)

    def _drop(self, checkpoint: Checkpoint) -> None:
        del self._used[checkpoint], checkpoint.node.checkpoints[checkpoint.tail]
        for page in checkpoint.own:
            page.give_back()
        _count_users(checkpoint.path, -1, checkpoint.on_device)
        self._prune(checkpoint.node)

    def _prune(self, node: _Node) -> None:
        """Give the pages of a node and of those before it back, as far as no checkpoint needs them."""
        while node.parent is not None and not node.users:
            assert node.page is not None
            node.page.give_back()
            del node.parent.children[node.tokens]
            node = node.parent


def _count_users(nodes: Iterable[_Node], change: int, on_device: bool) -> None:
    """Add to the users of nodes, and to those that count for the device."""
    for node in nodes:
        node.users += change
        node.device_users += change * on_device


def common(a: Sequence[int], b: Sequence[int]) -> int:
    """How many tokens two sequences begin with alike."""
    least, most = 0, min(len(a), len(b))
    while least < most:
        middle = (least + most + 1) // 2
        if a[least:middle] == b[least:middle]:
            least = middle
        else:
            most = middle - 1
    return least


def _key(ids: Sequence[int]) -> bytes:
    return np.asarray(ids, np.int32).tobytes()


def _common(a: bytes, b: bytes) -> int:
    length = min(len(a), len(b))
    differ = np.frombuffer(a[:length], np.int32) != np.frombuffer(b[:length], np.int32)
    return int(differ.argmax()) if differ.any() else length // 4


def _on(pool: Pool, page: Page | None) -> bool:
    return page is not None and page.pool is pool
