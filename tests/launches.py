"""Kernels that a test writes itself, and launches of them."""

from arcmtp.runtime.launch import Argument, Cost, Kernel, Launch, Parameters


def kernel(name: str, declared: Parameters, body: str, header: str = "formats.hpp") -> Kernel:
    """One whose work-groups have one work-item each."""
    return Kernel(name, "", header, declared, body=body)


def launch(kernel: Kernel, groups: int = 1, **arguments: Argument) -> Launch:
    """One whose cost nobody asks for."""
    return Launch(kernel, groups, 1, arguments, lambda work: Cost(0))
