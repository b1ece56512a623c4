"""What a profile says of the model, the device and its memory."""

from __future__ import annotations

import platform
import resource
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from arcmtp import __version__
from arcmtp.engine.llm import LLM
from arcmtp.model.weights import Merged
from arcmtp.ops.attention import Attention
from arcmtp.runtime.timing import Timeline

PACKAGES = ("dpctl", "intel-sycl-rt", "intel-opencl-rt", "numpy")


@dataclass(frozen=True)
class ModelFacts:
    """Which model it was."""

    file: str  # its name, without folders
    layers: int
    experts: int
    experts_used: int
    hidden: int
    vocabulary: int
    weights_bytes: int


@dataclass(frozen=True)
class DeviceFacts:
    """Which device it was, and which software ran it."""

    name: str
    filter_string: str
    driver: str
    profile: str  # of the card
    read_gigabytes_per_second: float
    timed_by: str  # `Timeline.way`
    versions: dict[str, str]


@dataclass(frozen=True)
class Memory:
    """Bytes. Weights by their device format; the caches of the MTP block are among the others."""

    weights: dict[str, int]
    kv_cache: int
    recurrent_states: int
    scratch: int  # rows on their way, logits, RoPE angles
    device_total: int
    process_peak: int  # resident; on the CPU device all of the above is in it


def model_facts(llm: LLM, file: Path) -> ModelFacts:
    """Those of an open model."""
    c = llm.config
    return ModelFacts(
        file.name, c.layers, c.experts, c.experts_used, c.hidden, c.vocab, llm.network.weights.nbytes
    )


def device_facts(llm: LLM, read_gbs: float) -> DeviceFacts:
    """Those of a model's device, whose read bandwidth was measured."""
    device = llm.device
    versions = {"arcmtp": __version__, "python": platform.python_version()}
    versions |= {package: version(package) for package in PACKAGES}
    return DeviceFacts(
        device.sycl_device.name, device.sycl_device.filter_string, device.sycl_device.driver_version,
        device.card.profile, read_gbs, Timeline(device, 2).way, versions,
    )  # fmt: skip


def memory(llm: LLM) -> Memory:
    """What a loaded model takes."""
    network = llm.network
    weights: dict[str, int] = {}
    for merged in {id(merged.buffer): merged for merged in _merged(network.weights)}.values():
        for matrix in merged.segments:
            weights[matrix.format.name] = weights.get(matrix.format.name, 0) + matrix.nbytes
    weights["vectors and padding"] = network.weights.nbytes - sum(weights.values())
    kinds = [isinstance(ops.mixer, Attention) for ops in network.layers]
    sizes = [buffer.nbytes for buffer in network.workspace.sequence]
    states = sum(size for size, is_attention in zip(sizes, kinds, strict=True) if not is_attention)
    cache = sum(sizes) - states + network.workspace.draft_cache.nbytes
    return Memory(
        weights=weights,
        kv_cache=cache,
        recurrent_states=states,
        scratch=network.nbytes - cache - states,
        device_total=network.weights.nbytes + network.nbytes,
        process_peak=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    )


def _merged(value: Any) -> Iterator[Merged]:
    """Every merged buffer in a tree of dataclasses and tuples."""
    if isinstance(value, Merged):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from _merged(item)
    elif is_dataclass(value):
        for field in fields(value):
            yield from _merged(getattr(value, field.name))
