"""Bits of generations are written, and differences to them are named."""

import sys
from pathlib import Path

import pytest

from arcmtp import LLM
from scripts import generation_bits


def test_a_generation_that_differs_in_one_bit_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with LLM(device="cpu", ctx=64, draft=2) as llm:
        bits = generation_bits.bits_of(llm.generate("import os", max_tokens=4, draft=2, logprobs=2))
    assert len(bits["ids"]) == len(bits["logprobs"]) == len(bits["likeliest"]) == 4 and bits["accepted"]
    file = tmp_path / "bits.json"

    def run(option: str) -> tuple[int, str]:
        monkeypatch.setattr(generation_bits, "generations", lambda model: iter([(str(model), bits)]))
        monkeypatch.setattr(sys, "argv", ["generation_bits.py", option, str(file)])
        return generation_bits.main(), capsys.readouterr().out

    assert run("--write") == (0, "3 generations written\n")
    assert run("--compare") == (0, "all 3 generations are equal\n")
    value = float.fromhex(bits["logprobs"][1])
    bits["logprobs"][1] = (value * (1 + 2**-50)).hex()
    status, printed = run("--compare")
    assert status == 1 and printed.startswith("None differs\n") and printed.count("differs") == 3
