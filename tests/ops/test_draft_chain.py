"""Where chains of drafts end, against a plain loop; what a chain has left behind does not matter to the next one."""


import numpy as np
import pytest

from arcmtp.ops.draft_chain import KERNEL, draft_floor
from arcmtp.selftest.operators.draft_chain import Chains, ends_of_chains
from tests.ops.bench import Bench, agree
from tests.ops.conftest import ROW_COUNTS, without_geometry

pytestmark = without_geometry


@pytest.fixture(scope="module", autouse=True)
def compiled(bench: Bench) -> None:
    bench.compile([KERNEL])


@pytest.mark.parametrize("sequences", ROW_COUNTS)
def test_a_chain_ends_behind_its_first_draft_below_the_floor(bench: Bench, sequences: int) -> None:
    agree(ends_of_chains(bench, sequences))


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
