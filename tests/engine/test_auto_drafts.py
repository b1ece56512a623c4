"""The draft length that `auto` takes, where costs and acceptance are given."""

from collections.abc import Sequence
from statistics import fmean

import numpy as np
import pytest

from arcmtp.engine.auto_drafts import LENGTHS, AutoDrafts
from arcmtp.engine.cycle import Cycle
from arcmtp.engine.draft_history import DraftHistory
from arcmtp.engine.draft_policy import FixedDrafts
from tests.engine.simulation import Chain, Costs, Drive, accepting, expected_tokens

CHANGE = 500  # the cycle in which acceptance changes, in some tests
FOUND = 64  # cycles after which the best length is known
KEPT = 0.98  # of the best length's speed, from then on


def table(*us: float) -> Costs:
    """Costs of one sequence by draft length; each further one adds a fifth."""
    return lambda sequences, length: us[length] * (0.8 + 0.2 * sequences)


COSTS = {
    "bundled model on two CPU cores": table(280, 415, 530, 655, 790),
    "random file of 8 layers on two CPU cores": table(13_500, 22_000, 29_000, 36_000, 43_000),
    "B70, predicted from bytes": table(2_900, 4_200, 5_360, 6_480, 7_590),
    "B70, predicted, with the whole vocabulary in each draft": table(2_900, 4_560, 6_080, 7_560, 9_030),
    "drafts for nothing": table(1_000, 1_010, 1_020, 1_030, 1_040),
}
ACCEPTANCE = {
    "good": (0.89, 0.9, 0.88, 0.86),
    "poor": (0.75, 0.77, 0.78, 0.78),
    "a fine-tune": (0.81, 0.19, 0.17, 0.2),
    "useless": (0.0, 0.0, 0.0, 0.0),
    "perfect": (1.0, 1.0, 1.0, 1.0),
}


def best(costs: Costs, shares: Sequence[Sequence[float]]) -> tuple[int, float]:
    """The best common length of sequences of such acceptance, and its tokens per µs."""
    speeds = [sum(expected_tokens(one, k) for one in shares) / costs(len(shares), k) for k in LENGTHS]
    return int(np.argmax(speeds)), max(speeds)


def kept(drive: Drive, first: int, shares: Sequence[Sequence[float]]) -> float:
    """Expected speed of the lengths from cycle `first` on, of the best length's."""
    lengths = drive.lengths[first:]
    tokens = sum(expected_tokens(one, k) for k in lengths for one in shares)
    us = sum(drive.costs(len(shares), k) for k in lengths)
    return tokens / us / best(drive.costs, shares)[1]


def changing(drive: Drive, before: Sequence[float], after: Sequence[float], seed: int) -> Chain:
    """Acceptance that changes in cycle CHANGE."""
    first, then = accepting(before, seed), accepting(after, seed)
    return lambda place: (first if len(drive.lengths) < CHANGE else then)(place)


@pytest.mark.parametrize("acceptance", ACCEPTANCE)
@pytest.mark.parametrize("costs", COSTS)
def test_the_best_length_is_found_and_kept(costs: str, acceptance: str) -> None:
    shares, found = ACCEPTANCE[acceptance], []
    for seed in range(5):
        drive = Drive(AutoDrafts(), COSTS[costs])
        drive.run([accepting(shares, seed)], cycles=1000)
        found.append(kept(drive, FOUND, [shares]))
    assert fmean(found) >= KEPT


@pytest.mark.parametrize("costs", COSTS)
@pytest.mark.parametrize(
    ("before", "after"), [("good", "useless"), ("useless", "good"), ("a fine-tune", "perfect"), ("perfect", "poor")]
)
def test_a_change_midway_is_followed(costs: str, before: str, after: str) -> None:
    found = []
    for seed in range(5):
        drive = Drive(AutoDrafts(), COSTS[costs])
        drive.run([changing(drive, ACCEPTANCE[before], ACCEPTANCE[after], seed)], cycles=1500)
        found.append(kept(drive, CHANGE + FOUND, [ACCEPTANCE[after]]))
    assert fmean(found) >= KEPT


@pytest.mark.parametrize("slower", [0.5, 2.0])
@pytest.mark.parametrize(("before", "after"), [("good", "useless"), ("a fine-tune", "perfect"), ("perfect", "poor")])
def test_a_change_is_followed_on_a_machine_that_was_faster_or_slower_before(
    before: str, after: str, slower: float
) -> None:
    found, costs = [], COSTS["bundled model on two CPU cores"]
    for seed in range(5):
        drive = Drive(AutoDrafts(), costs)
        drive.costs = lambda sequences, length, drive=drive: (  # type: ignore[misc]
            costs(sequences, length) * (slower if len(drive.lengths) >= CHANGE - 100 else 1.0)
        )
        drive.run([changing(drive, ACCEPTANCE[before], ACCEPTANCE[after], seed)], cycles=1500)
        drive.costs = costs
        found.append(kept(drive, CHANGE + FOUND, [ACCEPTANCE[after]]))
    assert fmean(found) >= KEPT


@pytest.mark.parametrize("costs", COSTS)
def test_sequences_that_differ_have_the_length_that_is_best_for_all(costs: str) -> None:
    shares, found = [ACCEPTANCE[name] for name in ("good", "useless", "poor")], []
    for seed in range(5):
        drive = Drive(AutoDrafts(), COSTS[costs])
        drive.run([accepting(one, 3 * seed + place) for place, one in enumerate(shares)], cycles=1000)
        found.append(kept(drive, FOUND, shares))
    assert fmean(found) >= KEPT


@pytest.mark.parametrize("sequences", [1, 4])
@pytest.mark.parametrize("costs", COSTS)
def test_what_one_sequence_taught_serves_the_next(costs: str, sequences: int) -> None:
    """Of useless drafts no sequences but the first try many, however short each text is."""
    policy, shares, found = AutoDrafts(), [ACCEPTANCE["useless"]] * sequences, []
    for seed in range(40):
        drive = Drive(policy, COSTS[costs])
        drive.run([accepting(one, seed) for one in shares], tokens=48)
        found.append(kept(drive, 0, shares))
    assert fmean(found[1:]) >= KEPT


@pytest.mark.parametrize("acceptance", ACCEPTANCE)
@pytest.mark.parametrize("seed", range(3))
def test_other_programs_mislead_little(acceptance: str, seed: int) -> None:
    """A fifth of the cycles takes up to ten times as long."""
    shares, others = ACCEPTANCE[acceptance], np.random.default_rng(seed)
    costs = COSTS["bundled model on two CPU cores"]
    drive = Drive(AutoDrafts(), costs)
    drive.costs = lambda sequences, length: (
        costs(sequences, length) * (float(others.uniform(1, 10)) if others.random() < 0.2 else 1.0)
    )
    drive.run([accepting(shares)], cycles=1000)
    drive.costs = costs
    assert kept(drive, 200, [shares]) >= 0.95


@pytest.mark.parametrize("acceptance", ACCEPTANCE)
def test_times_that_jitter_and_a_machine_that_slows_down_mislead_little(acceptance: str) -> None:
    shares, jitter = ACCEPTANCE[acceptance], np.random.default_rng(3)
    costs = COSTS["bundled model on two CPU cores"]
    drive = Drive(AutoDrafts(), costs)
    slow = [1.0] * 700 + [1.8] * 700
    drive.costs = lambda sequences, length: (
        costs(sequences, length) * slow[len(drive.lengths)] * float(np.exp(0.1 * jitter.standard_normal()))
    )
    drive.run([accepting(shares)], cycles=1400)
    drive.costs = costs
    assert kept(drive, FOUND, [shares]) >= 0.96


@pytest.mark.parametrize("costs", COSTS)
def test_what_disturbs_the_first_cycles_does_not_make_drafts_look_free(costs: str) -> None:
    """The first cycles without drafts take longer than the first ones with a draft."""
    drive = Drive(AutoDrafts(), COSTS[costs])
    drive.costs = lambda sequences, length: (
        COSTS[costs](sequences, length) * (4 if length == 0 and len(drive.lengths) < 10 else 1)
    )
    drive.run([accepting(ACCEPTANCE["useless"])] * 4, cycles=FOUND)
    assert max(drive.lengths) == 1


def test_the_cost_of_a_length_is_known_after_two_cycles_of_any_kind() -> None:
    """Some numbers of sequences never have two cycles of one length on end."""
    policy, costs, taken = AutoDrafts(), COSTS["random file of 8 layers on two CPU cores"], []
    for _ in range(20):
        for sequences in (1, 2, 3):
            histories = [DraftHistory() for _ in range(sequences)]
            drafted = policy.length(histories)
            cycle = Cycle([0], [0.0], None, drafted, 0, False)
            policy.note([cycle] * sequences, drafted, costs(sequences, drafted), usual=False)
            taken.append(drafted)
    assert taken[-30:].count(0) >= 27


def test_lengths_stay_within_the_rows_of_a_step() -> None:
    for sequences in (7, 8, 16, 32):
        drive = Drive(AutoDrafts(), COSTS["drafts for nothing"])
        drive.run([accepting(ACCEPTANCE["perfect"])] * sequences, cycles=200)
        assert max(drive.lengths) == 32 // sequences - 1


def test_sequences_may_come_and_go_within_a_trial() -> None:
    policy, draw = AutoDrafts(), np.random.default_rng(5)
    for turn in range(600):
        drive = Drive(policy, COSTS["drafts for nothing"])
        drive.run([accepting(ACCEPTANCE["good"], turn)] * int(draw.integers(1, 33)), cycles=int(draw.integers(1, 9)))


def test_fixed_lengths_would_not_pass() -> None:
    for length, acceptance in ((2, "useless"), (0, "perfect"), (1, "perfect"), (4, "poor")):
        drive = Drive(FixedDrafts(length), COSTS["B70, predicted from bytes"])
        drive.run([accepting(ACCEPTANCE[acceptance])], cycles=100)
        assert kept(drive, FOUND, [ACCEPTANCE[acceptance]]) < KEPT


def test_a_length_of_unknown_cost_is_tried_where_it_has_room() -> None:
    policy = AutoDrafts()
    assert [policy.length([DraftHistory()]) for _ in range(3)] == [1, 1, 1]
    policy.note([], 1, None, False)
    assert policy.length([DraftHistory()] * 32) == 0
