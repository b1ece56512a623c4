"""Card profiles: what is known about a device, and the kernels' geometry on it. docs/profiles.md explains every key."""

import functools
import tomllib
from collections.abc import Callable
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from arcmtp.errors import ArcmtpError
from arcmtp.runtime.paths import profile_dir

Table = TypeVar("Table")
GENERIC = "generic"  # the profile name of GPUs that no file matches


@dataclass(frozen=True)
class Rule:
    """What a key's value must be, in words and as a test."""

    text: str
    holds: Callable[[Any], bool]


def _key(text: str, holds: Callable[[Any], bool], **default: Any) -> Any:
    return field(metadata={"rule": Rule(text, holds)}, **default)


def _whole(low: int, high: int, step: int = 1) -> Any:
    multiple = f", a multiple of {step}" if step > 1 else ""
    return _key(
        f"a whole number from {low} to {high}{multiple}",
        lambda v: type(v) is int and low <= v <= high and v % step == 0,
    )


def _bandwidth(**default: Any) -> Any:
    return _key("a number of GB/s from 1 to 10000", lambda v: type(v) in (int, float) and 1 <= v <= 10000, **default)


def _text(**default: Any) -> Any:
    return _key("a text that is not empty", lambda v: isinstance(v, str) and bool(v.strip()), **default)


def _table(**default: Any) -> Any:
    return _key("a table", lambda v: isinstance(v, dict), **default)


def _list_of(kind: type, text: str, *, empty: bool) -> Any:
    return _key(text, lambda v: isinstance(v, list) and (empty or bool(v)) and all(type(e) is kind and e for e in v))


@dataclass(frozen=True)
class Hardware:
    """Facts from the maker, and bandwidths that someone has measured, if any."""

    xe_cores: int = _whole(1, 1024)
    memory_gib: int = _whole(1, 1024)
    spec_bandwidth_gbs: float = _bandwidth()
    clock_mhz: int = _whole(100, 10000)
    pcie_generation: int = _whole(3, 5)
    pcie_lanes: int = _whole(1, 16)
    pcie_source: str = _text()
    measured_bandwidth_gbs: float | None = _bandwidth(default=None)
    bandwidth_source: str | None = _text(default=None)
    measured_pcie_gbs: float | None = _bandwidth(default=None)


@dataclass(frozen=True)
class Limits:
    """What a launch must not exceed."""

    work_group: int = _whole(1, 65536)  # work-items
    slm_kib: int = _whole(1, 1024)  # shared local memory of a work-group
    sub_groups: tuple[int, ...] = _list_of(int, "a list of sub-group sizes", empty=False)


@dataclass(frozen=True)
class Geometry:
    """Compile-time constants of the kernels; a team is the hardware threads that share one work-group."""

    kind: str = _key('"cpu" or "gpu"', lambda v: v in ("cpu", "gpu"))
    mul_mat_team: int = _whole(1, 64)
    mul_mat_rows: int = _whole(1, 8)  # rows of activations in one pass over the weights
    mul_mat_columns: int = _whole(16, 4096, step=16)  # outputs that a work-group computes
    norm_team: int = _whole(1, 64)
    gdn_team: int = _whole(1, 64)
    attention_team: int = _whole(1, 64)
    attention_splits: int = _whole(1, 256)  # work-groups that share one head's keys
    router_team: int = _whole(1, 64)
    expert_columns: int = _whole(16, 4096, step=16)  # outputs of one expert that a work-group computes
    softmax_groups: int = _whole(1, 1024)  # work-groups over the vocabulary
    chunk_rows: int = _whole(64, 4096, step=64)  # rows of a prompt chunk at most
    prompt_rows: int = _whole(0, 16, step=8)  # rows of a prompt chunk that a thread multiplies; 0: as in a step
    prompt_columns: int = _whole(16, 64, step=16)  # by so many columns of a matrix
    prompt_team: int = _whole(1, 32)
    ahead_kib: int = _whole(0, 4096)  # weights of a later launch that a launch asks memory for


@dataclass(frozen=True)
class Card:
    """A device's profile. `hardware` is None for the CPU and for cards without a profile of their own."""

    profile: str
    name: str
    matches: tuple[str, ...]
    hardware: Hardware | None
    limits: Limits
    geometry: Geometry
    note: str = ""


@dataclass(frozen=True)
class _File:
    """The top level of a profile file."""

    name: str = _text()
    matches: tuple[str, ...] = _list_of(str, "a list of parts of device names", empty=True)
    limits: dict[str, Any] = _table()
    geometry: dict[str, Any] = _table()
    hardware: dict[str, Any] | None = _table(default=None)


def load(path: Path) -> Card:
    """The profile in `path`; ArcmtpError names the file and the key that is wrong."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ArcmtpError(f"{path}: not a readable TOML file: {error}") from None
    file = _checked(_File, content, path)
    hardware = None if file.hardware is None else _checked(Hardware, file.hardware, path, "hardware.")
    if hardware and (hardware.measured_bandwidth_gbs is None) != (hardware.bandwidth_source is None):
        raise ArcmtpError(f"{path}: hardware.measured_bandwidth_gbs and hardware.bandwidth_source go together")
    return Card(
        profile=path.stem,
        name=file.name,
        matches=file.matches,
        hardware=hardware,
        limits=_checked(Limits, file.limits, path, "limits."),
        geometry=_checked(Geometry, file.geometry, path, "geometry."),
    )


@functools.cache
def cards() -> dict[str, Card]:
    """Every profile that comes with the package, by file name without `.toml`."""
    return {path.stem: load(path) for path in sorted(profile_dir().glob("*.toml"))}


def for_device(name: str, is_cpu: bool) -> Card:
    """The profile for a SYCL device name; a GPU without one gets a generic geometry and a note that says so."""
    if is_cpu:
        return cards()["cpu"]
    for card in cards().values():
        if any(part.lower() in name.lower() for part in card.matches):
            return card
    fallback = cards()["arc-b580"]
    note = f"no profile for {name}: kernels use the geometry of {fallback.name}"
    return replace(fallback, profile=GENERIC, name=name, matches=(), hardware=None, note=note)


def _checked(kind: type[Table], table: dict[str, Any], path: Path, prefix: str = "") -> Table:
    known = {f.name: f for f in fields(kind)}  # type: ignore[arg-type]
    for key, value in table.items():
        if key not in known:
            raise ArcmtpError(f"{path}: unknown key {prefix}{key}; known are {', '.join(known)}")
        rule: Rule = known[key].metadata["rule"]
        if not rule.holds(value):
            raise ArcmtpError(f"{path}: {prefix}{key} is {value!r} and should be {rule.text}")
    missing = [f for f in known.values() if f.name not in table and f.default is MISSING]
    if missing:
        rule = missing[0].metadata["rule"]
        raise ArcmtpError(f"{path}: {prefix}{missing[0].name} is missing; it should be {rule.text}")
    return kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in table.items()})
