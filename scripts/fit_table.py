#!/usr/bin/env python3
"""Print, as Markdown, which file of Qwen3.6-35B-A3B and Qwen3.6-27B each card of profiles/ has room for.

Run it as `.venv/bin/python -m scripts.fit_table`; README has what it prints. No file is read and no device is used:
the plan of a file has the model's real shapes, and `arcmtp` counts its bytes as before loading. Every figure about a
card is predicted; `arcmtp doctor -m FILE` asks the card itself.
"""

from collections.abc import Iterator

from arcmtp.engine.memory_plan import MemoryPlan, memory_plan
from arcmtp.formats.matrix import Requant
from arcmtp.model.config import Config
from arcmtp.runtime.card import Card, cards
from arcmtp.runtime.device import Device
from scripts.battlemage.models import DENSE, MOE, Mix, network, stock_q4_0, unsloth_q4_k_m

# What Intel's Linux driver offers of a card's memory (DrmMemoryManager::getPercentOfGlobalMemoryAvailable).
OFFERED = 0.95
CONTEXT = 8192  # tokens, what `arcmtp` takes without --ctx
LEAST_CONTEXT = 1024  # tokens; with room for fewer, a file does not fit
PARALLEL = 4  # sequences, what `arcmtp serve` takes without --parallel
File = tuple[Config, Mix, Requant | None]
FILES: dict[str, File] = {
    "35B-A3B Q4_0": (MOE, stock_q4_0, None),
    "35B-A3B UD-Q4_K_M": (MOE, unsloth_q4_k_m, None),
    "35B-A3B UD-Q4_K_M, `--requant int4`": (MOE, unsloth_q4_k_m, "int4"),
    "27B Q4_0": (DENSE, stock_q4_0, None),
}


class CardOnPaper(Device):
    """The device of a card profile, for counting alone: nothing can be allocated or run there."""

    def __init__(self, card: Card, memory_gib: int) -> None:
        self.card, self.is_cpu, self.memory_gib = card, False, memory_gib

    @property
    def free_memory(self) -> int:
        return int(OFFERED * self.memory_gib * 2**30)


def table() -> str:
    """A row for each card whose profile says its memory, smallest memory first, and a line that explains them."""
    devices = [CardOnPaper(card, card.hardware.memory_gib) for card in cards().values() if card.hardware]
    devices.sort(key=lambda device: device.memory_gib)
    heads = [f"{name}: {gib(_need(file, devices[0], 1).weights_bytes)}" for name, file in FILES.items()]
    rows = [
        ["card", "memory", "room for weights", *heads],
        ["---", *["---:"] * (2 + len(FILES))],
        *(list(_cells(device)) for device in devices),
    ]
    a_token = network(devices[0], MOE, stock_q4_0, context=CONTEXT).bytes_per_position
    explanation = (
        f"Predicted. A file's cells have the largest context in tokens, in parentheses for {PARALLEL} sequences at "
        f"once. A token of context of 35B-A3B takes {a_token / 2**10:.1f} KiB; the room for weights is what its "
        f"{CONTEXT:,} tokens leave. The MTP block is counted."
    )
    return "\n".join([*(f"| {' | '.join(row)} |" for row in rows), "", explanation])


def _cells(device: CardOnPaper) -> Iterator[str]:
    """A row's card, memory, room for weights, and what each file may have for context."""
    yield device.card.name.removeprefix("Intel ")
    yield f"{device.memory_gib} GiB"
    need = _need(FILES["35B-A3B Q4_0"], device, 1)
    yield gib(need.free_bytes - need.cache_bytes - need.buffer_bytes)
    for file in FILES.values():
        one, several = (_need(file, device, sequences).largest_context for sequences in (1, PARALLEL))
        yield f"{one:,} ({PARALLEL} × {several:,})" if one >= LEAST_CONTEXT else "no"


def _need(file: File, device: Device, sequences: int) -> MemoryPlan:
    """What so many sequences of `CONTEXT` tokens take."""
    return memory_plan(network(device, *file, sequences, CONTEXT))


def gib(nbytes: int) -> str:
    return f"{nbytes / 2**30:.1f} GiB"


if __name__ == "__main__":
    print(table())
