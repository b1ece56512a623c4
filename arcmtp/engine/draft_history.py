"""What became of a sequence's drafts."""

from collections import deque
from dataclasses import dataclass, field

from arcmtp.engine.cycle import Cycle
from arcmtp.ops.launch import MAX_ROWS

LATEST = 64
FADING = 0.98  # weight of a cycle for each one after it


@dataclass(eq=False)
class DraftHistory:
    """The latest cycles, at most 64, the oldest first; and, with less weight the older they are, how often a draft was
    tried and accepted by its place in the chain, counting as tried only behind accepted ones."""

    latest: deque[Cycle] = field(default_factory=lambda: deque(maxlen=LATEST))
    tried: list[float] = field(default_factory=lambda: [0.0] * (MAX_ROWS - 1))
    accepted: list[float] = field(default_factory=lambda: [0.0] * (MAX_ROWS - 1))

    _cycles: int = 0  # since the last one that drafted

    def add(self, cycle: Cycle) -> None:
        """The newest cycle."""
        self.latest.append(cycle)
        self._cycles += 1
        if not cycle.drafted:
            return
        weight, self._cycles = FADING**self._cycles, 0
        for counts in (self.tried, self.accepted):
            counts[:] = [weight * count for count in counts]
        for place in range(cycle.tried):
            self.tried[place] += 1
            self.accepted[place] += place < cycle.accepted
