"""How much memory of the machine this process can still have."""

from __future__ import annotations

import math
import os
import resource
from pathlib import Path

_GROUPS = Path("/sys/fs/cgroup")  # control groups, version 2


def available() -> int:
    """Bytes: what Linux has available, but no more than a control group or a limit of address space leaves."""
    least = min(_of_machine(), _of_groups(), _of_address_space())
    return max(0, int(least))


def _of_machine() -> float:
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):  # no /proc, as in some sandboxes
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _of_groups() -> float:
    """What the process's group and those around it leave."""
    line = _read(Path("/proc/self/cgroup")).partition("0::/")[2]
    group = _GROUPS / line.strip()
    return min(_of_group(folder) for folder in (group, *group.parents) if folder.is_relative_to(_GROUPS))


def _of_group(folder: Path) -> float:
    limit, used = _read(folder / "memory.max").strip(), _read(folder / "memory.current").strip()
    if not (limit.isdecimal() and used.isdecimal()):
        return math.inf
    statistics = dict(line.split() for line in _read(folder / "memory.stat").splitlines())
    files = int(statistics.get("inactive_file", 0))  # whose memory Linux takes back
    return int(limit) - int(used) + files


def _of_address_space() -> float:
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return math.inf
    pages = _read(Path("/proc/self/statm")).partition(" ")[0]
    return limit - int(pages or 0) * resource.getpagesize()


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
