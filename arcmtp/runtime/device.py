"""A SYCL device ready for kernels: its queue, card profile, memory and compiler."""

from collections.abc import Iterable

import dpctl
import numpy as np
from dpctl.utils import intel_device_info

from arcmtp.runtime import _host, host_memory
from arcmtp.runtime.card import Card, for_device
from arcmtp.runtime.compiler import Compiler
from arcmtp.runtime.devices import select
from arcmtp.runtime.launch import Cost, Kernel, Launch, parameters, reads, writes
from arcmtp.runtime.memory import Buffer, HostBuffer
from arcmtp.runtime.tensor import I32


class Device:
    """One device with an in-order queue.

    `filter_string` is dpctl's (`cpu`, `level_zero:gpu:0`; None chooses a Battlemage GPU, another Intel GPU, the CPU);
    `card` replaces the profile that belongs to the device, so that the CPU runs kernels in a GPU's geometry.
    """

    def __init__(self, filter_string: str | None = None, card: Card | None = None) -> None:
        self.sycl_device = select(filter_string)
        self.is_cpu = self.sycl_device.is_cpu
        self.card = card or for_device(self.sycl_device.name, self.is_cpu)
        properties = ["in_order"] if _host.takes_profiling_tags(self.sycl_device) else ["in_order", "enable_profiling"]
        self.queue = dpctl.SyclQueue(self.sycl_device, property=properties)  # one on which time can be marked
        maker = ["-DARCMTP_INTEL_CPU"] if _host.cpu_is_intel() else []
        self._compiler = Compiler(self.queue, [*maker, "-DARCMTP_VNNI"] if self.is_cpu else ["-DARCMTP_GPU"])
        if self.is_cpu and not _vnni_works(self):
            self._compiler = Compiler(self.queue, maker)

    @property
    def activation_orders(self) -> int:
        """Copies of an activation row's codes (`ACTIVATION_ORDERS` of simd.hpp)."""
        return 3 if self.is_cpu else 1

    @property
    def free_memory(self) -> int:
        """Bytes that can be allocated: what the GPU's driver says is free, or for the CPU device what this process can
        still have of the machine's memory."""
        memory = int(self.sycl_device.global_mem_size)
        if self.is_cpu:
            return min(memory, host_memory.available())
        return int(intel_device_info(self.sycl_device).get("free_memory", memory))

    def alloc(self, nbytes: int, at_once: bool = True) -> Buffer:
        """Uninitialised device memory; ArcmtpError when there is none. at_once: as in `Buffer`."""
        return Buffer(nbytes, self.queue, at_once)

    @property
    def free_host_memory(self) -> int:
        """Bytes of host memory that can be allocated; of the CPU device, the same memory as `free_memory`."""
        return host_memory.available()

    def host_alloc(self, nbytes: int, at_once: bool = True) -> HostBuffer:
        """Uninitialised host memory that kernels can use; ArcmtpError when there is none. at_once: as in `Buffer`."""
        return HostBuffer(nbytes, self.queue, at_once)

    def host_zeros(self, nbytes: int) -> HostBuffer:
        """Zero bytes of host memory that kernels can write to."""
        buffer = self.host_alloc(nbytes)
        buffer.fill(0)
        return buffer

    def array(self, values: np.ndarray) -> Buffer:
        """A new buffer holding `values`."""
        buffer = self.alloc(values.nbytes)
        buffer.write(values)
        return buffer

    def zeros(self, nbytes: int) -> Buffer:
        """A new buffer of zero bytes."""
        buffer = self.alloc(nbytes)
        buffer.fill(0)
        return buffer

    def compile(self, kernels: Iterable[Kernel]) -> int:
        """`Compiler.compile`."""
        return self._compiler.compile(kernels)

    def bind(self, launches: Iterable[Launch]) -> _host.LaunchList:
        """`Compiler.bind`."""
        return self._compiler.bind(launches)

    def run(self, launches: _host.LaunchList) -> None:
        """Submit `launches` and wait for them."""
        launches.submit(self.queue)
        self.wait()

    def wait(self) -> None:
        """Wait for everything submitted, without the GIL."""
        _host.wait(self.queue)


def _vnni_works(device: Device) -> bool:
    """Whether the CPU driver runs AVX-512 VNNI: told for other targets, its instructions silently return zeros."""
    if not _host.cpu_has_avx512_vnni():
        return False
    kernel = Kernel(
        "vnni_known_answer", "", "formats.hpp", parameters(words=reads(I32), out=writes(I32)),
        body="simd::store<int, 16>(out, simd::dot_bytes<1>(vec<int, 16>(5), vec<simd::u32, 16>(0x01020304u), words));",
        agree=(("simd::ACTIVATION_ORDERS", device.activation_orders),),
    )  # fmt: skip
    words, out = device.array(np.array([0, 0x7F80FF02], np.int32)), device.zeros(64)
    launch = Launch(kernel, 1, 1, {"words": words, "out": out}, lambda work: Cost(0))
    device.run(device.bind([launch]))
    known_answer = 5 + 4 * 2 + 3 * -1 + 2 * -128 + 1 * 127
    return bool(np.all(out.read(np.int32, 16) == known_answer))
