"""A layer: a mixer, which exchanges information between rows, and a feed-forward, which works on each alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol

from arcmtp.model.blocks.cache import Cache
from arcmtp.model.builder import Rows
from arcmtp.model.weight_plan import Merged
from arcmtp.runtime.launch import Launch
from arcmtp.runtime.tensor import Tensor


class Mixer(Protocol):
    """From the residual stream to `Residual.mixed`."""

    kind: str

    @property
    def cache(self) -> Cache:
        """What it keeps of sequences."""

    def launches(self, rows: Rows, before: Tensor) -> Iterator[Launch]:
        """Its launches over `before` f32 [rows, hidden], to which the partial sums are added."""


class FeedForward(Protocol):
    """From `Residual.mixed` to `Residual.partials`."""

    partial_sums: int
    experts: tuple[Merged, ...]  # weights of routed experts, which may lie in host memory

    def launches(self, rows: Rows) -> Iterator[Launch]:
        """Its launches."""


@dataclass(frozen=True)
class Layer:
    """A layer of the trunk. index: its place there."""

    index: int
    mixer: Mixer
    feed_forward: FeedForward

    def launches(self, rows: Rows, before: Tensor) -> Iterator[Launch]:
        """Its launches over `before` f32 [rows, hidden], labelled with layer and block."""
        for launch in (*self.mixer.launches(rows, before), *self.feed_forward.launches(rows)):
            yield replace(launch, layer=self.index, block=self.mixer.kind)
