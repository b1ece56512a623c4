"""The device under test, with what its parts share."""

from __future__ import annotations

import importlib.metadata
import platform
from dataclasses import dataclass
from functools import cached_property

from arcmtp.engine.llm import LLM
from arcmtp.runtime import _host
from arcmtp.runtime.device import Device
from arcmtp.runtime.verdict import kernels_digest, key_of
from arcmtp.selftest.bench import Bench

CONTEXT = 256
EMULATED = ", emulated"  # ends the name of a card that scripts/battlemage/emulator executes
PACKAGES = ("arcmtp", "numpy", "dpctl", "intel-sycl-rt", "intel-opencl-rt")


@dataclass(frozen=True)
class Described:
    """The device and what drives it. key: of its verdict."""

    device: str
    filter_string: str
    backend: str
    driver: str
    profile: str
    memory_mib: int
    graph_support: str
    emulated: bool
    kernels: str  # a digest of their sources
    python: str
    linux: str
    packages: dict[str, str]
    key: str


class Subject:
    """A device by its dpctl filter string; None takes the default one. Raises ArcmtpError where there is none."""

    def __init__(self, filter_string: str | None = None) -> None:
        self.device = Device(filter_string)
        self.bench = Bench(self.device)
        self.hardware = self.device.card.hardware  # None: nothing is predicted
        self.emulated = self.device.sycl_device.name.endswith(EMULATED)

    def described(self) -> Described:
        """What an issue must tell of it."""
        sycl = self.device.sycl_device
        return Described(
            device=sycl.name, filter_string=sycl.filter_string, backend=sycl.backend.name,
            driver=sycl.driver_version, profile=self.device.card.profile, memory_mib=sycl.global_mem_size >> 20,
            graph_support=_host.graph_support(sycl), emulated=self.emulated, kernels=kernels_digest(),
            python=platform.python_version(), linux=platform.release(),
            packages={name: importlib.metadata.version(name) for name in PACKAGES}, key=key_of(self.device),
        )  # fmt: skip

    @cached_property
    def llm(self) -> LLM:
        """The bundled model, launch by launch. Graphs can be enabled in its stage."""
        return LLM(
            device=self.device, ctx=CONTEXT, graphs=False, draft="auto", cache_mib=0, cache_host_mib=0,
            ignore_selftest=True,
        )  # fmt: skip
