"""The check for accesses without an order: each wrong piece of code is told, its right twin passes; and random orders.

Order in a work-group comes from barriers; between groups from store, fence, atomic operation there and atomic
operation, fence that invalidates, load here (vISA's pages BARRIER and LSC_FENCE).
"""

import numpy as np
import pytest

from tests.emulator.machine import RACES, REGISTER, Fault, State, run
from tests.emulator.messages import BARRIER, FENCE, INVALIDATE, TEAM_FENCE, memory

pytestmark = pytest.mark.emulated

BASE = 0xFFFF_8000_0000_1000
COUNTER = 2048  # behind BASE
THREAD = "and (1|M0) r11.0<1>:ud r0.2<0;1,0>:ud 0xFF:ud"
TEAM_LOAD, TEAM_STORE = memory("load", "slm", "d32", 12, 20), memory("store", "slm", "d32", 12, 21)
LOAD, STORE = memory("load", "ugm", "d32", 10, 20), memory("store", "ugm", "d32", 10, 21)
COUNT = memory("atomic_iinc", "ugm", "d32", 14, None, returns=15)
SEEDS = (0, 1, 2, 3)


def state_of(groups: int, threads: int) -> State:
    state = State(groups, threads, {BASE: np.zeros(4096, np.uint8)}, 1024)
    state.put(10 * REGISTER, np.array([BASE], np.uint64))
    state.put(14 * REGISTER, np.array([BASE + COUNTER], np.uint64))
    return state


def only(thread: int, lines: list[str], label: str) -> list[str]:
    """These instructions in one thread of a group."""
    skip = f"cmp (1|M0) (ne)f0.0 null<1>:ud r11.0<0;1,0>:ud 0x{thread:X}:uw"
    return [skip, f"(W&f0.0) jmpi {label}", *lines, f"{label}:"]


def told(lines: list[str], groups: int, threads: int, what: str, seed: int) -> None:
    with pytest.raises(Fault, match=rf"^emulator: code .*{what}") as caught:
        run([THREAD, *lines], state_of(groups, threads), RACES, seed)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("first", "second"), [([TEAM_STORE], [TEAM_STORE]), ([TEAM_STORE], [TEAM_LOAD]), ([TEAM_LOAD], [TEAM_STORE])]
)
def test_two_threads_at_one_byte_of_team_memory_need_a_barrier_between(
    first: list[str], second: list[str], seed: int
) -> None:
    one, other = only(0, first, "SECOND"), only(1, second, "END")
    told([*one, *other], 1, 2, "without a barrier between.*send", seed)
    run([THREAD, *one, TEAM_FENCE, *BARRIER, *other], state_of(1, 2), RACES, seed)


@pytest.mark.parametrize("seed", SEEDS)
def test_reading_together_and_bytes_of_ones_own_need_none(seed: int) -> None:
    mine = "shl (1|M0) r12.0<1>:ud r11.0<0;1,0>:ud 2:uw"
    run([THREAD, mine, TEAM_STORE, TEAM_LOAD, TEAM_STORE], state_of(3, 8), RACES, seed)
    everywhere = ["mov (1|M0) r12.0<1>:ud 0x0:ud", TEAM_LOAD]
    run([THREAD, mine, TEAM_STORE, TEAM_FENCE, *BARRIER, *everywhere], state_of(3, 8), RACES, seed)


@pytest.mark.parametrize("seed", SEEDS)
def test_neighbouring_bytes_that_overlap_by_one_are_told(seed: int) -> None:
    bytes_ = ["mov (1|M0) r12.0<1>:ud r11.0<0;1,0>:ud", "shl (1|M0) r12.0<1>:ud r12.0<0;1,0>:ud 1:uw", TEAM_STORE]
    told(bytes_, 1, 2, "without a barrier between", seed)


def handed_over(store: list[str], count: list[str], take: list[str]) -> list[str]:
    """Each group stores its own word; the last one to count loads all of them."""
    groups = 4
    mine = [
        "shl (1|M0) r16.0<1>:ud r0.1<0;1,0>:ud 2:uw",
        "mov (1|M0) r18.0<1>:uq r10.0<0;1,0>:uq",
        "add (1|M0) r18.0<1>:uq r18.0<0;1,0>:uq r16.0<0;1,0>:ud",
        "add (1|M0) r21.0<1>:ud r0.1<0;1,0>:ud 0x1:uw",
    ]
    last = f"cmp (1|M0) (ne)f0.1 null<1>:ud r15.0<0;1,0>:ud 0x{groups - 1:X}:uw"
    return [*mine, *store, *count, last, "(W&f0.1) jmpi END", *take, memory("load", "ugm", "d32x4t", 10, 20), "END:"]


MINE = memory("store", "ugm", "d32", 18, 21)


@pytest.mark.parametrize("seed", SEEDS)
def test_groups_hand_over_by_store_fence_atomic_fence_load(seed: int) -> None:
    state = run([THREAD, *handed_over([MINE, FENCE], [COUNT], [INVALIDATE])], state_of(4, 1), RACES, seed)
    last = state.get(15 * REGISTER, 1, np.uint32)[:, 0, 0] == 3
    assert state.get(20 * REGISTER, 4, np.uint32)[last, 0].tolist() == [[1, 2, 3, 4]]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("store", "count", "take"),
    [
        ([MINE], [COUNT], [INVALIDATE]),  # no fence behind the store
        ([MINE, FENCE], [COUNT], []),  # no fence in front of the load
        ([MINE, FENCE], [COUNT], [FENCE]),  # one that keeps what the cache holds
        ([FENCE, MINE], [COUNT], [INVALIDATE]),  # in front of the store
    ],
)
def test_a_hand_over_without_one_of_its_fences_is_told(
    store: list[str], count: list[str], take: list[str], seed: int
) -> None:
    told(handed_over(store, count, take), 4, 1, "no order between two accesses.*send.*send", seed)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("lines", [[STORE], [*only(9, [], "NONE"), LOAD, STORE], [STORE, LOAD]])
def test_groups_at_one_byte_of_global_memory_without_an_atomic_operation_are_told(lines: list[str], seed: int) -> None:
    told(lines, 2, 1, "no order between two accesses", seed)


@pytest.mark.parametrize("seed", SEEDS)
def test_groups_may_read_one_byte_and_count_at_one_word(seed: int) -> None:
    run([THREAD, LOAD, COUNT, COUNT], state_of(8, 2), RACES, seed)
    told([COUNT, memory("load", "ugm", "d32", 14, 20)], 2, 1, "no order between two accesses", seed)


@pytest.mark.parametrize("seed", SEEDS)
def test_threads_at_one_byte_of_global_memory_need_a_fence_and_a_barrier(seed: int) -> None:
    one, other = only(0, [STORE, FENCE], "SECOND"), only(1, [LOAD], "END")
    told([*one, *other], 1, 2, "no order between two accesses", seed)
    run([THREAD, *one, *BARRIER, *other], state_of(1, 2), RACES, seed)


@pytest.mark.parametrize("seed", SEEDS)
def test_what_a_groups_threads_stored_is_handed_over_by_one_of_them(seed: int) -> None:
    mine = [
        "shl (1|M0) r16.0<1>:ud r0.1<0;1,0>:ud 3:uw",
        "mad (1|M0) r16.0<1>:ud r16.0<0;0>:ud r11.0<0;0>:uw 0x4:uw",
        "add (1|M0) r18.0<1>:uq r10.0<0;1,0>:uq r16.0<0;1,0>:ud",
        MINE,
        FENCE,
    ]
    load = [INVALIDATE, memory("load", "ugm", "d32x4t", 10, 22)]
    last = ["cmp (1|M0) (ne)f0.1 null<1>:ud r15.0<0;1,0>:ud 0x1:uw", "(W&f0.1) jmpi END"]
    taken = only(0, [COUNT, *last, *load], "END")
    run([THREAD, *mine, *BARRIER, *taken], state_of(2, 2), RACES, seed)
    told([*mine, *taken], 2, 2, "no order between two accesses", seed)  # no barrier in front of the count
    first = only(0, [COUNT, *load], "END")  # also the group that counts first loads
    told([*mine, *BARRIER, *first], 2, 2, "no order between two accesses", seed)


def test_a_seed_says_the_order_and_other_seeds_say_others() -> None:
    def order(seed: int) -> list[int]:
        # Each thread of a group counts up a word of team memory, which the order of threads shows.
        state = state_of(1, 8)
        lines = [THREAD, "mov (1|M0) r12.0<1>:ud 0x0:ud", TEAM_LOAD,
                 "add (1|M0) r21.0<1>:ud r20.0<0;1,0>:ud 0x1:uw", TEAM_STORE]  # fmt: skip
        run(lines, state, 0, seed)
        counts = state.get(20 * REGISTER, 1, np.uint32)[0, :, 0]
        return np.argsort(counts.astype(np.int32)).tolist()

    assert order(0) == list(range(8))
    orders = [order(seed) for seed in range(1, 6)]
    assert orders == [order(seed) for seed in range(1, 6)]
    assert len({tuple(each) for each in orders}) > 1
    assert all(sorted(each) == list(range(8)) for each in orders)
