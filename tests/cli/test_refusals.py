"""One line and status 2 for what cannot be: usage, files, memory."""

import json
import re
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import dpctl.memory
import gguf
import pytest
from gguf import GGMLQuantizationType as Type

from arcmtp import LLM
from arcmtp.cli import main
from arcmtp.engine.llm import BUNDLED_MODEL
from arcmtp.runtime.card import cards
from arcmtp.runtime.device import Device
from arcmtp.runtime.memory import Buffer
from arcmtp.runtime.paths import data_dir as package_data_dir

Refused = Callable[..., str]


@pytest.fixture
def refused(capfd: pytest.CaptureFixture[str]) -> Refused:
    """Runs a command that must end with status 2 and one line, lines of progress aside; gives that line."""

    def run(*arguments: str) -> str:
        assert main(arguments) == 2
        output = capfd.readouterr()
        lines = [line for line in output.err.splitlines() if not line.endswith(" …")]
        assert (output.out, len(lines)) == ("", 1), output
        return lines[0]

    return run


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: COMMAND (see arcmtp --help)"),
        (["generate"], "one of the arguments -p/--prompt -f/--file is required (see arcmtp generate --help)"),
        (
            ["generate", "-p", "x", "--raw", "--no-think"],
            "--system and --no-think are for messages of a chat, --raw is none",
        ),
        (["generate", "-p", "x", "--stop", ""], "stop is ['']; it must be a list of strings that are not empty"),
        (["generate", "-p", "x", "-n", "0"], "argument -n/--max-tokens: '0' is not a whole number from 1 on"),
        (["generate", "-p", "x", "-n", "-1"], "argument -n/--max-tokens: '-1' is not a whole number from 1 on"),
        (["generate", "-p", "x", "-n", "many"], "argument -n/--max-tokens: 'many' is not a whole number from 1 on"),
        (["generate", "-p", "x", "--ctx", "0"], "argument -c/--ctx: '0' is not a whole number from 1 on"),
        (["generate", "-p", "x", "--ctx", "4097"], "ctx is 4097; this model takes 1 to 4096 tokens"),
        (["generate", "-p", "x", "--device", "gpu:99"], "no device 'gpu:99'; there are: "),
        (["generate", "-p", "x", "--device", "warp drive"], "no device 'warp drive'; there are: "),
        (["generate", "-p", "x", "--requant", "int5"], "argument --requant: invalid choice: 'int5'"),
        (["perplexity", "-f", "x", "--kv-type", "q5"], "kv_type is 'q5'; it must be one of f16, q8_0, turbo4, turbo3"),
        (["doctor", "-m", "x", "--kv-type", ""], "kv_type is ''; it must be one of f16, q8_0, turbo4, turbo3"),
        (["generate", "-p", "x", "--logprobs", "5"], "--logprobs needs --json, which shows them"),
        (["generate", "-p", "x", "-f", "y"], "argument -f/--file: not allowed with argument -p/--prompt"),
        (["generate", "-p", "x", "-m", "none.gguf"], "none.gguf: no such file"),
        (["generate", "-p", "x", "-m", ""], ".: is a directory, expected a GGUF file"),
        (["generate", "--raw", "-p", ""], "the prompt is empty; it needs at least one token"),
        (["generate", "--raw", "-p", "\udcff"], "the text is not valid Unicode: lone surrogate U+DCFF at character 0"),
        (["generate", "--raw", "-p", "x x x", "-c", "2"], "the prompt has 3 tokens, the context holds 2: raise ctx"),
        (["generate", "-f", "none"], "none: No such file or directory; expected a text file"),
        (["perplexity", "-f", "none"], "none: No such file or directory; expected a text file"),
        (["generate", "-p", "x", "--max-tok", "1"], "unrecognized arguments: --max-tok 1 (see arcmtp --help)"),
        (["bench", "ops", "--repet=1"], "unrecognized arguments: --repet=1 (see arcmtp --help)"),
        (["bench", "gemm"], "argument NAME: invalid choice: 'gemm'"),
        (["bench", "-n", "64", "mtp"], "options belong behind the name: arcmtp bench mtp -n"),
        (["bench", "mtp", "--draft", "0,8"], "draft is 8; it must be 0 to 7"),
        (["bench", "mtp", "--draft-p-min", "-0.5"], "draft_p_min is -0.5; it must be a number from 0 to 1"),
        (["generate", "-p", "x", "--draft-p-min", "1.5"], "draft_p_min is 1.5; it must be a number from 0 to 1"),
        (["profile", "--draft-p-min", "nan"], "draft_p_min is nan; it must be a number from 0 to 1"),
        (["serve", "--draft-p-min", "x"], "argument --draft-p-min: invalid float value: 'x'"),
        (["bench", "mtp", "--draft", "0,"], "argument --draft: '' is neither auto nor a whole number from 0 on"),
        (
            ["generate", "-p", "x", "--draft-vocab", "0"],
            "draft_vocab is 0; it must be 'full', a file, or 1 to 6144 tokens",
        ),
        (["profile", "--draft-vocab", "6145"], "draft_vocab is 6145; it must be 'full', a file, or 1 to 6144 tokens"),
        (["bench", "mtp", "--draft-vocab", "none"], "none: No such file or directory; expected a file with a token id"),
        (["profile", "--draft-requant", "int8"], "argument --draft-requant: invalid choice: 'int8'"),
        (["generate", "-p", "x", "--experts-host", "9"], "experts_host is 9; of this model it can be 0 to 8: it has "),
        (
            ["serve", "--experts-host", "-1"],
            "argument --experts-host: '-1' is neither auto nor a whole number from 0 on",
        ),
        (["bench", "--experts-host", "most"], "argument --experts-host: 'most' is neither auto nor a whole number"),
        (["mtp", "count-tokens"], "the following arguments are required: CORPUS"),
        (["mtp", "count-tokens", "none"], "none: No such file or directory; expected a text or a folder of texts"),
        (["mtp", "count-tokens", "x", "-n", "0"], "argument -n/--count: '0' is not a whole number from 1 on"),
        (["mtp", "count-tokens", "x", "-m", "none.gguf"], "none.gguf: no such file"),
    ],
)
def test_wrong_usage_is_refused_in_one_line(refused: Refused, arguments: list[str], message: str) -> None:
    assert refused(*arguments).startswith(f"arcmtp: {message}")


def test_counted_tokens_are_a_vocabulary_for_drafts(
    capsys: pytest.CaptureFixture[str], data_dir: Path, tmp_path: Path
) -> None:
    vocabulary, texts = tmp_path / "vocabulary.txt", []
    count = ["mtp", "count-tokens", str(data_dir / "perplexity.txt"), "-n", "500"]
    assert main(count) == 0
    printed = capsys.readouterr().out
    assert main([*count, "-o", str(vocabulary)]) == 0
    shown = capsys.readouterr()
    assert (shown.out, vocabulary.read_text()) == ("", printed) and len(printed.splitlines()) == 500
    assert "shares of the lowest ids, of the commonest tokens" in shown.err
    for options in ([], ["--draft-vocab", str(vocabulary), "--draft-requant", "int4"]):
        command = ["generate", "--raw", "-p", "import os", "-n", "24", "--device", "cpu", "--json", *options]
        assert main(command) == 0
        texts.append(json.loads(capsys.readouterr().out))
    assert texts[0]["ids"] == texts[1]["ids"]
    assert [text["draft_calls"][0]["head_rows"] for text in texts] == [6144, 506]


def test_a_wrong_line_of_a_vocabulary_is_refused_in_one_line(refused: Refused, tmp_path: Path) -> None:
    path = tmp_path / "vocabulary.txt"
    path.write_text("1 9\n6144 8\n")
    line = refused("generate", "-p", "x", "--draft-vocab", str(path))
    assert line == f"arcmtp: {path}: line 2: id 6144 is outside the vocabulary of 6144 tokens"


@pytest.mark.parametrize("content", [b"", b"GGU", b"some text\n"])
def test_a_file_that_is_not_gguf_is_refused_in_one_line(refused: Refused, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    assert refused("generate", "-p", "x", "-m", str(path)).startswith(f"arcmtp: {path}: ")


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "qwen3moe"])
def test_another_architecture_is_refused_in_one_line(refused: Refused, tmp_path: Path, architecture: str) -> None:
    path = tmp_path / "model.gguf"
    writer = gguf.GGUFWriter(path, architecture)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    message = f"arcmtp: {path}: is architecture '{architecture}'; arcmtp runs 'qwen35moe' and 'qwen35'"
    assert refused("generate", "-p", "x", "-m", str(path)) == message


def rename(entry: bytes, name: bytes) -> bytes:
    return entry.replace(name, name[:-1] + b"_")


def transpose(entry: bytes, name: bytes) -> bytes:
    at = entry.index(name) + len(name) + 4
    return entry[:at] + entry[at + 8 : at + 16] + entry[at : at + 8] + entry[at + 16 :]


def change_type(entry: bytes, name: bytes) -> bytes:
    at = entry.index(name) + len(name) + 4 + 16
    return entry[:at] + struct.pack("<I", Type.NVFP4) + entry[at + 4 :]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (rename, "tensor 'blk.0.attn_qkv.weight' of shape [512, 256] is missing"),
        (transpose, "tensor 'blk.0.attn_qkv.weight' has shape [256, 512], expected [512, 256]"),
        (change_type, "tensor 'blk.0.attn_qkv.weight': type NVFP4 is not supported; supported are F32, F16"),
    ],
)
def test_a_tensor_that_cannot_be_used_is_refused_in_one_line(
    refused: Refused, tmp_path: Path, change: Callable[[bytes, bytes], bytes], message: str
) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(change((package_data_dir() / BUNDLED_MODEL).read_bytes(), b"blk.0.attn_qkv.weight"))
    assert refused("generate", "-p", "x", "-m", str(path)).startswith(f"arcmtp: {path}: {message}")


def test_a_context_beyond_the_devices_memory_is_refused_in_one_line_that_says_what_fits(
    refused: Refused, llm: LLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = llm.network.weights.nbytes + llm.network.nbytes
    monkeypatch.setattr(Device, "free_memory", needed - 1000 * llm.network.bytes_per_position)
    line = refused("generate", "-p", "x", "-c", "4096", "--device", "cpu")
    assert line.endswith(" GiB free: at most ctx 3128 fits")
    assert main(["generate", "-p", "x", "-c", "3072", "-n", "1", "--device", "cpu"]) == 0


def test_a_model_beyond_the_devices_memory_is_refused_in_one_line(
    refused: Refused, llm: LLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Device, "free_memory", llm.network.weights.nbytes)
    assert refused("generate", "-p", "x", "--device", "cpu").endswith(" GiB free: too little for any context")


def test_a_usual_context_that_does_not_fit_becomes_one_that_does_and_a_line_says_so(
    capsys: pytest.CaptureFixture[str], llm: LLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = llm.network.weights.nbytes + llm.network.nbytes
    monkeypatch.setattr(Device, "free_memory", needed - 1000 * llm.network.bytes_per_position)
    assert main(["generate", "-p", "x", "-n", "1", "--device", "cpu"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert "ctx is 3128: the memory does not hold the 4096 tokens that are usual" in lines


def test_experts_in_host_memory_are_told_in_a_line_and_change_no_text(
    capsys: pytest.CaptureFixture[str], llm: LLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    b580, memory = cards()["arc-b580"], "experts of the last 3 layers in host memory (2 of 1,024 MiB free there)"
    card = replace(llm.device.card, name=b580.name, hardware=b580.hardware)
    monkeypatch.setattr("arcmtp.runtime.device.for_device", lambda name, is_cpu: card)
    monkeypatch.setattr(Device, "free_host_memory", 1 << 30)
    texts = []
    for layers in ("auto", "0", "3"):
        command = ["generate", "--raw", "-p", "import os", "-n", "24", "--device", "cpu", "--json"]
        assert main([*command, "--experts-host", layers]) == 0
        output = capsys.readouterr()
        texts.append(json.loads(output.out)["ids"])
        told = [line for line in output.err.splitlines() if line.startswith("experts")]
        assert len(told) == (layers == "3")
    assert re.fullmatch(rf"{re.escape(memory)}: \d+ tokens/s predicted for Intel Arc B580, without drafts", told[0])
    assert texts[0] == texts[1] == texts[2]


def test_experts_beyond_the_hosts_memory_are_refused_in_one_line(
    refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Device, "free_host_memory", 2 << 20)
    line = refused("generate", "-p", "x", "--device", "cpu", "--experts-host", "8")
    sizes = "(5 of 2 MiB free there)"
    assert line == f"arcmtp: experts of the last 8 layers in host memory {sizes} do not fit: use a smaller experts_host"


def test_a_device_that_is_full_all_the_same_is_told_in_one_line(
    refused: Refused, llm: LLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    def allocate(nbytes: int, **options: Any) -> Any:
        if nbytes >= llm.network.embedding.weights.tensor.nbytes:
            raise dpctl.memory.USMAllocationError("USM allocation failed")
        return dpctl.memory.MemoryUSMDevice(nbytes, **options)

    monkeypatch.setattr(Buffer, "_kind", staticmethod(allocate))
    monkeypatch.setattr(Device, "free_memory", 8 << 30)
    line, name = refused("generate", "-p", "x", "--device", "cpu"), llm.device.sycl_device.name
    largest = llm.network.embedding.weights.tensor.nbytes / 2**20
    assert re.fullmatch(
        rf"arcmtp: ctx \d+ needs 0\.\d GiB \(0\.0 of them weights\) of 8\.0 GiB that were free, but {re.escape(name)} "
        rf"has no {largest:.1f} MiB left in one piece: a smaller ctx may fit", line,
    )  # fmt: skip


def test_a_file_with_a_prompt_that_is_not_utf8_is_refused_in_one_line(refused: Refused, tmp_path: Path) -> None:
    path = tmp_path / "prompt"
    path.write_bytes("größer".encode("latin-1"))
    assert refused("generate", "-f", str(path)) == f"arcmtp: {path}: byte 2 is not UTF-8; expected a UTF-8 text"


def test_a_folder_for_a_prompt_is_refused_in_one_line(refused: Refused, tmp_path: Path) -> None:
    assert refused("generate", "-f", str(tmp_path)) == f"arcmtp: {tmp_path}: Is a directory; expected a text file"
