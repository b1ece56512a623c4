"""`arcmtp inspect`: what a header says of a file, and of the cards that could run it."""

import dataclasses
import json
import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Type

from arcmtp import LLM
from arcmtp.cli import main
from arcmtp.engine.llm import bundled_model
from arcmtp.gguf import GGUF
from arcmtp.gguf_header import Bytes, GgmlType, TensorInfo
from arcmtp.inspect.report import Report, inspect
from arcmtp.inspect.text import as_text
from arcmtp.model.mtp_files import extract
from arcmtp.runtime.device import Device
from scripts.make_random_model import write_header
from scripts.random_model.tensors import FULL
from tests.model.weight_files import ModelFile

EXPERT_BYTES = 3 * 512 * 2048 * 9 // 16  # of Qwen3.6-35B-A3B in Q4_0: gate, up and down
CARDS = ("arc-b570", "arc-b580", "arc-pro-b50", "arc-pro-b60", "arc-pro-b70")


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """20 GB with the header of Qwen3.6-35B-A3B and holes in place of weights."""
    path = tmp_path_factory.mktemp("full") / "full.gguf"
    writer, tensors = write_header(path, replace(FULL["qwen35moe"], mtp=True), Type.Q4_0, Type.Q6_K, seed=1)
    assert writer.fout is not None
    file = writer.fout[0]
    file.truncate(file.tell() + sum(-(-tensor.nbytes // 32) * 32 for tensor in tensors))
    writer.close()
    yield path
    path.unlink()


@pytest.fixture
def reads_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever opens a device fails, or reads a tensor but a small one of F32."""
    read = GGUF.read

    def never(*_: object, **__: object) -> Any:
        raise AssertionError("inspect read a whole tensor or opened a device")

    def small(file: GGUF, tensor: TensorInfo, start: int, into: Bytes) -> None:
        assert tensor.type is GgmlType.F32 and tensor.nbytes <= 4 * 256 * 2048, tensor.name
        read(file, tensor, start, into)

    monkeypatch.setattr(GGUF, "data", never)
    monkeypatch.setattr(GGUF, "read", small)
    monkeypatch.setattr(Device, "__init__", never)


@pytest.fixture
def report(full: Path, reads_little: None) -> Report:
    return inspect(GGUF(full))


def test_a_file_of_20_gb_is_told_by_its_header(report: Report) -> None:
    assert report.file_bytes > 20e9 and report.mtp == "present" and report.refused is None
    assert report.config is not None
    assert (report.config.layers, report.config.experts, report.config.experts_used) == (40, 256, 8)
    assert [(t.type, t.format, t.count) for t in report.tensors] == [
        ("Q4_0", "W4", 442), ("Q6_K", "W6_16", 1), ("F32", "BF16", 82), ("F32", "F32", 228),
    ]  # fmt: skip
    q4_0, q6_k, routers, _ = report.tensors
    assert routers.device_bytes == 41 * 2 * (256 + 16) * 2048  # the shared expert's gate in a tile of 16
    assert q4_0.file_bytes * 32 == q4_0.elements * 18 and q6_k.elements == 248_320 * 2048
    assert sum(t.file_bytes for t in report.tensors) <= report.file_bytes


def test_a_tokens_bytes_come_by_part_and_add_up(report: Report) -> None:
    assert report.running is not None and report.running.bytes_per_draft is not None
    parts = report.running.bytes_per_token
    assert list(parts) == ["embedding", "gated delta net", "router", "experts", "attention", "head"]
    shared = 3 * 512 * 2048 * 9 // 16
    assert 1 <= parts["experts"] / (40 * (8 * EXPERT_BYTES + shared)) < 1.02  # a little for the rows
    assert 1 <= parts["head"] / report.tensors[1].file_bytes < 1.01
    assert report.running.bytes_per_draft > parts["head"] + 8 * EXPERT_BYTES
    rope = 64 * 4
    assert report.running.bytes_per_position == 11 * 2 * 2 * 256 * 2 + rope  # of 10 layers and the MTP block


def test_each_card_has_a_plan_and_a_predicted_speed(report: Report) -> None:
    assert report.running is not None
    cards = report.running.cards
    assert tuple(card.profile for card in cards) == CARDS
    assert [card.experts_host for card in cards] == [24, 19, 10, 0, 0]
    moved = sum(report.running.bytes_per_token.values())
    bandwidth = [0.88 * 380, 402, 0.88 * 224, 0.88 * 456, 536]
    pcie = [0.76 * 15.754, 12, 0.76 * 31.508, 0.76 * 31.508, 0.76 * 63.015]
    for card, memory_gbs, pcie_gbs in zip(cards, bandwidth, pcie, strict=True):
        assert card.fits and card.context == 8192 <= card.largest_context and card.kv_type == "f16"
        assert card.host_bytes == card.experts_host * 256 * EXPERT_BYTES
        assert card.device_bytes <= 0.95 * card.memory_gib * 2**30
        over_pcie = card.experts_host * 8 * EXPERT_BYTES
        # Bytes, the time between launches, in half of which memory brings what was asked for, and what else bounds some
        # kernels (tests/predict). A launch reads the shared expert and its norm's rows from the card's memory while
        # PCIe brings the others: 0.4 % of the time at most.
        least = (moved - over_pcie) / memory_gbs / 1e9 + over_pcie / pcie_gbs / 1e9 + (6 * 40 + 5) * 0.75e-6
        assert 0.75 / least < card.tokens_per_second < 1.004 / least


def test_a_context_that_is_asked_for_moves_experts_to_the_host(full: Path, reads_little: None) -> None:
    asked = inspect(GGUF(full), ctx=262_144).running
    assert asked is not None
    assert [(card.context, card.fits) for card in asked.cards] == [(262_144, True)] * 5
    assert [card.experts_host for card in asked.cards] == [36, 32, 23, 5, 0]
    four = inspect(GGUF(full), ctx=32_768, parallel=4).running
    assert four is not None and [card.experts_host for card in four.cards] == [30, 26, 17, 0, 0]
    assert abs(four.bytes_per_position - asked.bytes_per_position) < 64 * 4  # whose angles all sequences share


def test_a_smaller_kv_cache_moves_fewer_experts(full: Path, reads_little: None) -> None:
    plain, small = (inspect(GGUF(full), ctx=262_144, kv_type=kind).running for kind in ("f16", "turbo4"))
    assert plain is not None and small is not None
    assert [card.kv_type for card in small.cards] == ["turbo4"] * 5
    # 2 bytes a value become 66 for 128; the angles of RoPE, 128 bytes a position, stay.
    assert small.bytes_per_position - 128 == pytest.approx((plain.bytes_per_position - 128) * 66 / 256, rel=0.02)
    assert all(one.experts_host <= other.experts_host for one, other in zip(small.cards, plain.cards, strict=True))
    assert sum(card.experts_host for card in small.cards) < sum(card.experts_host for card in plain.cards)


def test_a_context_that_is_asked_for_is_kept_and_the_usual_one_is_not(full: Path, reads_little: None) -> None:
    asked, usual = inspect(GGUF(full), ctx=262_144, parallel=8).running, inspect(GGUF(full), parallel=32).running
    assert asked is not None and usual is not None
    assert [(card.context, card.fits) for card in asked.cards] == [(262_144, False)] * 5
    assert [card.fits for card in usual.cards] == [True] * 5
    assert [card.context for card in usual.cards] == [6968, 8192, 8192, 8192, 8192]


def test_memory_for_checkpoints_is_counted(full: Path, reads_little: None) -> None:
    none, asked = (inspect(GGUF(full), cache_mib=mib).running for mib in (0, 512))
    assert none is not None and asked is not None
    differ = [one.device_bytes - other.device_bytes for one, other in zip(asked.cards, none.cards, strict=True)]
    assert all(506 << 20 < nbytes <= 512 << 20 for nbytes in differ[3:])
    assert asked.cards[0].experts_host > none.cards[0].experts_host


def test_the_plan_is_that_of_loading(reads_little: None, monkeypatch: pytest.MonkeyPatch) -> None:
    report = inspect(GGUF(bundled_model()), ctx=512)
    assert report.running is not None
    monkeypatch.undo()
    with LLM(device=Device("cpu"), ctx=512, draft=2) as llm:
        network = llm.network
        assert report.running.weights_bytes == network.weights.nbytes
        assert report.running.bytes_per_position == network.bytes_per_position
        assert sum(report.running.bytes_per_token.values()) == pytest.approx(network.step_bytes(0), rel=0.01)


def test_the_text_has_every_card_and_says_that_it_is_predicted(report: Report) -> None:
    text = as_text(replace(report, model="name\nof \x1b[1m" + 99 * "x"))
    assert text.splitlines()[0].endswith("'qwen35moe', name 'name\\nof \\x1b[1m" + 68 * "x" + "'")
    assert "MTP block: present" in text and "Predicted, measured on no card." in text
    b580 = next(line for line in text.splitlines() if line.startswith("Arc B580"))
    assert report.running is not None
    speed = f"{report.running.cards[1].tokens_per_second:.0f}"
    assert b580.split() == ["Arc", "B580", "12", "GiB", "8,192", "19", "layers,", "8.0", "GiB", "18,232", "f16", speed]


def test_json_has_all_that_the_report_has(capsys: pytest.CaptureFixture[str], reads_little: None) -> None:
    assert main(["inspect", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads(json.dumps(dataclasses.asdict(inspect(GGUF(bundled_model())))))
    assert [card["profile"] for card in printed["running"]["cards"]] == list(CARDS)
    assert main(["inspect", str(bundled_model())]) == 0
    assert "experts: 2 of 6, 256 wide" in capsys.readouterr().out


def test_a_tensor_that_is_loaded_in_parts_counts_once(tmp_path: Path) -> None:
    model = ModelFile()
    for layer in range(2):
        gate, up = (model.values.pop(f"blk.{layer}.ffn_{part}_exps.weight") for part in ("gate", "up"))
        model.values[f"blk.{layer}.ffn_gate_up_exps.weight"] = np.concatenate([gate, up], axis=1)
    model.write(tmp_path / "fused.gguf")
    report = inspect(GGUF(tmp_path / "fused.gguf"))
    assert report.running is not None
    assert sum(tensors.device_bytes or 0 for tensors in report.tensors) == report.running.weights_bytes


def test_a_block_that_only_the_keys_announce_is_stripped(tmp_path: Path) -> None:
    path = tmp_path / "stripped.gguf"
    path.write_bytes(bundled_model().read_bytes().replace(b"nextn.eh_proj", b"nextn.xx_proj"))
    report = inspect(GGUF(path))
    assert report.mtp == "stripped" and report.running is not None and report.running.bytes_per_draft is None
    assert "MTP block: stripped" in as_text(report)
    assert any(tensors.format is None for tensors in report.tensors)  # which nothing asks for


def refused(path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """The last line of what `arcmtp inspect` says of a file that arcmtp does not run."""
    assert main(["inspect", str(path)]) == 1
    output = capsys.readouterr()
    assert output.err == ""
    return output.out.splitlines()[-1]


def test_a_type_without_a_device_format_is_told_with_its_tensors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, content, name = tmp_path / "fp4.gguf", bytearray(bundled_model().read_bytes()), b"blk.0.attn_qkv.weight"
    at = content.index(name) + len(name) + 4 + 16
    content[at : at + 4] = struct.pack("<I", Type.NVFP4)
    path.write_bytes(content)
    said = f"arcmtp does not run it: {path}: tensor 'blk.0.attn_qkv.weight': type NVFP4 is not supported"
    assert refused(path, capsys).startswith(said)
    report = inspect(GGUF(path))
    assert ("NVFP4", None, 1) in [(tensors.type, tensors.format, tensors.count) for tensors in report.tensors]


def test_another_architecture_is_told_with_its_tensors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "llama.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert "is architecture 'llama'; arcmtp runs 'qwen35moe' and 'qwen35'" in refused(path, capsys)


def test_an_mtp_block_alone_is_no_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "block.gguf"
    extract(bundled_model(), path, lambda *_: None)
    assert "is missing" in refused(path, capsys)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-c", "4097"], "ctx is 4097; this model takes 1 to 4096 tokens"),
        (["--parallel", "33"], "parallel is 33; it must be 1 to 32"),
        (["--parallel", "0"], "argument --parallel: '0' is not a whole number from 1 on"),
        (["none.gguf"], "none.gguf: no such file"),
        (["/dev/null"], "/dev/null: not a regular file, expected a GGUF file"),
        ([__file__], f"{__file__}: not a GGUF file (it does not start with 'GGUF')"),
    ],
)
def test_wrong_usage_is_refused_in_one_line(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", *options]) == 2
    output = capsys.readouterr()
    assert output.out == "" and output.err.startswith(f"arcmtp: {message}") and output.err.count("\n") == 1
