"""The draft length that gives the most tokens per second, found while generating."""

from collections import defaultdict, deque
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from arcmtp.engine.cycle import Cycle
from arcmtp.engine.draft_history import DraftHistory
from arcmtp.engine.draft_policy import longest
from arcmtp.ops.launch import MAX_ROWS

LENGTHS = range(5)
LOSS = 0.0125  # share of the time that may be lost to lengths tried out
SAMPLES = 9  # cycles of a length whose time counts
KNOWN = 2  # cycles after which a length's cost is not guessed any more
UNUSUAL = 4  # cycles that take longer than others like them, after which they count if there are no others
FADING = 0.95  # of what is known of earlier sequences' drafts, with each draft
PAUSES = (7, 10, 8, 12, 9, 11)  # cycles before a length is tried out again; not one, since texts repeat too
WORTH_IT = 1.02  # times as fast: to begin or end drafting, which brings the MTP block's KV cache up to date first
TRIAL = 3  # cycles: the first one is not timed
SHORTER_PAUSE = 6  # times as long, for a shorter length
KEPT = (3, 4, 5)  # cycles for which a best length stays: working it out takes 22 µs
SHARED_WEIGHT = 3.0  # drafts: how much a sequence's own acceptance leans on that of all
FIRST_GUESS = 0.7  # of acceptance, before any draft
CONTINUED = 0.9  # acceptance of a place in the chain that was never tried, times that of the place before
LEAST_CONTINUED = 0.8  # the same in one sequence, however bad the place is in all
STEP_GROWTH = 0.2  # of the cost, with a draft more, before a second length was tried
LEAST_GROWTH = 0.05  # the same, whatever was measured


@dataclass(frozen=True)
class Estimate:
    """What is known of a draft length for one sequence; None: no cycle was timed."""

    length: int  # tokens
    cycles: int  # that had this length, whatever the number of sequences
    tokens: float  # expected of a cycle
    us: float | None  # of a cycle
    gain: float | None  # expected speed, of that without drafts


class Costs:
    """What a cycle of so many sequences takes, by draft length: the lower quartile, since others only add time.

    A machine may be slower now than a moment ago. So lengths are compared with the best one, whose cycles go on: its
    latest ones say how long a unit of time is in which all costs are kept.
    """

    def __init__(self) -> None:
        self._unit = 0.0  # microseconds
        self._latest: tuple[int, deque[float]] = 0, deque()  # the best length, and microseconds of its cycles
        self._samples = [deque[float](maxlen=SAMPLES) for _ in LENGTHS]  # units
        self._unusual = [deque[float](maxlen=UNUSUAL) for _ in LENGTHS]  # the same

    def tries(self, length: int) -> int:
        """How many cycles its cost rests on."""
        return len(self._samples[length])

    def us(self, length: int) -> float:
        """Microseconds; 0 before any cycle of that length."""
        samples = self._samples[length]
        return self._unit * _undisturbed(samples) if samples else 0.0

    def note_unusual(self, length: int, us: float) -> None:
        """The time of a cycle that takes longer than others like it: the first one behind another length, or ever."""
        unusual, samples = self._unusual[length], self._samples[length]
        self._unit = self._unit or us
        unusual.append(us / self._unit)
        if len(unusual) == UNUSUAL and len(samples) < KNOWN:
            samples.extend(sorted(unusual)[:KNOWN])

    def settle(self) -> None:
        """Take over what the latest cycles of the best length say."""
        best, latest = self._latest
        if len(latest) > SAMPLES // 2:
            self._unit = _undisturbed(latest) / _undisturbed(self._samples[best])

    def note(self, length: int, us: float, best: int) -> None:
        """A cycle's time."""
        samples = self._samples[length]
        if length != best or len(samples) < SAMPLES:
            self._unit = self._unit or us
            samples.append(us / self._unit)
            return
        if self._latest[0] != best:
            self._latest = best, deque(maxlen=SAMPLES)
        self._latest[1].append(us)

    def expected(self) -> list[float]:
        """Microseconds by length, of those never tried too: between two known ones, or beyond them as much more for
        each draft as between the last two. A longer one takes longer: where times say otherwise, something disturbed
        the shorter one. Raises ValueError if no length is known."""
        known = {k: self.us(k) for k in LENGTHS if self.tries(k) >= KNOWN}
        lengths = list(known)
        for length, longer in reversed(list(pairwise(lengths))):
            known[length] = min(known[length], known[longer] / (1 + LEAST_GROWTH * (longer - length)))
        if len(lengths) == len(LENGTHS):
            return list(known.values())
        last = max(lengths)
        before = lengths[-2] if len(lengths) > 1 else last - 1
        slope = (known[last] - known.get(before, known[last] / (1 + STEP_GROWTH))) / (last - before)
        known.setdefault(LENGTHS[-1], known[last] + (LENGTHS[-1] - last) * slope)
        return np.interp(LENGTHS, list(known), list(known.values())).tolist()


class AutoDrafts:
    """Takes the draft length, 0 to 4, with the most expected tokens per second.

    Expected are 1 + a₁ + a₁a₂ + … tokens a cycle (Leviathan et al. 2023, "Fast inference from transformers via
    speculative decoding", with the acceptance of each place), where aᵢ is the share of drafts i that were accepted
    behind accepted ones, of the sequence's own latest cycles and, with less weight, of all sequences. Costs are those
    of cycles so far, by length and number of sequences. Lengths beside the best one are tried out as long as the time
    that they lost is no more than 1.25 % of all, and up to a cycle for each new sequence. Sequences that decode
    together have one length.
    """

    def __init__(self) -> None:
        self.costs = defaultdict[int, Costs](Costs)  # by number of sequences
        self.chosen = [0] * len(LENGTHS)  # cycles of each length
        self._tried, self._accepted = [0.0] * (MAX_ROWS - 1), [0.0] * (MAX_ROWS - 1)
        self._allowance = 0.0  # microseconds that may be lost
        self._cycles, self._taken = 0, [0] * len(LENGTHS)  # so far, and when each length was taken last
        self._trials, self._trial = 0, (0, 0)  # how many so far; the length and the cycles of the one under way
        self._unnoted = 0  # of these cycles
        self._kept = self._sequences = 0  # cycles for which the best length stays, of so many sequences
        self._best = 1
        self._best_tokens, self._best_us = 1.0, 0.0  # expected of a cycle of the best length

    @property
    def lengths(self) -> Collection[int]:
        """0 to 4."""
        return LENGTHS

    def length(self, histories: Sequence[DraftHistory]) -> int:
        """The best length, or one to try out."""
        self._kept -= 1
        new = sum(not history.latest for history in histories)
        if self._kept > 0 and len(histories) == self._sequences and not new:
            return self._best
        costs, most = self.costs[len(histories)], min(longest(len(histories)), LENGTHS[-1])
        for length in (1, 0):
            if length <= most and costs.tries(length) < KNOWN:
                return length
        costs.settle()
        tokens, us = self.expected_tokens(histories)[: most + 1], costs.expected()
        speeds = [expected / cost for expected, cost in zip(tokens, us, strict=False)]
        best = speeds.index(max(speeds))
        if bool(best) is bool(self._best) or speeds[best] > WORTH_IT * speeds[min(self._best, most)]:
            self._best = best
        self._best = min(self._best, most)
        self._best_tokens, self._best_us = tokens[self._best], us[self._best]
        self._sequences = len(histories)
        if new:  # of their texts nothing is known; but where no drafts were accepted lately they hardly will be
            least = self.acceptance()[0] * new / len(histories) * self._best_us
            self._allowance = max(self._allowance, least)
        return self._best_or_trial(us, tokens)

    def expected_tokens(self, histories: Sequence[DraftHistory]) -> list[float]:
        """Tokens of a cycle of all sequences, by draft length."""
        shared, sums = self.acceptance(), [0.0] * len(LENGTHS)
        for history in histories:
            chain, tokens = 1.0, 0.0
            for length, share in enumerate((1.0, *_acceptance(history, shared))):
                chain *= share
                tokens += chain
                sums[length] += tokens
        return sums

    def acceptance(self) -> list[float]:
        """The share of drafts that were accepted behind accepted ones, of all sequences, by place in the chain."""
        shares, before = [], FIRST_GUESS / CONTINUED
        for tried, accepted in zip(self._tried, self._accepted, strict=True):
            before = (accepted + CONTINUED * before) / (tried + 1)
            shares.append(before)
        return shares[: LENGTHS[-1]]

    def estimates(self) -> list[Estimate]:
        """What the choice rests on, of all sequences so far, by draft length."""
        costs, tokens, found = self.costs[1], self.expected_tokens([DraftHistory()]), []
        for length, expected in enumerate(tokens):
            us, plain_us = costs.us(length), costs.us(0)
            gain = expected / us * plain_us if us and plain_us else None
            found.append(Estimate(length, self.chosen[length], expected, us or None, gain))
        return found

    def note(self, cycles: Sequence[Cycle], drafted: int, microseconds: float | None, usual: bool) -> None:
        """Learn from a cycle."""
        self.chosen[drafted] += 1
        self._cycles += 1
        self._taken[drafted] = self._cycles
        for cycle in cycles:
            for place in range(cycle.tried):
                self._tried[place] = FADING * self._tried[place] + 1
                self._accepted[place] = FADING * self._accepted[place] + (place < cycle.accepted)
        if microseconds is None or not cycles:
            return
        costs = self.costs[len(cycles)]
        if usual:
            costs.note(drafted, microseconds, self._best)
        else:
            costs.note_unusual(drafted, microseconds)
        self._allowance += LOSS * microseconds
        if drafted != self._best or not usual:
            worth = sum(len(cycle.tokens) for cycle in cycles) / self._best_tokens
            self._allowance -= microseconds - worth * self._best_us
            self._unnoted = max(self._unnoted - 1, 0)
        self._allowance = min(max(self._allowance, -self._best_us), self._best_us)

    def _best_or_trial(self, us: Sequence[float], tokens: Sequence[float]) -> int:
        """A length beside the best one, for some cycles, if it was not taken for long and what it loses may be lost;
        else the best."""
        length, cycles = self._trial
        if abs(length - self._best) != 1 or length >= len(tokens) or cycles == TRIAL:
            length, cycles, self._unnoted = self._candidate(len(tokens)), 0, 0
        loss = us[length] - tokens[length] / self._best_tokens * self._best_us
        # An allowance that is full is enough for any trial: what a length seems to cost may be wrong.
        if length != self._best and self._allowance - self._unnoted * loss >= min(loss, self._best_us):
            self._trials += not cycles
            self._unnoted += 1
            self._trial = length, cycles + 1
            return length
        self._trial, self._kept = (self._best, 0), KEPT[self._trials % len(KEPT)]
        return self._best

    def _candidate(self, lengths: int) -> int:
        """The length whose trial is due, or the best. A shorter one tells only its cost."""
        longer, shorter, pause = self._best + 1, self._best - 1, PAUSES[self._trials % len(PAUSES)]
        if longer < lengths and self._cycles - self._taken[longer] >= pause:
            return longer
        since = self._cycles - self._taken[shorter]
        return shorter if self._best and since >= SHORTER_PAUSE * pause else self._best


def _undisturbed(times: Collection[float]) -> float:
    """The lower quartile; of less than five the least."""
    return sorted(times)[(len(times) - 1) // 4]


def _acceptance(history: DraftHistory, shared: Sequence[float]) -> Iterator[float]:
    """Of one sequence, by place. Where it has tried little, a place is taken for as much worse than the place before as
    it is in all sequences."""
    before = before_of_all = 1.0
    for place, of_all in enumerate(shared):
        likewise = min(max(of_all / before_of_all, LEAST_CONTINUED), 1.0)
        guess = of_all if place == 0 else max(of_all, before * likewise)
        before = (history.accepted[place] + SHARED_WEIGHT * guess) / (history.tried[place] + SHARED_WEIGHT)
        before_of_all = of_all
        yield before
