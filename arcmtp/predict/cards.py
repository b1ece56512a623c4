"""Devices that are card profiles, to make networks for that never run."""

from __future__ import annotations

import sys

from arcmtp.predict.machine import hardware_of
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


def card_on_paper(name: str) -> CardOnPaper:
    """Of a profile by its file's name. Raises ArcmtpError for one that is unknown or has no hardware figures."""
    return CardOnPaper(*hardware_of(name))


def cards_on_paper() -> list[CardOnPaper]:
    """A device for each card whose profile says its memory, smallest memory first."""
    devices = [CardOnPaper(card, card.hardware) for card in cards().values() if card.hardware]
    return sorted(devices, key=lambda device: device.hardware.memory_gib)
