"""Kernels specialised from the headers of `sycl_kernels/`, compiled at run time, many to a source."""

import functools
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from arcmtp.errors import ArcmtpError
from arcmtp.runtime import _host
from arcmtp.runtime.paths import kernel_dir

if TYPE_CHECKING:
    from arcmtp.runtime.device import Device

# Explicit IEEE arithmetic: a compiler that fuses or reorders float operations would make bits depend on the row count.
COMPILE_OPTIONS = ["-O3", "-ffp-contract=off"]
# To Intel's GPU compiler it comes no other way: without this a * b + c is fused in some kernels and not in others.
GPU_COMPILE_OPTIONS = ["-Xs", "-ffp-contract=off"]


@dataclass(frozen=True)
class Kernel:
    """One kernel: its entry point around a template of `header`.

    `parameters` is the C++ parameter list, `body` the statements, `team` the work-items of a work-group (one work-item
    is one hardware thread holding vectors), `team_memory` the bytes of shared local memory that the body reserves.
    """

    name: str
    header: str
    parameters: str
    body: str
    team: int = 1
    team_memory: int = 0

    def source(self, packed: bool) -> str:
        """Its entry point; `packed` makes the parameters members of a struct, the only parameter then."""
        if not packed:
            return f"ARCMTP_KERNEL({self.name})({self.parameters}) {{\n    {self.body}\n}}\n"
        arguments, names = f"{self.name}_arguments", re.findall(r"(\w+)(?:,|$)", self.parameters)
        return (
            f"struct {arguments} {{ {self.parameters.replace(',', ';')}; }};\n"
            f"ARCMTP_KERNEL({self.name})({arguments} arguments) {{\n"
            f"    const auto [{', '.join(names)}] = arguments;\n    {self.body}\n}}\n"
        )


@functools.cache
def headers() -> tuple[tuple[str, str], ...]:
    """Name and text of every kernel header."""
    return tuple((path.name, path.read_text()) for path in sorted(kernel_dir().glob("*.hpp")))


def source_text(kernels: Collection[Kernel], packed: bool = False) -> str:
    """One source that holds all `kernels`, with packed parameters or as they are."""
    includes = "".join(f'#include "{header}"\n' for header in sorted({kernel.header for kernel in kernels}))
    return includes + "using namespace arcmtp;\n\n" + "\n".join(kernel.source(packed) for kernel in kernels)


class Program:
    """Compiled kernels of one source; `launch` appends calls of them to a launch list."""

    def __init__(self, device: "Device", kernels: Iterable[Kernel]) -> None:
        self._kernels: dict[str, Kernel] = {}
        for kernel in kernels:
            if self._kernels.setdefault(kernel.name, kernel) != kernel:
                raise ValueError(f"two different kernels are called {kernel.name}")
        team_memory = max([64, *(kernel.team_memory for kernel in self._kernels.values())])
        options = [*COMPILE_OPTIONS, *device.compile_options, f"-DARCMTP_TEAM_MEMORY={team_memory}"]
        if not device.is_cpu:
            options += GPU_COMPILE_OPTIONS
        # The CPU driver makes an object of each pointer among a launch's arguments: 12 µs for twelve of them, 6.5 for a
        # struct (docs/log.md). A GPU's driver has to see the pointers, to know what a kernel reaches.
        self._packed = device.is_cpu
        source = source_text(self._kernels.values(), self._packed)
        queue = device.queue
        try:
            self._bundle = _host.build(queue.sycl_context, queue.sycl_device, source, list(headers()), options)
        except RuntimeError as failure:
            lines = str(failure).splitlines()
            reason = next((line for line in lines if "error" in line.lower()), lines[0])
            raise ArcmtpError(f"{queue.sycl_device.name} does not compile the kernels: {reason.strip()}") from failure
        self._compiled = {name: _host.kernel(self._bundle, name) for name in self._kernels}

    def launch(self, launches: _host.LaunchList, kernel: Kernel, groups: int, *arguments: Any) -> None:
        """Append a call of `kernel` with `groups` work-groups; arguments are buffers, pointers, ints or floats."""
        if self._kernels.get(kernel.name) != kernel:
            raise ValueError(f"kernel {kernel.name} is not part of this program")
        launches.add(kernel.name, self._compiled[kernel.name], groups, kernel.team, self._packed, *arguments)
