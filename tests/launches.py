"""Launches of kernels that a test writes itself."""

from arcmtp.runtime.launch import Argument, Cost, Kernel, Launch


def launch(kernel: Kernel, groups: int = 1, **arguments: Argument) -> Launch:
    """One whose cost nobody asks for."""
    return Launch(kernel, groups, 1, arguments, lambda work: Cost(0))
