"""When instructions of a thread would begin, by the annotations that the compiler writes: "{F@1}", "{$3.dst}".

Figures are those that scripts/battlemage/emulator/scoreboard.hpp and .cpp take from IGC's LatencyTable.h, and guesses.
"""

import numpy as np
import pytest

from tests.emulator.machine import LINES, REGISTER, State, run
from tests.emulator.messages import BARRIER, FENCE, INVALIDATE, memory

pytestmark = pytest.mark.emulated

BASE = 0xFFFF_8000_0000_1000
COUNTER = 2048  # behind BASE
END = 2  # cycles from the last instruction's beginning until the thread has ended
ADD = "add (16|M0) r20.0<1>:f r20.0<1;1,0>:f r20.0<1;1,0>:f"
LOAD, USE = memory("load", "ugm", "d32x16t", 10, 30), "mov (16|M0) r31.0<1>:ud r30.0<1;1,0>:ud {$1.dst}"
PREFETCH = memory("load", "ugm", "d32x16t", 10, None)
MEMORY, SECOND_CACHE, FIRST_CACHE, BARRIER_CYCLES = (300, 600, 1000), (200, 300, 500), 45, (30, 60, 120)


def adds(count: int) -> list[str]:
    """Each waits for the one before."""
    return [f"{ADD} {{F@1}}"] * count


def timed(lines: list[str], groups: int = 1, threads: int = 1) -> State:
    state = State(groups, threads, {BASE: np.zeros(4096, np.uint8)}, 64)
    state.put(10 * REGISTER, np.array([BASE], np.uint64))
    state.put(14 * REGISTER, np.array([BASE + COUNTER], np.uint64))
    return run(lines, state, LINES)


def expected(lines: list[str], groups: int = 1, threads: int = 1) -> float:
    return timed(lines, groups, threads).longest_cycles[1]


def test_a_result_that_is_waited_for_takes_ten_cycles() -> None:
    assert expected(adds(1)) == END
    assert expected(adds(20)) == 19 * 10 + END


def test_instructions_that_wait_for_none_begin_one_a_cycle() -> None:
    assert expected([ADD] * 20) == 19 + END


def test_a_distance_names_an_earlier_instruction_of_the_pipe() -> None:
    other = "add (16|M0) r40.0<1>:d r40.0<1;1,0>:d r40.0<1;1,0>:d"
    assert expected([ADD, ADD, ADD, f"{ADD} {{F@3}}"]) == 10 + END
    assert expected([ADD, other, other, f"{ADD} {{F@1}}"]) == 10 + END
    assert expected([ADD, other, other, f"{ADD} {{I@1}}"]) == 2 + 10 + END


def test_an_instruction_on_two_registers_fills_its_pipe_twice() -> None:
    wide = "add (32|M0) r20.0<1>:f r20.0<1;1,0>:f r20.0<1;1,0>:f"
    assert expected([wide] * 5) == 8 + END
    assert expected([wide, f"{wide} {{F@1}}"]) == 11 + END


def test_dpas_ends_after_twenty_cycles_and_its_repeat_count() -> None:
    dpas = "dpas.8x8 (16|M0) r40:d r40:d r60:u4 r80.0:b {$1}"
    assert expected([dpas, "mov (16|M0) r90.0<1>:d r40.0<1;1,0>:d {$1.dst}"]) == 28 + END


def test_a_load_is_waited_for_where_it_is_used() -> None:
    issue = (1, 1, 2)  # cycles between two instructions
    cycles = timed([f"{LOAD} {{$1}}", USE]).longest_cycles
    assert cycles == tuple(waits + 2 * each for waits, each in zip(MEMORY, issue, strict=True))
    assert expected([f"{LOAD} {{$1}}", *adds(11), USE]) == MEMORY[1] + END  # meanwhile others begin


def test_loads_of_one_moment_are_waited_for_together() -> None:
    far = memory("load", "ugm", "d32x16t", 10, 32, 1024)
    both = [f"{LOAD} {{$1}}", f"{far} {{$2}}", USE, "mov (16|M0) r33.0<1>:ud r32.0<1;1,0>:ud {$2.dst}"]
    assert expected(both) == 1 + MEMORY[1] + END


def test_a_line_that_was_loaded_is_in_the_first_cache() -> None:
    assert expected([f"{LOAD} {{$1}}", USE, f"{LOAD} {{$1}}", USE]) == MEMORY[1] + 1 + FIRST_CACHE + END


def test_a_prefetch_takes_no_time_and_its_line_counts_from_then_on() -> None:
    late = [f"{PREFETCH} {{$2}}", f"{LOAD} {{$1}}", USE]
    assert expected(late) == MEMORY[1] + END
    early = [f"{PREFETCH} {{$2}}", *adds(100), f"{LOAD} {{$1}}", USE]
    assert expected(early) == 1 + 99 * 10 + 1 + FIRST_CACHE + END


def test_the_token_of_a_prefetch_is_free_long_before_its_line_is_there() -> None:
    assert expected([f"{PREFETCH} {{$2}}", f"{PREFETCH} {{$2}}", f"{PREFETCH} {{$2}}"]) < 30


def test_the_token_of_a_load_is_taken_until_its_data_is_there() -> None:
    assert expected([f"{LOAD} {{$1}}", f"{LOAD} {{$1}}"]) == MEMORY[1] + END


def test_threads_meet_at_a_barrier() -> None:
    own = "and (1|M0) r11.0<1>:ud r0.2<0;1,0>:ud 0xFF:ud"
    skip = ["cmp (1|M0) (ne)f0.0 null<1>:ud r11.0<0;1,0>:ud 0x0:uw {I@1}", "(W&f0.0) jmpi MEET {I@1}"]
    state = timed([own, *skip, *adds(100), "MEET:", *BARRIER, *adds(10)], threads=2)
    assert state.thread_cycles[1] == 2 * state.longest_cycles[1]
    least = 99 * 10 + BARRIER_CYCLES[1] + 9 * 10
    assert least < state.longest_cycles[1] < least + 50


def test_groups_of_a_later_round_find_lines_in_the_second_cache() -> None:
    """A B70 has room for 1,024 threads of 256 registers."""
    lines = [f"{LOAD} {{$1}}", USE]
    state = timed(lines, groups=1026)
    assert state.thread_cycles[1] == 1024 * (MEMORY[1] + END) + 2 * (SECOND_CACHE[1] + END)
    assert state.longest_cycles[1] == MEMORY[1] + END


def test_what_other_groups_have_written_is_in_the_second_cache() -> None:
    assert expected([INVALIDATE, f"{LOAD} {{$1}}", USE]) == 1 + SECOND_CACHE[1] + END


def test_the_last_group_that_arrives_waits_for_all_others() -> None:
    """Group 0 takes longer than group 1, which is the last one here, and sets the counter back."""
    count = f"{memory('atomic_iinc', 'ugm', 'd32', 14, None, returns=15)} {{$3}}"
    back = f"{memory('store', 'ugm', 'd32', 14, 21)} {{$4}}"
    first = ["cmp (1|M0) (ne)f0.0 null<1>:ud r0.1<0;1,0>:ud 0x0:uw", "(W&f0.0) jmpi ARRIVE {I@1}"]
    last = ["cmp (1|M0) (ne)f0.0 null<1>:ud r15.0<0;1,0>:ud 0x1:uw {$3.dst}", "(W&f0.0) jmpi END {I@1}"]
    lines = [*first, *adds(100), "ARRIVE:", FENCE, count, *last, back, *adds(10), "END:"]
    least = 99 * 10 + SECOND_CACHE[1] + 9 * 10
    assert least < expected(lines, groups=2) < least + 50
