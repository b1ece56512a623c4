"""The cache of checkpoints: which are found, which go first, and that no page is lost; memory is a dictionary here."""

import random
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from arcmtp.engine.prefix_cache import PrefixCache
from arcmtp.model.pages import PAGE_TOKENS, Page, Pool

STATE_PAGES = 3


class FakePages:
    """Slots hold tokens; a page holds some of them, or all that are before a state."""

    of_state = STATE_PAGES

    def __init__(self, device: int, host: int) -> None:
        self.device, self.host = (Pool(SimpleNamespace(shape=(count, 1))) for count in (device, host))  # type: ignore[arg-type]
        self.slots: dict[int, list[int]] = {}
        self.held: dict[tuple[int, int], Any] = {}

    def place(self, page: Page) -> tuple[int, int]:
        return id(page.pool), page.index

    def save_state(self, slot: int, pages: Sequence[Page]) -> None:
        assert len(pages) == STATE_PAGES
        for part, page in enumerate(pages):
            self.held[self.place(page)] = (part, list(self.slots[slot]))

    def restore_state(self, slot: int, pages: Sequence[Page]) -> None:
        parts = [self.held[self.place(page)] for page in pages]
        assert [part for part, _ in parts] == list(range(STATE_PAGES)) and all(ids == parts[0][1] for _, ids in parts)
        self.state = parts[0][1]

    def save_tokens(self, slot: int, first: int, end: int, page: Page) -> None:
        self.held[self.place(page)] = self.slots[slot][first:end]

    def restore_tokens(self, slot: int, first: int, end: int, page: Page) -> None:
        self.slots[slot][first:end] = self.held[self.place(page)]

    def move(self, pages: Sequence[Page], pool: Pool) -> list[Page]:
        taken = pool.take(len(pages))
        for to, page in zip(taken, pages, strict=True):
            self.held[self.place(to)] = self.held.pop(self.place(page))
            page.give_back()
        return taken


def made(device: int, host: int) -> tuple[PrefixCache, FakePages]:
    pages = FakePages(device, host)
    return PrefixCache(SimpleNamespace(pages=pages)), pages  # type: ignore[arg-type]


def go_to(cache: PrefixCache, pages: FakePages, slot: int, ids: list[int]) -> int:
    """As a slot goes on for a prompt; its tokens must be the prompt's after that. How many were known."""
    found = cache.find(ids)
    if found is None:
        pages.slots[slot] = list(ids)
        return 0
    had = pages.slots.get(slot, [])
    kept = next((at for at, (a, b) in enumerate(zip(had, ids, strict=False)) if a != b), min(len(had), len(ids)))
    pages.slots[slot] = [*had[:kept], *[-1] * (found.tokens - kept)][: found.tokens]
    cache.restore(found, slot, kept)
    assert pages.slots[slot] == pages.state == ids[: found.tokens]
    pages.slots[slot] = list(ids)
    return found.tokens


def check_pages(cache: PrefixCache, pages: FakePages) -> None:
    """Every page is free or somebody's, and what lies on the device is there for a checkpoint that counts for it."""
    used = {pages.place(page) for one in cache._used for page in one.own}
    nodes = {node for one in cache._used for node in one.path}
    used |= {pages.place(node.page) for node in nodes if node.page}
    for pool in (pages.device, pages.host):
        assert len(pool.free) == len(set(pool.free))
        of_pool = {index for where, index in used if where == id(pool)}
        assert of_pool.isdisjoint(pool.free) and len(of_pool) + len(pool.free) == pool.count
    for node in nodes:
        users = [one for one in cache._used if node in one.path]
        assert (node.users, node.device_users) == (len(users), sum(one.on_device for one in users))
        assert node.page and (node.page.pool is pages.host or node.device_users)
    for one in cache._used:
        assert one.on_device or all(page.pool is pages.host for page in one.own)


@pytest.mark.parametrize(("device", "host"), [(40, 60), (9, 30), (12, 0), (0, 25), (30, 5), (4, 4), (3, 3)])
def test_random_conversations_find_the_deepest_checkpoint_and_lose_no_page(device: int, host: int) -> None:
    cache, pages = made(device, host)
    draw = random.Random(device + host)
    talks = [[draw.randrange(3) for _ in range(draw.choice([30, 300, 600]))] for _ in range(4)]
    for _ in range(600):
        slot, ids = draw.randrange(3), draw.choice(talks)
        ids = [*ids[: draw.randrange(1, len(ids) + 1)], *[draw.randrange(3) for _ in range(draw.choice([0, 5, 200]))]]
        saved = [[*tokens_of(one)] for one in cache._used]
        deepest = max((len(one) for one in saved if ids[: len(one)] == one), default=0)
        assert go_to(cache, pages, slot, ids) == deepest
        shared = max((alike(one, ids) for one in saved), default=0)
        assert cache.known(ids) == shared
        spared = cache.find(ids) if draw.random() < 0.3 else None
        cache.save(ids, slot, spared)
        assert spared is None or spared in cache._used
        check_pages(cache, pages)
        talks[draw.randrange(4)] = ids if len(ids) < 1500 else ids[:100]
    assert cache.enabled is (max(device, host) > STATE_PAGES)
    assert bool(cache.counts.hits) is cache.enabled
    cache.clear()
    assert (len(cache), cache.device_bytes, cache.host_bytes) == (0, 0, 0)


def tokens_of(checkpoint: Any) -> list[int]:
    key = b"".join(node.tokens for node in reversed(list(checkpoint.path))) + checkpoint.tail
    return [int.from_bytes(key[at : at + 4], "little") for at in range(0, len(key), 4)]


def alike(a: Sequence[int], b: Sequence[int]) -> int:
    return next((at for at, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def saved(cache: PrefixCache, pages: FakePages, ids: list[int]) -> None:
    pages.slots[0] = ids
    cache.save(ids, 0)


def test_sequences_with_one_beginning_share_its_pages() -> None:
    cache, pages = made(30, 0)
    beginning = list(range(2 * PAGE_TOKENS))
    for last in range(4):
        saved(cache, pages, [*beginning, last])
    assert cache.device_bytes == 2 + 4 * (STATE_PAGES + 1)


def test_the_least_recently_used_goes_to_host_memory_and_then_away() -> None:
    cache, pages = made(8, 8)
    for first in range(2):
        saved(cache, pages, [first])
    cache.find([0, 9])  # now 1 is the least recently used
    saved(cache, pages, [2])
    assert [(tokens_of(one), one.on_device) for one in cache._used] == [([1], False), ([0], True), ([2], True)]
    for first in (3, 4):
        saved(cache, pages, [first])
    assert [tokens_of(one) for one in cache._used] == [[0], [2], [3], [4]]
    assert (cache.counts.moved, cache.counts.evicted) == (3, 1)


def test_what_a_slot_goes_on_from_is_spared() -> None:
    cache, pages = made(4, 0)
    saved(cache, pages, [1])
    pages.slots[0] = [1, 2]
    cache.save([1, 2], 0, spared=cache.find([1, 2, 3]))
    assert [tokens_of(one) for one in cache._used] == [[1]]
    cache.save([1, 2], 0)
    assert [tokens_of(one) for one in cache._used] == [[1, 2]]


def test_what_is_too_large_takes_nothing_elses_place() -> None:
    cache, pages = made(8, 0)
    saved(cache, pages, [1])
    saved(cache, pages, list(range(9 * PAGE_TOKENS)))
    assert [tokens_of(one) for one in cache._used] == [[1]]


def test_what_another_checkpoint_on_the_device_needs_stays_there() -> None:
    cache, pages = made(2 * (STATE_PAGES + 1) + 1, 20)
    for last in range(3):
        saved(cache, pages, [*range(PAGE_TOKENS), last])
    assert [one.on_device for one in cache._used] == [False, True, True]
    assert all(node.page and node.page.pool is pages.device for one in cache._used for node in one.path)


def test_what_is_in_host_memory_goes_with_the_last_one_that_keeps_its_beginning_on_the_device() -> None:
    cache, pages = made(2 * (STATE_PAGES + 1) + 1, STATE_PAGES + 1)
    for ids in ([*range(PAGE_TOKENS), 1], [*range(PAGE_TOKENS), 2], [5]):
        saved(cache, pages, ids)
    assert [one.on_device for one in cache._used] == [False, True, True]
    saved(cache, pages, [6])  # host memory has no room for a checkpoint with its beginning
    assert [tokens_of(one) for one in cache._used] == [[5], [6]]
    check_pages(cache, pages)
