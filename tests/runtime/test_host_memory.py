"""How much memory a process can still have."""

from __future__ import annotations

import builtins
import resource
from pathlib import Path
from typing import Any

import pytest

from arcmtp.runtime import environment, host_memory


@pytest.fixture
def no_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing below /proc and /sys is there."""
    usual, read = builtins.open, Path.read_text

    def opened(path: Any, *arguments: Any, **options: Any) -> Any:
        if str(path).startswith(("/proc", "/sys")):
            raise FileNotFoundError(2, "No such file or directory", str(path))
        return usual(path, *arguments, **options)

    def read_text(path: Path, *arguments: Any, **options: Any) -> str:
        if str(path).startswith(("/proc", "/sys")):
            raise FileNotFoundError(2, "No such file or directory", str(path))
        return read(path, *arguments, **options)

    monkeypatch.setattr(builtins, "open", opened)
    monkeypatch.setattr(Path, "read_text", read_text)


def test_what_linux_has_available_is_most() -> None:
    line = next(one for one in Path("/proc/meminfo").read_text().splitlines() if one.startswith("MemAvailable"))
    assert 0 < host_memory.available() <= 1.1 * 1024 * int(line.split()[1])


def test_without_proc_there_is_an_answer(no_proc: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert host_memory.available() > 0
    monkeypatch.delenv("CL_CONFIG_CPU_TARGET_ARCH", raising=False)
    assert environment._cpu_tag() == "00000000"


def test_a_limit_of_address_space_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (used + (50 << 20), resource.RLIM_INFINITY))
    assert 0 < host_memory.available() <= 50 << 20
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (1 << 20, resource.RLIM_INFINITY))
    assert host_memory.available() == 0


def test_the_narrowest_control_group_counts_without_the_files_that_it_keeps(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    inner = tmp_path / "user" / "job"
    inner.mkdir(parents=True)
    for folder, limit, used in ((inner, "max", 10), (inner.parent, str(60 << 20), 20 << 20), (tmp_path, "max", 30)):
        (folder / "memory.max").write_text(f"{limit}\n")
        (folder / "memory.current").write_text(f"{used}\n")
        (folder / "memory.stat").write_text(f"anon 5\ninactive_file {1 << 20}\n")
    monkeypatch.setattr(host_memory, "_GROUPS", tmp_path)
    read = host_memory._read
    monkeypatch.setattr(
        host_memory, "_read", lambda path: "1:x:/\n0::/user/job\n" if path.name == "cgroup" else read(path)
    )
    assert host_memory._of_groups() == 41 << 20
