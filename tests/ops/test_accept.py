"""Accepting rows against a plain loop, with stale words behind every row that does not count."""

from collections.abc import Sequence

import numpy as np
import pytest

from arcmtp.ops.accept import DONE, MAX_STOP_IDS, RECORD, RECORDS, Accept, turn
from arcmtp.ops.launch import CARRIED_ROWS, MAX_ROWS
from arcmtp.runtime.memory import Buffer
from arcmtp.selftest.operators.accept import HIDDEN, STOP, STRIDE, VOCAB, Turn, of_step
from tests.ops.bench import Bench, agree, interleaved
from tests.ops.conftest import FREE_SLOTS, ROW_COUNTS, RUN_ROWS, RUN_SLOTS, SLOTS


@pytest.fixture(scope="module", autouse=True)
def compiled(bench: Bench) -> None:
    op = Accept(STRIDE, HIDDEN)
    bench.compile(op.kernel(rows, evaluated) for rows in ROW_COUNTS for evaluated in (True, False))


KEPT = ("pending_count", "turns", "states", "records", "carried")  # by slot


class Slots:
    """What sequences keep, in RUN_SLOTS; what belongs to none of them is poison."""

    def __init__(self, bench: Bench, sequences: Sequence[Turn]) -> None:
        self.bench, self.batch = bench, sequences
        self.kept = {name: bench.poisoned(SLOTS * getattr(sequences[0], name).nbytes) for name in KEPT}
        for run, slot in zip(sequences, RUN_SLOTS, strict=True):
            for name, buffer in self.kept.items():
                part: Buffer = getattr(run, name)
                buffer.copy_from(part, part.nbytes, slot * part.nbytes)

    def step(self, sampled: np.ndarray, ids: np.ndarray, evaluated: bool, drafted: Sequence[int]) -> None:
        """A step whose sequences evaluate `ids`, of which `drafted` were guessed, and choose `sampled` [sequences,
        rows]."""
        bench, sequences, rows = self.bench, self.batch, ids.shape[1]
        logits, stats, hidden = (
            bench.array(interleaved([getattr(run, name)[:rows] for run in sequences]))
            for name in ("logits", "stats", "hidden")
        )
        self.ids, self.accepted = bench.array(ids.T), bench.poisoned(4 * len(sequences))
        self.positions = bench.array(interleaved([run.positions.read(np.int32, MAX_ROWS) for run in sequences]))
        launch = sequences[0].op.launch(
            rows, evaluated, bench.batch(RUN_SLOTS), sampled=bench.array(sampled.T), logits=logits, stats=stats,
            ids=self.ids, positions=self.positions, drafted=bench.ints(drafted), accepted=self.accepted, hidden=hidden,
            **self.kept,
        )  # fmt: skip
        bench.run(launch)

    def check(self, ids: np.ndarray) -> None:
        """All is as the sequences are alone, after a step that evaluated `ids`, and what is of none of them still
        poison."""
        words = [run.words() for run in self.batch]
        assert self.accepted.read(np.int32, len(self.batch)).tolist() == [word["accepted"][0] for word in words]
        expected = interleaved([np.array(word["positions"]) for word in words])
        assert np.array_equal(self.positions.read(np.int32, expected.size), expected)
        ids[:, 0] = [word["ids"][0] for word in words]
        assert np.array_equal(self.ids.read(np.int32, ids.size), ids.T.ravel())
        for name, buffer in self.kept.items():
            found = buffer.read(np.uint8, buffer.nbytes).reshape(SLOTS, -1)
            for run, slot in zip(self.batch, RUN_SLOTS, strict=True):
                part = getattr(run, name)
                assert np.array_equal(found[slot], part.read(np.uint8, part.nbytes)), name
            assert (found[list(FREE_SLOTS)] == 0xFF).all(), name


@pytest.mark.parametrize("evaluated", [True, False])
def test_random_steps_give_what_a_plain_loop_gives(bench: Bench, evaluated: bool) -> None:
    rng = np.random.default_rng(1)
    ends = cut = 0
    for case in range(60):
        rows, left = int(rng.integers(1, 9)), int(rng.integers(1, 12))
        sampled, ids = rng.integers(0, VOCAB, rows), rng.integers(0, VOCAB, rows)
        right = int(rng.integers(0, rows))
        ids[1 : 1 + right] = sampled[:right]
        drafted = int(rng.integers(0, MAX_ROWS + 1))
        cut += drafted < min(right, rows - 1)
        sequence = Turn(bench, case, left)
        agree(of_step(f"step {case}", sequence, sampled, ids, left, drafted, evaluated))
        ends += int(sequence.words()["turns"][DONE])
    assert 10 < ends < 50 and cut > 5


def test_after_the_end_a_step_changes_nothing(bench: Bench) -> None:
    sequence = Turn(bench, 5, limit=9)
    assert sequence.step([1, STOP, 2, 4], [0, 1, STOP, 2])["done"]
    before, states = sequence.words(), sequence.states.read(np.int32, VOCAB)
    carried = sequence.carried.read(np.float32, CARRIED_ROWS * HIDDEN)
    sequence.hidden[:] = np.nan
    record = sequence.step([1, 2, 4, 5], [STOP, 1, 2, 4])
    assert (record["count"], record["done"], record["accepted"]) == (0, 1, 0)
    after = sequence.words()
    assert after["positions"] == before["positions"] and after["ids"][0] == STOP
    assert (after["pending_count"], after["accepted"]) == ([0], [0]), "what this step evaluated must not be committed"
    np.testing.assert_array_equal(sequence.states.read(np.int32, VOCAB), states)
    np.testing.assert_array_equal(sequence.carried.read(np.float32, CARRIED_ROWS * HIDDEN), carried)


@pytest.mark.parametrize("evaluated", [True, False])
@pytest.mark.parametrize("rows", RUN_ROWS)
def test_runs_in_any_slots_end_as_each_ends_alone(bench: Bench, rows: int, evaluated: bool) -> None:
    # One was done before, one comes to its limit with its first row, and of one all rows count.
    sequences = [Turn(bench, position, limit) for position, limit in ((300, 9), (20, 1), (5, 1000))]
    sequences[0].step([STOP], [0])
    sequences[0].hidden[:] = np.nan
    sequences[1].hidden[1:] = np.nan
    sampled = np.add.outer([8, 11, 12], np.arange(rows)).astype(np.int32)
    ids = np.pad(sampled, ((0, 0), (1, 0)))[:, :rows]  # all drafts are right
    together = Slots(bench, sequences)
    drafted = (0, 5, 2)  # the last one's further rows are right by chance
    together.step(sampled, ids, evaluated, drafted)
    alone = [run.step(sampled[i].tolist(), ids[i].tolist(), evaluated, drafted[i]) for i, run in enumerate(sequences)]
    assert [int(record["count"]) for record in alone] == [0, 1, min(rows, 3)]
    together.check(ids)


def test_records_go_round(bench: Bench) -> None:
    sequence = Turn(bench, 0, limit=1000)
    given = [int(sequence.step([token % 3], [0])["tokens"][0]) for token in range(RECORDS + 2)]
    assert given == [token % 3 for token in range(RECORDS + 2)]
    assert sequence.records.view(RECORD)["tokens"][:3, 0].tolist() == [RECORDS % 3, (RECORDS + 1) % 3, 2]


def test_too_many_stop_ids_are_refused() -> None:
    assert turn(1, range(MAX_STOP_IDS))[-1] == MAX_STOP_IDS - 1
    with pytest.raises(ValueError, match="room for 28"):
        turn(1, range(MAX_STOP_IDS + 1))
