"""How fast a card would decode: predicted from what a step must move, nothing is measured."""

from __future__ import annotations

from arcmtp.model.network import Network
from arcmtp.runtime.card import Hardware
from arcmtp.runtime.launch import Work

# What a launch takes beside its bytes. Another engine's B70 lost 2 to 2.5 ms a token with 700 launches more.
LAUNCH_SECONDS = 3.5e-6
# Of the specified bandwidth, where nobody has measured a card: that of the B580 and of the B70.
OF_MEMORY_BANDWIDTH = 0.88
# Of PCIe's rate, where nobody has measured a card: copies of the B580, 12 of 15.75 GB/s. Kernels that read host memory
# by themselves have been measured nowhere.
OF_PCIE_RATE = 0.76
PCIE_GIGATRANSFERS = {3: 8, 4: 16, 5: 32}  # a second and lane, by generation
PCIE_BITS = 128 / 130  # of a transfer that are data, in these generations


def memory_bandwidth(hardware: Hardware) -> float:
    """GB/s of the card's memory: as measured, or as other cards reach."""
    return hardware.measured_bandwidth_gbs or OF_MEMORY_BANDWIDTH * hardware.spec_bandwidth_gbs


def pcie_bandwidth(hardware: Hardware) -> float:
    """GB/s from host memory to the card: as measured, or as other cards reach, in a slot as wide and fast as the
    card's."""
    rate = PCIE_GIGATRANSFERS[hardware.pcie_generation] * hardware.pcie_lanes * PCIE_BITS / 8
    return hardware.measured_pcie_gbs or OF_PCIE_RATE * rate


def predicted_tokens_per_second(network: Network, hardware: Hardware, position: int = 0) -> float:
    """Tokens a second of one sequence at `position` without drafts, experts where the network has them.

    Bytes of device memory over its bandwidth, bytes of host memory over PCIe's, and `LAUNCH_SECONDS` for each launch,
    one after the other.
    """
    work = Work(rows=1, context=position + 1, experts=network.config.experts_used)
    launches = [launch.cost(work).nbytes for launch in network.plain_step()]
    host = network.host_step_bytes
    seconds = (sum(launches) - host) / memory_bandwidth(hardware) / 1e9
    seconds += host / pcie_bandwidth(hardware) / 1e9
    return 1 / (seconds + len(launches) * LAUNCH_SECONDS)
