"""Which model of a repository is taken, and models that commands get by `hf:` names."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import gguf
import pytest

from arcmtp.cli import main
from arcmtp.engine import LLM, fitting
from arcmtp.engine.fitting import GIB, Candidate, Place, network_of
from arcmtp.engine.llm import bundled_model
from arcmtp.engine.memory_plan import memory_plan
from arcmtp.errors import ArcmtpError
from arcmtp.gguf import GGUF
from arcmtp.hub import HubFile, Repository, names, repository
from arcmtp.hub.download import cache_folder
from arcmtp.progress import Progress
from arcmtp.runtime.device import Device
from tests.hub.conftest import NAME, Hub


@pytest.fixture(scope="module")
def device() -> Device:
    return Device("cpu")


@pytest.fixture
def tiny(hub: Hub, data_dir: Path, tmp_path: Path) -> Iterator[Hub]:
    """A repository of the tiny model in three sizes, a model of another architecture, and what is no model."""
    other = tmp_path / "other.gguf"
    writer = gguf.GGUFWriter(other, "llama")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    hub.files = {
        "Tiny-Q4_0.gguf": bundled_model().read_bytes(),
        "Tiny-Q4_K_M.gguf": (data_dir / "tiny-qwen36moe-q4_k_m.gguf").read_bytes(),
        "F16/Tiny-F16.gguf": (data_dir / "tiny-qwen36moe-f16.gguf").read_bytes(),
        "Tiny-Q2_K.gguf": other.read_bytes(),
        "mmproj-F16.gguf": bytes(100 << 20),
    }
    yield hub


def chosen(output: str) -> str:
    """The file in the line that says which was taken."""
    match = re.search(rf"^taking hf:{NAME}:(\S+), the largest that fits ", output, re.MULTILINE)
    assert match, output
    return match[1]


def needed(path: Path, device: Device, ctx: int | None = None) -> int:
    return memory_plan(network_of(GGUF(path), Place(device, ctx))).nbytes


def test_the_largest_that_fits_is_taken_and_the_table_says_why(
    tiny: Hub, device: Device, data_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {"Q4_0": bundled_model(), "Q4_K_M": data_dir / "tiny-qwen36moe-q4_k_m.gguf"}
    files["F16"] = data_dir / "tiny-qwen36moe-f16.gguf"
    for name, path in files.items():
        monkeypatch.setattr(Device, "free_memory", needed(path, device))
        assert main(["pull", f"hf:{NAME}", "--device", "cpu"]) == 0
        output = capsys.readouterr()
        assert chosen(output.err) == name and output.out.endswith(f"Tiny-{name}.gguf\n")
        assert output.err.splitlines()[1].split() == ["file", "GiB", "fits"]  # behind "reading headers …"
    assert not any("mmproj" in path for _, path, _ in tiny.requests)


def test_a_table_has_a_line_for_each_file(tiny: Hub, device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    q4_0 = needed(bundled_model(), device)
    monkeypatch.setattr(Device, "free_memory", q4_0)
    found = fitting.candidates(Repository.open(NAME), Place(device), lambda *_: None)
    free = f"{q4_0 / GIB:.2f}"
    assert [line.split() for line in fitting.table(found).splitlines()] == [
        line.split()
        for line in (
            "file GiB fits",
            f"F16 0.03 no the file alone is larger than the {free} GiB that are free",
            f"Q4_K_M 0.01 no needs 0.02 of {free} GiB",
            f"Q4_0 0.01 yes needs {free} of {free} GiB",
            "Q2_K 0.00 - smaller",
        )
    ]
    monkeypatch.setattr(Device, "free_memory", len(tiny.files["Tiny-Q4_0.gguf"]) - 1)
    found = fitting.candidates(Repository.open(NAME), Place(device), lambda *_: None)
    assert [candidate.fits for candidate in found] == [False] * 4
    assert all("the file alone is larger than the 0.01 GiB that are free" in one.reason for one in found[:3])
    assert found[3].reason == "Tiny-Q2_K.gguf: is architecture 'llama'; arcmtp runs 'qwen35moe' and 'qwen35'"


def test_context_and_sequences_have_to_fit_as_well(tiny: Hub, device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Device, "free_memory", needed(bundled_model(), device, ctx=1024))
    for place, fits in ((Place(device, 1024), True), (Place(device, 4096), False), (Place(device, 1024, 2), False)):
        found = fitting.candidates(Repository.open(NAME), place, lambda *_: None)
        assert [candidate.fits for candidate in found if candidate.model.name == "Q4_0"] == [fits]


def test_of_a_file_that_may_fit_the_header_alone_is_read(
    tiny: Hub, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repository, "HEADER_BYTES", (4096, 1 << 20))
    opened = Repository.open(NAME)
    with opened.header(opened.find("Q4_0")) as header:
        assert memory_plan(network_of(header, Place(device))).nbytes == needed(bundled_model(), device)
    assert tiny.ranges() == ["bytes=0-4095", f"bytes=0-{(1 << 20) - 1}"]


def test_inspect_reads_the_header_alone(tiny: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", f"hf:{NAME}:Q4_0", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["file"] == f"hf:{NAME}:Q4_0" and report["file_bytes"] == bundled_model().stat().st_size
    assert report["mtp"] == "present" and not list(cache_folder(NAME).rglob("*.gguf"))
    assert main(["inspect", f"hf:{NAME}"]) == 2
    message = f"arcmtp: hf:{NAME}: is a repository; expected a model in it, hf:{NAME}:QUANT, where QUANT is of F16, "
    assert capsys.readouterr().err.startswith(message)


def test_a_server_that_knows_no_ranges_does_not_fill_the_disk(
    tiny: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(repository, "HEADER_BYTES", (4096,))
    tiny.ignores_range = True
    assert main(["pull", f"hf:{NAME}", "--device", "cpu"]) == 2
    message = f"arcmtp: hf:{NAME}: the server sends more than it was asked for"
    assert capsys.readouterr().err.splitlines()[-1] == message


def test_a_plan_is_that_of_loading(device: Device) -> None:
    with LLM(device=device, ctx=1024, cache_mib=8, cache_host_mib=4) as llm:
        loaded = memory_plan(llm.network)
    planned = memory_plan(network_of(GGUF(bundled_model()), Place(device, 1024, cache_mib=(8, 4))))
    assert (planned.weights_bytes, planned.nbytes) == (loaded.weights_bytes, loaded.nbytes)
    assert planned.host_pages_bytes == loaded.host_pages_bytes > 0 < planned.pages_bytes


@pytest.mark.parametrize(
    ("command", "ctx", "parallel", "requant"),
    [
        (["pull", f"hf:{NAME}", "-c", "512"], 512, 1, None),
        (["serve", "-m", f"hf:{NAME}", "--requant", "int4"], None, 4, "int4"),
        (["generate", "-p", "x", "-m", f"hf:{NAME}", "-c", "64"], 64, 1, None),
    ],
)
def test_what_has_to_fit_is_what_the_command_will_load(
    tiny: Hub, monkeypatch: pytest.MonkeyPatch, command: list[str], ctx: int | None, parallel: int, requant: str | None
) -> None:
    places = list[Place]()

    def note(repository: Repository, place: Place, progress: Progress) -> list[Candidate]:
        places.append(place)
        raise ArcmtpError("enough")

    monkeypatch.setattr(fitting, "candidates", note)
    assert main([*command, "--device", "cpu"]) == 2
    assert [(place.ctx, place.parallel, place.requant) for place in places] == [(ctx, parallel, requant)]
    assert places[0].device.is_cpu


def test_a_quantisation_may_be_of_a_model_or_of_an_mtp_block() -> None:
    files = [HubFile("T-Q8_0.gguf", 3000), HubFile("T-Q4_0.gguf", 2000), HubFile("mtp-T-Q8_0.gguf", 300)]
    opened = Repository(NAME, names.models(files), offline=False)
    found = [
        opened.find(quant, only_mtp).files[0].path
        for quant in ("q8_0", "mtp-q8_0", "q4_0")
        for only_mtp in (False, True)
    ]
    whole, block, other = (file.path for file in (files[0], files[2], files[1]))
    assert found == [whole, block, block, block, other, other]


def test_none_that_fits_is_told_in_one_line_behind_the_table(
    tiny: Hub, device: Device, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Device, "free_memory", 1 << 20)
    assert main(["pull", f"hf:{NAME}", "--device", "cpu"]) == 2
    name = device.sycl_device.name
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"arcmtp: hf:{NAME}: no file fits {name}: name one all the same, such as hf:{NAME}:Q2_K"
    )


def test_commands_take_such_names_for_models_and_for_mtp_blocks(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    block = tmp_path / "block.gguf"
    assert main(["mtp", "extract", str(bundled_model()), str(block)]) == 0
    hub.files = {"Tiny-Q4_0.gguf": bundled_model().read_bytes(), "mtp-Tiny-Q4_0.gguf": block.read_bytes()}
    capsys.readouterr()
    command = ["generate", "--raw", "-p", "import os", "-n", "8", "--device", "cpu", "--draft", "1", "--json"]
    texts = []
    for options in ([], ["-m", f"hf:{NAME}", "--mtp-model", f"hf:{NAME}"]):
        assert main([*command, *options]) == 0
        texts.append(json.loads(capsys.readouterr().out)["ids"])
    assert texts[0] == texts[1]
    pulled = [path.rpartition("/")[2] for verb, path, _ in hub.requests if path.startswith("/cdn/") and verb == "GET"]
    assert pulled == ["Tiny-Q4_0.gguf"] * 2 + ["mtp-Tiny-Q4_0.gguf"]  # a header, and each file once
    assert main(["mtp", "count-tokens", "-m", f"hf:{NAME}:Q4_0", __file__, "-n", "5"]) == 0


@pytest.mark.parametrize(
    "command",
    [
        ["doctor"], ["serve"], ["profile"], ["perplexity", "-f", __file__], ["bench", "-n", "1"], ["bench", "mtp"],
        ["bench", "mtp", "--matrix"],
    ],
)  # fmt: skip
def test_every_command_with_a_model_takes_them(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, "-m", "hf:nobody"]) == 2
    assert capsys.readouterr().err.startswith("arcmtp: 'hf:nobody' is not hf:OWNER/NAME")
