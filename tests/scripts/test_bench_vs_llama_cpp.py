"""What the comparison with llama.cpp asks of arcmtp."""

import argparse
from pathlib import Path
from typing import Any

import pytest

from arcmtp.cli import main
from scripts import bench_vs_llama_cpp


def test_plain_decoding_is_measured_without_drafts(monkeypatch: pytest.MonkeyPatch) -> None:
    """By default `arcmtp generate` drafts on a file with an MTP block, and llama-bench never does."""
    commands: list[list[str]] = []

    def json_of(command: list[str]) -> Any:
        commands.append(command)
        return {"stats": {"prompt_tokens_per_second": 2.0, "decode_tokens_per_second": 1.0}}

    monkeypatch.setattr(bench_vs_llama_cpp, "json_of", json_of)
    options = argparse.Namespace(file=Path("model.gguf"), tokens=4, prompt_tokens=8, device=None)
    assert bench_vs_llama_cpp.our_speed(options, Path("prompt.txt")) == (2.0, 1.0)
    (command,) = commands
    seen: list[int] = []
    monkeypatch.setattr("arcmtp.cli.generate._generate", lambda parsed: seen.append(parsed.draft))
    assert main(command[command.index("generate") :]) == 0
    assert seen == [0]
