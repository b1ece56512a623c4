"""The read bandwidth of a device's memory, by a kernel that does nothing else."""

import time

import numpy as np

from arcmtp.errors import ArcmtpError
from arcmtp.runtime.device import Device
from arcmtp.runtime.launch import Cost, Kernel, Launch, parameters, reads, writes
from arcmtp.runtime.memory import Buffer
from arcmtp.runtime.tensor import U32

GROUP_BYTES = 1 << 18  # that one work-group reads
READ_BYTES = 1 << 29  # of a buffer to measure with: more than the caches of most machines

_KERNEL = Kernel(
    operator="read_all",
    variant="",
    header="activations.hpp",
    parameters=parameters(data=reads(U32), sums=writes(U32)),
    body=f"const simd::u32 *from = data + simd::u64(simd::group_index()) * {GROUP_BYTES // 4};"
    " vec<simd::u32, 64> a = 0, b = 0;"
    f" for (int i = 0; i < {GROUP_BYTES // 4}; i += 128) {{"
    " a += simd::load<simd::u32, 64>(from + i); b += simd::load<simd::u32, 64>(from + i + 64); }"
    " simd::store<simd::u32, 64>(sums + simd::group_index() * 64, vec<simd::u32, 64>(a + b));",
)


class ReadBandwidth:
    """Adds up the words of `data`, whole groups of 256 KiB of them; `gbs` is the best of all measurements so far.

    Raises ArcmtpError for a device that accepts kernels and does not run them.
    """

    def __init__(self, device: Device, data: Buffer) -> None:
        groups = data.nbytes // GROUP_BYTES
        self._device, self._nbytes = device, groups * GROUP_BYTES
        sums = device.zeros(groups * 256)
        launch = Launch(_KERNEL, groups, 0, {"data": data, "sums": sums}, lambda work: Cost(self._nbytes))
        self._launches = device.bind([launch])
        self.gbs = 0.0
        self.measure()
        want = data.read(np.uint32, GROUP_BYTES // 4).sum(dtype=np.uint32)
        if sums.read(np.uint32, 64).sum(dtype=np.uint32) != want:
            raise ArcmtpError(f"{device.sycl_device.name} does not execute kernels: there is nothing to time")

    def measure(self) -> float:
        """Read everything once more; GB/s of this time."""
        began = time.perf_counter()
        self._device.run(self._launches)
        gbs = self._nbytes / (time.perf_counter() - began) / 1e9
        self.gbs = max(self.gbs, gbs)
        return gbs
