"""What failed in a selftest is not used until it passes, is forgotten or is ignored."""

import importlib.metadata
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from arcmtp import LLM
from arcmtp.cli.loading import load
from arcmtp.cli.options import Parser, add_model_options
from arcmtp.doctor.device import selftest as of_doctor
from arcmtp.doctor.findings import Finding
from arcmtp.engine.usable import Usable
from arcmtp.errors import ArcmtpError
from arcmtp.runtime import verdict
from arcmtp.runtime.device import Device
from arcmtp.runtime.verdict import Ability, Verdict, key_of

DATE = "2026-11-29"


@pytest.fixture(scope="module")
def device() -> Device:
    return Device("cpu")


@pytest.fixture(autouse=True)
def empty(own_cache: Path) -> Iterator[None]:
    yield


def failed(device: Device, parts: Mapping[str, Ability | None], passed: tuple[str, ...] = ()) -> None:
    verdict.keep(key_of(device), DATE, passed, parts)


def opened(device: Device, **options: object) -> LLM:
    return LLM(device=device, ctx=64, cache_mib=0, cache_host_mib=0, **options)  # type: ignore[arg-type]


def test_a_device_without_a_selftest_is_used(device: Device) -> None:
    assert verdict.verdict(device) is None
    assert Usable(device, ignore=False).may("graphs", asked=True)


def test_a_device_that_computes_wrongly_is_refused_in_one_line(device: Device) -> None:
    failed(device, {"norm": "device", "golden": "device", "graph": "graphs"})
    with pytest.raises(ArcmtpError) as error:
        opened(device)
    name = device.sycl_device.name
    assert str(error.value) == (
        f"{name} is not used: norm, golden failed in the selftest of {DATE}; run arcmtp selftest again, or use it all "
        "the same with --ignore-selftest"
    )


def test_nothing_is_drafted_after_drafts_failed(device: Device) -> None:
    failed(device, {"mtp": "drafts"})
    with opened(device) as llm:
        assert llm.draft == 0 and llm.network.mtp is None
        assert llm.without == [f"nothing is drafted: mtp failed in the selftest of {DATE}"]
    with pytest.raises(ArcmtpError, match=r"no drafts can be asked for: mtp failed .* --ignore-selftest"):
        opened(device, draft=2)
    with opened(device, draft=0) as llm:
        assert llm.without == []


def test_no_graphs_are_used_after_they_failed(device: Device) -> None:
    failed(device, {"graph": "graphs"})
    gpu = cast(Device, SimpleNamespace(sycl_device=device.sycl_device, is_cpu=False))
    usable = Usable(gpu, ignore=False)
    assert usable.graphs(None) is False and usable.may("drafts", asked=True)
    ignoring = Usable(gpu, ignore=True)
    assert [ignoring.graphs(asked) for asked in (None, True, False)] == [None, True, False]
    assert usable.without == [f"no graphs are used: graph failed in the selftest of {DATE}"]
    with pytest.raises(ArcmtpError, match="no graphs can be asked for"):
        opened(device, draft=0, graphs=True)
    with opened(device, draft=0) as llm:  # a CPU uses none anyway
        assert llm.without == [] and not llm.network.stage.graphs.enabled


def test_figures_that_failed_take_nothing_away(device: Device) -> None:
    failed(device, {"bandwidth": None})
    with opened(device, draft=0) as llm:
        assert llm.without == []


def test_a_verdict_can_be_ignored(device: Device, capsys: pytest.CaptureFixture[str]) -> None:
    failed(device, {"golden": "device", "mtp": "drafts", "graph": "graphs"})
    with opened(device, draft=1, graphs=True, ignore_selftest=True) as llm:
        assert llm.draft == 1 and llm.network.stage.graphs.enabled and llm.without == []
    parser = Parser()
    add_model_options(parser)
    with load(parser.parse_args(["--device", "cpu", "--ignore-selftest"]), 64):
        pass
    with pytest.raises(ArcmtpError, match="is not used: golden failed"):
        load(parser.parse_args(["--device", "cpu"]), 64)


def test_what_is_done_without_is_told(device: Device, capsys: pytest.CaptureFixture[str]) -> None:
    failed(device, {"draft_chain": "drafts"})
    parser = Parser()
    add_model_options(parser)
    load(parser.parse_args(["--device", "cpu"]), 64, draft=None).close()
    assert f"nothing is drafted: draft_chain failed in the selftest of {DATE}\n" in capsys.readouterr().err


def test_a_part_that_passes_later_is_used_again_and_others_stay_as_they_were(device: Device) -> None:
    failed(device, {"graph": "graphs", "mtp": "drafts"}, passed=("norm",))
    failed(device, {"norm": "device"}, passed=("graph",))
    assert verdict.verdict(device) == Verdict(DATE, {"mtp": "drafts", "norm": "device"})
    failed(device, {}, passed=("mtp", "norm"))
    assert verdict.verdict(device) == Verdict(DATE, {})


def test_a_verdict_is_of_one_device_driver_version_and_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    def key(name: str = "Arc", driver: str = "1.6.3") -> str:
        sycl = SimpleNamespace(name=name, driver_version=driver)
        return key_of(cast(Device, SimpleNamespace(sycl_device=sycl)))

    keys = [key(), key(name="Arc, emulated"), key(driver="1.6.4")]
    monkeypatch.setattr(verdict, "kernels_digest", lambda: "others")
    keys.append(key())
    monkeypatch.setattr(importlib.metadata, "version", lambda package: "0.0.1")
    keys.append(key())
    assert len(set(keys)) == len(keys)


def test_forgetting(device: Device) -> None:
    verdict.forget()
    failed(device, {"norm": "device"})
    verdict.forget()
    assert verdict.verdict(device) is None


@pytest.mark.parametrize("content", ["", "{", "[]", '{"KEY": 1}', '{"KEY": {"date": 1, "failed": {"norm": "all"}}}'])
def test_a_file_that_cannot_be_read_says_nothing_and_is_replaced(content: str, device: Device) -> None:
    verdict.path().parent.mkdir(parents=True)
    verdict.path().write_text(content.replace("KEY", "any"))
    assert verdict.verdict(device) is None
    failed(device, {"norm": "device"})
    assert json.loads(verdict.path().read_text()) == {key_of(device): {"date": DATE, "failed": {"norm": "device"}}}


def test_a_cache_folder_that_cannot_be_written_is_done_without(device: Device, own_cache: Path) -> None:
    own_cache.write_text("a file")
    failed(device, {"norm": "device"})
    assert verdict.verdict(device) is None


def finding_of(device: Device) -> Finding:
    (finding,) = of_doctor(device)
    return finding


def test_the_doctor_shows_it(device: Device) -> None:
    assert (finding_of(device).status, "not run" in finding_of(device).message) == ("ok", True)
    failed(device, {}, passed=("norm",))
    assert finding_of(device) == Finding("selftest", "ok", f"nothing failed on {DATE}")
    failed(device, {"graph": "graphs", "mtp": "drafts", "steps": None})
    message = f"graph, mtp, steps failed in the selftest of {DATE}; no graphs are used and nothing is drafted"
    assert (finding_of(device).status, finding_of(device).message) == ("problem", message)
