"""Where chains of drafts end, against a plain loop; what a chain has left behind does not matter to the next one."""

from collections.abc import Iterator, Sequence

import numpy as np

from arcmtp.ops.draft_chain import KERNEL, draft_floor, launch, reference
from arcmtp.ops.launch import MAX_ROWS
from arcmtp.ops.sampling import STATS
from arcmtp.selftest.bench import Bench
from arcmtp.selftest.findings import Difference, equal

P_MIN = (0.0, 0.3, 0.75, 1.0)


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


def compare(bench: Bench) -> Iterator[Difference]:
    """Chains of 3 and 8 sequences, until the last one has ended."""
    bench.compile([KERNEL])
    for sequences in (3, MAX_ROWS):
        yield from ends_of_chains(bench, sequences)


def ends_of_chains(bench: Bench, sequences: int) -> Iterator[Difference]:
    """Random chains of every length."""
    rng = np.random.default_rng(sequences)
    floors = [draft_floor(P_MIN[index % len(P_MIN)]) for index in range(sequences)]
    chains = Chains(bench, floors)
    for length in range(2, MAX_ROWS):
        what = f"{sequences} chains of {length} drafts"
        logprobs = np.log(rng.uniform(0, 1, (length, sequences)) ** 0.3).astype(np.float32)
        for index in range(1, length):
            goes_on = chains.call(index, logprobs[index - 1])
            want = [reference(logprobs[: index + 1, u], floors[u]) for u in range(sequences)]
            expected = np.array([max(want) > index])
            yield equal(f"{what}, call {index}: whether one goes on", np.array([goes_on]), expected)
            if not goes_on:  # later calls are skipped, and with them what they would leave
                break
        want = [reference(logprobs[:, u], floors[u]) for u in range(sequences)]
        yield equal(f"{what}: their drafts", np.array(chains.counts()), np.array(want))
