"""Architectures: which blocks a layer is made of."""

from __future__ import annotations

from collections.abc import Callable

from arcmtp.model.blocks.attention import AttentionBlock
from arcmtp.model.blocks.delta_net import DeltaNetBlock
from arcmtp.model.blocks.feed_forward import DenseFeedForward
from arcmtp.model.blocks.layer import FeedForward, Layer, Mixer
from arcmtp.model.blocks.mixture_of_experts import MixtureOfExperts
from arcmtp.model.builder import Builder
from arcmtp.model.config import Architecture, LayerKind

MIXERS: dict[LayerKind, Callable[[Builder, str, int], Mixer]] = {"gdn": DeltaNetBlock, "attention": AttentionBlock}


FEED_FORWARDS: dict[Architecture, Callable[[Builder, str], FeedForward]] = {
    "qwen35moe": MixtureOfExperts,
    "qwen35": DenseFeedForward,
}


def feed_forward(build: Builder, prefix: str) -> FeedForward:
    """The feed-forward of a layer, which every layer of the architecture has."""
    return FEED_FORWARDS[build.config.architecture](build, prefix)


def trunk_layers(build: Builder) -> list[Layer]:
    """The layers of the trunk: gated delta nets with attention in between."""
    layers: list[Layer] = []
    for index, kind in enumerate(build.config.layer_kinds):
        prefix, partial_sums = f"blk.{index}.", layers[-1].feed_forward.partial_sums if layers else 0
        layers.append(Layer(index, MIXERS[kind](build, prefix, partial_sums), feed_forward(build, prefix)))
    return layers
