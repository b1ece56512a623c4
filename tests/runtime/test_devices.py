from types import SimpleNamespace
from typing import Any

import dpctl
import pytest

from arcmtp.errors import ArcmtpError
from arcmtp.runtime import _host
from arcmtp.runtime.devices import format_table, list_devices, select

LEVEL_ZERO, OPENCL = dpctl.backend_type.level_zero, dpctl.backend_type.opencl


def device(name: str, backend: Any = LEVEL_ZERO, kind: str = "gpu", vendor: str = "Intel(R) Corporation") -> Any:
    return SimpleNamespace(
        name=name,
        vendor=vendor,
        backend=backend,
        is_gpu=kind == "gpu",
        is_cpu=kind == "cpu",
        has_aspect_emulated="Emulation" in name,
        filter_string=f"{backend.name}:{kind}:0",
        global_mem_size=24 << 30,
        sub_group_sizes=[16, 32],
    )


CPU = device("Intel(R) Xeon(R) Processor", OPENCL, "cpu")
BATTLEMAGE = device("Intel(R) Arc(TM) B580 Graphics")
BATTLEMAGE_OPENCL = device("Intel(R) Arc(TM) B580 Graphics", OPENCL)
ALCHEMIST = device("Intel(R) Arc(TM) A770 Graphics")
OTHER_VENDOR = device("GeForce", dpctl.backend_type.cuda, vendor="NVIDIA Corporation")
FPGA = device("Intel(R) FPGA Emulation Device", OPENCL, "accelerator")
EMULATED_CPU = device("Emulation Device", OPENCL, "cpu")


@pytest.fixture
def present(monkeypatch: pytest.MonkeyPatch) -> Any:
    def have(*found: Any) -> None:
        monkeypatch.setattr(dpctl, "get_devices", lambda: list(found))
        monkeypatch.setattr(_host, "graph_support", lambda _: "full")

    return have


@pytest.mark.parametrize(
    ("found", "chosen"),
    [
        ([CPU, BATTLEMAGE_OPENCL, ALCHEMIST, BATTLEMAGE], BATTLEMAGE),
        ([OTHER_VENDOR, CPU, ALCHEMIST], ALCHEMIST),
        ([FPGA, OTHER_VENDOR, EMULATED_CPU, CPU], CPU),
    ],
)
def test_the_default_is_a_battlemage_gpu_then_another_intel_gpu_then_the_cpu(
    present: Any, found: list[Any], chosen: Any
) -> None:
    present(*found)
    assert select() is chosen
    assert [info.is_default for info in list_devices()] == [d is chosen for d in found]


def test_emulators_and_other_vendors_are_never_chosen_unasked(present: Any) -> None:
    present(FPGA, OTHER_VENDOR, EMULATED_CPU)
    with pytest.raises(ArcmtpError, match=r"name one of: opencl:accelerator:0 \(Intel\(R\) FPGA"):
        select()


def test_no_device_at_all_names_the_packages_to_install(present: Any) -> None:
    present()
    for call in (select, list_devices):
        with pytest.raises(ArcmtpError, match=r"^no SYCL device found: .*intel-opencl-rt.*libze-intel-gpu1"):
            call()


@pytest.mark.parametrize("filter_string", ["nonsense", "", "level_zero:gpu:7"])
def test_an_unknown_filter_string_is_one_line_that_lists_the_devices(filter_string: str) -> None:
    with pytest.raises(ArcmtpError) as error:
        select(filter_string)
    assert str(error.value).startswith(f"no device {filter_string!r}; there are: ")
    assert "opencl:cpu:0" in str(error.value)
    assert "\n" not in str(error.value)


def test_the_cpu_is_listed_with_its_profile_and_limited_graphs() -> None:
    (cpu,) = [info for info in list_devices() if info.filter_string == "opencl:cpu:0"]
    assert cpu.card.profile == "cpu"
    assert cpu.graph == "limited"
    assert cpu.backend == "opencl"
    assert 16 in cpu.sub_groups
    assert cpu.memory_bytes > 2**30


def test_a_filter_string_selects_its_device() -> None:
    assert select("opencl:cpu").is_cpu


def test_the_table_has_a_line_for_each_device_and_the_notes_of_generic_profiles(present: Any) -> None:
    present(CPU, ALCHEMIST)
    heading, cpu, gpu, note = format_table(list_devices()).splitlines()
    assert heading.split() == ["device", "name", "memory", "sub-groups", "graph", "profile"]
    assert cpu.split()[0] == "opencl:cpu:0"
    assert gpu.split()[:2] == ["*", "level_zero:gpu:0"]
    assert "24.0 GiB" in gpu
    assert gpu.endswith("16 32       full   generic")
    assert note.startswith("level_zero:gpu:0: no profile for Intel(R) Arc(TM) A770 Graphics")
