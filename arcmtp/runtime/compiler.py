"""Kernels specialised from the headers of `sycl_kernels/`, compiled at run time, many to a source."""

import functools
from collections.abc import Collection, Iterable
from itertools import groupby
from operator import attrgetter

import dpctl

from arcmtp.errors import ArcmtpError
from arcmtp.runtime import _host, host_memory
from arcmtp.runtime.launch import Kernel, Launch
from arcmtp.runtime.paths import kernel_dir

# Explicit IEEE arithmetic: a compiler that fuses or reorders float operations would make bits depend on the row count.
# With names of values: the runtime's cache knows machine code by its input, and input read from that cache has names;
# without them the second process compiles once more what the first one did (docs/log/compiler.md).
COMPILE_OPTIONS = ["-O3", "-ffp-contract=off", "-fno-discard-value-names"]
# To Intel's GPU compiler it comes no other way: without this a * b + c is fused in some kernels and not in others.
GPU_COMPILE_OPTIONS = ["-Xs", "-ffp-contract=off"]
ENOUGH_BYTES = 1 << 30  # of memory; with less the compiler may fail for want of it, and says something else


@functools.cache
def headers() -> tuple[tuple[str, str], ...]:
    """Name and text of every kernel header."""
    return tuple((path.name, path.read_text(encoding="utf-8")) for path in sorted(kernel_dir().glob("*.hpp")))


def source_text(kernels: Collection[Kernel], packed: bool = False) -> str:
    """One source that holds all `kernels`, with packed parameters or as they are."""
    used = {header for kernel in kernels for header in (kernel.header, *kernel.includes)}
    includes = "".join(f'#include "{header}"\n' for header in sorted(used))
    return includes + "using namespace arcmtp;\n\n" + "\n".join(kernel.source(packed) for kernel in kernels)


@functools.cache
def program(
    context: dpctl.SyclContext, device: dpctl.SyclDevice, source: str, options: tuple[str, ...]
) -> _host.Program:
    """`source` compiled, once in a process: it serves all queues of the context, and those of a device have one. From
    the runtime's cache on disk a source takes 0.24 s of processor time.

    Raises RuntimeError with the compiler's log.
    """
    return _host.build(context, device, source, list(headers()), list(options))


class Compiler:
    """Compiles kernels for the device of a queue, each once, and binds launches to them.

    options: of the compiler, besides COMPILE_OPTIONS.
    """

    def __init__(self, queue: dpctl.SyclQueue, options: Iterable[str]) -> None:
        self._queue, self._options = queue, [*COMPILE_OPTIONS, *options]
        # The CPU driver makes an object of each pointer among a launch's arguments: 12 µs for twelve of them, 6.5 for a
        # struct (docs/log.md). A GPU's driver has to see the pointers, to know what a kernel reaches.
        self._packed = queue.sycl_device.is_cpu
        if not queue.sycl_device.is_cpu:
            self._options += GPU_COMPILE_OPTIONS
        self._compiled: dict[Kernel, _host.Kernel] = {}

    def compile(self, kernels: Iterable[Kernel]) -> int:
        """Compile the kernels that are not compiled yet; how many these were. One source holds them all, since a source
        costs more than a kernel, but for kernels that know sequences: these have a source of their own, which serves
        any number of sequences.

        Raises ArcmtpError for a device that does not compile them, ValueError for two kernels of one name.
        """
        missing = [kernel for kernel in dict.fromkeys(kernels) if kernel not in self._compiled]
        named = {kernel.name: kernel for kernel in self._compiled}
        for kernel in missing:
            if named.setdefault(kernel.name, kernel) != kernel:
                raise ValueError(f"two different kernels are called {kernel.name}")
        alike = attrgetter("knows_sequences")
        for _, group in groupby(sorted(missing, key=alike), alike):
            self._build(list(group))
        return len(missing)

    def bind(self, launches: Iterable[Launch]) -> _host.LaunchList:
        """The launches, with what they lack compiled, ready to be submitted; their tensors must be allocated."""
        launches, bound = list(launches), _host.LaunchList()
        self.compile(launch.kernel for launch in launches)
        for launch in launches:
            kernel = launch.kernel
            bound.add(
                kernel.name, self._compiled[kernel], launch.groups, kernel.team, self._packed, *launch.ordered()
            )
        return bound

    def _build(self, kernels: list[Kernel]) -> None:
        team_memory = max([64, *(kernel.team_memory for kernel in kernels)])
        options = (*self._options, f"-DARCMTP_TEAM_MEMORY={team_memory}")
        source, device = source_text(kernels, self._packed), self._queue.sycl_device
        try:
            compiled = program(self._queue.sycl_context, device, source, options)
        except RuntimeError as failure:
            lines = str(failure).splitlines()
            reason = next((line for line in lines if "error" in line.lower()), lines[0])
            message = f"{device.name} does not compile the kernels: {reason.strip()}"
            if (left := host_memory.available()) < ENOUGH_BYTES:
                message += f"; only {left >> 20} MiB of memory are left for this process"
            raise ArcmtpError(message) from failure
        self._compiled |= {kernel: _host.kernel(compiled, kernel.name) for kernel in kernels}
