"""Where chains of drafts end, against a plain loop; what a chain has left behind does not matter to the next one."""

from collections.abc import Sequence

import numpy as np
import pytest

from arcmtp.ops.draft_chain import KERNEL, draft_floor, launch, reference
from arcmtp.ops.launch import MAX_ROWS
from arcmtp.ops.sampling import STATS
from tests.ops.bench import Bench
from tests.ops.conftest import ROW_COUNTS, without_geometry

pytestmark = without_geometry
P_MIN = (0.0, 0.3, 0.75, 1.0)


@pytest.fixture(scope="module", autouse=True)
def compiled(bench: Bench) -> None:
    bench.compile([KERNEL])


class Chains:
    """Chains of sequences in slots; all that is not written is poison."""

    def __init__(self, bench: Bench, floors: Sequence[float]) -> None:
        count = len(floors)
        self.bench, slots = bench, [2 * index + 1 for index in reversed(range(count))]
        in_slots = np.full(2 * count, np.nan, np.float32)
        in_slots[slots] = floors
        self.batch, self.floors = bench.batch(slots), bench.array(in_slots)
        self.drafted, self.goes_on = bench.poisoned(4 * count), bench.poisoned(4)

    def call(self, index: int, logprobs: np.ndarray) -> bool:
        """Draft call `index` has made drafts of these log-probabilities; whether any chain goes on."""
        stats = np.full((len(logprobs), STATS), np.nan, np.float32)
        stats[:, 2] = logprobs
        given = {"floors": self.floors, "drafted": self.drafted, "goes_on": self.goes_on}
        self.bench.run(launch(index, self.batch, stats=self.bench.array(stats), **given))
        return bool(self.goes_on.read(np.int32, 1)[0])

    def counts(self) -> list[int]:
        return self.drafted.read(np.int32, self.drafted.nbytes // 4).tolist()


@pytest.mark.parametrize("sequences", ROW_COUNTS)
def test_a_chain_ends_behind_its_first_draft_below_the_floor(bench: Bench, sequences: int) -> None:
    rng = np.random.default_rng(sequences)
    floors = [draft_floor(P_MIN[index % len(P_MIN)]) for index in range(sequences)]
    chains, counts = Chains(bench, floors), set[int]()
    for length in range(2, MAX_ROWS):
        logprobs = np.log(rng.uniform(0, 1, (length, sequences)) ** 0.3).astype(np.float32)
        for index in range(1, length):
            goes_on = chains.call(index, logprobs[index - 1])
            want = [reference(logprobs[: index + 1, u], floors[u]) for u in range(sequences)]
            if not goes_on:  # later calls are skipped, and with them what they would leave
                break
            assert max(want) == index + 1
        want = [reference(logprobs[:, u], floors[u]) for u in range(sequences)]
        assert chains.counts() == want and goes_on == (max(want) == length)
        counts |= set(want)
    assert len(counts) > 2 or sequences == 1


def test_a_draft_as_likely_as_it_must_be_is_likely_enough(bench: Bench) -> None:
    half = float(np.float32(draft_floor(0.5)))
    chains = Chains(bench, [half, half, draft_floor(1), draft_floor(1), draft_floor(0)])
    below = float(np.nextafter(np.float32(half), np.float32(-1)))
    assert chains.call(1, np.array([half, below, 0, -1e-7, -np.inf]))
    assert chains.counts() == [2, 1, 2, 1, 2]


def test_a_chain_that_has_ended_stays_ended_until_the_next_cycle(bench: Bench) -> None:
    chains = Chains(bench, [draft_floor(0.5)] * 2)
    for _ in range(2):
        assert chains.call(1, np.log([0.4, 0.6]))
        assert chains.call(2, np.log([0.9, 0.9]))
        assert chains.counts() == [1, 3]
        assert not chains.call(3, np.log([0.9, 0.1]))
        assert not chains.call(4, np.log([0.9, 0.9])), "call 4 was skipped, and what it seems to have made is old"
        assert chains.counts() == [1, 3]
