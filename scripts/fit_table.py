#!/usr/bin/env python3
"""Print, as Markdown, which file of Qwen3.6-35B-A3B and Qwen3.6-27B each card of profiles/ runs, and how.

Run it as `.venv/bin/python -m scripts.fit_table`; README has what it prints. No file is read and no device is used:
headers of the models' real shapes go through what `arcmtp inspect` says of a file. Every figure about a card is
predicted; `arcmtp doctor -m FILE` asks the card itself.
"""

from collections.abc import Iterator
from functools import partial

from arcmtp.engine.memory_plan import CacheBytes, gib, memory_plan
from arcmtp.formats.matrix import Requant
from arcmtp.inspect.cards import Fit, fits
from arcmtp.inspect.text import layers
from arcmtp.model.config import DEFAULT_CONTEXT, Config
from arcmtp.model.network import Network
from arcmtp.predict import CardOnPaper, cards_on_paper
from arcmtp.runtime.device import Device
from scripts.battlemage.models import DENSE, MOE, Mix, network, stock_q4_0, unsloth_q4_k_m

LEAST_CONTEXT = 1024  # tokens; with room for fewer, a file does not fit
File = tuple[Config, Mix, Requant | None]
FILES: dict[str, File] = {
    "35B-A3B Q4_0": (MOE, stock_q4_0, None),
    "35B-A3B UD-Q4_K_M": (MOE, unsloth_q4_k_m, None),
    "35B-A3B UD-Q4_K_M, `--requant int4`": (MOE, unsloth_q4_k_m, "int4"),
    "27B Q4_0": (DENSE, stock_q4_0, None),
}


def table() -> str:
    """A row for each card whose profile says its memory, smallest memory first, and a line that explains them."""
    devices = cards_on_paper()
    heads = [f"{name}: {gib(_made(file, devices[0], 1).weights.nbytes)}" for name, file in FILES.items()]
    columns = [fits(partial(_made, file), DEFAULT_CONTEXT, or_less=True) for file in FILES.values()]
    rows = [
        ["card", "memory", "room for weights", *heads],
        ["---", *["---:"] * (2 + len(FILES))],
        *([*_card(device), *map(_cell, of_card)] for device, *of_card in zip(devices, *columns, strict=True)),
    ]
    a_token = _made(FILES["35B-A3B Q4_0"], devices[0], DEFAULT_CONTEXT).bytes_per_position
    explanation = (
        "Predicted. A file's cells have the largest context in tokens, and tokens/s without drafts in an empty "
        f'context. "n layers": their experts lie in host memory, the fewest with which {DEFAULT_CONTEXT:,} tokens fit; '
        f"more layers there leave room for more context. A token of context of 35B-A3B takes {a_token / 2**10:.1f} "
        f"KiB; the room for weights is what its {DEFAULT_CONTEXT:,} tokens leave. The MTP block is counted."
    )
    return "\n".join([*(f"| {' | '.join(row)} |" for row in rows), "", explanation])


def _card(device: CardOnPaper) -> Iterator[str]:
    """A card, its memory, and its room for weights."""
    plan = memory_plan(_made(FILES["35B-A3B Q4_0"], device, DEFAULT_CONTEXT))
    yield device.card.name.removeprefix("Intel ")
    yield f"{device.hardware.memory_gib} GiB"
    yield gib(plan.free_bytes - plan.cache_bytes - plan.buffer_bytes)


def _cell(fit: Fit) -> str:
    """What a file may have for context on a card, how fast it is, and how many layers' experts the host holds."""
    if not fit.fits or fit.largest_context < LEAST_CONTEXT:
        return "no"
    in_host_memory = f", {layers(fit.experts_host)}" if fit.experts_host else ""
    return f"{fit.largest_context:,}; {fit.tokens_per_second:.0f}/s{in_host_memory}"


def _made(file: File, device: Device, context: int, cache: CacheBytes = (0, 0)) -> Network:
    return network(device, *file, context=context, cache_bytes=cache)


if __name__ == "__main__":
    print(table())
