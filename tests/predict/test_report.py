"""`arcmtp predict`: from a header alone, every figure marked as predicted."""

import json
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from arcmtp import ArcmtpError
from arcmtp.cli import main
from arcmtp.gguf import GGUF
from arcmtp.model.network import Network, NetworkOptions
from arcmtp.predict import card_on_paper, predicted_tokens_per_second
from arcmtp.predict.machine import CASES
from arcmtp.predict.published import NAMES, VOCAB_USED, published
from arcmtp.predict.report import DEPTHS, PROMPTS, Options, Report, predict
from arcmtp.predict.steps import Steps, tokens_per_cycle
from arcmtp.predict.text import as_json, as_text

MOE = "qwen3.6-35b-a3b"


@pytest.fixture(scope="module")
def report() -> Report:
    """Of the published model in 4-bit weights on a B70, of f16 and turbo4."""
    config, gguf = published(MOE)
    return predict(gguf, config, Options("arc-pro-b70", "int4", ("f16", "turbo4")))


def network(card: str = "arc-pro-b70") -> Steps:
    config, gguf = published(MOE)
    device = card_on_paper(card)
    options = NetworkOptions(8192, VOCAB_USED, mtp=gguf, requant="int4")
    return Steps(Network(gguf, config, options, device), device.hardware)


def expected(report: Report, kind: str) -> dict[tuple[str, str], float]:
    """Milliseconds by what and KV type."""
    return {(speed.what, speed.kv_type): 1e3 * speed.seconds.expected for speed in getattr(report, kind)}


def test_there_is_a_line_for_each_thing_that_is_asked_for(report: Report) -> None:
    assert len(report.decode) == 2 * len(DEPTHS)
    assert [speed.what for speed in report.prompt] == [f"prompt of {tokens:,}" for tokens in PROMPTS]
    assert [speed.what for speed in report.verify] == ["step of 1 row", *(f"step of {rows} rows" for rows in (2, 3, 4))]
    assert (len(report.draft), len(report.mtp), len(report.tables)) == (2, 3, 5)


def test_ranges_hold_what_is_expected_and_no_step_is_faster_than_its_bytes(report: Report) -> None:
    for speed in (*report.decode, *report.prompt, *report.draft, *report.verify, *report.mtp):
        assert speed.seconds.best < speed.seconds.expected < speed.seconds.worst
    steps = network()
    for rows in (1, 4):
        work = steps.predictor.work(rows, rows)
        nbytes = sum(launch.cost(work).nbytes for launch in steps.network.plain_step(rows))
        assert steps.step(rows, 0).seconds.expected > nbytes / 536e9


def test_more_context_more_rows_and_longer_prompts_take_longer(report: Report) -> None:
    kinds = (("decode", "f16"), ("decode", "turbo4"), ("verify", "f16"), ("prompt", "f16"), ("mtp", "f16"))
    for kind, of_type in kinds:
        took = [ms for (_, kv_type), ms in expected(report, kind).items() if kv_type == of_type]
        assert took == sorted(took) and len(set(took)) == len(took), kind
    decode = expected(report, "decode")
    assert decode["depth 0", "f16"] < 1.2 * decode["depth 0", "turbo4"]


def test_a_step_is_the_sum_of_its_kernels_and_each_names_what_bounds_it(report: Report) -> None:
    for table in report.tables:
        kernels = table.time.kernels
        assert sum(kernel.seconds.expected for kernel in kernels) == pytest.approx(table.time.seconds.expected)
        assert sum(kernel.launches for kernel in kernels) == table.time.launches
        for kernel in kernels:
            assert kernel.bounds[kernel.bound] == max(kernel.bounds.values())
            assert kernel.seconds.expected >= max(kernel.bounds.values())
    assert report.tables[0].time.launches == 6 * 40 + 5


def test_a_cycle_is_its_draft_calls_and_its_step() -> None:
    steps = network()
    parts = [steps.draft(1, 3, 0), steps.draft(2, 3, 0), steps.step(3, 0)]
    assert steps.cycle(2, 0).seconds.expected == pytest.approx(sum(part.seconds.expected for part in parts))
    assert tokens_per_cycle((0.85, 0.75, 0.65), 2) == pytest.approx(2.6)


def test_a_prompt_is_its_chunks() -> None:
    steps = network()
    chunk = steps.network.chunk_rows
    one, two = (steps.prompt(tokens).seconds.expected for tokens in (chunk, 2 * chunk))
    assert 2 * one * 0.98 < two < 2.4 * one  # the second sees the keys of the first, too
    assert steps.prompt(chunk + 88).seconds.expected > one


def test_experts_in_host_memory_come_over_pcie() -> None:
    steps = network("arc-b580")
    before = steps.step(1, 0).seconds
    steps.network.keep_experts_in_host_memory(10)
    after = steps.step(1, 0).seconds
    moved = 10 * 8 * 3 * 512 * 2048 * 9 / 16
    assert after.expected - before.expected == pytest.approx(moved / 12e9 - moved / 402e9, rel=0.1)


def test_a_smaller_draft_vocabulary_makes_drafts_faster() -> None:
    config, gguf = published(MOE)
    asked = [Options("arc-pro-b70", "int4", ("f16",), draft_vocab=tokens) for tokens in (0, 32_768)]
    whole, small = (predict(gguf, config, options).draft[-1].seconds.expected for options in asked)
    assert small < 0.6 * whole


def test_the_text_says_that_it_is_predicted_and_has_every_table(report: Report) -> None:
    text = as_text(report)
    assert "Predicted: counted" in text and "No card has run it." in text
    assert text.count("| all ") == 5
    for title in ("decode, without drafts", "prompt, and its first token", "draft calls", "steps", "a token, depth 0"):
        assert f"| {title}" in text


def test_json_has_all_and_the_figures_of_the_card(report: Report) -> None:
    content = json.loads(as_json(report))
    assert content["predicted"] is True and content["figures"]["launch_us"]["expected"] == 3
    (first, *_) = content["tables"][0]["time"]["kernels"]
    assert first["bound"] == report.tables[0].time.kernels[0].bound


def test_a_published_model_needs_no_file(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> Any:
        raise AssertionError("a tensor was read")

    for name in ("data", "read"):
        monkeypatch.setattr(GGUF, name, never)
    assert main(["predict", "--config", MOE, "--card", "arc-b580", "--kv-type", "f16"]) == 0
    assert "on Intel Arc B580" in capsys.readouterr().out


def test_measured_acceptance_comes_from_a_profile(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    profile = tmp_path / "profile.json"
    profile.write_text(json.dumps({"drafting": {"acceptance_by_position": [0.5, 0.25]}}))
    assert main(["predict", "--kv-type", "f16", "--acceptance", str(profile)]) == 0
    shown = capsys.readouterr().out
    assert "| 1 draft, 1.50 tokens a cycle " in shown and "| 2 drafts, 1.75 tokens a cycle " in shown
    profile.write_text(json.dumps({"drafting": None}))
    assert main(["predict", "--acceptance", str(profile)]) == 2


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_it_is_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str], ending: str) -> None:
    file = tmp_path / f"predicted.{ending}"
    assert main(["predict", "--kv-type", "f16", "--plot", str(file)]) == 0
    assert capsys.readouterr().out
    if ending == "svg":
        assert ElementTree.parse(file).getroot().tag == "{http://www.w3.org/2000/svg}svg"
        assert "tokens/s, predicted" in file.read_text()
    else:
        assert file.read_bytes().startswith(b"\x89PNG")


def test_plots_need_matplotlib(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["predict", "--plot", "x.png"]) == 2
    assert capsys.readouterr().err == "arcmtp: plots need matplotlib: pip install 'arcmtp[plot]'\n"


@pytest.mark.parametrize("shares", [(), (1.5,), (0.5, 0.6), (0.5, -0.1), (0.9,) * 8, (float("nan"),)])
def test_acceptance_out_of_range_is_refused(shares: tuple[float, ...]) -> None:
    with pytest.raises(ArcmtpError, match="it must be 1 to 7 shares"):
        Options("arc-pro-b70", acceptance=shares)


def test_published_models_are_known_by_name() -> None:
    for name in NAMES.values():
        config, gguf = published(name)
        assert f"blk.{config.layers}.nextn.eh_proj.weight" in gguf.tensors
    with pytest.raises(ArcmtpError, match=r"config is 'qwen9'; known are qwen3\.6-35b-a3b, qwen3\.6-27b"):
        published("qwen9")


@pytest.mark.parametrize("card", ["arc-b570", "arc-pro-b50", "arc-pro-b60"])
def test_no_card_is_faster_than_a_b70(card: str) -> None:
    speeds = [
        predicted_tokens_per_second(steps.network, steps.hardware).expected for steps in (network(card), network())
    ]
    assert speeds[0] < speeds[1]


def test_further_rows_add_fewer_experts_the_more_they_keep_of_the_row_before() -> None:
    predictor = network().predictor
    for case in CASES:
        counts = [predictor.work(rows, rows, case).experts for rows in (1, 2, 4, 512)]
        assert counts[0] == 8 and counts == sorted(counts) and counts[-1] == pytest.approx(256, rel=1e-3)
    of_two = {case: predictor.work(2, 2, case).experts for case in CASES}
    assert 8 < of_two["best"] < of_two["expected"] < of_two["worst"] == pytest.approx(16 - 8 * 8 / 256)
