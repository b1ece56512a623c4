"""What a profile says of the model, the device and its memory."""

from __future__ import annotations

import platform
import resource
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from arcmtp import __version__
from arcmtp.engine.llm import LLM
from arcmtp.runtime.tensor import Kind
from arcmtp.runtime.timing import Timeline

PACKAGES = ("dpctl", "intel-sycl-rt", "intel-opencl-rt", "numpy")


@dataclass(frozen=True)
class ModelDescription:
    """Which model it was."""

    file: str  # its name, without folders
    layers: int
    experts: int
    experts_used: int
    hidden: int
    vocabulary: int
    weights_bytes: int


@dataclass(frozen=True)
class DeviceDescription:
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
    kv_cache: int  # and the table of RoPE angles
    recurrent_states: int  # and the words that steer launches
    checkpoints: int  # what they may take of the device
    scratch: int  # rows on their way, logits
    experts_in_host_memory: int  # of the weights; all else is on the device
    device_total: int
    process_peak: int  # resident; on the CPU device all of the above is in it, but for unused memory of checkpoints


def describe_model(llm: LLM, file: Path) -> ModelDescription:
    """The description of an open model."""
    c = llm.config
    return ModelDescription(
        file.name, c.layers, c.experts, c.experts_used, c.hidden, c.vocab, llm.network.weights.nbytes
    )


def describe_device(llm: LLM, read_gbs: float) -> DeviceDescription:
    """The description of a model's device, with its measured read bandwidth."""
    device = llm.device
    versions = {"arcmtp": __version__, "python": platform.python_version()}
    versions |= {package: version(package) for package in PACKAGES}
    return DeviceDescription(
        device.sycl_device.name, device.sycl_device.filter_string, device.sycl_device.driver_version,
        device.card.profile, read_gbs, Timeline(device, 2).way, versions,
    )  # fmt: skip


def memory(llm: LLM) -> Memory:
    """What a loaded model takes."""
    network = llm.network
    weights: dict[str, int] = {}
    for merged in network.weights.merged:
        for matrix in merged.matrices:
            weights[matrix.format.name] = weights.get(matrix.format.name, 0) + matrix.nbytes
    weights["vectors and padding"] = network.weights.nbytes - sum(weights.values())
    arena = network.stage.arena
    return Memory(
        weights=weights,
        kv_cache=arena.nbytes(Kind.CACHE),
        recurrent_states=arena.nbytes(Kind.STATE),
        checkpoints=arena.nbytes(Kind.PAGES),
        scratch=arena.nbytes(Kind.SCRATCH, Kind.COUNTERS),
        experts_in_host_memory=network.weights.host_nbytes,
        device_total=network.weights.nbytes - network.weights.host_nbytes + network.nbytes,
        process_peak=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    )

