"""`arcmtp doctor` on fabricated machines, on the real CPU device, and as a command."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from arcmtp.doctor import machine as checks
from arcmtp.doctor.device import DeviceChecks, driver, graph, loaded_runtime, model_memory, product
from arcmtp.doctor.findings import Finding
from arcmtp.doctor.machine import Machine
from arcmtp.doctor.planned_model import PlannedModel
from arcmtp.doctor.report import isolated
from arcmtp.engine.llm import BUNDLED_MODEL
from arcmtp.runtime import _host
from arcmtp.runtime.card import for_device, load
from arcmtp.runtime.device import Device
from arcmtp.runtime.memory import Buffer
from arcmtp.runtime.paths import data_dir, profile_dir

ROOT = Path(__file__).parents[2]
NOBODY = 65534
B580, ARC_A770 = "0xe20b", "0x56a0"
SMALL, LARGE = 256 << 20, 16 << 30  # windows to a card's memory
TINY = str(data_dir() / BUNDLED_MODEL)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def linux(root: Path, version: str = "6.14.0-35-generic") -> Machine:
    """A machine with a PCI bus and no display device."""
    write(root / "proc/sys/kernel/osrelease", f"{version}\n")
    bridge = root / "sys/bus/pci/devices/0000:00:00.0"
    write(bridge / "vendor", "0x8086\n")
    write(bridge / "class", "0x060000\n")
    return Machine(root, {})


def add_gpu(machine: Machine, pci_id: str = B580, driver: str | None = "xe", window: int = LARGE) -> Path:
    """Put a card with a render node into `machine`; the node."""
    device = machine.path("/sys/bus/pci/devices/0000:03:00.0")
    write(device / "vendor", "0x8086\n")
    write(device / "class", "0x030000\n")
    write(device / "device", f"{pci_id}\n")
    first = 0x4000000000
    memory = f"{first:#018x} {first + window - 1:#018x} 0x000000000014220c"
    write(device / "resource", f"{0x84000000:#018x} {0x84FFFFFF:#018x} 0x{0x40204:016x}\n{'0x0 ' * 3}\n{memory}\n")
    if driver:
        bound = machine.path(f"/sys/bus/pci/drivers/{driver}")
        bound.mkdir(parents=True)
        (device / "driver").symlink_to(bound)
        (device / "drm/renderD128").mkdir(parents=True)
    node = machine.path("/dev/dri/renderD128")
    write(node, "")
    return node


def only(findings: Iterator[Finding]) -> Finding:
    (finding,) = findings
    return finding


def of_the_card(machine: Machine) -> list[Finding]:
    found = (checks.kernel_driver(machine), checks.resizable_bar(machine), checks.render_node(machine))
    return [finding for findings in found for finding in findings]


def test_a_machine_without_a_gpu_is_all_right(tmp_path: Path) -> None:
    finding = only(iter(of_the_card(linux(tmp_path))))
    assert (finding.status, finding.remedy) == ("ok", "")
    assert "no Intel GPU" in finding.message and "6.14.0-35-generic" in finding.message


def test_a_machine_without_a_pci_bus_is_too(tmp_path: Path) -> None:
    write(tmp_path / "proc/sys/kernel/osrelease", "6.12.1")
    assert [finding.status for finding in of_the_card(Machine(tmp_path, {}))] == ["ok"]


def test_a_b580_as_it_should_be_has_three_findings_that_are_ok(tmp_path: Path) -> None:
    machine = linux(tmp_path)
    add_gpu(machine)
    found = of_the_card(machine)
    assert [finding.check for finding in found] == ["kernel driver", "resizable bar", "render node"]
    assert [finding.status for finding in found] == ["ok"] * 3
    assert all("Intel Arc B580 at 0000:03:00.0" in finding.message for finding in found)


def test_a_small_window_to_the_cards_memory_is_a_problem(tmp_path: Path) -> None:
    machine = linux(tmp_path)
    add_gpu(machine, window=SMALL)
    finding = only(checks.resizable_bar(machine))
    assert finding.status == "problem" and "256 MiB to the 12288 MiB" in finding.message
    assert "Resizable BAR" in finding.remedy


@pytest.mark.parametrize(("bound", "words"), [("i915", "is bound to i915"), (None, "has no kernel driver")])
def test_a_b580_without_the_xe_driver_is_a_problem(tmp_path: Path, bound: str | None, words: str) -> None:
    machine = linux(tmp_path)
    add_gpu(machine, driver=bound)
    finding = only(checks.kernel_driver(machine))
    assert finding.status == "problem" and words in finding.message
    assert "modprobe xe" in finding.remedy


def test_an_xe_driver_older_than_battlemage_is_a_warning(tmp_path: Path) -> None:
    machine = linux(tmp_path, "6.8.0-51-generic")
    add_gpu(machine)
    finding = only(checks.kernel_driver(machine))
    assert finding.status == "warning" and "6.12" in finding.remedy


def test_another_intel_gpu_is_mentioned_and_not_judged(tmp_path: Path) -> None:
    machine = linux(tmp_path)
    add_gpu(machine, ARC_A770, "i915", SMALL)
    found = of_the_card(machine)
    assert [finding.status for finding in found] == ["ok", "ok"]
    assert "0x56a0, not a known Battlemage card" in found[0].message


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter, unlike pytest's."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def test_a_render_node_without_permission_names_its_group(open_folder: Path) -> None:
    machine = linux(open_folder)
    add_gpu(machine).chmod(0)
    user = os.geteuid()
    os.seteuid(user or NOBODY)  # root may open everything
    try:
        finding = only(checks.render_node(machine))
    finally:
        os.seteuid(user)
    assert finding.status == "problem" and "no permission to open /dev/dri/renderD128" in finding.message
    assert finding.remedy.startswith("sudo usermod -aG ")


def test_a_render_node_that_a_container_lacks_is_a_problem(tmp_path: Path) -> None:
    machine = linux(tmp_path)
    add_gpu(machine).unlink()
    finding = only(checks.render_node(machine))
    assert finding.status == "problem" and "--device /dev/dri" in finding.remedy


def test_a_second_sycl_runtime_on_the_library_path_is_a_warning(tmp_path: Path) -> None:
    own, other = tmp_path / "venv/lib", tmp_path / "opt/oneapi/lib"
    for folder in (own, other):
        write(folder / "libsycl.so.9", "")
    environment = {"LD_LIBRARY_PATH": "/venv/lib::/opt/oneapi/lib", "SETVARS_COMPLETED": "1"}
    finding = only(checks.library_path(Machine(tmp_path, environment), own))
    assert finding.status == "warning" and str(other) in finding.message and "setvars.sh" in finding.remedy
    assert str(own) not in finding.message


def test_a_runtime_that_ldconfig_knows_is_mentioned(tmp_path: Path) -> None:
    machine = Machine(tmp_path, {})
    assert "no other SYCL runtime" in only(checks.library_path(machine, tmp_path)).message
    write(tmp_path / "etc/ld.so.cache", "ld.so-1.7.0\0libsycl.so.8\0/usr/lib/libsycl.so.8\0")
    finding = only(checks.library_path(machine, tmp_path))
    assert finding.status == "ok" and finding.message.startswith("/usr/lib/libsycl.so.8 is installed")


def test_libraries_loaded_from_elsewhere_are_a_problem(tmp_path: Path) -> None:
    own, other = tmp_path / "venv/lib", "/opt/oneapi/lib/libur_loader.so.0"
    line = "7f1c2000-7f1c3000 r-xp 00000000 fe:00 131 "
    write(tmp_path / "proc/self/maps", f"{line}{own}/libsycl.so.9\n{line}/usr/lib/libc.so.6\n7ffc-7ffd rw-p [stack]\n")
    assert only(loaded_runtime(Machine(tmp_path, {}), own)).status == "ok"
    with open(tmp_path / "proc/self/maps", "a") as maps:
        maps.write(f"{line}{other}\n")
    finding = only(loaded_runtime(Machine(tmp_path, {}), own))
    assert finding.status == "problem" and other in finding.message


def test_a_package_outside_its_bounds_and_a_missing_one_are_problems(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs = ["numpy>=99", "arcmtp-no-such-package", "pytest>=1", 'nothing; extra == "test"']
    metadata = "".join(f"Requires-Dist: {need}\n" for need in needs)
    write(tmp_path / "sample-1.0.dist-info/METADATA", f"Metadata-Version: 2.1\nName: sample\nVersion: 1.0\n{metadata}")
    monkeypatch.syspath_prepend(str(tmp_path))
    bounds, missing, right = checks.packages("sample")
    assert (bounds.status, bounds.remedy) == ("problem", "pip install 'numpy>=99'")
    assert (missing.status, missing.message) == ("problem", "arcmtp-no-such-package is not installed")
    assert right.message == f"pytest {pytest.__version__}"


def test_a_cache_folder_that_cannot_be_made_is_a_warning(tmp_path: Path) -> None:
    write(tmp_path / "file", "")
    finding = only(checks.cache_folder(Machine(tmp_path, {"SYCL_CACHE_DIR": str(tmp_path / "file/cache")})))
    assert finding.status == "warning" and "Not a directory" in finding.message


def dying() -> Iterator[Finding]:
    os.kill(os.getpid(), signal.SIGKILL)
    yield from ()


def hanging() -> Iterator[Finding]:
    time.sleep(1000)
    yield from ()


def failing() -> Iterator[Finding]:
    raise OSError("first line\nsecond line")


def fine() -> Iterator[Finding]:
    yield Finding("fine", "ok", "as it should be")


def test_a_check_that_ends_the_process_is_a_problem_that_names_the_signal() -> None:
    first, second = isolated([("fine", fine), ("driver", dying), ("fine", fine)], patience_s=60)
    assert first == Finding("fine", "ok", "as it should be")
    assert (second.check, second.status) == ("driver", "problem") and signal.SIGKILL.name in second.message


def test_a_check_that_hangs_is_a_problem() -> None:
    finding = only(isolated([("kernel", hanging)], patience_s=0.5))
    assert (finding.check, finding.status) == ("kernel", "problem") and "no answer" in finding.message


def test_an_exception_is_a_problem_and_the_next_check_runs() -> None:
    first, second = isolated([("cache folder", failing), ("fine", fine)], patience_s=60)
    assert first == Finding("cache folder", "problem", "the check failed: OSError: first line")
    assert second.status == "ok"


@pytest.mark.parametrize("profile", ["cpu", "arc-b580"])
def test_the_known_answers_are_right_on_the_cpu_device_in_both_geometries(profile: str) -> None:
    device = Device("cpu", load(profile_dir() / f"{profile}.toml"))
    assert product(device).status == "ok"
    assert only(graph(device)).status == "ok"


def test_a_device_that_runs_no_kernels_is_named_as_such() -> None:
    class Null(Device):
        def run(self, launches: _host.LaunchList) -> None: ...

    finding = product(Null("cpu"))
    assert finding.status == "problem" and "accepts kernels and does not run them" in finding.message


def test_a_wrong_product_is_a_problem() -> None:
    class Wrong(Device):
        def array(self, values: np.ndarray) -> Buffer:
            return super().array(values[:, ::-1] if values.dtype == np.uint8 and values.ndim == 2 else values)

    finding = product(Wrong("cpu"))
    assert finding.status == "problem" and "wrong product of 4-bit weights" in finding.message


@pytest.mark.parametrize(
    ("version", "status"),
    [("1.6.31907+7", "ok"), ("1.15.39122", "ok"), ("24.39.31294.12", "problem"), ("1.3.29735", "problem"), ("2", "ok")],
)
def test_gpu_drivers_before_battlemage_are_a_problem(version: str, status: str) -> None:
    def found(card: str) -> Finding:
        known = SimpleNamespace(driver_version=version)
        device: Any = SimpleNamespace(is_cpu=False, sycl_device=known, card=for_device(card, is_cpu=False))
        return only(driver(device))

    assert found(B580).status == status and version in found(B580).message
    assert found(ARC_A770).status == "ok"


def test_no_device_behind_a_selector_is_a_problem_whose_remedy_is_to_unset_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dpctl.get_devices", list)
    checks_of = DeviceChecks(Machine(tmp_path, {"ONEAPI_DEVICE_SELECTOR": "cuda:gpu"}), None, None)
    finding = only(checks_of.adapters())
    assert finding.status == "problem" and finding.remedy == "unset ONEAPI_DEVICE_SELECTOR"


def test_a_runtime_that_cannot_be_loaded_is_a_problem(tmp_path: Path) -> None:
    broken = tmp_path / "lib/python3/site-packages"
    write(broken / "dpctl/__init__.py", "raise ImportError('libsycl.so.9: undefined symbol: f')")
    done = doctor(PYTHONPATH=f"{broken}:{ROOT}")
    assert (done.returncode, done.stderr) == (1, "")
    assert "problem  sycl runtime   ImportError: libsycl.so.9: undefined symbol: f → " in done.stdout


def test_a_card_that_sycl_does_not_offer_is_a_problem(tmp_path: Path) -> None:
    machine = linux(tmp_path)
    assert only(DeviceChecks(machine, "cpu", None).adapters()).status == "ok"
    add_gpu(machine)
    finding = only(DeviceChecks(machine, "cpu", None).adapters())
    assert finding.status == "problem" and "B580" in finding.message and "libze-intel-gpu1" in finding.remedy


def test_a_context_beyond_the_memory_is_a_problem_that_says_what_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    def planned(ctx: int) -> Finding:
        return only(model_memory(device, PlannedModel.open(TINY, ctx)))

    device = Device("cpu")
    needed = int(planned(4096).message.split(" MiB: ")[1].split()[0]) << 20
    monkeypatch.setattr(Device, "free_memory", needed - (1 << 20))
    finding = planned(4096)
    fitting = int(finding.remedy.removeprefix("use --ctx "))
    assert finding.status == "problem" and 64 <= fitting < 4096
    assert [planned(ctx).status for ctx in (fitting, fitting + 1)] == ["ok", "problem"]


def test_experts_that_a_card_leaves_to_the_host_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device("cpu")
    monkeypatch.setattr(device, "is_cpu", False)  # the CPU device has no other memory to leave them to
    model = PlannedModel.open(TINY, 64)
    whole = only(model_memory(device, model)).message
    needed = int(whole.split(" MiB: ")[1].split()[0]) << 20
    monkeypatch.setattr(Device, "free_memory", needed - (2 << 20))
    finding = only(model_memory(device, model))
    assert (finding.status, "experts" in whole) == ("ok", False)
    assert re.search(r"; with experts of the last \d layers in host memory \([123] of ", finding.message)


def test_a_model_beyond_the_memory_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Device, "free_memory", 1 << 20)
    finding = only(model_memory(Device("cpu"), PlannedModel.open(TINY, 64)))
    assert finding.status == "problem" and "too little for any context" in finding.message


def doctor(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", "import sys; from arcmtp.cli import main; sys.exit(main())", "doctor", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def test_json_is_a_list_of_findings_and_this_machines_cpu_device_passes() -> None:
    done = doctor("--device", "cpu", "-m", TINY, "--ctx", "1000", "--json")
    findings = json.loads(done.stdout)
    assert all(list(finding) == ["check", "status", "message", "remedy"] for finding in findings)
    by_check = {finding["check"]: finding for finding in findings}
    for check in ("sycl runtime", "device", "driver", "memory", "kernel", "graph", "bandwidth", "memory plan"):
        assert by_check[check]["status"] == "ok", by_check[check]
    assert "KV cache of 1000 tokens" in by_check["memory plan"]["message"]
    assert done.returncode == any(finding["status"] == "problem" for finding in findings)


def test_a_device_that_is_not_there_is_a_problem_and_status_1() -> None:
    done = doctor("--device", "gpu:99")
    assert (done.returncode, done.stderr) == (1, "")
    line = next(line for line in done.stdout.splitlines() if " device " in line[:17])
    assert line.startswith("problem  device         no device 'gpu:99'; there are: ")
    assert done.stdout.splitlines()[-1].startswith("1 problem, ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-m", "none.gguf"), "none.gguf: no such file"),
        (("-m", TINY, "--ctx", "4097"), "ctx is 4097; this model takes 1 to 4096 tokens"),
        (("--ctx", "64"), "--ctx needs -m"),
    ],
)
def test_wrong_options_end_in_one_line_and_status_2(arguments: tuple[str, ...], message: str) -> None:
    done = doctor(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"arcmtp: {message}") and done.stderr.count("\n") == 1
