"""Which weights each launch of a step or draft call asks memory for: the first of those that a later launch reads.

Memory rests between two launches. What it brings then into the cache that all cores share, the later launch need not
wait for (docs/design.md).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from arcmtp.runtime.launch import ASK_BYTES, Launch, Work
from arcmtp.runtime.tensor import Tensor

KEPT = 8 << 20  # bytes that launches in between may move, of the 18 MB that a B580's second cache holds


@dataclass(frozen=True)
class Ahead:
    """nbytes: that a launch asks for at most, 0 for none. context: keys that attention may see."""

    nbytes: int
    context: int

    def over(self, launches: Iterable[Launch]) -> list[Launch]:
        """The same launches, which ask for weights that the nearest of later ones is certain to read.

        Where what lies in between would drive them out, 0 bytes are asked for: the kernels are then the same for any
        context and number of sequences.
        """
        made = list(launches)
        for index in range(len(made) if self.nbytes else 0):
            if found := self._next(made, index):
                later, weights, moved = found
                asked = made[later].asked
                nbytes = min(self.nbytes, _left(made[later])) if moved <= KEPT else 0
                made[index] = made[index].asking(weights.part(asked), nbytes)
                made[later] = replace(made[later], asked=asked + nbytes)
        return made

    def _next(self, launches: list[Launch], index: int) -> tuple[int, Tensor, int] | None:
        """The nearest later launch with weights that nobody has asked for, these, and bytes moved in between."""
        moved = 0
        for later in range(index + 1, len(launches)):
            if _left(launches[later]) and (weights := _streamed(launches[later])):
                return later, weights, moved
            moved += launches[later].cost(Work(launches[later].rows, self.context, 0)).nbytes
        return None


def _streamed(launch: Launch) -> Tensor | None:
    """The weights that it reads whole. They lie in device memory: only routed experts may lie elsewhere."""
    weights = launch.arguments.get(launch.streams)
    return weights if isinstance(weights, Tensor) else None


def _left(launch: Launch) -> int:
    """Bytes of them that nobody has asked for, in whole messages."""
    weights = _streamed(launch)
    return weights.nbytes // ASK_BYTES * ASK_BYTES - launch.asked if weights else 0
