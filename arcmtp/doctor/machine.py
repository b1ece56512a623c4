"""Checks of the machine that need no SYCL: Python, libraries, each card's kernel driver, memory window, permissions."""

import grp
import importlib.metadata
import os
import platform
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from arcmtp.doctor.findings import Finding, NamedCheck
from arcmtp.runtime.card import GENERIC, Card, for_device
from arcmtp.runtime.environment import runtime_lib_dir

INTEL = "0x8086"
MINIMUM_KERNEL = (6, 12)  # the first Linux whose xe driver takes Battlemage without being forced
VRAM_BAR = 2  # the PCI resource through which the host reaches a card's memory


@dataclass(frozen=True)
class Gpu:
    """An Intel display device on the PCI bus. `driver` is None when no kernel driver is bound to it."""

    address: str
    pci_id: str  # 0xe20b
    driver: str | None
    window_bytes: int  # of the card's memory that the host reaches
    render_nodes: tuple[str, ...]  # renderD128
    card: Card

    @property
    def is_battlemage(self) -> bool:
        """Whether a profile knows the card."""
        return self.card.profile != GENERIC

    @property
    def title(self) -> str:
        """How findings name it."""
        name = self.card.name if self.is_battlemage else f"Intel GPU {self.pci_id}, not a known Battlemage card,"
        return f"{name} at {self.address}"


@dataclass(frozen=True)
class Machine:
    """Where checks look: /sys, /proc, /etc and /dev below `root`, and the process's environment variables."""

    root: Path = Path("/")
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)

    def path(self, absolute: str) -> Path:
        """`absolute` below the root."""
        return self.root / absolute.lstrip("/")

    def gpus(self) -> list[Gpu]:
        """Intel's display devices in the order of their addresses; none where there is no PCI bus."""
        devices = sorted(self.path("/sys/bus/pci/devices").glob("*"))
        return [_gpu(device) for device in devices if _text(device / "vendor") == INTEL and _is_display(device)]

    def kernel_version(self) -> str:
        """Of the running Linux."""
        return _text(self.path("/proc/sys/kernel/osrelease"))

    def checks(self) -> list[NamedCheck]:
        """All checks, in the order in which their findings explain each other."""
        return [
            ("python", lambda: python()),
            ("packages", lambda: packages()),
            ("library path", lambda: library_path(self, runtime_lib_dir())),
            ("cache folder", lambda: cache_folder(self)),
            ("kernel driver", lambda: kernel_driver(self)),
            ("resizable bar", lambda: resizable_bar(self)),
            ("render node", lambda: render_node(self)),
        ]


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8").strip()


def _is_display(device: Path) -> bool:
    return _text(device / "class").startswith("0x03")


def _gpu(device: Path) -> Gpu:
    pci_id = _text(device / "device")
    driver = device / "driver"
    first, last, _ = (int(number, 16) for number in _text(device / "resource").splitlines()[VRAM_BAR].split())
    return Gpu(
        address=device.name,
        pci_id=pci_id,
        driver=driver.resolve().name if driver.is_symlink() else None,
        window_bytes=last - first + 1 if last else 0,
        render_nodes=tuple(sorted(node.name for node in device.glob("drm/renderD*"))),
        card=for_device(pci_id, is_cpu=False),
    )


def python() -> Iterator[Finding]:
    """Python's version against what the package asks for."""
    from packaging.specifiers import SpecifierSet

    wanted = SpecifierSet(importlib.metadata.metadata("arcmtp")["Requires-Python"])
    found = platform.python_version()
    if found in wanted:
        yield Finding("python", "ok", f"{found} (needs {wanted})")
    else:
        yield Finding("python", "problem", f"{found}, and arcmtp needs {wanted}", f"install Python {wanted}")


def packages(distribution: str = "arcmtp") -> Iterator[Finding]:
    """Every package that `distribution` needs against its bounds."""
    from packaging.requirements import Requirement

    wanted = [Requirement(line) for line in importlib.metadata.requires(distribution) or []]
    right = []
    for requirement in wanted:
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        remedy = f"pip install '{requirement}'"
        try:
            found = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            yield Finding("packages", "problem", f"{requirement.name} is not installed", remedy)
            continue
        if requirement.specifier.contains(found, prereleases=True):
            right.append(f"{requirement.name} {found}")
        else:
            message = f"{requirement.name} {found} is installed, arcmtp needs {requirement.specifier}"
            yield Finding("packages", "problem", message, remedy)
    yield Finding("packages", "ok", ", ".join(right))


def library_path(machine: Machine, own: Path) -> Iterator[Finding]:
    """Other SYCL runtimes than the one in the folder `own`, where the loader of libraries looks."""
    paths = machine.environment.get("LD_LIBRARY_PATH", "").split(":")
    named = [library for path in paths if path for library in machine.path(path).glob("libsycl.so.*")]
    others = sorted({str(library.parent) for library in named if library.parent.resolve() != own})
    if others:
        setvars = ", set by oneAPI's setvars.sh" if "SETVARS_COMPLETED" in machine.environment else ""
        message = f"LD_LIBRARY_PATH{setvars} has a second SYCL runtime in {', '.join(others)}"
        remedy = "use a shell without setvars.sh" if setvars else "take it out of LD_LIBRARY_PATH"
        yield Finding("library path", "warning", message, f"{remedy}: arcmtp brings its own runtime")
    elif system := _system_sycl(machine):
        message = f"{system} is installed besides; the packages' own runtime comes before it"
        yield Finding("library path", "ok", message)
    else:
        yield Finding("library path", "ok", f"no other SYCL runtime than the one in {own}")


def _system_sycl(machine: Machine) -> str | None:
    """A libsycl that ldconfig has registered."""
    cache = machine.path("/etc/ld.so.cache")
    found = re.search(rb"/[^\0]*/libsycl\.so[^\0]*", cache.read_bytes()) if cache.is_file() else None
    return found and found[0].decode(errors="replace")


def cache_folder(machine: Machine) -> Iterator[Finding]:
    """Whether compiled kernels can be kept."""
    folder = machine.environment["SYCL_CACHE_DIR"]  # importing arcmtp sets it
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            yield Finding("cache folder", "ok", f"{folder} can be written")
    except OSError as error:
        message = f"{folder}: {error.strerror}; kernels are compiled anew at every start"
        yield Finding("cache folder", "warning", message, "set XDG_CACHE_HOME to a folder that you can write")


def kernel_driver(machine: Machine) -> Iterator[Finding]:
    """Which kernel driver each card has."""
    version = machine.kernel_version()
    gpus = machine.gpus()
    if not gpus:
        message = f"no Intel GPU on the PCI bus (Linux {version}); the CPU device needs no kernel driver"
        yield Finding("kernel driver", "ok", message)
    for gpu in gpus:
        bound = f"{gpu.title} is bound to {gpu.driver}" if gpu.driver else f"{gpu.title} has no kernel driver"
        minimum = ".".join(map(str, MINIMUM_KERNEL))
        if not gpu.is_battlemage:
            yield Finding("kernel driver", "ok", f"{bound} (Linux {version})")
        elif gpu.driver != "xe":
            remedy = (
                f"boot Linux {minimum} or newer with the firmware bmg_*.bin of linux-firmware, then `modprobe xe`; "
                "`dmesg | grep xe` says what it lacks"
            )
            yield Finding("kernel driver", "problem", f"{bound}; it needs xe (Linux {version})", remedy)
        elif _release(version) < MINIMUM_KERNEL:
            message = f"{bound} of Linux {version}, which does not take Battlemage unless forced"
            yield Finding("kernel driver", "warning", message, f"boot Linux {minimum} or newer")
        else:
            yield Finding("kernel driver", "ok", f"{bound} of Linux {version} (needs {minimum})")


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])


def resizable_bar(machine: Machine) -> Iterator[Finding]:
    """Whether the host reaches all memory of each card: Level Zero leaves out a card on xe where it does not."""
    for gpu in machine.gpus():
        if gpu.card.hardware is None:  # no profile tells how much memory it has
            continue
        memory = gpu.card.hardware.memory_gib << 30
        window = f"a window of {gpu.window_bytes >> 20} MiB to the {memory >> 20} MiB of {gpu.title}"
        if gpu.window_bytes >= memory:
            yield Finding("resizable bar", "ok", window)
        else:
            remedy = "in the firmware setup switch on Resizable BAR and Above 4G Decoding, and CSM off"
            yield Finding("resizable bar", "problem", f"{window}: Level Zero does not offer such a card", remedy)


def render_node(machine: Machine) -> Iterator[Finding]:
    """Whether this user may open each card's device file."""
    for gpu in machine.gpus():
        if not gpu.render_nodes and gpu.is_battlemage:
            message = f"{gpu.title} has no render node"
            yield Finding("render node", "problem", message, "the kernel driver makes it: see there")
        for name in gpu.render_nodes:
            yield _access(gpu, name, machine.path(f"/dev/dri/{name}"))


def _access(gpu: Gpu, name: str, node: Path) -> Finding:
    try:
        os.close(os.open(node, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        message, remedy = f"/dev/dri/{name} is missing", "in a container, pass /dev/dri to it (--device /dev/dri)"
    except PermissionError:
        message, remedy = f"no permission to open /dev/dri/{name}", _group_remedy(node)
    except OSError as error:
        message, remedy = f"/dev/dri/{name}: {error.strerror}", "`dmesg | grep xe` says why"
    else:
        return Finding("render node", "ok", f"/dev/dri/{name} can be opened ({gpu.title})")
    return Finding("render node", "problem" if gpu.is_battlemage else "warning", f"{message} ({gpu.title})", remedy)


def _group_remedy(node: Path) -> str:
    try:
        group = grp.getgrgid(node.stat().st_gid).gr_name
    except KeyError:  # a container often lacks the host's group
        return f"start the container with --group-add {node.stat().st_gid}, the group of this file"
    return f"sudo usermod -aG {group} $USER, then log in again"
