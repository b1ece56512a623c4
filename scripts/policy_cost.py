#!/usr/bin/env python3
"""What `--draft auto` takes of the host beside its work: microseconds a cycle to choose the length and to note a cycle.

Cycles are simulated (`tests/engine/simulation.py`), with the costs of the bundled model and drafts that are accepted at
0.89, 0.90, 0.88 and 0.86. Needs the package alone.
"""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from arcmtp.engine.auto_drafts import AutoDrafts
from tests.engine.simulation import Drive, accepting

CYCLES = 20_000
COSTS = (280, 415, 530, 655, 790)  # µs by draft length


class Fixed(AutoDrafts):
    """Takes two drafts and learns nothing: what the simulation itself takes."""

    def length(self, histories: object) -> int:
        return 2

    def note(self, *arguments: object) -> None:
        pass


def microseconds(policy: AutoDrafts) -> float:
    """Of a cycle of one sequence."""
    drive = Drive(policy, lambda sequences, length: COSTS[length])
    chain = accepting((0.89, 0.90, 0.88, 0.86))
    began = time.perf_counter()
    drive.run([chain], cycles=CYCLES)
    return (time.perf_counter() - began) / CYCLES * 1e6


if __name__ == "__main__":
    print(f"{microseconds(AutoDrafts()) - microseconds(Fixed()):.1f} µs a cycle")
