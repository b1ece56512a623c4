"""Checks that use a SYCL device: which there are, and whether the chosen one computes what it should."""

import re
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from dpctl.utils import intel_device_info

from arcmtp.doctor.findings import Finding, NamedCheck
from arcmtp.doctor.machine import Machine
from arcmtp.doctor.planned_model import PlannedModel
from arcmtp.engine.fitting import Place, network_of
from arcmtp.engine.memory_plan import place_experts
from arcmtp.errors import ArcmtpError
from arcmtp.formats import matrix as formats
from arcmtp.formats.activations import dequantise, pack_rows, quantise
from arcmtp.formats.matrix import Matrix
from arcmtp.ops.bandwidth import READ_BYTES, ReadBandwidth
from arcmtp.ops.mul_mat import MulMat, reference
from arcmtp.runtime.card import GENERIC
from arcmtp.runtime.device import Device
from arcmtp.runtime.devices import DeviceInfo, list_devices
from arcmtp.runtime.environment import runtime_lib_dir
from arcmtp.runtime.graphs import GraphCache
from arcmtp.runtime.launch import INT, Cost, Kernel, Launch, parameters, writes
from arcmtp.runtime.tensor import I32
from arcmtp.runtime.verdict import WITHOUT, verdict

MINIMUM_DRIVER = "24.48.31907"  # Intel's first GPU driver with production support of Battlemage
GPU_PACKAGES = "apt-get install libze1 libze-intel-gpu1 (Debian, Ubuntu), or Intel's package archive"
NOT_WRITTEN = 1e9  # every result before the kernel runs
READS = 5
CHAIN = 8  # nodes of the graph
DOUBLE = Kernel(
    "doctor_double_plus", "", "formats.hpp", parameters(x=writes(I32), add=INT), body="*x = 2 * *x + add;"
)


class DeviceChecks:
    """The checks of the device that dpctl's `filter_string` names; None takes the default one."""

    def __init__(self, machine: Machine, filter_string: str | None, model: PlannedModel | None) -> None:
        self.machine, self.filter_string, self.model = machine, filter_string, model
        self.offered: list[DeviceInfo] = []
        self.device: Device | None = None
        self.computes = False

    def __iter__(self) -> Iterator[NamedCheck]:
        """Each to be run before the next is asked for: what follows depends on what was found."""
        yield "adapters", self.adapters
        yield "sycl runtime", self.runtime  # after listing devices, which loads the adapters
        if not self.offered:
            return
        yield "device", self.choose
        if self.device is None:
            return
        device = self.device
        yield "driver", lambda: driver(device)
        yield "memory", lambda: memory(device)
        yield "kernel", self.compute
        if self.computes:
            yield "graph", lambda: graph(device)
            yield "bandwidth", lambda: bandwidth(device)
        yield "selftest", lambda: selftest(device)
        if self.model is not None:
            model = self.model
            yield "memory plan", lambda: model_memory(device, model)

    def runtime(self) -> Iterator[Finding]:
        """Whether the libraries that this process has loaded are the packages' own."""
        yield from loaded_runtime(self.machine, runtime_lib_dir())

    def adapters(self) -> Iterator[Finding]:
        """Every SYCL device, and whether the PCI bus has a card that is not among them."""
        selector = self.machine.environment.get("ONEAPI_DEVICE_SELECTOR")
        remedy = "unset ONEAPI_DEVICE_SELECTOR" if selector else f"mend the problems above, then {GPU_PACKAGES}"
        try:
            self.offered = list_devices()
        except ArcmtpError as error:
            yield Finding("adapters", "problem", str(error), remedy if selector else "")
            return
        listed = ", ".join(f"{info.filter_string} ({info.name})" for info in self.offered)
        if selector:
            listed += f"; ONEAPI_DEVICE_SELECTOR={selector} hides others"
        profiles = {info.card.profile for info in self.offered if info.backend == "level_zero"}
        missing = [gpu.title for gpu in self.machine.gpus() if gpu.is_battlemage and gpu.card.profile not in profiles]
        if missing:
            message = f"Level Zero does not offer the {', '.join(missing)}; there are {listed}"
            yield Finding("adapters", "problem", message, remedy)
        else:
            yield Finding("adapters", "ok", listed)

    def choose(self) -> Iterator[Finding]:
        """Open the device."""
        self.device = device = Device(self.filter_string)
        card = device.card
        message = f"{device.sycl_device.filter_string} ({device.sycl_device.name}), profile {card.profile}"
        if card.note:
            yield Finding("device", "warning", f"{message}: {card.note}")
        else:
            yield Finding("device", "ok", message)

    def compute(self) -> Iterator[Finding]:
        """Compile and run a product with a known answer."""
        assert self.device is not None
        finding = product(self.device)
        self.computes = finding.status == "ok"
        yield finding


def loaded_runtime(machine: Machine, own: Path) -> Iterator[Finding]:
    """From which folders this process has its SYCL libraries; `own` is the right one."""
    lines = machine.path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines()
    mapped = {Path(line[line.index("/") :]) for line in lines if "/" in line}
    sycl = sorted(path for path in mapped if path.name.startswith(("libsycl.", "libur_")))
    foreign = [path for path in sycl if path.parent.resolve() != own]
    if foreign:
        message = f"loaded from elsewhere: {', '.join(map(str, foreign))}; arcmtp was built for that in {own}"
        remedy = "unset LD_LIBRARY_PATH and LD_PRELOAD, or use a shell without oneAPI's setvars.sh"
        yield Finding("sycl runtime", "problem", message, remedy)
    else:
        yield Finding("sycl runtime", "ok", f"{', '.join(path.name for path in sycl)} from {own}")


def driver(device: Device) -> Iterator[Finding]:
    """The device's driver, and for a GPU the oldest that knows Battlemage."""
    version = device.sycl_device.driver_version
    if device.is_cpu:
        yield Finding("driver", "ok", f"OpenCL CPU driver {version}")
        return
    build, least = _driver_build(version), _driver_build(MINIMUM_DRIVER)
    if build is None or least is None or device.card.profile == GENERIC:
        yield Finding("driver", "ok", f"GPU driver {version}")
    elif build < least:
        message = f"GPU driver {version}; Intel supports Battlemage from {MINIMUM_DRIVER} on"
        yield Finding("driver", "problem", message, f"update it: {GPU_PACKAGES}")
    else:
        yield Finding("driver", "ok", f"GPU driver {version} (Battlemage needs build {least})")


def _driver_build(version: str) -> int | None:
    """The number that Level Zero's version (1.6.31907+7) has in common with the release's (24.48.31907.7)."""
    parts = re.split(r"[.+]", version)
    return int(parts[2]) if len(parts) > 2 and parts[2].isdecimal() else None


def memory(device: Device) -> Iterator[Finding]:
    """How much memory can be allocated."""
    total = device.sycl_device.global_mem_size / 2**30
    if device.is_cpu or "free_memory" in intel_device_info(device.sycl_device):
        yield Finding("memory", "ok", f"{device.free_memory / 2**30:.1f} of {total:.1f} GiB free")
    else:
        yield Finding("memory", "ok", f"{total:.1f} GiB; the driver does not say how much of it is free")


def product(device: Device) -> Finding:
    """A row times 4-bit weights, [1, 512] x [512, 64], against numpy: the dpas or VNNI order of weights included."""
    rng = np.random.default_rng(0)
    matrix = Matrix(formats.W4, 64, 512)
    raw = rng.integers(0, 256, matrix.nbytes).astype(np.uint8)
    scales = raw.view(formats.W4.span_dtype)["scale"]
    scales[...] = rng.uniform(-0.01, 0.01, scales.shape)
    codes = quantise(rng.standard_normal((1, matrix.k)))
    expected = reference(dequantise(*codes), [formats.unpack(formats.W4, raw, matrix.n, matrix.k)])
    operator, began = MulMat([matrix], device.card.geometry), time.perf_counter()
    device.compile([operator.kernel(1)])
    compiled = time.perf_counter() - began
    output = device.host_zeros(expected.size * 4)
    found = output.view(np.float32).reshape(expected.shape)
    found[...] = NOT_WRITTEN  # by the host itself: a device that runs no kernels may not copy either
    inputs = device.array(pack_rows(*codes, device.activation_orders))
    weights, none = device.array(raw), device.zeros(64)
    launch = operator.launch(
        1, weights=weights, quantised=inputs, plain=none, output=output, row_count=none
    )
    device.run(device.bind([launch]))
    name = device.sycl_device.name
    if np.all(found == NOT_WRITTEN):
        return Finding("kernel", "problem", f"{name} accepts kernels and does not run them: its results mean nothing")
    error = float(np.max(np.abs(found - expected)) / np.max(np.abs(expected)))
    if not error < 1e-5:  # float32 sums of 16 groups, each exact; not a number fails too
        message = f"{name} computes a wrong product of 4-bit weights, off by {error:.2g} of its largest value"
        return Finding("kernel", "problem", message, "update the driver; if that does not help, report it")
    message = f"a product of 4-bit weights, compiled or taken from the cache in {compiled:.1f} s, is right"
    return Finding("kernel", "ok", message)


def graph(device: Device) -> Iterator[Finding]:
    """Capture a chain of launches once, replay it twice, and compare with the same chain in Python."""
    value, expected = device.array(np.ones(1, np.int32)), 1
    chain = (Launch(DOUBLE, 1, 1, {"x": value, "add": add}, lambda work: Cost(8)) for add in range(CHAIN))
    launches = device.bind(chain)
    graphs = GraphCache(device)
    for _ in range(2):
        graphs.submit("doctor", launches)
        for add in range(CHAIN):
            expected = 2 * expected + add
    found = int(value.read(np.int32, 1)[0])
    s = graphs.statistics
    if found == expected:
        took = s.capture_ms + s.finalise_ms
        message = f"{CHAIN} launches captured in {took:.1f} ms and replayed twice: the result is right"
        yield Finding("graph", "ok", message)
    else:
        message = f"a replayed graph computes {found}, the launches one by one {expected}"
        yield Finding("graph", "problem", message, "use --no-graph, update the driver, and report it")


def bandwidth(device: Device) -> Iterator[Finding]:
    """Read memory several times; for a card with a profile beside what its profile expects."""
    read = ReadBandwidth(device, device.zeros(READ_BYTES))
    for _ in range(READS):
        read.measure()
    hardware, expected = device.card.hardware, ""
    if hardware and hardware.measured_bandwidth_gbs:
        expected = f"; expected {hardware.measured_bandwidth_gbs:g} ({hardware.bandwidth_source})"
    elif hardware:
        expected = f"; the maker specifies {hardware.spec_bandwidth_gbs:g}"
    yield Finding("bandwidth", "ok", f"{read.gbs:.1f} GB/s read, the best of {READS + 1}{expected}")


def selftest(device: Device) -> Iterator[Finding]:
    """What `arcmtp selftest` found on this device when it was run last."""
    known = verdict(device)
    if known is None:
        yield Finding("selftest", "ok", "not run on this device, driver and version: arcmtp selftest")
    elif known.failed:
        message = f"{', '.join(known.failed)} failed in the selftest of {known.date}"
        if lost := dict.fromkeys(ability for ability in known.failed.values() if ability):
            message += f"; {' and '.join(WITHOUT[ability] for ability in lost)}"
        yield Finding("selftest", "problem", message, "update the driver, run arcmtp selftest again, and report it")
    else:
        yield Finding("selftest", "ok", f"nothing failed on {known.date}")


def model_memory(device: Device, model: PlannedModel) -> Iterator[Finding]:
    """What a file's weights and a context take of the device's memory. No weight is read."""
    context, place = model.context, Place(device, model.context, kv_type=model.kv.name)
    need = place_experts(network_of(model.gguf, place), "auto")
    sizes = (need.weights_bytes, need.cache_bytes, need.buffer_bytes, need.nbytes, need.free_bytes)
    weights, cache, buffers, total, free = (f"{size / 2**20:,.0f}" for size in sizes)
    message = (
        f"weights {weights} MiB, KV cache of {context} tokens {cache} MiB, state and buffers {buffers} MiB: {total} "
        f"of {free} MiB free; {need.advice}" + f"; with {need.experts}" * bool(need.experts)
    )
    if need.fits:
        yield Finding("memory plan", "ok", message)
    elif need.largest_context:
        yield Finding("memory plan", "problem", message, f"use --ctx {need.largest_context}")
    else:
        yield Finding("memory plan", "problem", message, "use --requant int4, a smaller file, or another device")
