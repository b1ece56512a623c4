"""What the selftest of a device found, kept beside the compiled kernels: what arcmtp does without from then on."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from arcmtp.errors import ArcmtpError
from arcmtp.runtime.environment import cache_dir
from arcmtp.runtime.files import OutputFile
from arcmtp.runtime.paths import kernel_dir

if TYPE_CHECKING:
    from arcmtp.runtime.device import Device

Ability = Literal["device", "graphs", "drafts"]
# What becomes of a device where a part failed, by what the part takes away.
WITHOUT: dict[Ability, str] = {
    "device": "the device is not used",
    "graphs": "no graphs are used",
    "drafts": "nothing is drafted",
}


@dataclass(frozen=True)
class Verdict:
    """date: of the latest run. failed: what each part that failed last takes away; None: nothing."""

    date: str
    failed: Mapping[str, Ability | None] = field(default_factory=dict)

    def against(self, ability: Ability) -> str:
        """Why arcmtp does without, in words; empty where nothing speaks against it."""
        parts = [name for name, lost in self.failed.items() if lost == ability]
        return f"{', '.join(parts)} failed in the selftest of {self.date}" if parts else ""


def kernels_digest() -> str:
    """Of the sources of all kernels."""
    return hashlib.sha256(b"\n".join(path.read_bytes() for path in sorted(kernel_dir().glob("*.hpp")))).hexdigest()[:12]


def key_of(device: Device) -> str:
    """What a verdict holds for: this device, driver, version of arcmtp and kernels."""
    sycl, version = device.sycl_device, importlib.metadata.version("arcmtp")
    return f"{sycl.name}, driver {sycl.driver_version}, arcmtp {version}, kernels {kernels_digest()}"


def verdict(device: Device) -> Verdict | None:
    """What the latest selftest of a device found; None: there was none."""
    return _read().get(key_of(device))


def keep(key: str, date: str, passed: Iterable[str], failed: Mapping[str, Ability | None]) -> None:
    """Remember which parts passed and failed on `date`. Other parts stay as they were. A cache folder that cannot be
    written to is done without."""
    known = _read()
    before = known[key].failed if key in known else {}
    still = {name: lost for name, lost in before.items() if name not in {*passed, *failed}}
    known[key] = Verdict(date, {**still, **failed})
    content = {key: {"date": each.date, "failed": dict(each.failed)} for key, each in known.items()}
    with contextlib.suppress(OSError, ArcmtpError):
        path().parent.mkdir(parents=True, exist_ok=True)
        with OutputFile(path()) as output:
            output.write(json.dumps(content, indent=1))


def forget() -> None:
    """Forget all verdicts. Raises ArcmtpError for a file that cannot be removed."""
    try:
        path().unlink(missing_ok=True)
    except OSError as error:
        raise ArcmtpError(f"{path()}: {error.strerror}; expected a file that can be removed") from None


def path() -> Path:
    """The file in the user's cache folder."""
    return cache_dir() / "selftest.json"


def _read() -> dict[str, Verdict]:
    """A file that cannot be read says nothing."""
    try:
        content = json.loads(path().read_text(encoding="utf-8"))
        return {str(key): _of_json(each) for key, each in content.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}


def _of_json(content: Any) -> Verdict:
    failed = {str(name): lost for name, lost in content["failed"].items()}
    if not all(lost is None or lost in get_args(Ability) for lost in failed.values()):
        raise ValueError
    return Verdict(str(content["date"]), failed)
