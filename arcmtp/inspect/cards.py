"""Whether a card of a profile has the memory for a model, and how fast it would be; no device is used."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from arcmtp.engine.memory_plan import CacheBytes, planned
from arcmtp.model.network import Network
from arcmtp.predict import cards_on_paper, predicted_tokens_per_second
from arcmtp.runtime.device import Device


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
    tokens_per_second: float  # expected, without drafts, of one sequence, in an empty context


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
            tokens_per_second=predicted_tokens_per_second(network, device.hardware).expected,
        )
