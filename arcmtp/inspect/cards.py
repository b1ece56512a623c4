"""Whether a card of a profile has the memory for a model, and how fast it would be; no device is used."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from arcmtp.engine.memory_plan import CacheBytes, planned
from arcmtp.model.network import Network
from arcmtp.predict import predicted_tokens_per_second
from arcmtp.runtime.card import Card, Hardware, cards
from arcmtp.runtime.device import Device

# What Intel's Linux driver offers of a card's memory (DrmMemoryManager::getPercentOfGlobalMemoryAvailable).
OFFERED = 0.95


class CardOnPaper(Device):
    """The device of a card profile, for counting alone: nothing can be allocated or run there. Its host has whatever
    memory is asked for."""

    def __init__(self, card: Card, hardware: Hardware) -> None:
        self.card, self.is_cpu, self.hardware = card, False, hardware

    @property
    def free_memory(self) -> int:
        return int(OFFERED * self.hardware.memory_gib * 2**30)

    @property
    def free_host_memory(self) -> int:
        return sys.maxsize


@dataclass(frozen=True)
class Fit:
    """How a card would run a model: the plan of `arcmtp`'s defaults. All of it is predicted."""

    profile: str
    name: str
    memory_gib: int
    fits: bool  # if not, the rest says how far the card comes
    context: int  # tokens of each sequence that are planned for
    largest_context: int  # with the same experts in host memory; 0: too little for any
    kv_type: str
    device_bytes: int
    experts_host: int  # layers whose experts lie in host memory
    host_bytes: int  # of these experts
    tokens_per_second: float  # without drafts, of one sequence, in an empty context


def cards_on_paper() -> list[CardOnPaper]:
    """A device for each card whose profile says its memory, smallest memory first."""
    devices = [CardOnPaper(card, card.hardware) for card in cards().values() if card.hardware]
    return sorted(devices, key=lambda device: device.hardware.memory_gib)


def fits(
    make: Callable[[Device, int, CacheBytes], Network], context: int, or_less: bool, cache_mib: int | None = None
) -> Iterator[Fit]:
    """The `Fit` of each card, smallest memory first.

    make: gives the network for a device, a context of so many tokens, and so many bytes of checkpoints. or_less: a card
    may plan for less than `context`, if this helps. cache_mib: for checkpoints on the device; None: as usual.
    """
    for device in cards_on_paper():
        tokens, network, plan = planned(partial(make, device), context, "auto", or_less, (cache_mib, 0))
        yield Fit(
            profile=device.card.profile,
            name=device.card.name,
            memory_gib=device.hardware.memory_gib,
            fits=plan.fits,
            context=tokens,
            largest_context=plan.largest_context,
            kv_type=network.kv.name,
            device_bytes=plan.nbytes,
            experts_host=plan.host_layers,
            host_bytes=plan.host_bytes,
            tokens_per_second=predicted_tokens_per_second(network, device.hardware),
        )
