"""Which SYCL devices there are, and which one is used."""

from dataclasses import dataclass

import dpctl

from arcmtp.errors import ArcmtpError
from arcmtp.runtime import _host
from arcmtp.runtime.card import GENERIC, Card, for_device

NO_DEVICE = (
    "no SYCL device found: install the Python package intel-opencl-rt for the CPU, "
    "or the system packages libze1 and libze-intel-gpu1 (Debian, Ubuntu) for an Arc GPU"
)


@dataclass(frozen=True)
class DeviceInfo:
    """What `arcmtp devices` shows of a device; `graph` is "full", "limited" or "none"."""

    filter_string: str
    name: str
    backend: str
    memory_bytes: int
    sub_groups: tuple[int, ...]
    graph: str
    card: Card
    is_default: bool


def list_devices() -> list[DeviceInfo]:
    """Every SYCL device; ArcmtpError when there is none."""
    devices = _all_devices()
    default = _default(devices)
    return [_info(device, device is default) for device in devices]


def select(filter_string: str | None = None) -> dpctl.SyclDevice:
    """The device that dpctl's filter string names; without one a Battlemage GPU, another Intel GPU or the CPU.

    Raises ArcmtpError when there is no such device.
    """
    devices = _all_devices()
    if filter_string is None:
        if chosen := _default(devices):
            return chosen
        raise ArcmtpError(f"no device to use by default; name one of: {_choices(devices)}")
    try:
        return dpctl.SyclDevice(filter_string)
    except (dpctl.SyclDeviceCreationError, ValueError):
        raise ArcmtpError(f"no device {filter_string!r}; there are: {_choices(devices)}") from None


def format_table(devices: list[DeviceInfo]) -> str:
    """The devices as a table for a terminal, the default one marked with a star, notes of their profiles below."""
    rows = [("", "device", "name", "memory", "sub-groups", "graph", "profile"), *map(_row, devices)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    notes = [f"{info.filter_string}: {info.card.note}" for info in devices if info.card.note]
    return "\n".join(lines + notes)


def _all_devices() -> list[dpctl.SyclDevice]:
    devices = dpctl.get_devices()
    if not devices:
        raise ArcmtpError(NO_DEVICE)
    return devices


def _default(devices: list[dpctl.SyclDevice]) -> dpctl.SyclDevice | None:
    return max((d for d in devices if _rank(d)), key=_rank, default=None)


def _rank(device: dpctl.SyclDevice) -> int:
    """Above 0 for devices that may be chosen unasked: Intel's GPUs (not once more through OpenCL) and real CPUs."""
    if device.is_gpu and device.backend == dpctl.backend_type.level_zero and "Intel" in device.vendor:
        return 2 if for_device(device.name, is_cpu=False).profile == GENERIC else 3
    return int(device.is_cpu and not device.has_aspect_emulated)


def _info(device: dpctl.SyclDevice, is_default: bool) -> DeviceInfo:
    return DeviceInfo(
        filter_string=device.filter_string,
        name=device.name,
        backend=device.backend.name,
        memory_bytes=device.global_mem_size,
        sub_groups=tuple(device.sub_group_sizes),
        graph=_host.graph_support(device),
        card=for_device(device.name, device.is_cpu),
        is_default=is_default,
    )


def _row(info: DeviceInfo) -> tuple[str, ...]:
    memory = f"{info.memory_bytes / 2**30:.1f} GiB"
    sub_groups = " ".join(map(str, info.sub_groups))
    star = "*" if info.is_default else ""
    return star, info.filter_string, info.name, memory, sub_groups, info.graph, info.card.profile


def _choices(devices: list[dpctl.SyclDevice]) -> str:
    return ", ".join(f"{device.filter_string} ({device.name})" for device in devices)
